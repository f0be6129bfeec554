"""What every way of learning has in common: it takes steps, tells how they went, and can be saved between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn, optim

from trainer.algorithms.rollouts import Rollout
from trainer.policy.full import Snapshot, Update

Figures = dict[tuple[str, str | None], float]


@dataclass(frozen=True)
class StepReport:
    """What a step looked like.

    Attributes:
        figures: by (name, language); the language is None for the figure over all of them.
        rollouts: what the policy said, each with its score and its KL in nats; empty where nothing is sampled.
        headline: the figures to show beside the progress bar, by a short name.
    """

    figures: Figures
    rollouts: list[tuple[Rollout, float, float]] = field(default_factory=list)
    headline: dict[str, float] = field(default_factory=dict)


class Learner(Protocol):
    """A run of some method. With the same state, the next step is the same: whatever is random in a step depends on the
    seed and the number of the step alone.

    Attributes:
        stage: what it does, in a word or two for the progress bar: "policy", "reward model".
        step: how many steps are done.
        steps: how many there are in all.
    """

    stage: str
    step: int
    steps: int

    def advance(self) -> StepReport:
        """Take one step.

        Raises:
            WorkbenchError: it went wrong beyond repair; the message names the cause.
        """
        ...

    def modules(self) -> Mapping[str, nn.Module]:
        """What holds tensors that change, by name."""
        ...

    def optimizers(self) -> Mapping[str, optim.Optimizer]:
        """The optimizers, by name."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything else that changes, `step` among it, as plain values that JSON can hold."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        ...


class PolicyLearner(Learner, Protocol):
    """A learner whose result is a policy."""

    @property
    def policy(self) -> Update:
        """What is learned."""
        ...

    def result(self) -> Snapshot:
        """A copy of the policy as it is now: what is judged, served and published."""
        ...
