"""The gate: what a candidate must show on held-out prompts before it is published.

Candidate and parent answer the same held-out prompts from the same seeds; the reward gain is taken prompt by prompt.
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
from trainer.examples import fingerprint
from trainer.policy.backbone import Backbone
from trainer.policy.decoding import Decoder
from trainer.policy.lora import LoraAdapter
from trainer.reward.model import RewardModel

# Answers to one prompt come from seeds that training never uses.
FIRST_SEED = 1 << 61
BATCH = 32


@dataclass(frozen=True)
class GateReport:
    """What was measured, and the verdict of each gate as `{gate, passed, value, bound, detail}`."""

    gates: list[dict[str, Any]]
    gain: Interval
    gain_by_language: dict[str, Interval]
    kl: float
    parent_reward: float
    reward: float

    @property
    def passed(self) -> bool:
        return all(gate["passed"] for gate in self.gates)

    def metrics(self) -> dict[str, Any]:
        """The figures to keep with the version."""
        return {
            "reward": self.reward,
            "parent_reward": self.parent_reward,
            "reward_gain": self.gain.mean,
            "reward_gain_interval": [self.gain.low, self.gain.high],
            "held_out_prompts": self.gain.n,
            "kl": self.kl,
            "reward_gain_by_language": {
                language: {"mean": gain.mean, "n": gain.n} for language, gain in self.gain_by_language.items()
            },
        }


def judge(
    backbone: Backbone,
    reward_model: RewardModel,
    candidate: LoraAdapter,
    parent: Decoder,
    held_out: Sequence[Prompt],
    config: GateConfig,
    sampling: Sampling,
) -> GateReport:
    """Measure a candidate against its parent on held-out prompts."""
    prompts = sorted(held_out, key=lambda prompt: fingerprint(prompt.id))[: config.prompts]
    snapshot = candidate.snapshot()
    before = answer(parent, backbone, prompts, config.answers, sampling)
    after = answer(parent.with_version(snapshot), backbone, prompts, config.answers, sampling)
    old_scores = _mean_by_prompt(rewards_of(reward_model, before), config.answers)
    new_scores = _mean_by_prompt(rewards_of(reward_model, after), config.answers)
    differences = [new - old for new, old in zip(new_scores, old_scores, strict=True)]
    gain = mean_interval(differences)
    kl = kl_to_reference(backbone, candidate, after, sampling.temperature)
    finite = all(bool(torch.isfinite(part).all()) for pair in snapshot.pairs.values() for part in pair)
    finite = finite and math.isfinite(kl) and math.isfinite(gain.mean)
    gates = [
        {
            "gate": "reward gain",
            "passed": bool(gain.low > config.min_gain),
            "value": gain.mean,
            "bound": config.min_gain,
            "detail": f"{gain} over {gain.n} held-out prompts; the lower end must pass {config.min_gain:g}",
        },
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
    languages = sorted({prompt.language for prompt in prompts})
    by_language = {
        language: mean_interval(
            [gain for gain, prompt in zip(differences, prompts, strict=True) if prompt.language == language]
        )
        for language in languages
    }
    return GateReport(gates, gain, by_language, kl, _mean(old_scores), _mean(new_scores))


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


def rewards_of(reward_model: RewardModel, rollouts: Sequence[Rollout]) -> list[float]:
    """The normalised reward of each answer."""
    return reward_model.score_responses(
        [rollout.prompt_ids for rollout in rollouts], [rollout.completion.token_ids for rollout in rollouts]
    ).tolist()


@torch.no_grad()
def kl_to_reference(
    backbone: Backbone, policy: LoraAdapter, rollouts: Sequence[Rollout], temperature: float, batch: int = 16
) -> float:
    """Mean nats per response between the policy and the base model, by k3 on answers of the policy."""
    total = 0.0
    for start in range(0, len(rollouts), batch):
        chosen = rollouts[start : start + batch]
        layout = backbone.layout([r.prompt_ids for r in chosen], [r.completion.token_ids for r in chosen])
        reference = backbone.log_likelihood(backbone.hidden(layout, None), layout, temperature)
        own = backbone.log_likelihood(backbone.hidden(layout, policy), layout, temperature)
        total += float((maths.k3(own, reference) * layout.mask).sum())
    return total / len(rollouts)


def _mean_by_prompt(values: Sequence[float], answers: int) -> list[float]:
    return [_mean(values[start : start + answers]) for start in range(0, len(values), answers)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
