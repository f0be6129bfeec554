"""The reward model in closed form: Bayesian regression on what the base model already knows of an answer.

The features are the states of the answer's tokens two thirds up the base model, each normalised, and their mean. With a
hundred ratings nothing deeper can be learned of a taste than a direction among them, and that can be learned exactly:
the weights of all ratings at once, scores by least squares, labels and pairs by their logistic loss, and beside them
what else moves a rating (:mod:`trainer.reward.effects`: offset, leniency, side, length). How strongly the weights are
drawn to zero, and how noisy scores are, is what makes the ratings likeliest (the evidence; MacKay 1992): where ratings
say nothing, all rewards come out alike. The posterior comes with it, without any feature having been fitted to the
ratings first, so that its uncertainty can be taken at its word.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from trainer.config import RewardConfig
from trainer.examples import OVERALL, Examples, Habit, Response
from trainer.learner import Figures, StepReport
from trainer.policy.backbone import Backbone
from trainer.processes import Processes
from trainer.reward.batches import Batch, encode, make_batch, responses_of, within
from trainer.reward.effects import ATTRIBUTE_GAIN, RatingEffects
from trainer.reward.model import RewardModel, scaled
from trainer.reward.report import FitReport, measure
from trainer.reward.uncertainty import Posterior

# The variance of rewards of rated answers before any rating, and that of a score around its reward: of these the
# likeliest are taken.
SPREADS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
NOISES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
# Prior deviations of what else moves a rating.
EFFECT_DEVIATION = 0.5
BIAS_DEVIATION = 1.0
NEWTON_STEPS, CLOSE = 20, 1e-8
MOST_TOKENS = 4096  # padding included, whose states are computed at once


@dataclass(frozen=True)
class Design:
    """What a linear predictor of each rating is made of, fp64. n ratings, P parameters.

    Attributes:
        rows: (n, P). target: (n,) a score, or what came of it: 1, 0, or a half for a tie. weight: (n,).
        scored: (n,) bool, true where the target is a score.
    """

    rows: Tensor
    target: Tensor
    weight: Tensor
    scored: Tensor


@dataclass(frozen=True)
class Solution:
    """The likeliest parameters, the Cholesky factor of their precision (P, P), and how likely the ratings are with it.

    Attributes:
        spread: variance of rewards before any rating. noise: variance of a score.
        loss: mean negative log-likelihood of a rating, nats.
    """

    parameters: Tensor
    factor: Tensor
    evidence: float
    spread: float
    noise: float
    loss: float


def solve(design: Design, prior: Tensor, noise: float, start: Tensor | None = None) -> Solution:
    """The mode of the posterior by Newton's method, and Laplace's approximation around it (exact for scores alone).

    Args:
        prior: (P,) precisions.
        start: parameters to begin from.
    """
    rows, target, weight, scored = design.rows, design.target, design.weight, design.scored
    parameters = torch.zeros_like(prior) if start is None else start
    for _ in range(NEWTON_STEPS):
        predicted = rows @ parameters
        chance = torch.sigmoid(predicted)
        slope = weight * torch.where(scored, (target - predicted) / noise, target - chance)
        bend = weight * torch.where(scored, torch.full_like(chance, 1 / noise), chance * (1 - chance))
        factor = torch.linalg.cholesky((rows * bend[:, None]).T @ rows + torch.diag(prior))
        step = torch.cholesky_solve((rows.T @ slope - prior * parameters)[:, None], factor)[:, 0]
        parameters = parameters + step
        if float(step.abs().max()) < CLOSE:
            break
    predicted = rows @ parameters
    of_scores = ((target - predicted).square() / noise + math.log(2 * math.pi * noise)) / 2
    of_choices = functional.binary_cross_entropy_with_logits(predicted, target, reduction="none")
    cost = float((weight * torch.where(scored, of_scores, of_choices)).sum())
    drawn = float(prior @ parameters.square())
    volume = float(prior.log().sum()) / 2 - float(factor.diagonal().log().sum())
    return Solution(
        parameters, factor, volume - cost - drawn / 2, 1 / float(prior[0]), noise, cost / max(1, len(target))
    )


def likeliest(design: Design, features: int, others: int) -> Solution:
    """The solution with the evidence's choice of how far rewards spread and how noisy scores are.

    Args:
        features: how many parameters weigh features, which come first and then the bias; then `others`.
    """
    effects = design.rows.new_full((others,), EFFECT_DEVIATION**-2)
    noises = NOISES if bool(design.scored.any()) else NOISES[-1:]
    best: Solution | None = None
    for spread, noise in itertools.product(SPREADS, noises):
        weights = design.rows.new_full((features,), 1 / spread)
        prior = torch.cat([weights, design.rows.new_tensor([BIAS_DEVIATION**-2]), effects])
        found = solve(design, prior, noise, best.parameters if best else None)
        if best is None or found.evidence > best.evidence:
            best = found
    assert best is not None, "there are spreads to choose from"
    return best


class LinearFit:
    """A fit in closed form, as a :class:`trainer.learner.Learner` of one step.

    Args:
        kept: what it must not learn from, and is measured on.
        role: what it is fitted for: "reward" or "judge"; its metrics go by that name.
    """

    def __init__(
        self,
        backbone: Backbone,
        examples: Examples,
        config: RewardConfig,
        seed: int,
        processes: Processes | None = None,
        kept: Examples | None = None,
        role: str = "reward",
    ) -> None:
        self.role = role
        self.stage = "judge" if role == "judge" else "reward model"
        self.backbone = backbone
        self.learned, self.kept = examples.every(), kept.every() if kept else []
        self.model = RewardModel(backbone, config, seed)
        size = backbone.hidden_size  # a checkpoint finds a place for the posterior
        self.model.keep(Posterior(self.model.head.weight.new_zeros(size), torch.eye(size + 1, device=backbone.device)))
        self.effects = RatingEffects.of(self.learned, len(self.learned)).to(backbone.device)
        self.step, self.steps = 0, 1
        self.loss = 0.0
        self.noise = 1.0

    @torch.no_grad()
    def advance(self) -> StepReport:
        """The whole fit."""
        runs = list(within(self.backbone, self.learned, MOST_TOKENS))
        batches = [make_batch(self.backbone, run, self.effects) for run in runs]
        features = [
            scaled(self.model.features(self.backbone.trunk(batch.layout), batch.layout)).double() for batch in batches
        ]
        everything = torch.cat(features)
        centre = everything.mean(0)
        size = (everything - centre).square().sum(1).mean().sqrt().clamp_min(1e-9)
        # Of the weights only the part along some answer's features is told anything; there are few answers.
        basis = _basis((everything - centre) / size)
        habits = sorted(self.effects.index, key=self.effects.index.__getitem__)
        design = _design([(part - centre) / size @ basis.T for part in features], batches, habits)
        found = likeliest(design, len(basis), 3 * len(habits) + 1)
        self._keep(found, basis, centre, size, habits)
        self.loss, self.noise = found.loss, found.noise
        self.step = 1
        figures: Figures = {(f"loss/{self.role}", None): found.loss}
        return StepReport(figures, headline={"loss": found.loss})

    def _keep(self, found: Solution, basis: Tensor, centre: Tensor, size: Tensor, habits: Sequence[Habit]) -> None:
        """Put the solution into the model's head, posterior and effects; across the basis the prior stands."""
        told, count = basis.shape
        weights, bias = found.parameters[:told] @ basis / size, found.parameters[told]
        self.model.head.weight.copy_(weights)
        self.model.head.bias.copy_(bias - centre @ weights)
        covariance = torch.cholesky_inverse(found.factor)[: told + 1, : told + 1]
        wide = basis.new_zeros(told + 1, count + 1)
        wide[:told, :count], wide[told, count] = basis, 1.0
        across = torch.eye(count + 1, dtype=basis.dtype, device=basis.device) - wide.T @ wide
        precision = wide.T @ torch.linalg.inv(covariance) @ wide + across / found.spread
        stretch = torch.cat([size.expand(count), torch.ones_like(size)[None]])
        factor = torch.linalg.cholesky(_symmetric(stretch[:, None] * precision * stretch))
        self.model.keep(Posterior(centre.float(), factor.float().contiguous()))
        others = found.parameters[told + 1 :].float()
        offset, leniency, side = others[:-1].view(3, len(habits))
        self.effects.offset.copy_(offset)
        self.effects.leniency.copy_(leniency)
        self.effects.side.copy_(side)
        self.effects.gamma.copy_(others[-1])

    def report(self) -> FitReport:
        """How well the fitted model does on the ratings that were kept."""
        answers = list(dict.fromkeys(answer for example in self.kept for answer in responses_of(example)))
        encoded = [encode(self.backbone, answer) for answer in answers]
        scores = self.model.score_responses([asked for asked, _ in encoded], [said for _, said in encoded]).tolist()
        tokens = {answer: len(said) for answer, (_, said) in zip(answers, encoded, strict=True)}
        rewards: dict[Response, float] = dict(zip(answers, scores, strict=True))
        return measure(self.learned, self.kept, rewards, tokens, self.effects.cpu(), self.loss)

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "effects": self.effects}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "noise": self.noise}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.loss, self.noise = state["step"], state["loss"], state["noise"]


