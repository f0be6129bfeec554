"""The gate: what a candidate must show before it is published.

Candidate and parent answer the same held-out prompts from the same seeds; the reward gain is taken prompt by prompt,
from a judge that shares no prompt with the reward that was optimised. Where nothing judges answers (supervised
fine-tuning on demonstrations alone), the loss on held-out answers decides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats

from storage.records import Prompt, Sampling
from storage.wording import counted
from trainer.algorithms import maths
from trainer.algorithms.rollouts import Rollout
from trainer.config import FEWEST_HELD_OUT, Control, GateConfig
from trainer.evaluation.intervals import Interval, mean_interval, widened
from trainer.evaluation.judging import Judge
from trainer.evaluation.matched import Matched
from trainer.evaluation.seen import Side, answer, at_equal_length, facts, matched, rests_on, shown
from trainer.evaluation.watch import WatchReport
from trainer.examples import fingerprint
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot
from trainer.reward.function import described
from trainer.reward.mixture import Mixture, model_of

Verdict = dict[str, Any]
# Where the configuration leaves it open: few prompts are answered more often, for what is told by prompt is noisy.
ANSWERS_IN_ALL, FEWEST_ANSWERS, MOST_ANSWERS = 160, 2, 12
GOAL = "judged by the function that was optimised: it is the goal itself"
BLIND_PAIRS = "rate blind pairs of both versions in Review, and publish by hand"


@dataclass(frozen=True)
class Gain:
    """A gain in the judge's reward, and what could explain it.

    Attributes:
        total: by prompt; its interval holds what the judge does not know as well.
        floor: what the gain exceeds with 95%: the lower end of the 90% interval, since only one side is asked about.
        by_language: their intervals, together, are wrong about a language as often as one is.
        unknown: half the width that the judge's own uncertainty has by itself.
        matched: with finishing taken out.
        rests_on: finishing, length, or nothing.
    """

    total: Interval
    floor: float
    by_language: dict[str, Interval]
    unknown: float
    matched: Matched
    rests_on: str


@dataclass(frozen=True)
class GateReport:
    """What was measured, and the verdict of each gate as `{gate, passed, value, bound, detail}`.

    Attributes:
        kl: nats per response to the base model; None without held-out prompts.
        before, after: what parent and candidate answered.
        measured: None where nothing judges answers.
        loss_gain: how many nats per token the loss on held-out answers fell; None for methods that have none.
        seen: what the over-optimisation watch saw; None where nothing watched.
        penalty: what the score of an answer that was cut off lost in training.
    """

    gates: list[Verdict]
    kl: float | None
    before: Side
    after: Side
    answers: int
    measured: Gain | None = None
    loss_gain: Interval | None = None
    seen: WatchReport | None = None
    judge: Judge | None = None
    control: Control = Control.NONE
    penalty: float = 0.0

    @property
    def passed(self) -> bool:
        return all(gate["passed"] for gate in self.gates)

    @property
    def gain(self) -> Interval | None:
        return self.measured.total if self.measured else None

    @property
    def held_out_prompts(self) -> int:
        return len(self.after.rollouts) // self.answers

    def _gain_by_part(self) -> dict[str, dict[str, Any]]:
        """What each part of a mixed reward gained, before its weight, by prompt."""
        if self.before.scores is None or self.after.scores is None:
            return {}
        found = {}
        for name, values in self.after.scores.parts.items():
            sides = (_mean_by_prompt(side.tolist(), self.answers) for side in (self.before.scores.parts[name], values))
            gain = mean_interval([new - old for old, new in zip(*sides, strict=True)])
            low, high = gain.bounds or (None, None)
            found[name] = {"mean": gain.mean, "low": low, "high": high, "n": gain.n}
        return found

    def metrics(self) -> dict[str, Any]:
        """The figures to keep with the version; one that cannot be told is None, with its reason in `reasons`."""
        figures: dict[str, Any] = {"kl": self.kl, "held_out_prompts": self.held_out_prompts}
        told: dict[str, Interval | None] = {}
        reasons: dict[str, str] = {}
        if self.kl is None:
            reasons["kl"] = "no held-out prompts"
        if self.measured is not None:
            gain = self.measured
            told["reward_gain_interval"] = gain.total
            figures |= {
                "reward": _mean(self.after.rewards),
                "parent_reward": _mean(self.before.rewards),
                "reward_gain": gain.total.mean,
                "reward_gain_interval": gain.total.bounds,
                "reward_gain_floor": gain.floor if math.isfinite(gain.floor) else None,
                "reward_gain_unknown": gain.unknown,
                "reward_gain_by_language": {
                    language: {"mean": one.mean, "low": low, "high": high, "n": one.n}
                    for language, one in gain.by_language.items()
                    for low, high in [one.bounds or (None, None)]
                },
                "reward_gain_matched": gain.matched.mean,
                "reward_gain_matched_interval": gain.matched.bounds,
                "reward_gain_matched_reason": gain.matched.reason,
                "rests_on": gain.rests_on,
            }
        if self.judge is not None and isinstance(self.judge.reward, Mixture):
            figures["reward_functions"] = described(self.judge.reward.functions)
            figures["reward_gain_by_part"] = self._gain_by_part()
        if self.judge is not None:
            agreed = self.judge.agreement
            figures |= {"judge_agreement": agreed.mean if agreed else None}
            figures |= {"judge_agreement_interval": agreed.bounds if agreed else None}
            told["judge_agreement_interval"] = agreed
            if agreed is None:
                reasons["judge_agreement"] = self.judge.lacks or (GOAL if self.judge.is_goal else "not measured")
        if self.loss_gain is not None:
            told["loss_gain_interval"] = self.loss_gain
            interval = self.loss_gain.bounds
            figures |= {"loss_gain": self.loss_gain.mean, "loss_gain_interval": interval, "loss_n": self.loss_gain.n}
        if self.seen is not None:
            watched = self.seen.agreement
            told["human_agreement_interval"] = watched
            figures["human_agreement"] = watched.mean if watched else None
            figures["human_agreement_interval"] = watched.bounds if watched else None
            if watched is None:
                reasons["human_agreement"] = self.seen.reason
        if self.after.rollouts:
            figures |= facts(self.before, self.after)
            figures["answers"] = shown(self.before, self.after, self.answers)
        figures |= {"missing_eos_penalty": self.penalty, "control": _control_word(self.control)}
        reasons |= {name: one.reason for name, one in told.items() if one is not None and not one.bounded}
        return figures | ({"reasons": reasons} if reasons else {})


def in_turns(held_out: Iterable[Prompt]) -> list[Prompt]:
    """The prompts in a fixed order, one of each language in turn: of the first few no language is missing."""
    seen: Counter[str] = Counter()
    places = {}
    for prompt in sorted(held_out, key=lambda prompt: fingerprint(prompt.id)):
        places[prompt.id] = seen[prompt.language], prompt
        seen[prompt.language] += 1
    return [prompt for _, prompt in sorted(places.values(), key=lambda one: one[0])]


def judge(
    backbone: Backbone,
    jury: Judge | None,
    candidate: Snapshot,
    parent: Snapshot | None,
    held_out: Sequence[Prompt],
    config: GateConfig,
    sampling: Sampling,
    loss_gain: Interval | None = None,
    seen: WatchReport | None = None,
    *,
    control: Control = Control.NONE,
    penalty: float = 0.0,
    check: Callable[[], None] = lambda: None,
) -> GateReport:
    """Measure a candidate against its parent on held-out prompts.

    Args:
        jury: what judges answers, if anything does.
        parent: what the version that the candidate goes on from changes; None for the base model itself.
        loss_gain: of methods that imitate: it decides then, and the reward must only not fall.
        seen: what the over-optimisation watch saw of the candidate.
        control: a control never passes, whatever it gains.
        penalty: what an answer that was cut off cost in training; told, not judged.
        check: asked before each batch of answers; may raise to stop.
    """
    prompts = in_turns(held_out)[: config.prompts]
    answers = config.answers or min(MOST_ANSWERS, max(FEWEST_ANSWERS, ANSWERS_IN_ALL // max(1, len(prompts))))

    def side(version: Snapshot | None) -> Side:
        if not prompts:
            return Side([], None)
        found = answer(backbone.decoder(version), backbone, prompts, answers, sampling, check)
        return Side(found, jury.reward.rate(found) if jury else None)

    before, after = side(parent), side(candidate)
    kl = kl_to_reference(backbone, after.rollouts, sampling.temperature) if prompts else None
    gates: list[Verdict] = []
    measured = None
    if len(prompts) < FEWEST_HELD_OUT and loss_gain is None:
        gates.append(_too_few_prompts(len(prompts)))
    if jury is not None and prompts:
        measured = measure(jury, before, after, answers)
        if loss_gain is None:
            gates.append(_gain_gate("reward gain", measured, config.min_gain))
            gates.append(_judge_gate(jury))
        else:
            gates.append(_no_loss_gate(measured.total))
        gates.append(_language_gate(measured.by_language))
        if not jury.is_goal:  # which needs no ratings, so that nothing is unlike them
            gates.append(_support_gate(before, after, config.max_outside))
    if loss_gain is not None:
        words = f"nats a token less loss over {counted(loss_gain.n, 'held-out prompt')}"
        passed = bool(loss_gain.low > config.min_gain)
        detail = f"{loss_gain} {words}; the lower end must pass {config.min_gain:g}"
        gates.append(_verdict("held-out loss", passed, loss_gain.mean, config.min_gain, detail))
    if seen is not None and seen.agreement is not None:
        detail = (
            f"the policy's shift agrees with held-out ratings by {seen.agreement} (rank correlation over "
            f"{counted(seen.rows, 'answer')} to {counted(seen.agreement.n, 'prompt')}); the upper end must not be "
            "below 0"
        )
        gates.append(_verdict("human rows", not seen.against, seen.agreement.mean, 0.0, detail))
    numbers = [kl] if kl is not None else []
    numbers += [measured.total.mean] if measured is not None else []
    finite = candidate.is_finite() and all(math.isfinite(number) for number in numbers)
    if kl is not None:
        detail = f"{kl:.2f} nats per response to the base model; at most {config.max_kl:g}"
        gates.append(_verdict("KL bound", bool(kl <= config.max_kl), kl, config.max_kl, detail))
    detail = "weights, rewards and KL are finite" if finite else "a weight, a reward or the KL is not finite"
    gates.append(_verdict("finite", finite, float(finite), 1.0, detail))
    if control != Control.NONE:
        detail = f"learned from {control} ratings, to see what a run gains without them; never published"
        gates.append(_verdict("control", False, None, None, detail))
    return GateReport(
        gates, kl, before, after, answers, measured, loss_gain, seen, jury, control, penalty
    )  # fmt: skip


def measure(jury: Judge, before: Side, after: Side, answers: int) -> Gain:
    """The gain in the judge's reward, by prompt and language, and what could explain it."""
    olds, news = (_mean_by_prompt(side.rewards, answers) for side in (before, after))
    differences = [new - old for new, old in zip(news, olds, strict=True)]
    languages = [rollout.prompt.language for rollout in before.rollouts[::answers]]
    model = model_of(jury.reward)
    features = [model.features_of(side.rollouts) for side in (before, after)] if model else []

    def unsure(prompts: Sequence[int]) -> float:
        """The deviation of the mean gain over some prompts that the judge's own uncertainty makes."""
        if model is None:
            return 0.0
        rows = [answers * prompt + place for prompt in prompts for place in range(answers)]
        return model.difference_deviation(*(part[rows] for part in features))

    deviation = unsure(range(len(differences)))
    unknown = float(stats.norm.ppf(0.975)) * deviation
    total = widened(mean_interval(differences), unknown)
    floor = widened(mean_interval(differences, 0.9), float(stats.norm.ppf(0.95)) * deviation).low
    finishing = matched(before, after)
    return Gain(
        total,
        floor,
        _by_language(differences, languages, unsure),
        unknown,
        finishing,
        rests_on(total, finishing, at_equal_length(before, after)),
    )


