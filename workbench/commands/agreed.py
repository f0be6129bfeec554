"""How far raters agree, as tables: for `workbench agreement`, and for the sheet over Review."""

from __future__ import annotations

from collections.abc import Sequence

from storage.database import Database
from storage.feedback import agreement, calibration, habits
from storage.feedback.agreement import Report
from storage.feedback.calibration import Judge
from storage.feedback.habits import Habits, Length, Share

Table = tuple[list[str], list[list[str]]]


def tables(
    found: Report, judges: Sequence[Judge], own: Sequence[Habits], lengths: Sequence[Length], model: str | None
) -> list[Table]:
    """Each a head and its rows; those of which there is nothing are left out."""
    made: list[Table] = [
        (
            ["language", "attribute", "kind", "alpha", "95% interval", "units", "raters"],
            [
                [one.language or "all", one.attribute, one.kind or "-", *_told(one.alpha, one.interval, one.why),
                 str(one.units), str(one.raters)]
                for one in found.agreement or [found.overall]
            ],
        ),
        (
            ["rater", "and", "units", "same", "alpha"],
            [
                [one.rater, one.other, str(one.units), f"{one.same:.0%}", _told(one.alpha, None, "")[0]]
                for one in found.matrix
            ],
        ),
        (
            ["judge model", "language", "kind", "agrees with people", "value", "95% interval", "items", "weight"],
            [
                [judge.rater, one.language or "all", one.kind, one.measure,
                 *_told(one.value, None if one.low is None or one.high is None else (one.low, one.high), one.why),
                 str(one.n), f"{judge.of(one.language):.2f}"]
                for judge in judges
                for one in judge.agreement
            ],
        ),
        (
            ["rater", "kind", "ratings", "same again", "prefers left", "right on gold", "seconds"],
            [
                [one.rater, one.kind, str(one.ratings), *map(_share, (one.again, one.left, one.right)),
                 "-" if one.seconds is None else f"{one.seconds:.1f}"]
                for one in own
            ],
        ),
        (
            ["rater", "of", "said", "how often"],
            [
                [one.rater, one.of, kind, "  ".join(f"{what}: {many}" for what, many in said.items())]
                for one in own
                for kind, said in one.balance.items()
            ],
        ),
        (
            ["language", "of", "score against length", "95% interval", "answers"],
            [
                [one.language, one.of, *_told(one.correlation, _bounds(one), "too few"), str(one.n)]
                for one in lengths
            ],
        ),
        (
            [f"rater (by {model})", "offset", "gain", "leniency", "side"],
            [
                [one.rater, *("-" if value is None else f"{value:+.2f}" for value in one.effects.values())]
                for one in own
                if one.effects
            ],
        ),
    ]  # fmt: skip
    return [(head, rows) for head, rows in made if rows]


def _bounds(one: Length) -> tuple[float, float] | None:
    return None if one.low is None or one.high is None else (one.low, one.high)


def _told(value: float | None, interval: tuple[float, float] | None, why: str) -> tuple[str, str]:
    """A number and its interval, or in their place why there is none."""
    if value is None:
        return "-", why
    return f"{value:.2f}", "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def _share(one: Share) -> str:
    if one.share is None or one.low is None or one.high is None:
        return "-"
    return f"{one.share:.0%} ({one.low:.0%} to {one.high:.0%} of {one.n})"


def read_tables(database: Database) -> list[Table]:
    """The tables of a workspace, for the reading thread."""
    return tables(agreement.measure(database), calibration.measure(database), *habits.measure(database))
