"""Proximal policy optimisation (Schulman et al. 2017) with a KL leash to the reference (Ziegler et al. 2019).

A round: sample with the policy, score with the reward, charge k1 per token, estimate advantages, and take clipped steps
on the policy and the value. The batch is cut into minibatches once a round; what does not change during the round
(layouts, lower layers, reference and old log-probabilities) is computed once for each. Each round the sampler is held
to the policy (`trainer.algorithms.sampler_gap`).

The kin without a value model (REINFORCE, RLOO, GRPO) differ in one place: what an answer is compared with. With one
epoch the ratio is 1, and the clipped surrogate's gradient is `A grad log pi`, the plain policy gradient.

On several processes each takes its part of every minibatch; means are over all of them, so that what is learned does
not depend on how many there are.
"""

from __future__ import annotations

import copy
import math
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from storage.errors import UsageError, WorkbenchError
from storage.records import Prompt, Sampling
from trainer import heap
from trainer.algorithms import maths
from trainer.algorithms.rollouts import PromptSampler, collect_rows, round_seed
from trainer.algorithms.rounds import Piece, means
from trainer.algorithms.sampler_gap import BOUNDS, SamplerGap, importance
from trainer.algorithms.updates import take_step
from trainer.config import Advantage, PpoConfig
from trainer.learner import Figures, StepReport
from trainer.policy.backbone import Backbone, ScalarHead
from trainer.policy.full import Snapshot
from trainer.processes import Processes, concatenate
from trainer.reward.model import RewardModel
from trainer.reward.protocol import Reward

# How far the ratio may be from 1 before the first update: rounding only.
RATIO_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
# A round whose KL is past this many times the target is undone.
ROLLBACK_FACTOR = 3.0
MOST_ROLLBACKS = 3