def _verdict(gate: str, passed: bool, value: float | None, bound: float | None, detail: str) -> Verdict:
    return {"gate": gate, "passed": passed, "value": value, "bound": bound, "detail": detail}


def _gain_gate(name: str, gain: Gain, bound: float) -> Verdict:
    words = f"over {counted(gain.total.n, 'held-out prompt')}"
    if gain.unknown:
        words += f", of which ±{gain.unknown:.2f} is what the judge does not know"
    words += f"; with finishing taken out {gain.matched}"
    if gain.rests_on:
        words += f"; it rests on {gain.rests_on} alone"
    detail = f"{gain.total} {words}; what it exceeds with 95% must pass {bound:g}"
    if math.isfinite(gain.floor):
        detail += f", and is {gain.floor:+.2f}"
    return _verdict(name, bool(gain.floor > bound), gain.total.mean, bound, detail)


def _no_loss_gate(gain: Interval) -> Verdict:
    """What imitates need not raise the reward, but must not lower it."""
    detail = f"{gain} over {counted(gain.n, 'held-out prompt')}; the upper end must not be below 0"
    return _verdict("reward", bool(gain.high >= 0), gain.mean, 0.0, detail)


def _judge_gate(jury: Judge) -> Verdict:
    """Whether the judge is one of its own, and foretells ratings that it never saw."""
    if jury.lacks:
        return _verdict("judge", False, None, 0.0, f"{jury.lacks}; {BLIND_PAIRS}")
    if jury.agreement is None:
        if jury.is_goal:
            return _verdict("judge", True, None, None, GOAL)
        return _verdict("judge", True, None, None, "what judges is not fitted to the ratings that were learned from")
    agreed = jury.agreement
    it = "its learned part" if isinstance(jury.reward, Mixture) else "it"
    detail = (
        f"{it} foretells ratings that it never learned from by {agreed} (rank correlation within languages, "
        f"{counted(agreed.n, 'prompt')}); the lower end must pass 0"
    )
    if agreed.low <= 0:
        detail += f": rate more answers, or {BLIND_PAIRS}"
    return _verdict("judge", bool(agreed.low > 0), agreed.mean, 0.0, detail)


