"""Which pairs of answers to ask about next: those of whose outcome the reward model's posterior knows least, together.

What a comparison tells of the head's weights is, for a posterior of precision P and a difference of features d, about
`log(1 + w d' P^-1 d) / 2` nats, with w how sharply a choice tells (p(1 - p), p its moderated chance; MacKay 1992). One
after the other the pair is taken that tells most when those before it have been told: the greedy maximum of the log
determinant of what a batch tells (BatchBALD for a linear Gaussian; Kirsch et al. 2019). Of two pairs that are alike the
second tells little then, which uncertainty alone does not see. Each further pair of one prompt counts less, so that
labels spread over prompts (BAL-PM, Melo et al. 2024, does so by the entropy of prompts' features).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.reward.uncertainty import Posterior


def chances(margins: Tensor, deviations: Tensor) -> Tensor:
    """(n,) the chance that the first wins, over all that the reward may be: `sigmoid(m / sqrt(1 + pi s^2 / 8))`."""
    return torch.sigmoid(margins / (1 + math.pi / 8 * deviations.square()).sqrt())


@torch.no_grad()
def most_telling(
    posterior: Posterior, differences: Tensor, margins: Tensor, prompts: Sequence[int], count: int
) -> list[tuple[int, float]]:
    """The pairs to ask about, in order, each with the nats that it tells after those before it.

    Args:
        differences: (n, K) of the features of the answers of each pair. margins: (n,) of their rewards, both before
            normalisation.
        prompts: n numbers; pairs of one prompt bear one number.
        count: how many to choose, of n at most.
    """
    rows = torch.cat([differences, torch.zeros_like(differences[:, :1])], 1).to(posterior.factor)
    told = torch.linalg.solve_triangular(posterior.factor, rows.T, upper=False).T.double()  # (n, K + 1)
    chance = chances(margins.double(), told.norm(dim=1))
    told = told * (chance * (1 - chance)).sqrt()[:, None]
    left = told.square().sum(1)  # what each would tell yet
    groups = torch.tensor(prompts)
    asked = torch.zeros_like(left)
    found: list[tuple[int, float]] = []
    taken: list[Tensor] = []
    for _ in range(min(count, len(left))):
        worth = torch.log1p(left) / 2 / (1 + asked).sqrt()
        worth[[place for place, _ in found]] = -math.inf
        best = int(worth.argmax())
        found.append((best, float(torch.log1p(left[best]) / 2)))
        shared = told @ told[best]
        for one in taken:
            shared = shared - one * one[best]
        shared = shared / (1 + left[best]).sqrt()
        taken.append(shared)
        left = (left - shared.square()).clamp_min(0)
        asked[groups == groups[best]] += 1
    return found