class Ppo:
    """A run of PPO or its kin, as a :class:`trainer.learner.Learner` whose steps are rounds.

    Args:
        start: what the version to go on from changes in the base model.
        processes: those that work on this together; by default this one alone.

    Raises:
        UsageError: the batch cannot be split among the processes, or `start` does not fit the configuration.
    """

    stage = "policy"

    def __init__(
        self,
        backbone: Backbone,
        reward: Reward,
        prompts: Sequence[Prompt],
        config: PpoConfig,
        seed: int,
        start: Snapshot | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.backbone = backbone
        self.reward = reward
        self.config = config
        self.seed = seed
        self.processes = processes or Processes()
        self.step = 0
        self.steps = config.steps
        self.rollbacks = 0
        self.rounding: float | None = None  # k3 of sampler and policy where both are the base model, nats/token
        self.uses_value = config.advantage == Advantage.GAE
        self.rows = _rows_of(config, self.processes)
        self.prompts = PromptSampler(prompts, config.language_balance, seed)
        self.policy = backbone.new_policy(config, seed + 1)
        self.goes_on = start is not None
        if start is not None:
            self.policy.load(start)
        self.value_adapter = backbone.new_adapter(config, seed + 2, upper=True) if config.value_adapter else None
        taught = reward.adapter if isinstance(reward, RewardModel) else None
        if self.value_adapter and taught and taught.rank == config.rank:
            self.value_adapter.load(taught.snapshot())  # what tells a good answer tells a promising beginning
        self.value_head = ScalarHead(backbone.hidden_size).to(backbone.device)
        self.policy_optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=config.learning_rate, eps=1e-5, weight_decay=0.0, fused=True
        )
        value_parameters = [*self.value_head.parameters()]
        if self.value_adapter:
            value_parameters += self.value_adapter.parameters()
        self.value_optimizer = torch.optim.AdamW(
            value_parameters, lr=config.value_learning_rate, eps=1e-5, weight_decay=0.0, fused=True
        )
        horizon = config.kl_horizon_batches * config.batch
        self.controller = maths.KlController(config.beta, config.kl_target, horizon)
        self.sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
        self.last_good = copy.deepcopy(self.policy)

    def advance(self) -> StepReport:
        """One round of rollouts and updates.

        Raises:
            WorkbenchError: the KL exploded again and again, or sampling and training disagree about probabilities.
        """
        config = self.config
        started = time.perf_counter()
        drawn = self.prompts.draw(self.step, config.batch // config.answers)
        first_seed = round_seed(self.seed, self.step)
        asked = [drawn[row // config.answers] for row in self.rows]
        seeds = [first_seed + row for row in self.rows]
        if self.rounding is None and self.goes_on:
            self.rounding = self._base_gap(asked, seeds)
        decoder = self.backbone.decoder(self.policy.snapshot())
        rollouts = collect_rows(decoder, self.backbone.tokenizer, asked, self.sampling, seeds)
        heap.release()  # the sampler's weights
        sampled = time.perf_counter()
        minibatches = self._minibatches(rollouts)
        pieces = [piece for minibatch in minibatches for piece in minibatch]
        kl = self.processes.sum(float(torch.cat([piece.kl() for piece in pieces]).sum())) / config.batch
        gap = self._sampler_gap(pieces)
        self._estimate_advantages(pieces)
        scored = time.perf_counter()
        if kl <= ROLLBACK_FACTOR * config.kl_target:
            self.last_good.load_state_dict(self.policy.state_dict())
            updates = self._update(minibatches)
        else:
            updates = self._roll_back(kl)
        finished = time.perf_counter()

        figures = updates | self._figures(pieces)
        figures |= {(name, None): value for name, value in gap.figures().items()}
        tokens = sum(piece.tokens for piece in pieces)
        figures["timing/rollout", None] = sampled - started
        figures["timing/score", None] = scored - sampled
        figures["timing/update", None] = finished - scored
        figures["throughput/tokens_per_second", None] = self.processes.sum(tokens) / (sampled - started)
        figures["memory/peak", None] = peak_memory(self.backbone.device)
        self.controller = self.controller.after(kl, config.batch)
        self.step += 1
        shown = self.processes.gather([row for piece in pieces for row in piece.shown()])
        return StepReport(figures, shown, {"reward": figures["objective/scores", None], "kl": kl})

    def result(self) -> Snapshot:
        """A copy of the policy as it is now."""
        return self.policy.snapshot()

    def modules(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"policy": self.policy, "last_good": self.last_good}
        found["value_head"] = self.value_head
        if self.value_adapter:
            found["value_adapter"] = self.value_adapter
        return found

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"policy_optimizer": self.policy_optimizer, "value_optimizer": self.value_optimizer}

    def state(self) -> dict[str, Any]:
        own = {"step": self.step, "rollbacks": self.rollbacks, "rounding": self.rounding}
        return own | {"controller": asdict(self.controller)}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.rollbacks = state["step"], state["rollbacks"]
        self.rounding = state.get("rounding", state.get("first_gap"))  # as earlier versions called it
        self.controller = maths.KlController(**state["controller"])

    def _minibatches(self, rollouts: list) -> list[list[Piece]]:
        """The answers cut into minibatches, and those into pieces, with everything that updates will not change."""
        size = self.config.minibatch // self.config.accumulation // self.processes.count
        pieces = [
            self._prepare(self.rows[start : start + size], rollouts[start : start + size])
            for start in range(0, len(rollouts), size)
        ]
        each = self.config.accumulation
        return [pieces[start : start + each] for start in range(0, len(pieces), each)]

    @torch.no_grad()
    def _prepare(self, rows: list[int], rollouts: list) -> Piece:
        backbone, temperature = self.backbone, self.config.temperature
        layout = backbone.layout(
            [rollout.prompt_ids for rollout in rollouts], [rollout.completion.token_ids for rollout in rollouts]
        )
        beneath = backbone.beneath(layout, self.policy)
        trunk = backbone.trunk(layout, beneath, self.policy.first_layer)
        base = backbone.upper(trunk, layout, None)
        reference = backbone.log_likelihood(base, layout, temperature)
        old = backbone.logprobs(backbone.over(beneath, layout, self.policy), layout, temperature)
        recorded = torch.tensor([value for rollout in rollouts for value in rollout.completion.logprobs])
        sampler = backbone.spread(recorded.to(reference), layout)
        cut_off = torch.tensor([rollout.completion.finish_reason != "eos" for rollout in rollouts])
        said, hidden = self.reward.score(rollouts, trunk, layout, base)
        scores = said.rewards.clamp(-self.config.score_clip, self.config.score_clip)
        scores = scores - self.config.missing_eos_penalty * cut_off.to(scores)
        states = None if self.value_adapter else hidden[layout.predictors]
        values = torch.zeros_like(reference)
        piece = Piece(
            rows, rollouts, layout, trunk, beneath, old.chosen, sampler, reference, states, values, scores, said,
            old.entropy,
        )  # fmt: skip
        if self.uses_value:
            piece.values = self._values(piece)
        return piece

    def _values(self, piece: Piece) -> Tensor:
        """(B, R) the value before each response token; differentiable."""
        states = piece.states
        if states is None:
            hidden = self.backbone.upper(piece.trunk, piece.layout, self.value_adapter)
            states = hidden[piece.layout.predictors]
        return self.value_head(states) * piece.mask

    def _estimate_advantages(self, pieces: list[Piece]) -> None:
        """Set every token's advantage, and for PPO its return."""
        if self.uses_value:
            self._advantages_from_values(pieces)
        else:
            self._advantages_from_returns(pieces)
        for piece in pieces:
            piece.advantages = piece.advantages * importance(piece.old, piece.sampler, self.config.importance_cap)

    def _sampler_gap(self, pieces: list[Piece]) -> SamplerGap:
        """How far the sampler of this round is from the policy. Raises WorkbenchError when it is another one."""
        gap = SamplerGap.between(*(self._everywhere(pieces, name) for name in ("sampler", "old", "reference")))
        if self.rounding is None:
            self.rounding = gap.k3  # nothing is learned yet
        gap.check(self.step, self.config.max_sampler_gap or BOUNDS[self.backbone.dtype], self.rounding)
        return gap

    def _base_gap(self, asked: list[Prompt], seeds: list[int]) -> float:
        """The mean k3 of a sampler of the base model and of what the learner says of it: rounding, and nothing else.

        The first round of a run that goes on from a version cannot tell: part of an update may be lost there already.
        """
        decoder = self.backbone.decoder()
        rollouts = collect_rows(decoder, self.backbone.tokenizer, asked, self.sampling, seeds)
        pieces = [piece for minibatch in self._minibatches(rollouts) for piece in minibatch]
        sampler, reference = (self._everywhere(pieces, name) for name in ("sampler", "reference"))
        return SamplerGap.between(sampler, reference, reference).k3

    def _everywhere(self, pieces: list[Piece], name: str) -> Tensor:
        """(n,) a field of all tokens of the round, from all processes."""
        return concatenate(self.processes, torch.cat([getattr(piece, name)[piece.mask] for piece in pieces]))

    def _advantages_from_values(self, pieces: list[Piece]) -> None:
        """Advantages by GAE, whitened once over all response tokens of the round."""
        config = self.config
        for piece in pieces:
            rewards = maths.token_rewards(piece.scores, piece.old, piece.reference, piece.mask, self.controller.beta)
            piece.advantages, piece.returns = maths.gae(rewards, piece.values, piece.mask, config.gamma, config.lam)
        mine = torch.cat([piece.advantages[piece.mask] for piece in pieces])
        white = maths.whiten_like(mine, concatenate(self.processes, mine))
        for piece, part in zip(pieces, white.split([piece.tokens for piece in pieces]), strict=True):
            piece.advantages = self.backbone.spread(part, piece.layout)

    def _advantages_from_returns(self, pieces: list[Piece]) -> None:
        """One advantage a response: its score less the KL penalty, against the round or against its prompt's others."""
        beta, answers = self.controller.beta, self.config.answers
        mine = torch.cat([piece.scores - beta * piece.k1() for piece in pieces])
        returns = torch.empty(self.config.batch, dtype=mine.dtype, device=mine.device)
        returns[torch.tensor(self.processes.gather(self.rows))] = concatenate(self.processes, mine)
        match self.config.advantage:
            case Advantage.REINFORCE:
                advantages = maths.leave_one_out(returns[None])[0]
            case Advantage.RLOO:
                advantages = maths.leave_one_out(returns.view(-1, answers)).flatten()
            case _:
                advantages = maths.group_normalised(returns.view(-1, answers)).flatten()
        for piece in pieces:
            piece.advantages = advantages[torch.tensor(piece.rows)][:, None] * piece.mask

    def _update(self, minibatches: list[list[Piece]]) -> Figures:
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
                minibatch = minibatches[place]
                found = self._update_value(minibatch) if self.uses_value else {}
                if learn_policy and not stopped:
                    policy = self._update_policy(minibatch, first=count == 0)
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

    def _update_policy(self, minibatch: list[Piece], *, first: bool) -> dict[str, float]:
        """One step on the policy; returns its figures, means over the minibatch's tokens."""
        self.policy_optimizer.zero_grad()
        sums = {"loss/policy": 0.0, "policy/clipfrac": 0.0, "policy/approxkl": 0.0}
        tokens = self.processes.sum(sum(piece.tokens for piece in minibatch))
        for piece in minibatch:
            hidden = self.backbone.over(piece.beneath, piece.layout, self.policy)
            new = self.backbone.log_likelihood(hidden, piece.layout, self.config.temperature)
            result = maths.policy_loss(new, piece.old, piece.advantages, piece.mask, self.config.clip)
            if first:
                self._check_ratio(result.ratio, piece.mask)
            share = piece.tokens / tokens
            (result.loss * share).backward()
            sums["loss/policy"] += float(result.loss.detach()) * share
            sums["policy/clipfrac"] += float(result.clip_fraction) * share
            sums["policy/approxkl"] += float(result.approximate_kl) * share
        norm, taken = take_step(self.policy_optimizer, self.config.max_grad_norm, self.processes)
        figures = {name: self.processes.sum(value) for name, value in sums.items()}
        if not taken:
            figures["loss/policy"] = math.nan
        return {**figures, "policy/grad_norm": norm, "policy/skipped": float(not taken)}

    def _update_value(self, minibatch: list[Piece]) -> dict[str, float]:
        """One step on the value adapter and head; returns its figures, means over the minibatch's tokens."""
        config = self.config
        self.value_optimizer.zero_grad()
        sums = {"loss/value": 0.0, "value/clipfrac": 0.0}
        tokens = self.processes.sum(sum(piece.tokens for piece in minibatch))
        for piece in minibatch:
            values = self._values(piece)
            loss, clipped = maths.value_loss(values, piece.values, piece.returns, piece.mask, config.value_clip)
            share = piece.tokens / tokens
            (config.value_coefficient * loss * share).backward()
            sums["loss/value"] += float(loss.detach()) * share
            sums["value/clipfrac"] += float(clipped) * share
        take_step(self.value_optimizer, config.max_grad_norm, self.processes)
        return {name: self.processes.sum(value) for name, value in sums.items()}

    def _check_ratio(self, ratio: Tensor, mask: Tensor) -> None:
        """Before the first update of a round the policy is the one that was recorded: every ratio is 1."""
        worst = max(self.processes.gather([float(((ratio - 1).abs() * mask).max())]))
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
        self.policy.load_state_dict(self.last_good.state_dict())
        self.policy_optimizer.state.clear()
        self.controller = maths.KlController(self.controller.beta * 2, self.controller.target, self.controller.horizon)
        return {("policy/rolled_back", None): 1.0}

    def _figures(self, pieces: list[Piece]) -> Figures:
        """The metrics of a round, overall and by language."""
        beta = self.controller.beta
        figures = means(self.processes.gather([fact for piece in pieces for fact in piece.facts(beta)]))
        figures["objective/kl_coef", None] = beta
        if self.uses_value:
            values = concatenate(self.processes, torch.cat([piece.values[piece.mask] for piece in pieces]))
            returns = concatenate(self.processes, torch.cat([piece.returns[piece.mask] for piece in pieces]))
            explained = maths.explained_variance(values, returns, torch.ones_like(values, dtype=torch.bool))
            figures["value/explained_variance", None] = float(explained)
        return figures


def _rows_of(config: PpoConfig, processes: Processes) -> list[int]:
    """Which rows of a round's batch are this process's: its part of every minibatch."""
    if config.minibatch // config.accumulation % processes.count:
        raise UsageError(
            f"minibatch {config.minibatch} / accumulation {config.accumulation} cannot be shared by {processes.count}",
            f"choose a --minibatch that {processes.count * config.accumulation} divides, or launch fewer processes",
        )
    size = config.minibatch // config.accumulation
    rows = list(range(config.batch))
    return [row for start in range(0, config.batch, size) for row in processes.part(rows[start : start + size])]


def peak_memory(device: torch.device) -> float:
    """The most memory used so far, in bytes: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
