"""The likeliest parameters of a linear predictor of ratings, with a level of its own for each prompt (a mixed model;
Henderson 1975), by Newton's method."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

NEWTON_STEPS, CLOSE = 20, 1e-8


@dataclass(frozen=True)
class Design:
    """What a linear predictor of each rating is made of, fp64. n ratings, P parameters, G prompts.

    A rating is predicted by `rows @ parameters + share * level[prompt]`.

    Attributes:
        rows: (n, P). target: (n,) a score, or what came of it: 1, 0, or a half for a tie. weight: (n,).
        scored: (n,) bool, true where the target is a score.
        prompt: (n,) which of G prompts was answered. share: (n,) how much of its level is in the rating; 0 of a pair.
    """

    rows: Tensor
    target: Tensor
    weight: Tensor
    scored: Tensor
    prompt: Tensor
    share: Tensor


@dataclass(frozen=True)
class Prior:
    """What is believed before any rating: precisions of the parameters (P,), and variances.

    Attributes:
        noise: of a score around what is predicted. level: of the levels of prompts; 0 leaves them out.
    """

    parameters: Tensor
    noise: float
    level: float


@dataclass(frozen=True)
class Solution:
    """The likeliest parameters (P,) and levels of prompts (G,), and how likely the ratings are with them.

    Attributes:
        factor: Cholesky factor (P, P) of the parameters' precision, whatever the levels are.
        loss: mean negative log-likelihood of a rating, nats.
    """

    parameters: Tensor
    levels: Tensor
    factor: Tensor
    prior: Prior
    evidence: float
    loss: float


def solve(design: Design, prior: Prior, start: Solution | None = None) -> Solution:
    """The mode of the posterior by Newton's method, and Laplace's approximation around it (exact for scores alone).

    Each rating is of one prompt, so the levels' own block of the precision is diagonal and is eliminated (a Schur
    complement): what is left is the precision of the parameters with the levels integrated out.

    Args:
        start: to begin from.
    """
    rows, target, weight, scored = design.rows, design.target, design.weight, design.scored
    count = int(design.prompt.max()) + 1 if len(target) else 0
    parameters = torch.zeros_like(prior.parameters) if start is None else start.parameters
    levels = rows.new_zeros(count) if start is None or not prior.level else start.levels
    share = design.share if prior.level else torch.zeros_like(design.share)
    own = 1 / prior.level if prior.level else 1.0  # without levels a block of ones, that nothing touches
    sharp = torch.full_like(target, 1 / prior.noise)

    def by_prompt(values: Tensor) -> Tensor:
        """(n, ...) summed over the ratings of each prompt."""
        return values.new_zeros(count, *values.shape[1:]).index_add(0, design.prompt, values)

    for _ in range(NEWTON_STEPS):
        predicted = rows @ parameters + share * levels[design.prompt]
        chance = torch.sigmoid(predicted)
        slope = weight * torch.where(scored, (target - predicted) / prior.noise, target - chance)
        bend = weight * torch.where(scored, sharp, chance * (1 - chance))
        beside = by_prompt(rows * (bend * share)[:, None])
        alone = own + by_prompt(bend * share.square())
        precision = (rows * bend[:, None]).T @ rows - (beside / alone[:, None]).T @ beside
        factor = torch.linalg.cholesky(precision + torch.diag(prior.parameters))
        of_levels = by_prompt(slope * share) - own * levels
        of_parameters = rows.T @ slope - prior.parameters * parameters - beside.T @ (of_levels / alone)
        step = torch.cholesky_solve(of_parameters[:, None], factor)[:, 0]
        parameters = parameters + step
        levels = levels + (of_levels - beside @ step) / alone
        if bool(scored.all()) or float(step.abs().max()) < CLOSE:  # of scores alone the first step is exact
            break
    predicted = rows @ parameters + share * levels[design.prompt]
    of_scores = ((target - predicted).square() / prior.noise + math.log(2 * math.pi * prior.noise)) / 2
    of_choices = functional.binary_cross_entropy_with_logits(predicted, target, reduction="none")
    cost = float((weight * torch.where(scored, of_scores, of_choices)).sum())
    drawn = float(prior.parameters @ parameters.square() + own * levels.square().sum())
    volume = float(prior.parameters.log().sum()) / 2 - float(factor.diagonal().log().sum())
    volume += float((own / alone).log().sum()) / 2
    return Solution(parameters, levels, factor, prior, volume - cost - drawn / 2, cost / max(1, len(target)))
