"""Which pairs of answers to ask about next, together: those whose outcomes tell most of how all others would come out.

The reward is linear in features of answers, and what is known of its weights is a Gaussian of precision P
(:mod:`trainer.reward.uncertainty`). So the outcome of a pair with difference of features d and that of another with d'
have the covariance `c = d' P^-1 d`. Asking about d leaves of the variance v' of the other one `v' - w c^2 / (1 + w v)`,
with w how sharply a choice tells: p(1 - p), p its moderated chance (MacKay 1992). What is asked for is the pair that
tells most, in nats, of pairs drawn at random: the expected predictive information gain (EPIG; Bickford Smith et al.
2023). A pair that is merely odd is uncertain, but tells nothing of the others: plain uncertainty, and what a pair tells
of the weights (BALD), ask for such ones.

Pairs are chosen one after the other, each as if those before it had been told: of two that are alike the second tells
little. Each further pair of one prompt counts less, so that labels spread over prompts (BAL-PM, Melo et al. 2024, does
so by the entropy of prompts' features).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.reward.uncertainty import Posterior

TARGETS = 400  # pairs of which is asked what is told of them
LEAST = 1e-12  # of variances


def chances(margins: Tensor, deviations: Tensor) -> Tensor:
    """(n,) the chance that the first wins, over all that the reward may be: `sigmoid(m / sqrt(1 + pi s^2 / 8))`."""
    return torch.sigmoid(margins / (1 + math.pi / 8 * deviations.square()).sqrt())


@torch.no_grad()
def most_telling(
    posterior: Posterior, differences: Tensor, margins: Tensor, prompts: Sequence[int], count: int, seed: int = 0
) -> list[tuple[int, float]]:
    """The pairs to ask about, in order, each with the nats that it tells of a pair drawn at random, after those before.

    Args:
        differences: (n, K) of the features of the answers of each pair. margins: (n,) of their rewards, both before
            normalisation.
        prompts: n numbers; pairs of one prompt bear one number.
        count: how many to choose, of n at most.
        seed: draws the pairs of which is asked what is told of them.
    """
    rows = torch.cat([differences, torch.zeros_like(differences[:, :1])], 1).to(posterior.factor)
    known = torch.linalg.solve_triangular(posterior.factor, rows.T, upper=False).T.double()  # (n, K + 1)
    variance = known.square().sum(1)
    chance = chances(margins.to(variance), variance.sqrt())
    sharpness = chance * (1 - chance)
    drawn = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:TARGETS]
    covariance, unknown = known[drawn] @ known.T, variance[drawn]  # (targets, n), (targets,)
    groups, asked = torch.tensor(prompts), torch.zeros_like(variance)
    found: list[tuple[int, float]] = []
    told: list[tuple[Tensor, Tensor]] = []  # of each chosen pair: its covariances (n,) when it was, and its gain
    for _ in range(min(count, len(known))):
        gain = sharpness / (1 + sharpness * variance)
        share = (gain * covariance.square() / unknown.clamp_min(LEAST)[:, None]).clamp_max(1 - 1e-6)
        nats = -torch.log1p(-share).mean(0) / 2
        worth = nats / (1 + asked).sqrt()
        worth[[place for place, _ in found]] = -math.inf
        best = int(worth.argmax())
        found.append((best, float(nats[best])))
        shared = known @ known[best]
        for before, its_gain in told:
            shared = shared - its_gain * before * before[best]
        told.append((shared, gain[best]))
        of_targets = covariance[:, best].clone()
        variance = (variance - gain[best] * shared.square()).clamp_min(0)
        unknown = (unknown - gain[best] * of_targets.square()).clamp_min(0)
        covariance = covariance - gain[best] * of_targets[:, None] * shared
        asked[groups == groups[best]] += 1
    return found
