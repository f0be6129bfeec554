"""What a round of policy optimisation learns from: answers, what is known about them, and what they looked like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from storage.errors import UsageError
from trainer.algorithms import maths
from trainer.algorithms.rollouts import Rollout
from trainer.learner import Figures
from trainer.policy.backbone import Backbone, Comparison
from trainer.policy.layout import TokenLayout
from trainer.policy_config import PpoConfig
from trainer.processes import Processes
from trainer.reward.protocol import Scores


@dataclass
class Piece:
    """Answers that go through the model together, and what stays the same during a round. Shapes (B, R).

    Attributes:
        rows: where the answers stand in the round's batch.
        trunk: (N, hidden) after the lower layers, adapters off.
        beneath: (N, hidden) below the first layer that the policy changes.
        hidden: (n, hidden) what the policy that sampled made of the places before the n response tokens; empty where
            the sampler's record stands for it.
        seen: the policy that sampled beside the reference: log-probabilities, entropy and KL, in nats; these exact, or
            as the record tells.
        sampler: what the sampler itself recorded of its tokens, in nats.
        scores: (B,) of the whole answers, as they are learned from. said: what the reward says of them.
        unadapted: what the base model says of the tokens, in nats, where the reference is another.
        states: (B, R, size) what a value is foretold from; None where it has an adapter of its own.
        peers: (B,) what the other answers to the same prompt came to, on average; None where there are none.
        values: before each token, at the beginning of the round. returns: what came after it.
    """

    rows: list[int]
    rollouts: list[Rollout]
    layout: TokenLayout
    trunk: Tensor
    beneath: Tensor
    hidden: Tensor
    seen: Comparison
    sampler: Tensor
    scores: Tensor
    said: Scores
    unadapted: Tensor | None = None
    states: Tensor | None = None
    peers: Tensor | None = None
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    returns: Tensor = field(default_factory=lambda: torch.empty(0))
    advantages: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def old(self) -> Tensor:
        """Log-probabilities under the policy that sampled, in nats."""
        return self.seen.chosen

    @property
    def reference(self) -> Tensor:
        """Log-probabilities under the reference, in nats."""
        return self.seen.reference

    @property
    def plain(self) -> Tensor:
        """Log-probabilities under the base model, in nats."""
        return self.reference if self.unadapted is None else self.unadapted

    @property
    def mask(self) -> Tensor:
        return self.layout.mask

    @property
    def tokens(self) -> int:
        """How many response tokens there are."""
        return len(self.layout.said)

    def kl(self) -> Tensor:
        """(B,) nats per response to the reference: the divergence at every place, added up."""
        return (self.seen.divergence * self.mask).sum(1)

    def k1(self) -> Tensor:
        """(B,) nats per response to the reference, by k1 of the tokens that were sampled."""
        return (maths.k1(self.old, self.reference) * self.mask).sum(1)

    def shown(self) -> list[tuple[Rollout, float, float]]:
        """The answers with their scores and KL."""
        return list(zip(self.rollouts, self.scores.tolist(), self.kl().tolist(), strict=True))

    def facts(self, beta: float) -> list[dict[str, Any]]:
        """What each answer looked like, by the names of the metrics; `beta` is the KL coefficient in force."""
        entropy = (self.seen.entropy * self.mask).sum(1) / self.mask.sum(1)
        columns = zip(
            self.rollouts, self.scores.tolist(), self.kl().tolist(), self.k1().tolist(), entropy.tolist(),
            self.said.plain.tolist(), self.said.outside.tolist(), strict=True,
        )  # fmt: skip
        found: list[dict[str, Any]] = [
            {
                "language": rollout.prompt.language,
                "objective/scores": score,
                "objective/kl": kl,
                "objective/kl_k1": k1,
                "objective/entropy": entropy_mean,
                "objective/rlhf_reward": score - beta * k1,
                "reward/plain": plain,
                "support/outside": float(outside),
                "response/length": len(rollout.completion.token_ids),
                "response/truncated": float(rollout.completion.finish_reason != "eos"),
            }
            for rollout, score, kl, k1, entropy_mean, plain, outside in columns
        ]
        for name, values in self.said.parts.items():
            for fact, value in zip(found, values.tolist(), strict=True):
                fact[f"reward/part_{name}"] = value
        return found


def means(facts: Sequence[dict[str, Any]]) -> Figures:
    """The mean of each fact over all answers, and over those of each language."""
    names = [name for name in facts[0] if name != "language"]
    figures: Figures = {}
    for language in [None, *sorted({str(fact["language"]) for fact in facts})]:
        chosen = [fact for fact in facts if language in (None, fact["language"])]
        for name in names:
            figures[name, language] = sum(float(fact[name]) for fact in chosen) / len(chosen)
    return figures


def rows_of(config: PpoConfig, processes: Processes) -> list[int]:
    """Which rows of a round's batch are this process's: its part of every minibatch.

    Raises:
        UsageError: the batch cannot be split among the processes.
    """
    if config.minibatch // config.accumulation % processes.count:
        raise UsageError(
            f"minibatch {config.minibatch} / accumulation {config.accumulation} cannot be shared by {processes.count}",
            f"choose a --minibatch that {processes.count * config.accumulation} divides, or launch fewer processes",
        )
    size = config.minibatch // config.accumulation
    rows = list(range(config.batch))
    return [row for start in range(0, config.batch, size) for row in processes.part(rows[start : start + size])]


def laid_out(backbone: Backbone, rollouts: Sequence[Rollout]) -> TokenLayout:
    """A batch of answers, as it goes through the model."""
    return backbone.layout(
        [rollout.prompt_ids for rollout in rollouts], [rollout.completion.token_ids for rollout in rollouts]
    )


def recorded_by_sampler(backbone: Backbone, rollouts: Sequence[Rollout], layout: TokenLayout) -> Tensor:
    """(B, R) what the sampler recorded of its tokens, in nats."""
    recorded = torch.tensor([value for rollout in rollouts for value in rollout.completion.logprobs])
    return layout.spread(recorded.to(backbone.device))