def _language_gate(gains: dict[str, Interval]) -> Verdict:
    worse = [language for language, gain in gains.items() if gain.high < 0]
    told = ", ".join(f"{language} {gain} (n {gain.n})" for language, gain in gains.items())
    least = min(gain.high for gain in gains.values())
    detail = f"{told}; no upper end may be below 0 (intervals for {counted(len(gains), 'language')} at once)"
    return _verdict("languages", not worse, least if math.isfinite(least) else None, 0.0, detail)


def _support_gate(before: Side, after: Side, most: float) -> Verdict:
    outside = after.outside or 0.0
    detail = (
        f"{outside:.0%} of the candidate's answers are like none that was rated, in length, language or features "
        f"({before.outside or 0.0:.0%} of its parent's); at most {most:.0%}"
    )
    return _verdict("support", outside <= most, outside, most, detail)


def _too_few_prompts(count: int) -> Verdict:
    detail = (
        f"{counted(count, 'held-out prompt is', 'held-out prompts are')} too few to tell a gain; "
        f"{FEWEST_HELD_OUT} are needed: import some with "
        f'"split": "held-out", or {BLIND_PAIRS}'
    )
    return _verdict("held-out prompts", False, float(count), float(FEWEST_HELD_OUT), detail)


def _by_language(
    differences: Sequence[float], languages: Sequence[str], unsure: Callable[[Sequence[int]], float]
) -> dict[str, Interval]:
    """Intervals by language, widened (Bonferroni) so that all of them together hold with 95%."""
    found: dict[str, list[int]] = {}
    for prompt, language in enumerate(languages):
        found.setdefault(language, []).append(prompt)
    level = 1 - 0.05 / len(found)
    wide = float(stats.norm.ppf((1 + level) / 2))
    return {
        language: widened(mean_interval([differences[prompt] for prompt in own], level), wide * unsure(own))
        for language, own in sorted(found.items())
    }


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
        own = layout.spread(sampled.to(reference.device))
        total += float((maths.k3(own, reference) * layout.mask).sum())
    return total / len(rollouts)


def _control_word(control: Control) -> str:
    return "" if control == Control.NONE else str(control)


def _mean_by_prompt(values: Sequence[float], answers: int) -> list[float]:
    return [_mean(values[start : start + answers]) for start in range(0, len(values), answers)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
