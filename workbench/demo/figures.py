"""The demo's table as data: what gold says of answers before and after, with and without the gain of finishing."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storage.records import Prompt
from trainer.evaluation.matched import Matched, matched_gain


@dataclass(frozen=True)
class Judged:
    """One answer to a held-out prompt: its gold reward, and whether it ended by itself."""

    prompt: str
    gold: float
    ended: bool


@dataclass(frozen=True)
class Measured:
    """The judged answers of a version to the held-out prompts, in the order in which they were asked."""

    version: str
    answers: list[Judged]

    def by_prompt(self) -> dict[str, float]:
        """For each prompt, the mean gold reward of its answers."""
        found: dict[str, list[float]] = {}
        for one in self.answers:
            found.setdefault(one.prompt, []).append(one.gold)
        return {prompt: statistics.fmean(values) for prompt, values in found.items()}

    def finished(self) -> float:
        """The share of answers that ended by themselves."""
        return statistics.fmean(one.ended for one in self.answers)


def measured(document: dict[str, Any]) -> Measured:
    """What `asdict` made of a `Measured`, back again."""
    return Measured(document["version"], [Judged(**one) for one in document["answers"]])


def matched(before: Measured, after: Measured, seed: int) -> Matched:
    """The gain in gold with finishing taken out. Both sides must answer the same prompts in the same order."""
    units = [one.prompt for one in before.answers]
    assert units == [one.prompt for one in after.answers], "the same prompts on both sides"
    return matched_gain(
        units,
        [one.ended for one in before.answers],
        [one.gold for one in before.answers],
        [one.ended for one in after.answers],
        [one.gold for one in after.answers],
        seed=seed,
    )


def figures(before: Measured, after: Measured, held_out: Sequence[Prompt], seed: int) -> dict[str, Any]:
    """Gold before and after with 95% intervals, overall and by language, and overall with finishing taken out.

    Of a single prompt there is no interval: null.
    """
    old, new = before.by_prompt(), after.by_prompt()
    rows = []
    for language in [None, *dict.fromkeys(prompt.language for prompt in held_out)]:
        chosen = [prompt.id for prompt in held_out if language in (None, prompt.language)]
        gains = [new[prompt] - old[prompt] for prompt in chosen]
        rows.append(
            {
                "language": language,
                "prompts": len(chosen),
                "before": statistics.fmean(old[prompt] for prompt in chosen),
                "after": statistics.fmean(new[prompt] for prompt in chosen),
                "gain": statistics.fmean(gains),
                "interval": bootstrap(gains, seed),
            }
        )
    return {
        "before_version": before.version,
        "version": after.version,
        "gold": rows,
        "gold_matched": asdict(matched(before, after, seed)),
        "finished_before": before.finished(),
        "finished_after": after.finished(),
    }


def bootstrap(gains: Sequence[float], seed: int, draws: int = 4000) -> tuple[float, float] | None:
    """The 95% percentile bootstrap interval of the mean gain; prompts are the units. None of fewer than two."""
    if len(gains) < 2:
        return None
    rng = random.Random(seed)
    means = sorted(statistics.fmean(rng.choices(gains, k=len(gains))) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]
