"""How sure the reward model can be of an answer: Bayesian linear regression on the features of its last layer.

The head is linear in the features, so what the ratings say about its weights is a Gaussian in closed form (for labels
and pairs, its Laplace approximation; MacKay 1992). Its precision is the prior's plus `w u u'` for each rating, where u
is how the rating's prediction moves with the weights and w how sharply it tells. A reward then has the variance
`x' precision^-1 x`: small near what was rated, large far from it. The features themselves are taken as given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.processes import Processes
from trainer.reward.batches import Batch
from trainer.reward.effects import RatingEffects

# A score is never taken to be more exact than this, as a variance.
LEAST_NOISE = 1e-3


@dataclass(frozen=True)
class Posterior:
    """What is known of the head. K: features and one for the bias.

    Attributes:
        centre: (K - 1,) mean of the features of rated answers.
        factor: (K, K) lower Cholesky factor of the precision.
    """

    centre: Tensor
    factor: Tensor

    def deviations(self, features: Tensor) -> Tensor:
        """(n, K - 1) features -> (n,) standard deviations of their rewards, before normalisation."""
        return self._of(with_bias(features, self.centre))

    def difference_deviations(self, differences: Tensor) -> Tensor:
        """(n, K - 1) differences of features -> (n,) standard deviations of those of their rewards."""
        return self._of(torch.cat([differences, torch.zeros_like(differences[:, :1])], 1))

    def _of(self, rows: Tensor) -> Tensor:
        rows = rows.to(self.factor)
        return torch.linalg.solve_triangular(self.factor, rows.T, upper=False).norm(dim=0)


def with_bias(features: Tensor, centre: Tensor) -> Tensor:
    """(n, K - 1) features -> (n, K): centred, and a 1 for the bias."""
    return torch.cat([features - centre, torch.ones_like(features[:, :1])], 1)


def precision_factor(prior: Tensor, designs: Iterable[Tensor], processes: Processes | None = None) -> Tensor:
    """The Cholesky factor (K, K) of `diag(prior) + sum of X' X` over the designs of all processes, in fp64.

    Args:
        prior: (K,) precision of each weight before any rating.
        designs: parts (n, K) of the rows `sqrt(w) u`.
    """
    told = prior.new_zeros(len(prior), len(prior), dtype=torch.float64)
    for design in designs:
        wide = design.double()
        told += wide.T @ wide
    if processes is not None:
        told = processes.add(told)
    return torch.linalg.cholesky(torch.diag(prior.double()) + told)


@torch.no_grad()
def posterior(
    batches: Sequence[Batch],
    features_of: Callable[[int], tuple[Tensor, Tensor]],
    effects: RatingEffects,
    noise: float,
    processes: Processes | None = None,
) -> Posterior:
    """What the rated answers tell about the head.

    The prior gives rewards of rated answers a variance of about 1, that of standardised scores.

    Args:
        features_of: number of a batch -> features (rows, K - 1) and rewards (rows,) of its responses.
        noise: variance of a standardised score around its prediction.
        processes: those that have batches of their own to add.
    """
    processes = processes or Processes()
    found = [features_of(number) for number in range(len(batches))]
    everything = torch.cat([features for features, _ in found])
    count = processes.sum(len(everything))
    centre = processes.add(everything.sum(0)) / count
    size = (processes.add((everything - centre).square().sum()) / count).clamp_min(1e-6)
    prior = torch.cat([size.expand(len(centre)), torch.ones_like(size)[None]])
    designs = (
        design(with_bias(features, centre), rewards, batch, effects, max(noise, LEAST_NOISE))
        for batch, (features, rewards) in zip(batches, found, strict=True)
    )
    return Posterior(centre, precision_factor(prior, designs, processes).to(centre).contiguous())


def design(rows: Tensor, rewards: Tensor, batch: Batch, effects: RatingEffects, noise: float) -> Tensor:
    """(n, K) `sqrt(w) u` of each example of a batch, from the features with bias (rows, K) of its responses."""
    scored, labelled, paired = batch.scored, batch.labelled, batch.paired
    label = torch.sigmoid(effects.label(rewards[labelled.row], labelled.habit))
    margin = rewards[paired.first] - rewards[paired.second]
    pair = torch.sigmoid(effects.pair(margin, paired.habit, paired.side, paired.length))
    strength = torch.cat(
        [
            effects.gain(scored.habit) * (scored.weight / noise).sqrt(),
            effects.gain(labelled.habit) * (labelled.weight * label * (1 - label)).sqrt(),
            effects.gain(paired.habit) * (paired.weight * pair * (1 - pair)).sqrt(),
        ]
    )
    moved = torch.cat([rows[scored.row], rows[labelled.row], rows[paired.first] - rows[paired.second]])
    return strength[:, None] * moved
