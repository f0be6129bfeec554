"""What a candidate and its parent answer to held-out prompts, and what a person would see at a glance of it.

A gain in reward is told beside the facts that could explain it: how long the answers are, how many end by themselves,
how many are like nothing that was rated, and a few of them in full, before and after.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.records import Prompt, Sampling
from storage.wording import counted
from trainer.algorithms.rollouts import Rollout, collect
from trainer.evaluation.intervals import Interval, bootstrap_interval
from trainer.evaluation.matched import Matched, matched_gain
from trainer.policy.backbone import Backbone
from trainer.policy.decoding import Decoder
from trainer.reward.protocol import Scores

# Answers to one prompt come from seeds that training never uses.
FIRST_SEED = 1 << 61
BATCH = 80  # answers before it is asked again whether to go on: half of what a gate asks for by default
SHOWN = 6  # prompts whose answers are kept to be read
LINE = 200  # characters of a text in the log


@dataclass(frozen=True)
class Side:
    """The answers of one version, those of a prompt beside each other, and what the judge says of them (None where
    nothing judges)."""

    rollouts: list[Rollout]
    scores: Scores | None

    @property
    def rewards(self) -> list[float]:
        return self.scores.rewards.tolist() if self.scores else []

    @property
    def tokens(self) -> list[int]:
        return [len(rollout.completion.token_ids) for rollout in self.rollouts]

    @property
    def ended(self) -> list[bool]:
        return [rollout.completion.finish_reason == "eos" for rollout in self.rollouts]

    @property
    def outside(self) -> float | None:
        """The share of answers like none that was rated; None where nothing judges."""
        return float(self.scores.outside.double().mean()) if self.scores else None


def answer(
    decoder: Decoder,
    backbone: Backbone,
    prompts: Sequence[Prompt],
    answers: int,
    sampling: Sampling,
    check: Callable[[], None] = lambda: None,
) -> list[Rollout]:
    """`answers` samples of each prompt, from fixed seeds of their own.

    Args:
        check: asked before each batch; may raise to stop.
    """
    found: list[Rollout] = []
    each = max(1, BATCH // answers)
    for start in range(0, len(prompts), each):
        check()
        chosen = prompts[start : start + each]
        found += collect(decoder, backbone.tokenizer, chosen, answers, sampling, FIRST_SEED + start * answers)
    return found


def matched(before: Side, after: Side) -> Matched:
    """The gain in reward between answers alike in whether they ended."""
    units = [rollout.prompt.id for rollout in before.rollouts]
    return matched_gain(units, before.ended, before.rewards, after.ended, after.rewards)


def at_equal_length(before: Side, after: Side) -> Interval | None:
    """The gain that log length and ending leave unexplained: what "after" adds in a linear model of the reward beside
    both, with a bootstrap over prompts. None where all answers are alike in length."""
    sides = (before, after)
    lengths = np.array([math.log(max(1, count)) for side in sides for count in side.tokens])
    if np.ptp(lengths) == 0:
        return None
    rewards = np.array([value for side in sides for value in side.rewards])
    later = np.array([float(place) for place, side in enumerate(sides) for _ in side.rollouts])
    ended = np.array([float(one) for side in sides for one in side.ended])
    design = np.stack([later, np.ones_like(later), lengths - lengths.mean(), ended], 1)
    units = [rollout.prompt.id for side in sides for rollout in side.rollouts]

    def unexplained(rows: np.ndarray) -> float:
        return float(np.linalg.lstsq(design[rows], rewards[rows], rcond=None)[0][0])

    return bootstrap_interval(units, unexplained)


def rests_on(gain: Interval, finishing: Matched, length: Interval | None) -> str:
    """What a gain above zero is owed to: `finishing`, `length`, or empty where it stands without them.

    It rests on one of them where less than half of it is left without, and that no longer beyond its interval.
    """
    if gain.low <= 0:
        return ""
    if finishing.mean is None or finishing.low is None or (finishing.low <= 0 and finishing.mean < gain.mean / 2):
        return "finishing"
    if length is not None and length.low <= 0 and length.mean < gain.mean / 2:
        return "length"
    return ""


def facts(before: Side, after: Side) -> dict[str, Any]:
    """Lengths (tokens), shares that ended and shares outside, before and after."""
    return {
        "length_before": statistics.fmean(before.tokens),
        "length_after": statistics.fmean(after.tokens),
        "finished_before": statistics.fmean(before.ended),
        "finished_after": statistics.fmean(after.ended),
        "outside_support_before": before.outside,
        "outside_support": after.outside,
    }


def shown(before: Side, after: Side, answers: int) -> list[dict[str, Any]]:
    """The first answers to a few prompts, languages in turn, before and after."""
    by_language: dict[str, list[int]] = {}
    for place in range(0, len(before.rollouts), answers):
        by_language.setdefault(before.rollouts[place].prompt.language, []).append(place)
    turns = max(map(len, by_language.values()), default=0)
    order = [places[turn] for turn in range(turns) for _, places in sorted(by_language.items()) if turn < len(places)]
    found = []
    for place in order[:SHOWN]:
        one: dict[str, Any] = {
            "prompt": before.rollouts[place].prompt.transcript,
            "language": before.rollouts[place].prompt.language,
        }
        for when, side in (("before", before), ("after", after)):
            one[when] = side.rollouts[place].text
            one[f"reward_{when}"] = side.rewards[place] if side.scores else None
            one[f"tokens_{when}"] = side.tokens[place]
            one[f"finished_{when}"] = side.ended[place]
        found.append(one)
    return found


def in_words(one: dict[str, Any]) -> str:
    """A prompt with the answers before and after, as lines of a log."""
    lines = [f"  {one['language']}  {_line(one['prompt'])}"]
    for when in ("before", "after"):
        ended = "ended" if one[f"finished_{when}"] else "cut off"
        reward = "" if one[f"reward_{when}"] is None else f", reward {one[f'reward_{when}']:+.2f}"
        lines.append(f"    {when} ({counted(one[f'tokens_{when}'], 'token')}, {ended}{reward}): {_line(one[when])}")
    return "\n".join(lines)


def _line(text: str) -> str:
    """A text on one line, cut where it is long."""
    plain = " ".join(text.split())
    return plain if len(plain) <= LINE else plain[: LINE - 1] + "…"
