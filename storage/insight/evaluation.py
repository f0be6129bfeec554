"""Evaluation: a version beside the one that it was measured with, by suite, metric and language."""

from __future__ import annotations

from storage import evaluations
from storage.database import Database
from storage.evaluations import Beside
from storage.insight.figure import Cell, Figure, Found, Placed, Table
from storage.records import Evaluation

HEADER = ("version", "against", "suite", "metric", "language", "value", "low", "high", "n", "value against", "gain",
          "gain low", "gain high")  # fmt: skip

LEADING = "what a gate with suites asks"


def read(database: Database) -> Found:
    """The version measured last beside another: what it gained over all languages, a place a figure of a suite; the
    figures that a gate asks about stand in a series of their own."""
    found = [one for one in evaluations.newest(database) if not one.is_empty]
    placed = Placed()
    for one in sorted(found, key=lambda one: not _leads(one)):
        if one.gain is not None and one.now.language is None:
            gain = one.gain
            placed.add(
                LEADING if _leads(one) else "others",
                f"{gain.suite} {one.now.metric}",
                gain.value,
                gain.low,
                gain.high,
                gain.n,
            )
    table = Table(HEADER, tuple(_row(one) for one in found))
    if not found:
        return Found(None, table, missing="measure a version beside its parent: `trainer evaluate`")
    name = found[0].now.version
    plot = placed.plot(f"What {name} gained on the suites", "figure of a suite", "gain, above 0 is better", 0.0)
    missing = "" if plot else f"{name} was measured alone: `trainer evaluate --version {name} --against VERSION`"
    return Found(plot, table, tuple(_notes(found)), missing)


def _leads(one: Beside) -> bool:
    return evaluations.leads(one.now.suite, one.now.metric)


def _row(one: Beside) -> tuple[Cell, ...]:
    now, then, gain = one.now, one.then, one.gain
    gained = (None, None, None) if gain is None else (gain.value, gain.low, gain.high)
    return (now.version, None if gain is None else gain.against, now.suite, now.metric, now.language or "all",
            now.value, now.low, now.high, now.n, None if then is None else then.value, *gained)  # fmt: skip


def _notes(found: list[Beside]) -> list[str]:
    notes = [f"Of {found[0].now.version}, the version measured last; it has no gain where it was measured alone."]
    for sign, word in ((-1, "worse"), (1, "better")):
        where = [f"{one.now.suite} {one.now.metric} in {one.now.language}" for one in found
                 if one.now.language and one.gain and surely(one.gain) == sign]  # fmt: skip
        if where:
            notes.insert(0, f"Surely {word}, each by itself: {', '.join(where)}.")
    return notes


def surely(gain: Evaluation) -> int:
    """1 or -1 where the interval of a gain lies above or below 0; else 0."""
    if gain.low is None or gain.high is None:
        return 0
    return 1 if gain.low > 0 else -1 if gain.high < 0 else 0


FIGURE = Figure(
    "evaluation", "Evaluation",
    "How much nearer to what it should be each figure of the suites came: above 0 the version is better than the one "
    "beside it, and where the interval holds 0 it may be neither.",
    read,
)  # fmt: skip
