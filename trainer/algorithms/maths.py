"""The formulas of policy optimisation, as pure functions. Masks are explicit; padding never counts.

Shapes: B responses, R places for response tokens; `mask` (B, R) is true on real tokens.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Returns that differ by less than this, in deviations of the reward, are taken for equal.
LEAST_RANGE = 1e-4
# The learning rate adapts by at most this factor a round, and stays within these shares of the configured one.
FASTEST, LEAST_RATE, MOST_RATE = 1.5, 0.1, 3.0


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the places where the mask is true; 0 when there are none."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def whiten_like(values: Tensor, everything: Tensor) -> Tensor:
    """Values shifted and scaled by the mean and standard deviation of `everything` (m,), of which they are a part."""
    mean = everything.mean()
    variance = (everything - mean).square().mean()
    return (values - mean) * torch.rsqrt(variance + 1e-8)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016) over response tokens.

    `values[:, t]` is the value before token t is chosen; after the last real token it is 0.

    Returns:
        advantages and returns, (B, R), 0 outside the mask.
    """
    steps = rewards.shape[1]
    advantages = torch.zeros_like(rewards)
    following_value = torch.zeros_like(rewards[:, 0])
    following_advantage = torch.zeros_like(rewards[:, 0])
    for step in reversed(range(steps)):
        here = mask[:, step].to(rewards.dtype)
        delta = rewards[:, step] + gamma * following_value - values[:, step]
        following_advantage = (delta + gamma * lam * following_advantage) * here
        following_value = values[:, step] * here
        advantages[:, step] = following_advantage
    return advantages, (advantages + values) * mask


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """`log pi - log ref`: unbiased for KL(pi || ref) on samples of pi; what the reward is charged with."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """`(log pi - log ref)^2 / 2`: its gradient is that of the KL; the one to use as a loss."""
    return (logprobs - reference).square() / 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """`ref/pi - 1 - log(ref/pi)`: unbiased, never negative, less spread than k1; the one to show (Schulman 2020)."""
    difference = reference - logprobs
    return torch.expm1(difference) - difference


def leave_one_out(returns: Tensor) -> Tensor:
    """RLOO advantages (Ahmadian et al. 2024): each return less the mean of the others of its group. (groups, K)."""
    count = returns.shape[1]
    return (returns - returns.mean(1, keepdim=True)) * count / (count - 1)


def mean_of_others(returns: Tensor, groups: Sequence[Hashable]) -> Tensor:
    """(n,) the mean of the other returns of each one's group; not a number where there are none."""
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    found = torch.full_like(returns, math.nan)
    for together in places.values():
        if len(together) > 1:
            own = returns[together]
            found[together] = (own.sum() - own) / (len(together) - 1)
    return found


def group_normalised(returns: Tensor) -> Tensor:
    """GRPO advantages (Shao et al. 2024): `(r - mean) / (sd + 1e-4)` within each group. (groups, K)."""
    return (returns - returns.mean(1, keepdim=True)) / (returns.std(1, keepdim=True) + 1e-4)


def last_token(mask: Tensor) -> Tensor:
    """(B, R) bool, true on the last real token of each row."""
    lengths = mask.sum(1)
    return torch.arange(mask.shape[1], device=mask.device) == (lengths - 1)[:, None]


def token_rewards(scores: Tensor, charge: Tensor, mask: Tensor, beta: float) -> Tensor:
    """The KL charge on every token, and the score of the response on its last one.

    Args:
        scores: (B,). charge: (B, R) what each token is charged with, nats: k1, or the exact divergence of its place.
    """
    return -beta * charge * mask + scores[:, None] * last_token(mask)


