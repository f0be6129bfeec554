"""Proximal policy optimisation (Schulman et al. 2017) with a KL leash to the reference (Ziegler et al. 2019).

A round: sample with the merged policy, score with the reward model, charge k1 per token, estimate advantages, and take
clipped steps on the policy and value adapters. The batch is cut into minibatches once a round; what does not change
during the round (layouts, lower layers, reference and old log-probabilities) is computed once for each.

The kin without a value model (REINFORCE, RLOO, GRPO) differ in one place: what an answer is compared with. With one
epoch the ratio is 1, and the clipped surrogate's gradient is `A grad log pi`, the plain policy gradient.
"""

from __future__ import annotations

import math
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from storage.errors import WorkbenchError
from storage.records import Prompt, Sampling
from trainer.algorithms import maths
from trainer.algorithms.rollouts import PromptSampler, Rollout, collect, round_seed
from trainer.config import Advantage, PpoConfig
from trainer.policy.adapters import Adapter
from trainer.policy.backbone import Backbone, ScalarHead
from trainer.policy.layout import TokenLayout
from trainer.reward.model import RewardModel

Figures = dict[tuple[str, str | None], float]
# How far the ratio may be from 1 before the first update: rounding only.
RATIO_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
# A round whose KL is past this many times the target is undone.
ROLLBACK_FACTOR = 3.0
MOST_ROLLBACKS = 3


@dataclass
class Minibatch:
    """Rollouts that are updated on together, and what stays the same during a round. Shapes (B, R)."""

    rollouts: list[Rollout]
    layout: TokenLayout
    trunk: Tensor
    old: Tensor
    reference: Tensor
    values: Tensor
    scores: Tensor  # (B,)
    entropy: Tensor
    advantages: Tensor = field(default_factory=lambda: torch.empty(0))
    returns: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def mask(self) -> Tensor:
        return self.layout.mask

    def kl(self) -> Tensor:
        """(B,) nats per response to the reference, by k3."""
        return (maths.k3(self.old, self.reference) * self.mask).sum(1)


@dataclass(frozen=True)
class RoundReport:
    """What a round looked like: figures by (name, language), and the rollouts with their scores and KL."""

    figures: Figures
    rollouts: list[tuple[Rollout, float, float]]


