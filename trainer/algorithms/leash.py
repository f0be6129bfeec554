"""How far a policy may be from its reference, and how far a round should move it.

The KL target is let out over the first rounds. The KL coefficient follows the KL to the reference, and the learning
rate how far each round moved the policy, so that the target is reached in about so many rounds.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from trainer.algorithms import maths
from trainer.policy_config import PpoConfig

# A round whose KL is this many targets past where the run began is undone.
ROLLBACK_FACTOR = 3.0
# Steps that lead one way add up, steps that lead anywhere add up by their squares: the KL of n equal rounds is between
# n and n^2 times that of one. So a round should move the policy by the target over n to a power between 1 and 2.
ADDING_UP = 1.25
# The KL coefficient is never below this share of where it began.
LEAST_BETA = 0.1


class Leash:
    """KL coefficient and learning rate of a run.

    Attributes:
        target: nats per response, when it is let out.
        first_kl: of the policy that the run began with to its reference, nats per response; None before any round.
        controller: the KL coefficient, against what of the target is let out so far.
        rate: the share of the configured learning rate.
    """

    def __init__(self, config: PpoConfig) -> None:
        self.config = config
        self.rounds = min(config.kl_rounds, config.steps)  # in which the target should be reached; 0 is at once
        self.target = config.kl_target
        self.first_kl: float | None = None
        least = LEAST_BETA * config.beta
        self.controller = maths.KlController(config.beta, config.kl_target, config.kl_horizon_batches, least)
        self.rate = maths.RateController()

    def let_out(self, step: int, kl: float, length: float) -> None:
        """Begin a round whose answers have the mean KL `kl` (nats) and the mean length `length` (tokens)."""
        if self.first_kl is None:
            self.first_kl = kl
        self.target = self.config.kl_target_per_token * length or self.config.kl_target
        share = min(1.0, (step + 1) / self.rounds) if self.rounds else 1.0
        self.controller = replace(self.controller, target=self.target * share)

    def holds(self, kl: float) -> bool:
        """Whether a KL is in bounds: not far past where the run began, so that this itself is never undone."""
        return self.first_kl is not None and kl <= self.first_kl + ROLLBACK_FACTOR * self.target

    def learning_rate(self, step: int) -> float:
        """In force in a round."""
        return self.config.learning_rate * self.rate.scale * self._decay(step)

    def wanted(self, step: int, kl: float) -> float:
        """How far a round should move the policy, nats per response; less, the further it is past its leash."""
        if not self.rounds:
            return 0.0
        past = max(1.0, kl / self.controller.target)
        return self.target / self.rounds**ADDING_UP * (self._decay(step) / past) ** 2

    def adapt(self, step: int, kl: float, moved: float | None) -> None:
        """After a round: answers had the KL `kl`, and its updates moved the policy by `moved` (None: none were due)."""
        wanted = self.wanted(step, kl)
        if wanted and moved is not None:
            self.rate = self.rate.after(moved, wanted)
        self.controller = self.controller.after(kl)

    def shorten(self) -> None:
        """After a round that was undone: twice the coefficient, half the rate."""
        self.rate = self.rate.times(0.5)
        self.controller = replace(self.controller, beta=self.controller.beta * 2)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        own = {"target": self.target, "first_kl": self.first_kl, "rate": self.rate.scale}
        return own | {"controller": asdict(self.controller)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.target, self.first_kl = state["target"], state["first_kl"]
        self.rate = maths.RateController(state["rate"])
        self.controller = maths.KlController(**state["controller"])

    def _decay(self, step: int) -> float:
        return maths.decayed(step, self.rounds, self.config.steps, self.config.final_rate)