def own_charge(advantages: Tensor, k1: Tensor, exact: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Advantages where each place was charged its exact divergence, corrected so that a token pays its own k1.

    The exact divergence of a place is the mean of k1 over all tokens that could stand there: the same charge without
    the noise of drawing. For the places that a token leads to, that is what it is to be charged. But its own place
    costs the same whichever token is drawn, which would tell nothing about the token. (B, R) each.
    """
    return advantages - beta * (k1 - exact) * mask


@dataclass(frozen=True)
class PolicyLoss:
    """The clipped loss of one minibatch and what it looked like."""

    loss: Tensor
    clip_fraction: Tensor
    approximate_kl: Tensor
    ratio: Tensor


def policy_loss(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017): the mean over tokens of `-min(r A, clip(r) A)`."""
    log_ratio = (new - old) * mask
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    with torch.no_grad():
        clip_fraction = masked_mean((clipped > plain).float(), mask)
        approximate_kl = masked_mean(torch.expm1(log_ratio) - log_ratio, mask)
    return PolicyLoss(masked_mean(torch.maximum(plain, clipped), mask), clip_fraction, approximate_kl, ratio.detach())


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Half the squared error, or where `clip` is not 0 the larger one of the values as they are and of values no
    further than it from the old ones; and the share of tokens where clipping decided."""
    plain_error = (values - returns).square()
    if not clip:
        return masked_mean(plain_error, mask) / 2, plain_error.new_zeros(())
    clipped_error = (old + (values - old).clamp(-clip, clip) - returns).square()
    share = masked_mean((clipped_error > plain_error).float(), mask)
    return masked_mean(torch.maximum(plain_error, clipped_error), mask) / 2, share.detach()


def explained_variance(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - var(target - predicted) / var(target) over the mask; 1 is perfect, 0 no better than the mean.

    Not a number where the targets are all alike: there is nothing to explain.
    """

    def variance(values: Tensor) -> Tensor:
        return masked_mean((values - masked_mean(values, mask)).square(), mask)

    kept = target[mask]
    if not len(kept) or float(kept.max() - kept.min()) < LEAST_RANGE:  # a mean is rounded, so that a variance is not 0
        return target.new_tensor(math.nan)
    return 1 - variance(target - predicted) / variance(target)


@dataclass(frozen=True)
class KlController:
    """The adaptive KL coefficient: it rises while the KL is above target and falls below it.

    As Ziegler et al. (2019), but on the logarithm, in rounds, and fast: at twice the target or more it grows by the
    factor e in `horizon` rounds, at no KL at all it falls by as much.

    Attributes:
        beta: the coefficient in force.
        target: nats per response.
        horizon: in rounds.
        least: it never falls below.
    """

    beta: float
    target: float
    horizon: float
    least: float = 0.0

    def after(self, kl: float) -> KlController:
        """The controller after a round with mean KL `kl` (nats per response)."""
        error = min(max(kl / self.target - 1, -1.0), 1.0)
        return replace(self, beta=max(self.beta * math.exp(error / self.horizon), min(self.least, self.beta)))


@dataclass(frozen=True)
class RateController:
    """The share of the configured learning rate that makes a round's updates as large as they should be.

    The KL of a small step grows as the square of the rate, so the rate follows the square root of wanted over measured,
    at most by `FASTEST` a round and within `LEAST_RATE` to `MOST_RATE`.

    Attributes:
        scale: the share in force.
    """

    scale: float = 1.0

    def after(self, kl: float, wanted: float) -> RateController:
        """The controller after a round that moved the policy by `kl`, in the units of what was `wanted`."""
        if not (kl > 0 and math.isfinite(kl)):  # no step was taken
            return self
        factor = math.sqrt(wanted / kl)
        return self.times(min(max(factor, 1 / FASTEST), FASTEST))

    def times(self, factor: float) -> RateController:
        """The controller with another share, within the bounds."""
        return RateController(min(max(self.scale * factor, LEAST_RATE), MOST_RATE))


def decayed(step: int, begin: float, steps: int, last: float) -> float:
    """What the learning rate is multiplied with in a round: 1 until `begin`, then in a line to `last` after all."""
    return 1 - (1 - last) * max(0.0, step - begin) / max(1.0, steps - begin)