class Ppo:
    """The state of a PPO run. `step` counts finished rounds; with the same state, the next round is the same."""

    def __init__(
        self,
        backbone: Backbone,
        reward_model: RewardModel,
        prompts: Sequence[Prompt],
        config: PpoConfig,
        seed: int,
        parent: Adapter | None = None,
    ) -> None:
        self.backbone = backbone
        self.reward_model = reward_model
        self.config = config
        self.seed = seed
        self.step = 0
        self.rollbacks = 0
        self.uses_value = config.advantage == Advantage.GAE
        self.prompts = PromptSampler(prompts, config.language_balance, seed)
        self.policy = backbone.new_adapter(config, seed + 1, upper=False)
        if parent is not None:
            self.policy.load(parent)
        self.value_adapter = backbone.new_adapter(config, seed + 2, upper=True)
        if reward_model.adapter.rank == config.rank:  # what tells a good answer also tells a promising beginning
            self.value_adapter.load(reward_model.adapter.snapshot())
        self.value_head = ScalarHead(backbone.hidden_size).to(backbone.device)
        self.policy_optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=config.learning_rate, eps=1e-5, weight_decay=0.0
        )
        self.value_parameters = [*self.value_adapter.parameters(), *self.value_head.parameters()]
        self.value_optimizer = torch.optim.AdamW(
            self.value_parameters, lr=config.value_learning_rate, eps=1e-5, weight_decay=0.0
        )
        horizon = config.kl_horizon_batches * config.batch
        self.controller = maths.KlController(config.beta, config.kl_target, horizon)
        self.sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
        self.base_decoder = backbone.decoder()
        self.last_good = self.policy.snapshot()

    def round(self) -> RoundReport:
        """One round of rollouts and updates.

        Raises:
            WorkbenchError: the KL exploded again and again, or sampling and training disagree about probabilities.
        """
        config = self.config
        started = time.perf_counter()
        decoder = self.base_decoder.with_version(self.policy.snapshot())
        rollouts = collect(
            decoder,
            self.backbone.tokenizer,
            self.prompts.draw(self.step, config.batch // config.answers),
            config.answers,
            self.sampling,
            round_seed(self.seed, self.step),
        )
        sampled = time.perf_counter()
        minibatches = [
            self._prepare(rollouts[start : start + config.minibatch])
            for start in range(0, config.batch, config.minibatch)
        ]
        kl = float(torch.cat([batch.kl() for batch in minibatches]).mean())
        self._estimate_advantages(minibatches)
        scored = time.perf_counter()
        if kl <= ROLLBACK_FACTOR * config.kl_target:
            self.last_good = self.policy.snapshot()
            updates = self._update(minibatches)
        else:
            updates = self._roll_back(kl)
        finished = time.perf_counter()

        figures = self._figures(minibatches, kl, updates)
        tokens = sum(len(rollout.completion.token_ids) for rollout in rollouts)
        figures["timing/rollout", None] = sampled - started
        figures["timing/score", None] = scored - sampled
        figures["timing/update", None] = finished - scored
        figures["throughput/tokens_per_second", None] = tokens / (sampled - started)
        figures["memory/peak", None] = peak_memory(self.backbone.device)
        self.controller = self.controller.after(kl, len(rollouts))
        self.step += 1
        shown = []
        for batch in minibatches:
            shown += list(zip(batch.rollouts, batch.scores.tolist(), batch.kl().tolist(), strict=True))
        return RoundReport(figures, shown)

    @torch.no_grad()
    def _prepare(self, rollouts: list[Rollout]) -> Minibatch:
        """Everything about a minibatch that the updates will not change."""
        backbone, temperature = self.backbone, self.config.temperature
        layout = backbone.layout(
            [rollout.prompt_ids for rollout in rollouts], [rollout.completion.token_ids for rollout in rollouts]
        )
        trunk = backbone.trunk(layout)
        reference = backbone.log_likelihood(backbone.upper(trunk, layout, None), layout, temperature)
        old = backbone.logprobs(backbone.hidden(layout, self.policy), layout, temperature)
        cut_off = torch.tensor([rollout.completion.finish_reason != "eos" for rollout in rollouts])
        scores = self.reward_model.score(trunk, layout).clamp(-self.config.score_clip, self.config.score_clip)
        scores = scores - self.config.missing_eos_penalty * cut_off.to(scores)
        values = self._values(trunk, layout) if self.uses_value else torch.zeros_like(old.chosen)
        return Minibatch(rollouts, layout, trunk, old.chosen, reference, values, scores, old.entropy)

    def _values(self, trunk: Tensor, layout: TokenLayout) -> Tensor:
        """(B, R) the value before each response token; differentiable."""
        hidden = self.backbone.upper(trunk, layout, self.value_adapter)
        return self.value_head(hidden[layout.predictors]) * layout.mask

    def _estimate_advantages(self, minibatches: list[Minibatch]) -> None:
        """Set every token's advantage, and for PPO its return."""
        if self.uses_value:
            self._advantages_from_values(minibatches)
        else:
            self._advantages_from_returns(minibatches)

    def _advantages_from_values(self, minibatches: list[Minibatch]) -> None:
        """Advantages by GAE, whitened once over all response tokens of the round."""
        config = self.config
        for batch in minibatches:
            rewards = maths.token_rewards(batch.scores, batch.old, batch.reference, batch.mask, self.controller.beta)
            batch.advantages, batch.returns = maths.gae(rewards, batch.values, batch.mask, config.gamma, config.lam)
        everything = torch.cat([batch.advantages[batch.mask] for batch in minibatches])
        white = maths.whiten(everything, torch.ones_like(everything, dtype=torch.bool))
        for batch, part in zip(minibatches, white.split([int(b.mask.sum()) for b in minibatches]), strict=True):
            batch.advantages = self.backbone.spread(part, batch.layout)

    def _advantages_from_returns(self, minibatches: list[Minibatch]) -> None:
        """One advantage a response: its score less the KL penalty, against the round or against its prompt's others."""
        beta = self.controller.beta
        returns = torch.cat([b.scores - beta * (maths.k1(b.old, b.reference) * b.mask).sum(1) for b in minibatches])
        match self.config.advantage:
            case Advantage.REINFORCE:
                advantages = maths.leave_one_out(returns[None])[0]
            case Advantage.RLOO:
                advantages = maths.leave_one_out(returns.view(-1, self.config.answers)).flatten()
            case _:
                advantages = maths.group_normalised(returns.view(-1, self.config.answers)).flatten()
        for batch, part in zip(minibatches, advantages.split(self.config.minibatch), strict=True):
            batch.advantages = part[:, None] * batch.mask

    def _update(self, minibatches: list[Minibatch]) -> Figures:
        """The epochs of a round; returns the mean figures of its updates."""
        config = self.config
        learn_policy = self.step >= config.warmup or not self.uses_value
        sums: dict[str, float] = {}
        count = policy_count = 0
        stopped = False
        for epoch in range(config.epochs):
            order = list(range(len(minibatches)))
            if epoch:
                random.Random(f"{self.seed} {self.step} {epoch}").shuffle(order)
            for place in order:
                batch = minibatches[place]
                found = self._update_value(batch) if self.uses_value else {}
                if learn_policy and not stopped:
                    policy = self._update_policy(batch, first=count == 0)
                    stopped = policy["policy/approxkl"] > config.max_update_kl
                    policy_count += 1
                    found |= policy
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
                count += 1
        figures: Figures = {}
        for name, total in sums.items():
            of_policy = name.startswith(("policy/", "loss/policy"))
            figures[name, None] = total / max(1, policy_count if of_policy else count)
        figures["policy/stopped_early", None] = float(stopped)
        return figures

    def _update_policy(self, batch: Minibatch, *, first: bool) -> dict[str, float]:
        hidden = self.backbone.hidden(batch.layout, self.policy)
        new = self.backbone.log_likelihood(hidden, batch.layout, self.config.temperature)
        result = maths.policy_loss(new, batch.old, batch.advantages, batch.mask, self.config.clip)
        if first:
            self._check_ratio(result.ratio, batch.mask)
        self.policy_optimizer.zero_grad()
        result.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.policy_optimizer.step()
        return {
            "loss/policy": float(result.loss.detach()) if finite else 0.0,
            "policy/clipfrac": float(result.clip_fraction),
            "policy/approxkl": float(result.approximate_kl),
            "policy/grad_norm": float(norm) if finite else 0.0,
            "policy/skipped": float(not finite),
        }

    def _update_value(self, batch: Minibatch) -> dict[str, float]:
        values = self._values(batch.trunk, batch.layout)
        loss, share = maths.value_loss(values, batch.values, batch.returns, batch.mask, self.config.value_clip)
        self.value_optimizer.zero_grad()
        (self.config.value_coefficient * loss).backward()
        norm = nn.utils.clip_grad_norm_(self.value_parameters, self.config.max_grad_norm)
        if torch.isfinite(norm):
            self.value_optimizer.step()
        return {"loss/value": float(loss.detach()), "value/clipfrac": float(share)}

    def _check_ratio(self, ratio: Tensor, mask: Tensor) -> None:
        """Before the first update of a round the policy is the one that was recorded: every ratio is 1."""
        worst = float(((ratio - 1).abs() * mask).max())
        if not worst <= RATIO_TOLERANCE[self.backbone.dtype]:
            raise WorkbenchError(
                f"round {self.step}: before any update the probability ratio is off by {worst:.3g} instead of 0",
                "the old log-probabilities were computed differently: look at temperature, positions, padding or dtype",
            )

    def _roll_back(self, kl: float) -> Figures:
        """Undo to the last policy whose KL was in bounds, hold it on a shorter leash, and learn nothing this round."""
        self.rollbacks += 1
        if self.rollbacks > MOST_ROLLBACKS or not math.isfinite(kl):
            raise WorkbenchError(
                f"round {self.step}: the KL reached {kl:.1f} nats per response, {ROLLBACK_FACTOR:g} times its target, "
                f"for the {self.rollbacks}th time",
                "lower --learning-rate, or raise --beta; the versions published so far are untouched",
            )
        self.policy.load(self.last_good)
        self.policy_optimizer.state.clear()
        self.controller = maths.KlController(self.controller.beta * 2, self.controller.target, self.controller.horizon)
        return {("policy/rolled_back", None): 1.0}

    def _figures(self, minibatches: list[Minibatch], kl: float, updates: Figures) -> Figures:
        """The metrics of a round, overall and by language."""
        rows = []
        for batch in minibatches:
            k1 = (maths.k1(batch.old, batch.reference) * batch.mask).sum(1)
            entropy = (batch.entropy * batch.mask).sum(1) / batch.mask.sum(1)
            columns = zip(
                batch.rollouts, batch.scores.tolist(), batch.kl().tolist(), k1.tolist(), entropy.tolist(), strict=True
            )
            rows += [
                {
                    "language": rollout.prompt.language,
                    "objective/scores": score,
                    "objective/kl": k3,
                    "objective/kl_k1": k1_sum,
                    "objective/entropy": entropy_mean,
                    "objective/rlhf_reward": score - self.controller.beta * k1_sum,
                    "response/length": len(rollout.completion.token_ids),
                    "response/truncated": float(rollout.completion.finish_reason != "eos"),
                }
                for rollout, score, k3, k1_sum, entropy_mean in columns
            ]
        names = [name for name in rows[0] if name != "language"]
        figures: Figures = dict(updates)
        for language in [None, *sorted({str(row["language"]) for row in rows})]:
            chosen = [row for row in rows if language in (None, row["language"])]
            for name in names:
                figures[name, language] = sum(float(row[name]) for row in chosen) / len(chosen)
        figures["objective/kl", None] = kl
        figures["objective/kl_coef", None] = self.controller.beta
        if not self.uses_value:
            return figures
        values = torch.cat([batch.values[batch.mask] for batch in minibatches])
        returns = torch.cat([batch.returns[batch.mask] for batch in minibatches])
        explained = maths.explained_variance(values, returns, torch.ones_like(values, dtype=torch.bool))
        figures["value/explained_variance", None] = float(explained)
        return figures


def peak_memory(device: torch.device) -> float:
    """The most memory used so far, in bytes: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
