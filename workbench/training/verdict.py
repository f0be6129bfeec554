"""What the gate found of a version, in words with units. Pure functions from a version's metrics to content.

Any figure may be missing (an older version has none) or null (it could not be told): the first is left out, the second
is a dash, with the reason where one was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textual.content import Content

from storage.comparison import interval_of, number
from storage.wording import counted
from workbench.text import one_line

Metrics = Mapping[str, Any]
RESTS_ON = {"finishing": "this gain rests on finishing alone", "length": "this gain rests on length alone"}
_TOLD = {
    "reward_gain", "reward_gain_interval", "reward_gain_matched", "reward_gain_matched_interval",
    "reward_gain_matched_reason", "reward_gain_by_language", "length_before", "length_after", "finished_before",
    "finished_after", "outside_support", "outside_support_before", "rests_on", "missing_eos_penalty", "control",
    "answers", "reward", "parent_reward", "held_out_prompts", "kl", "loss_gain", "loss_gain_interval", "loss_n",
    "reward_gain_unknown", "reward_gain_floor", "judge_agreement", "judge_agreement_interval", "human_agreement",
    "human_agreement_interval", "reasons",
}  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """A held-out prompt with the parent's answer and the candidate's; texts are raw, figures may be None."""

    prompt: str
    language: str
    before: Said
    after: Said


@dataclass(frozen=True)
class Said:
    """One answer with its figures."""

    text: str
    tokens: float | None = None
    finished: bool | None = None
    reward: float | None = None

    @property
    def figures(self) -> str:
        """`41 tokens · cut off · reward -0.20`."""
        tokens = "- tokens" if self.tokens is None else counted(round(self.tokens), "token")
        ended = {True: "finished", False: "cut off", None: ""}[self.finished]
        reward = "reward -" if self.reward is None else f"reward {self.reward:+.2f}"
        return " · ".join(filter(None, [tokens, ended, reward]))


def control_of(metrics: Metrics) -> str:
    """`shuffled` or `constant` for the version of a control run; else empty."""
    return one_line(str(metrics.get("control") or ""), 20)


def flags(metrics: Metrics) -> list[Content]:
    """What must not be overlooked: a control, or a gain that is not of the answers' content."""
    found = []
    if control := control_of(metrics):
        found.append(Content.styled(f"⊘ control: {control} ratings, never published", "bold $text-warning"))
    if rests_on := str(metrics.get("rests_on") or ""):
        words = RESTS_ON.get(rests_on, f"this gain rests on {one_line(rests_on, 40)} alone")
        found.append(Content.styled(f"! {words}", "bold $text-warning"))
    return found


def figures(metrics: Metrics) -> list[Content]:
    """The figures, each a piece that stays on one line: gain, judge, tokens, finished, outside, KL, loss, people."""
    pieces = _gain(metrics)
    if "judge_agreement" in metrics:
        pieces.append(_labelled("the judge foretells unseen ratings by", _signed(metrics, "judge_agreement")))
    if both := _both(metrics, "length_before", "length_after", "{:.0f}"):
        pieces.append(_labelled("tokens", both))
    if both := _both(metrics, "finished_before", "finished_after", "{:.0%}"):
        pieces.append(_labelled("finished", both))
    outside = _both(metrics, "outside_support_before", "outside_support", "{:.0%}")
    if outside:
        pieces.append(_labelled("outside what was rated", outside))
    if "kl" in metrics:
        pieces.append(_labelled("KL", f"{_plain(metrics['kl'], '{:.1f}')} nats/response"))
    if "loss_gain" in metrics:
        words = f"{_plain(metrics['loss_gain'], '{:.3f}')}{_span(metrics.get('loss_gain_interval'), '{:.3f}')}"
        pieces.append(_labelled("held-out loss lower by", f"{words} nats/token{_counted(metrics.get('loss_n'))}"))
    if "human_agreement" in metrics:
        pieces.append(_labelled("shift agrees with people by", _signed(metrics, "human_agreement")))
    if penalty := number(metrics.get("missing_eos_penalty")):
        pieces.append(_labelled("an answer cut off costs", f"{abs(penalty):g} reward"))
    return pieces