def _basis(rows: Tensor) -> Tensor:
    """(n, K) -> (at most n, K): orthonormal directions that span the rows."""
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    return directions[sizes > 1e-6 * sizes[0]]


def _symmetric(matrix: Tensor) -> Tensor:
    """Without what rounding has left of a difference between both halves."""
    return (matrix + matrix.T) / 2


def _design(features: Sequence[Tensor], batches: Sequence[Batch], habits: Sequence[Habit]) -> Design:
    """The linear predictor of every rating: features, bias, then offset, leniency and side of each habit, and gamma."""
    gains = torch.tensor([1.0, *(1.0 if habit.attribute == OVERALL else ATTRIBUTE_GAIN for habit in habits)])
    count, places = features[0].shape[1], len(habits)
    rows, targets, weights, scored = [], [], [], []

    def block(answers: Tensor, habit: Tensor, bias: float, column: int, value: Tensor) -> Tensor:
        """Rows of one kind; `column` is where the habits' own parameters of that kind stand."""
        made = answers.new_zeros(len(answers), count + 1 + 3 * places + 1)
        gain = gains.to(answers)[habit]
        made[:, :count] = gain[:, None] * answers
        made[:, count] = gain * bias
        known = habit > 0
        made[known, count + column * places + habit[known]] = value.to(answers)[known]
        return made

    for x, batch in zip(features, batches, strict=True):
        one, other, pair = batch.scored, batch.labelled, batch.paired
        ones = torch.ones_like
        compared = block(x[pair.first] - x[pair.second], pair.habit, 0.0, 2, pair.side)
        compared[:, -1] = pair.length
        rows += [
            block(x[one.row], one.habit, 1.0, 0, ones(one.value)),
            block(x[other.row], other.habit, 1.0, 1, ones(other.good)),
            compared,
        ]
        targets += [one.value, other.good, pair.wins]
        weights += [one.weight, other.weight, pair.weight]
        scored += [ones(one.value, dtype=torch.bool), *(torch.zeros_like(v, dtype=torch.bool) for v in targets[-2:])]
    return Design(torch.cat(rows), torch.cat(targets).double(), torch.cat(weights).double(), torch.cat(scored))
