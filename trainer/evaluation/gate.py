"""The gate: what a candidate must show before it is published.

Candidate and parent answer the same held-out prompts from the same seeds; the reward gain is taken prompt by prompt.
Where nothing judges answers (supervised fine-tuning on demonstrations alone), the loss on held-out answers decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from storage.records import Prompt, Sampling
from trainer.algorithms import maths
from trainer.algorithms.rollouts import Rollout, collect
from trainer.config import GateConfig
from trainer.evaluation.intervals import Interval, mean_interval
from trainer.evaluation.watch import WatchReport
from trainer.examples import fingerprint
from trainer.policy.backbone import Backbone
from trainer.policy.decoding import Decoder
from trainer.policy.full import Snapshot
from trainer.reward.protocol import Reward

# Answers to one prompt come from seeds that training never uses.
FIRST_SEED = 1 << 61
BATCH = 32


@dataclass(frozen=True)
class GateReport:
    """What was measured, and the verdict of each gate as `{gate, passed, value, bound, detail}`.

    Attributes:
        kl: nats per response to the base model.
        gain: in reward, by prompt; None where nothing judges answers, as are the other figures of the reward.
        loss_gain: how many nats per token the loss on held-out answers fell; None for methods that have none.
        seen: what the over-optimisation watch saw; None where nothing watched.
    """

    gates: list[dict[str, Any]]
    kl: float
    held_out_prompts: int
    gain: Interval | None = None
    gain_by_language: dict[str, Interval] | None = None
    parent_reward: float | None = None
    reward: float | None = None
    loss_gain: Interval | None = None
    seen: WatchReport | None = None

    @property
    def passed(self) -> bool:
        return all(gate["passed"] for gate in self.gates)

    def metrics(self) -> dict[str, Any]:
        """The figures to keep with the version."""
        figures: dict[str, Any] = {"kl": self.kl, "held_out_prompts": self.held_out_prompts}
        if self.gain is not None and self.gain_by_language is not None:
            figures |= {
                "reward": self.reward,
                "parent_reward": self.parent_reward,
                "reward_gain": self.gain.mean,
                "reward_gain_interval": self.gain.bounds,
                "reward_gain_by_language": {
                    language: {"mean": gain.mean, "n": gain.n} for language, gain in self.gain_by_language.items()
                },
            }
        if self.loss_gain is not None:
            interval = self.loss_gain.bounds
            figures |= {"loss_gain": self.loss_gain.mean, "loss_gain_interval": interval, "loss_n": self.loss_gain.n}
        told = {"reward_gain_interval": self.gain, "loss_gain_interval": self.loss_gain}
        if self.seen is not None:
            watched = self.seen.agreement
            told["human_agreement_interval"] = watched
            figures["human_agreement"] = watched.mean if watched else None
            figures["human_agreement_interval"] = watched.bounds if watched else None
        reasons = {name: found.reason for name, found in told.items() if found is not None and not found.bounded}
        if self.seen is not None and self.seen.agreement is None:
            reasons["human_agreement"] = self.seen.reason
        return figures | ({"reasons": reasons} if reasons else {})


def judge(
    backbone: Backbone,
    reward: Reward | None,
    candidate: Snapshot,
    parent: Snapshot | None,
    held_out: Sequence[Prompt],
    config: GateConfig,
    sampling: Sampling,
    loss_gain: Interval | None = None,
    seen: WatchReport | None = None,
) -> GateReport:
    """Measure a candidate against its parent on held-out prompts.

    Args:
        reward: what judges answers, if anything does.
        parent: what the version that the candidate goes on from changes; None for the base model itself.
        loss_gain: of methods that imitate: it decides then, and the reward must only not fall.
        seen: what the over-optimisation watch saw of the candidate.
    """
    prompts = sorted(held_out, key=lambda prompt: fingerprint(prompt.id))[: config.prompts]
    after = answer(backbone.decoder(candidate), backbone, prompts, config.answers, sampling)
    kl = kl_to_reference(backbone, after, sampling.temperature)
    numbers = [kl]
    gates, gain, by_language, old_reward, new_reward = [], None, None, None, None
    if reward is not None:
        before = answer(backbone.decoder(parent), backbone, prompts, config.answers, sampling)
        old_scores = _mean_by_prompt(reward.score_rollouts(before), config.answers)
        new_scores = _mean_by_prompt(reward.score_rollouts(after), config.answers)
        differences = [new - old for new, old in zip(new_scores, old_scores, strict=True)]
        gain, by_language = mean_interval(differences), _by_language(differences, prompts)
        old_reward, new_reward = _mean(old_scores), _mean(new_scores)
        numbers.append(gain.mean)
        if loss_gain is None:
            gates.append(_gain_gate("reward gain", gain, f"over {gain.n} held-out prompts", config.min_gain))
        else:
            gates.append(_no_loss_gate(gain))
    if loss_gain is not None:
        words = f"nats a token less loss over {loss_gain.n} held-out prompts"
        gates.append(_gain_gate("held-out loss", loss_gain, words, config.min_gain))
    if seen is not None and seen.agreement is not None:
        gates.append(
            {
                "gate": "human rows",
                "passed": not seen.against,
                "value": seen.agreement.mean,
                "bound": 0.0,
                "detail": f"the policy's shift agrees with held-out ratings by {seen.agreement} (rank correlation over "
                f"{seen.rows} answers to {seen.agreement.n} prompts); the upper end must not be below 0",
            }
        )
    finite = candidate.is_finite() and all(math.isfinite(number) for number in numbers)
    gates += [
        {
            "gate": "KL bound",
            "passed": bool(kl <= config.max_kl),
            "value": kl,
            "bound": config.max_kl,
            "detail": f"{kl:.2f} nats per response to the base model; at most {config.max_kl:g}",
        },
        {
            "gate": "finite",
            "passed": finite,
            "value": float(finite),
            "bound": 1.0,
            "detail": "weights, rewards and KL are finite" if finite else "a weight, a reward or the KL is not finite",
        },
    ]
    return GateReport(gates, kl, len(prompts), gain, by_language, old_reward, new_reward, loss_gain, seen)


def _gain_gate(name: str, gain: Interval, words: str, bound: float) -> dict[str, Any]:
    return {
        "gate": name,
        "passed": bool(gain.low > bound),
        "value": gain.mean,
        "bound": bound,
        "detail": f"{gain} {words}; the lower end must pass {bound:g}",
    }


def _no_loss_gate(gain: Interval) -> dict[str, Any]:
    """What imitates need not raise the reward, but must not lower it."""
    return {
        "gate": "reward",
        "passed": bool(gain.high >= 0),
        "value": gain.mean,
        "bound": 0.0,
        "detail": f"{gain} over {gain.n} held-out prompts; the upper end must not be below 0",
    }


def _by_language(differences: Sequence[float], prompts: Sequence[Prompt]) -> dict[str, Interval]:
    found: dict[str, list[float]] = {}
    for difference, prompt in zip(differences, prompts, strict=True):
        found.setdefault(prompt.language, []).append(difference)
    return {language: mean_interval(values) for language, values in sorted(found.items())}


def answer(
    decoder: Decoder, backbone: Backbone, prompts: Sequence[Prompt], answers: int, sampling: Sampling
) -> list[Rollout]:
    """`answers` samples of each prompt, from fixed seeds of their own."""
    found: list[Rollout] = []
    each = max(1, BATCH // answers)
    for start in range(0, len(prompts), each):
        chosen = prompts[start : start + each]
        found += collect(decoder, backbone.tokenizer, chosen, answers, sampling, FIRST_SEED + start * answers)
    return found


@torch.no_grad()
def kl_to_reference(backbone: Backbone, rollouts: Sequence[Rollout], temperature: float, batch: int = 16) -> float:
    """Mean nats per response between the policy and the base model, by k3 on answers of the policy.

    The policy's log-probabilities are those that the decoder recorded as it sampled.
    """
    total = 0.0
    for start in range(0, len(rollouts), batch):
        chosen = rollouts[start : start + batch]
        layout = backbone.layout([r.prompt_ids for r in chosen], [r.completion.token_ids for r in chosen])
        reference = backbone.log_likelihood(backbone.hidden(layout, None), layout, temperature)
        sampled = torch.tensor([value for r in chosen for value in r.completion.logprobs], dtype=reference.dtype)
        own = backbone.spread(sampled.to(reference.device), layout)
        total += float((maths.k3(own, reference) * layout.mask).sum())
    return total / len(rollouts)


def _mean_by_prompt(values: Sequence[float], answers: int) -> list[float]:
    return [_mean(values[start : start + answers]) for start in range(0, len(values), answers)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