def by_language(metrics: Metrics) -> Content | None:
    """`gain by language  es +0.41 [+0.10, +0.72] n 8   fr ...`; None where there is none."""
    gains = metrics.get("reward_gain_by_language")
    if not isinstance(gains, dict) or not gains:
        return None
    told = []
    for language, gain in gains.items():
        if isinstance(gain, dict) and (mean := number(gain.get("mean"))) is not None:
            span = _span([gain.get("low"), gain.get("high")], "{:+.2f}")
            told.append(f"{one_line(str(language), 12)} {mean:+.2f}{span}{_counted(gain.get('n'))}")
    return Content.assemble(("gain by language  ", "$text-muted"), "   ".join(told)) if told else None


def others(metrics: Metrics) -> Content | None:
    """Figures of other makers, by their names; None where there is none."""
    told = [
        f"{one_line(name, 60)} {value:.4g}" if isinstance(value, float) else f"{one_line(name, 60)} {_word(value)}"
        for name, value in metrics.items()
        if name not in _TOLD and isinstance(value, int | float | str)
    ]
    return Content.styled("   ".join(told), "$text-muted") if told else None


def answers(metrics: Metrics) -> list[Answered]:
    """The held-out answers that the gate kept; what is not of that shape is left out."""
    kept = metrics.get("answers")
    return [_answered(one) for one in kept if isinstance(one, dict)] if isinstance(kept, list) else []


def _answered(one: Mapping[str, Any]) -> Answered:
    def said(when: str) -> Said:
        ended = one.get(f"finished_{when}")
        return Said(
            str(one.get(when) or ""), number(one.get(f"tokens_{when}")), None if ended is None else bool(ended),
            number(one.get(f"reward_{when}")),
        )  # fmt: skip

    return Answered(str(one.get("prompt") or ""), str(one.get("language") or ""), said("before"), said("after"))


def _gain(metrics: Metrics) -> list[Content]:
    if "reward_gain" not in metrics:
        return []
    total = _signed(metrics, "reward_gain")
    comma = "," if "reward_gain_matched" in metrics else ""
    unknown = number(metrics.get("reward_gain_unknown"))
    doubt = f" of which ±{unknown:.2f} is the judge's" if unknown else ""
    pieces = [_labelled("reward", f"{total}{_counted(metrics.get('held_out_prompts'))}{doubt}{comma}")]
    if comma:
        pieces.append(_labelled("with finishing taken out", _signed(metrics, "reward_gain_matched")))
    if rewards := _both(metrics, "parent_reward", "reward", "{:+.2f}"):
        pieces.append(_labelled("mean reward", rewards))
    return pieces


def _signed(metrics: Metrics, name: str) -> str:
    """`+0.41 [+0.10, +0.72]`, or a dash with the reason; where there is no interval, with the reason for that."""
    mean, bounds = number(metrics.get(name)), metrics.get(f"{name}_interval")
    if mean is None:
        reason = one_line(str(metrics.get(f"{name}_reason") or _reason(metrics, name)), 120)
        return f"- ({reason})" if reason else "-"
    reason = "" if interval_of(bounds) else _reason(metrics, f"{name}_interval")
    return f"{mean:+.2f}{_span(bounds, '{:+.2f}')}" + (f" (no interval: {reason})" if reason else "")


def _reason(metrics: Metrics, name: str) -> str:
    """Why a figure or an interval is null; empty where that was not told."""
    told = metrics.get("reasons")
    return one_line(str(told.get(name) or ""), 120) if isinstance(told, dict) else ""


def _both(metrics: Metrics, before: str, after: str, form: str) -> str:
    """`41 → 12`; only the second where the first was never told; empty where neither was."""
    if before not in metrics and after not in metrics:
        return ""
    now = _plain(metrics.get(after), form)
    return f"{_plain(metrics[before], form)} → {now}" if before in metrics else now


def _span(bounds: object, form: str) -> str:
    interval = interval_of(bounds)
    return f" [{form.format(interval[0])}, {form.format(interval[1])}]" if interval else ""


def _counted(value: object) -> str:
    count = number(value)
    return f" (n {count:.0f})" if count else ""


def _plain(value: object, form: str) -> str:
    found = number(value)
    return "-" if found is None else form.format(found)


def _word(value: object) -> str:
    return one_line(str(value), 60)


def _labelled(label: str, words: str) -> Content:
    return Content.assemble((f"{label} ", "$text-muted"), words)
