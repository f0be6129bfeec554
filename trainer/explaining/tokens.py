"""The reward of an answer, token by token: integrated gradients, and what is lost by leaving each token out.

Integrated gradients (Sundararajan et al. 2017) go from an answer that says nothing to the answer itself, in a straight
line, and sum for each token what its own step changes. Their sum is the difference between both rewards (completeness).
The answer that says nothing is as long, and as much in its prompt's language, but each of its tokens is the mean of the
vocabulary: what a reward model gives for length and language alone is in the baseline, and no token's doing.

A token that is left out takes its place in the length with it, and what follows moves up: what that changes is not
complete, since two words that say the same thing can each be spared, but it needs no baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.policy.backbone import Backbone
from trainer.reward.model import RewardModel

TOLERANCE = 0.01
"""Points are added to the way until the sum is as near as this to the difference, in deviations of the reward and as a
share of a difference above 1. What is left then is shared out among the tokens in proportion to their sizes."""
FEWEST_POINTS, MOST_POINTS = 32, 128
TOKENS_AT_ONCE = 2048
AT_ONCE = 8192  # of the vocabulary


@dataclass(frozen=True)
class Shares:
    """Of an answer of n tokens. In deviations of the reward.

    Attributes:
        reward, baseline: of the answer, and of one as long that says nothing.
        shares: n numbers whose sum is `reward - baseline`.
        residual: what the sum lacked before it was shared out.
        points: how many of the way were looked at.
    """

    reward: float
    baseline: float
    shares: list[float]
    residual: float
    points: int


def integrated_gradients(model: RewardModel, prompt: list[int], said: list[int], language: str) -> Shares:
    """What each token of an answer brings, by the way from an answer that says nothing."""
    way = _Way(model, prompt, said, language)
    reward = float(model.score_responses([prompt], [said], [language])[0])
    baseline = way.reward_at(0.0)
    difference, points = reward - baseline, FEWEST_POINTS
    while True:
        found = way.integral(points)
        residual = difference - float(found.sum())
        if abs(residual) <= TOLERANCE * max(1.0, abs(difference)) or points >= MOST_POINTS:
            break
        points *= 2
    size = found.abs()
    spread = size / size.sum() if float(size.sum()) else torch.full_like(size, 1 / len(said))
    return Shares(reward, baseline, (found + residual * spread).tolist(), residual, points)


def left_out(model: RewardModel, prompt: list[int], said: list[int], language: str) -> list[float | None]:
    """The reward of an answer, less that without each of its tokens; None of an answer of a single token."""
    if len(said) < 2:
        return [None] * len(said)
    without = [said[:place] + said[place + 1 :] for place in range(len(said))]
    batch = max(1, TOKENS_AT_ONCE // len(said))
    asked, languages = [prompt] * (len(said) + 1), [language] * (len(said) + 1)
    rewards = model.score_responses(asked, [said, *without], languages, batch)
    return (rewards[0] - rewards[1:]).tolist()


class _Way:
    """The straight line from n tokens that say nothing to an answer's, a prompt before both."""

    def __init__(self, model: RewardModel, prompt: list[int], said: list[int], language: str) -> None:
        self.model, self.prompt, self.said, self.language = model, prompt, said, language
        backbone, ids = model.backbone, torch.tensor([*prompt, *said], device=model.mean.device)
        self.vectors, self.neutral = backbone.vectors(ids), neutral(backbone, lambda found: found)
        self.words, self.neutral_words = unit(self.vectors), neutral(backbone, unit)

    def reward_at(self, share: float) -> float:
        """The reward of the answer at a share of the way."""
        with torch.no_grad():
            return float(self._rewards(torch.tensor([share], device=self.vectors.device))[0])

    def integral(self, points: int) -> Tensor:
        """(n,) what each token's step changes along the way, fp64, by Gauss and Legendre's points.

        The way is walked at the pace of a square, slowly at first: the first norm of the layers turns around small
        vectors quickest. How fast one walks does not change the integral.
        """
        nodes, weights = np.polynomial.legendre.leggauss(points)
        times = torch.as_tensor((nodes + 1) / 2, dtype=torch.float32, device=self.vectors.device)
        parts = torch.as_tensor(weights / 2, dtype=torch.float32, device=self.vectors.device) * 2 * times
        total = torch.zeros(len(self.said), dtype=torch.float64)
        for some, part in self._batches(times.square(), parts):
            total += self._steps(some, part).double().cpu()
        return total

    def _batches(self, shares: Tensor, parts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, TOKENS_AT_ONCE // len(self.said))
        yield from zip(shares.split(size), parts.split(size), strict=True)

    def _steps(self, shares: Tensor, parts: Tensor) -> Tensor:
        """(n,) the sum over some places of the way of each token's slope along it, times `parts`."""
        moved: list[Tensor] = []
        with torch.enable_grad():
            rewards = self._rewards(shares, moved)
            slopes = torch.autograd.grad(
                (rewards * parts).sum(), moved, materialize_grads=True
            )  # an adapter reads no words
        ways = (self.words - self.neutral_words, self.vectors - self.neutral)
        both = zip(ways, slopes, strict=True)
        return sum(((slope * way[-len(self.said) :]).sum((0, 2)) for way, slope in both), torch.zeros(()))

    def _rewards(self, shares: Tensor, moved: list[Tensor] | None = None) -> Tensor:
        """(m,) rewards at m places of the way. `moved` gets the words and vectors (m, n, size) that they depend on."""
        backbone, asked, count = self.model.backbone, len(self.prompt), len(shares)
        layout = backbone.layout([self.prompt] * count, [self.said] * count)
        leanings = self.model.leanings(layout, [self.language] * count)
        laid_out: list[Tensor] = []
        for start, own in ((self.neutral_words, self.words), (self.neutral, self.vectors)):
            at = start + shares[:, None, None] * (own[asked:] - start)
            if moved is not None:
                moved.append(at.requires_grad_())
            laid_out.append(torch.cat([own[:asked], at.flatten(0, 1)]))  # as a layout has them: the prompt once
        words, vectors = laid_out
        return self.model.of_vectors(words, vectors, layout, leanings)


def unit(vectors: Tensor) -> Tensor:
    """Vectors of root mean square 1, as the head reads words."""
    return nn.functional.rms_norm(vectors, vectors.shape[-1:])


@torch.no_grad()
def neutral(backbone: Backbone, change: Callable[[Tensor], Tensor]) -> Tensor:
    """(embedding size,) the mean over the vocabulary of what is made of its vectors."""
    count = backbone.network.head_weight.shape[0]
    ids = torch.arange(count, device=backbone.device).split(AT_ONCE)
    return torch.stack([change(backbone.vectors(some)).sum(0) for some in ids]).sum(0) / count
