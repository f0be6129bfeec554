"""Is the sampler the policy? What it recorded as it sampled is compared with what the policy says of the same tokens.

The two are computed apart: by other code, another cache, another batch. Rounding alone stays below a bound of its
number format; a sampler at another temperature, with damaged weights, with part of an update or a version behind does
not. Such faults are silent otherwise: the old and new log-probabilities of an update come from one and the same pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from storage.errors import WorkbenchError
from trainer.algorithms import maths

# The mean k3, in nats a token, above which a sampler is not the policy. What rounding makes of it on the bundled model:
# fp32 1e-10; bf16 1e-10 where both round alike (on a CPU), 0.0013 where they do not.
BOUNDS = {torch.float32: 1e-5, torch.float16: 1e-4, torch.bfloat16: 5e-3}
# A run whose rounding is far below that bound keeps to a bound of its own: so many times what it is, and no less than
# this. A version behind is a few thousandths of a nat.
GROWTH, LEAST_BOUND = 10.0, 1e-4
# The least of the policy's shift that must have reached the sampler, and how many of its standard errors the slope may
# be off by chance.
LEAST_SLOPE, STANDARD_ERRORS = 0.9, 5.0
# The mean k3 up to which a sampler's record stands for the policy's own log-probabilities: rounding where both compute
# alike is 1e-10, a version behind a few thousandths.
ALIKE = 1e-6
LEAST_ROUNDING = 5e-13  # of a mean k3, nats/token: log-probabilities are fp32


@dataclass(frozen=True)
class SamplerGap:
    """How far a sampler is from the policy, over `n` tokens.

    Attributes:
        k3: mean, nats/token.
        largest: difference of a log-probability, nats.
        rounding: root mean square of the differences, nats.
        shift: root mean square of the policy's shift from the reference, nats.
        slope: how much of the policy's shift the sampler has; None where there is no shift.
    """

    k3: float
    largest: float
    rounding: float
    shift: float
    slope: float | None
    n: int

    @classmethod
    def between(cls, sampler: Tensor, policy: Tensor, reference: Tensor) -> SamplerGap:
        """Of log-probabilities (n,) of the same tokens, in nats."""
        difference, shift = (sampler - policy).double(), (policy - reference).double()
        squares = float(shift.square().sum())
        return cls(
            k3=float(maths.k3(sampler.double(), policy.double()).mean()),
            largest=float(difference.abs().max()),
            rounding=math.sqrt(float(difference.square().mean())),
            shift=math.sqrt(squares / len(shift)),
            slope=1 + float((difference * shift).sum()) / squares if squares > 0 else None,
            n=len(shift),
        )

    def figures(self) -> dict[str, float]:
        """By the names of the metrics."""
        found = {"policy/sampler_gap": self.k3, "policy/sampler_gap_largest": self.largest}
        return found if self.slope is None else found | {"policy/sampler_slope": self.slope}

    def alike(self, tolerance: float) -> bool:
        """Whether what the sampler recorded may be taken for what the policy says: ratios are off by rounding, and by
        `tolerance` at the most."""
        return self.k3 <= ALIKE and math.expm1(min(self.largest, 1.0)) <= tolerance

    def check(self, round_number: int, bound: float, rounding: float) -> None:
        """Stop a run whose sampler is not its policy.

        Rounding moves the slope in two ways: by chance, and down, since what the policy's own log-probability was
        rounded by stands in its shift, with the opposite sign in the difference. Only what is below both counts.

        Args:
            bound: of the mean k3, nats/token.
            rounding: the mean k3 where both have the same weights for sure, nats/token.

        Raises:
            WorkbenchError: with the likely cause.
        """
        bound = min(bound, max(LEAST_BOUND, GROWTH * rounding))
        if not self.k3 <= bound:
            raise WorkbenchError(
                f"round {round_number}: the sampler is not the policy: their log-probabilities are {self.k3:.2g} nats "
                f"a token apart (k3; at most {bound:.2g}), {self.largest:.2g} at the most",
                "it samples at another temperature, from damaged or older weights, or computes otherwise; raise "
                "--max-sampler-gap only for a sampler that is meant to be coarser than the policy",
            )
        if self.slope is None:
            return
        by_chance = STANDARD_ERRORS * self.rounding / (self.shift * math.sqrt(self.n))
        downwards = 2 * max(rounding, LEAST_ROUNDING) / self.shift**2
        if self.slope + by_chance + downwards < LEAST_SLOPE:
            raise WorkbenchError(
                f"round {round_number}: only {self.slope:.0%} of what the policy has learned reaches its sampler "
                f"(at least {LEAST_SLOPE:.0%})",
                "it samples from an older version, or its weights lose small updates to rounding",
            )


def importance(policy: Tensor, sampler: Tensor, cap: float) -> Tensor:
    """How much each sampled token counts: the policy's probability over the sampler's, at most `cap` (truncated
    importance sampling, Ionides 2008). What a coarser sampler says too often then counts less; 1 where cap is 0."""
    return torch.ones_like(policy) if cap == 0 else (policy - sampler).exp().clamp_max(cap)
