"""Proximal policy optimisation (Schulman et al. 2017) with a KL leash to the reference (Ziegler et al. 2019).

A round: sample with the policy, score with the reward, charge k1 per token, estimate advantages, and take clipped steps
on the policy. The learning rate follows how far a round should move the policy, so that the leash is used up in some
ten rounds. The batch is cut into minibatches once a round; what does not change during the round
(layouts, lower layers, reference and old log-probabilities) is computed once for each. Each round the sampler is held
to the policy (`trainer.algorithms.sampler_gap`). Where nothing but log-probabilities is needed, one minibatch is
enough for that: if the two differ by rounding alone, what the sampler recorded of the others stands for a pass.

The kin without a value model (REINFORCE, RLOO, GRPO) differ in one place: what an answer is compared with. With one
epoch the ratio is 1, and the clipped surrogate's gradient is `A grad log pi`, the plain policy gradient.

On several processes each takes its part of every minibatch; means are over all of them, so that what is learned does
not depend on how many there are.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from storage.errors import WorkbenchError
from storage.records import Prompt, Sampling
from trainer import heap
from trainer.algorithms import maths
from trainer.algorithms.advantages import Advantages
from trainer.algorithms.leash import ROLLBACK_FACTOR, Leash
from trainer.algorithms.rollouts import PromptSampler, Rollout, collect_rows, round_seed
from trainer.algorithms.rounds import Piece, laid_out, means, recorded_by_sampler, rows_of
from trainer.algorithms.sampler_gap import BOUNDS, SamplerGap
from trainer.algorithms.updates import adamw, take_step
from trainer.algorithms.values import Value, verdict
from trainer.learner import Figures, StepReport
from trainer.policy.backbone import Backbone, Comparison
from trainer.policy.full import Snapshot, Update
from trainer.policy.layout import TokenLayout
from trainer.policy_config import PpoConfig
from trainer.processes import Processes, concatenate
from trainer.reward.protocol import Reward

# How far the ratio may be from 1 before the first update: rounding only.
RATIO_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
MOST_ROLLBACKS = 3
# Rated answers that the value is fitted to before the first round.
MOST_RATED = 512


class Ppo:
    """A run of PPO or its kin, as a :class:`trainer.learner.Learner` whose steps are rounds.

    Args:
        start: what the version to go on from changes in the base model.
        reference: what the policy is held near, as a change in the base model; None is the base model itself.
        rated: answers that were rated, whose rewards the value is fitted to before the first round.
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
        reference: Snapshot | None = None,
        rated: Sequence[Rollout] = (),
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
        self.rows = rows_of(config, self.processes)
        self.prompts = PromptSampler(prompts, config.language_balance, seed)
        self.policy = backbone.new_policy(config, seed + 1)
        self.goes_on = start is not None
        if start is not None:
            self.policy.load(start)
        self.reference = self._frozen(reference)
        self.policy_optimizer = adamw([{"params": [*self.policy.parameters()], "lr": config.learning_rate}])
        self.last_good = backbone.new_policy(config, seed + 1)
        self.last_good.load_state_dict(self.policy.state_dict())
        self.last_good_optimizer = adamw([{"params": [*self.last_good.parameters()]}])  # holds moments, takes no step
        self.leash = Leash(config)
        self.advantages = Advantages(backbone, reward, config, seed, self.processes)
        self.rated = list(rated)[:MOST_RATED]
        self.sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)

    @property
    def value(self) -> Value | None:
        """What foretells the value of tokens; None where answers are compared with each other."""
        return self.advantages.value

    def _frozen(self, snapshot: Snapshot | None) -> Update | None:
        """A policy that stays as it is."""
        if snapshot is None:
            return None
        frozen = self.backbone.new_policy(self.config, 0)
        frozen.load(snapshot)
        return frozen.requires_grad_(False)

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
        minibatches, gap = self._minibatches(rollouts)
        pieces = [piece for minibatch in minibatches for piece in minibatch]
        kl = self.processes.sum(float(torch.cat([piece.kl() for piece in pieces]).sum())) / config.batch
        length = self.processes.sum(sum(piece.tokens for piece in pieces)) / config.batch
        self.leash.let_out(self.step, kl, length)
        if self.step == 0:
            self.advantages.learn_from_rated(self.rated, self._unsampled)
        self.advantages.estimate(pieces, self.leash.controller.beta)
        figures = self._figures(pieces)
        scored = time.perf_counter()
        if self.leash.holds(kl):
            self._remember()
            figures |= self._update(minibatches, length)
            self.leash.adapt(self.step, kl, figures.get(("policy/round_kl", None)))
        else:
            figures |= self._roll_back(kl)
        finished = time.perf_counter()

        figures |= {(name, None): value for name, value in gap.figures().items()}
        tokens = sum(piece.tokens for piece in pieces)
        figures["timing/rollout", None] = sampled - started
        figures["timing/score", None] = scored - sampled
        figures["timing/update", None] = finished - scored
        figures["throughput/tokens_per_second", None] = self.processes.sum(tokens) / (sampled - started)
        figures["memory/peak", None] = heap.peak(self.backbone.device)
        self.step += 1
        shown = self.processes.gather([row for piece in pieces for row in piece.shown()])
        return StepReport(figures, shown, {"reward": figures["objective/scores", None], "kl": kl})

    def result(self) -> Snapshot:
        """A copy of the policy as it is now."""
        return self.policy.snapshot()

    def remark(self) -> str | None:
        """What there is to say about a finished run."""
        return verdict(self.advantages.explained) if self.value else None

    def modules(self) -> dict[str, nn.Module]:
        parts = dict(self.value.parts() if self.value else {})
        return {"policy": self.policy, "last_good": self.last_good, **parts}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        own = {"policy_optimizer": self.policy_optimizer, "last_good_optimizer": self.last_good_optimizer}
        return own | dict(self.value.optimizers() if self.value else {})

    def state(self) -> dict[str, Any]:
        own = {"step": self.step, "rollbacks": self.rollbacks, "rounding": self.rounding}
        return own | {"leash": self.leash.state(), "explained": self.advantages.explained}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.rollbacks = state["step"], state["rollbacks"]
        self.rounding, self.advantages.explained = state["rounding"], state["explained"]
        self.leash.restore(state["leash"])

    def _remember(self) -> None:
        """Keep the policy, which is in bounds, and what its optimizer knows."""
        self.last_good.load_state_dict(self.policy.state_dict())
        self.last_good_optimizer.load_state_dict(copy.deepcopy(self.policy_optimizer.state_dict()))

    def _minibatches(self, rollouts: list) -> tuple[list[list[Piece]], SamplerGap]:
        """The answers cut into minibatches, and those into pieces, with everything that updates will not change; and
        how far the sampler is from the policy.

        Raises:
            WorkbenchError: the sampler is not the policy.
        """
        size, each = self.config.minibatch // self.config.accumulation // self.processes.count, self.config.accumulation
        cut = [(self.rows[at : at + size], rollouts[at : at + size]) for at in range(0, len(rollouts), size)]
        measured = [self._prepare(*one) for one in cut[-each:]]
        exact = self.value is not None and self.config.exact_kl  # which takes the policy's whole distributions
        recorded = not exact and self._gap(measured).alike(RATIO_TOLERANCE[self.backbone.dtype] / 2)
        pieces = [self._prepare(*one, recorded=recorded) for one in cut[:-each]] + measured
        gap = self._gap(measured if recorded else pieces)
        if self.rounding is None:
            self.rounding = gap.k3  # nothing is learned yet
        gap.check(self.step, self.config.max_sampler_gap or BOUNDS[self.backbone.dtype], self.rounding)
        return [pieces[start : start + each] for start in range(0, len(pieces), each)], gap

    @torch.no_grad()
    def _prepare(self, rows: list[int], rollouts: Sequence[Rollout], *, recorded: bool = False) -> Piece:
        """`recorded`: what the sampler recorded stands for the policy."""
        backbone, temperature = self.backbone, self.config.temperature
        layout = laid_out(backbone, rollouts)
        beneath = backbone.beneath(layout, self.policy)
        trunk = backbone.trunk(layout, beneath, self.policy.first_layer)
        base = backbone.upper(trunk, layout, None)
        reference = base if self.reference is None else backbone.over(beneath, layout, self.reference)
        sampler = recorded_by_sampler(backbone, rollouts, layout)
        if recorded:
            seen, before = (
                Comparison.recorded(sampler, backbone.log_likelihood(reference, layout, temperature)),
                base[:0],
            )
        else:
            policy = backbone.over(beneath, layout, self.policy)
            seen = backbone.compared(policy, reference, layout, temperature)
            before = policy[layout.before]
        piece = self._piece(rows, rollouts, layout, trunk, beneath, base, before, seen, sampler)
        if self.reference is not None:
            piece.unadapted = backbone.log_likelihood(base, layout, temperature)
        return piece

    @torch.no_grad()
    def _unsampled(self, rollouts: Sequence[Rollout]) -> Piece:
        """Answers that this policy did not sample, as if it had and were the reference: no KL is charged."""
        layout = laid_out(self.backbone, rollouts)
        trunk = self.backbone.trunk(layout)
        base = self.backbone.upper(trunk, layout, None)
        nothing = torch.zeros(layout.mask.shape, device=layout.mask.device)
        seen = Comparison(nothing, nothing, nothing, nothing)
        return self._piece([], rollouts, layout, trunk, trunk, base, trunk[:0], seen, nothing)

    def _piece(
        self,
        rows: list[int],
        rollouts: Sequence[Rollout],
        layout: TokenLayout,
        trunk: Tensor,
        beneath: Tensor,
        base: Tensor,
        hidden: Tensor,
        seen: Comparison,
        sampler: Tensor,
    ) -> Piece:
        """The piece, with what the reward says of its answers."""
        cut_off = torch.tensor([rollout.completion.finish_reason != "eos" for rollout in rollouts])
        said, readable = self.reward.score(rollouts, trunk, layout, base)
        scores = said.rewards.clamp(-self.config.score_clip, self.config.score_clip)
        scores = scores - self.config.missing_eos_penalty * cut_off.to(scores)
        states = self.value.states(trunk, readable, layout) if self.value else None
        return Piece(rows, list(rollouts), layout, trunk, beneath, hidden, seen, sampler, scores, said, states=states)

    def _gap(self, pieces: list[Piece]) -> SamplerGap:
        """How far the sampler of this round is from the policy."""
        return SamplerGap.between(*(self._everywhere(pieces, name) for name in ("sampler", "old", "plain")))

    @torch.no_grad()
    def _base_gap(self, asked: list[Prompt], seeds: list[int]) -> float:
        """The mean k3 of a sampler of the base model and of what the learner says of it: rounding, and nothing else.

        The first round of a run that goes on from a version cannot tell: part of an update may be lost there already.
        """
        backbone = self.backbone
        rollouts = collect_rows(backbone.decoder(), backbone.tokenizer, asked, self.sampling, seeds)
        sides: list[Tensor] = []
        for start in range(0, len(rollouts), self.config.minibatch):
            part = rollouts[start : start + self.config.minibatch]
            layout = laid_out(backbone, part)
            plain = backbone.log_likelihood(backbone.hidden(layout, None), layout, self.config.temperature)
            sides.append(torch.stack([recorded_by_sampler(backbone, part, layout)[layout.mask], plain[layout.mask]]))
        sampler, plain = (concatenate(self.processes, side) for side in torch.cat(sides, 1))
        return SamplerGap.between(sampler, plain, plain).k3

    def _everywhere(self, pieces: list[Piece], name: str) -> Tensor:
        """(n,) a field of all tokens of the round, from all processes."""
        return concatenate(self.processes, torch.cat([getattr(piece, name)[piece.mask] for piece in pieces]))

    def _update(self, minibatches: list[list[Piece]], length: float) -> Figures:
        """The epochs of a round; returns the mean figures of its updates. `length`: mean tokens of a response."""
        config = self.config
        learn_policy = self.step >= config.warmup or self.value is None
        rate = self.leash.learning_rate(self.step)
        self.policy_optimizer.param_groups[0]["lr"] = rate
        sums: dict[str, list[float]] = {}
        moving = learn_policy
        for epoch in range(config.epochs):
            order = list(range(len(minibatches)))
            if epoch:
                random.Random(f"{self.seed} {self.step} {epoch}").shuffle(order)
            for place in order:
                found = self.value.update(minibatches[place], self.processes) if self.value else {}
                if moving:
                    policy = self._update_policy(minibatches[place], first=not sums)
                    moving = not policy["policy/stopped_early"]
                    found |= policy
                for name, value in found.items():
                    sums.setdefault(name, []).append(value)
        figures: Figures = {(name, None): sum(values) / len(values) for name, values in sums.items()}
        figures["policy/stopped_early", None] = float(learn_policy and not moving)
        if learn_policy:
            figures["policy/learning_rate", None] = rate
            figures["policy/round_kl", None] = self._moved(minibatches[-1]) * length
        return figures

    @torch.no_grad()
    def _moved(self, minibatch: list[Piece]) -> float:
        """How far the round has moved the policy, nats per token, on one minibatch after all its updates.

        It is the exact KL(new || old) at the places of its answers. An estimate from their tokens would be far too
        high: these very tokens were made likelier, and a rare one that was drawn stands for many that were not.
        """
        total = 0.0
        for piece in minibatch:
            hidden = self.backbone.over(piece.beneath, piece.layout, self.policy)
            total += float(self.backbone.divergence(hidden, piece.hidden, piece.layout, self.config.temperature).sum())
        return self.processes.sum(total) / self.processes.sum(sum(piece.tokens for piece in minibatch))

    def _update_policy(self, minibatch: list[Piece], *, first: bool) -> dict[str, float]:
        """One step on the policy; returns its figures, means over the minibatch's tokens."""
        self.policy_optimizer.zero_grad()
        sums = torch.zeros(3, device=self.backbone.device)
        tokens = self.processes.sum(sum(piece.tokens for piece in minibatch))
        for piece in minibatch:
            hidden = self.backbone.over(piece.beneath, piece.layout, self.policy)
            new = self.backbone.log_likelihood(hidden, piece.layout, self.config.temperature)
            result = maths.policy_loss(new, piece.old, piece.advantages, piece.mask, self.config.clip)
            if first:
                self._check_ratio(result.ratio, piece.mask)
            share = piece.tokens / tokens
            (result.loss * share).backward()
            sums += torch.stack([result.loss.detach(), result.clip_fraction, result.approximate_kl]) * share
        names = "loss/policy", "policy/clipfrac", "policy/approxkl"
        figures = dict(zip(names, self.processes.add(sums).tolist(), strict=True))
        if figures["policy/approxkl"] > self.config.max_update_kl:  # it has moved far enough: this step is not taken
            return figures | {"policy/stopped_early": 1.0}
        norm, taken = take_step(self.policy_optimizer, self.config.max_grad_norm, self.processes)
        if not taken:
            figures["loss/policy"] = math.nan
        return {**figures, "policy/grad_norm": norm, "policy/skipped": float(not taken), "policy/stopped_early": 0.0}

    def _check_ratio(self, ratio: Tensor, mask: Tensor) -> None:
        """Before the first update of a round the policy is the one that was recorded: every ratio is 1."""
        worst = max(self.processes.gather([float(((ratio - 1).abs() * mask).max())]))
        if not worst <= RATIO_TOLERANCE[self.backbone.dtype]:
            raise WorkbenchError(
                f"round {self.step}: before any update the probability ratio is off by {worst:.3g} instead of 0",
                "the old log-probabilities were computed differently: look at temperature, positions, padding or dtype",
            )

    def _roll_back(self, kl: float) -> Figures:
        """Undo to the last policy whose KL was in bounds, and learn nothing this round; go on at half the rate and on a
        shorter leash."""
        self.rollbacks += 1
        if self.rollbacks > MOST_ROLLBACKS or not math.isfinite(kl):
            raise WorkbenchError(
                f"round {self.step}: the KL reached {kl:.1f} nats per response, {ROLLBACK_FACTOR:g} times its target "
                f"past where the run began, for the {self.rollbacks}th time",
                "lower --learning-rate, or raise --beta; the versions published so far are untouched",
            )
        self.policy.load_state_dict(self.last_good.state_dict())
        self.policy_optimizer.load_state_dict(copy.deepcopy(self.last_good_optimizer.state_dict()))
        self.leash.shorten()
        return {("policy/rolled_back", None): 1.0}

    def _figures(self, pieces: list[Piece]) -> Figures:
        """The metrics of a round, overall and by language."""
        beta = self.leash.controller.beta
        figures = means(self.processes.gather([fact for piece in pieces for fact in piece.facts(beta)]))
        figures["objective/kl_coef", None] = beta
        figures["objective/kl_target", None] = self.leash.target
        if self.value:
            explained = self.advantages.explained[-1]
            figures["value/explained_variance", None] = math.nan if explained is None else explained
            missed = sum(float(((one.values - one.returns).square() * one.mask).sum()) for one in pieces)
            figures["loss/value", None] = self.processes.sum(missed) / self.processes.sum(
                2 * sum(one.tokens for one in pieces)
            )
        for name, language in list(figures):
            if name == "objective/kl":
                length = figures["response/length", language]
                figures["objective/kl_per_token", language] = figures[name, language] / length
        return figures
