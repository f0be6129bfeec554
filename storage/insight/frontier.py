"""Reward against KL: what versions gained, and how far they went from the reference for it."""

from __future__ import annotations

from storage import versions
from storage.comparison import number
from storage.database import Database
from storage.insight import gains
from storage.insight.figure import Cell, Figure, Found, Plot, Point, Series, Table, point

HEADER = ("version", "state", "parent", "KL", "gain", "low", "high", "prompts", "not placed because")


def read(database: Database) -> Found:
    """A dot a version, by its state; a control stands apart whatever its state is."""
    rows: list[tuple[Cell, ...]] = []
    dots: dict[str, list[Point]] = {}
    for version in versions.every(database):
        if version.kind == "base":
            continue
        state = gains.state_of(version)
        gain, kl = gains.over_reference(database, version), number(version.metrics.get("kl"))
        low, high = gain.interval or (None, None)
        why = gain.reason if gain.mean is None else "" if kl is not None else "its KL is not known"
        rows.append((version.name, state, version.parent, kl, gain.mean, low, high, gain.n or None, why))
        made = None if gain.mean is None or kl is None else point(kl, gain.mean, gain.interval, version.name, gain.n)
        if made is not None:
            dots.setdefault(state, []).append(made)
    table = Table(HEADER, tuple(rows))
    if not dots:
        return Found(None, table, missing="train a version: `trainer run` measures reward and KL of what it makes")
    series = [Series("reference", (Point(0.0, 0.0, label="reference"),))]
    series += [Series(state, tuple(points)) for state, points in sorted(dots.items())]
    best = _best([one for state, points in dots.items() if state not in ("control", "rejected") for one in points])
    series += [Series("most for its KL", best, "line")] if len(best) > 1 else []
    plot = Plot("Reward gained against KL", "KL from the reference, nats an answer",
                "reward gained over the reference", tuple(series), 0.0)  # fmt: skip
    return Found(plot, table, tuple(_notes(database)))


def _best(points: list[Point]) -> tuple[Point, ...]:
    """From the reference on, each that gained more than all which stayed nearer."""
    kept = [Point(0.0, 0.0)]
    for one in sorted(points, key=lambda one: (one.x, -one.y)):
        if one.y > kept[-1].y:
            kept.append(Point(one.x, one.y, label=one.label))
    return tuple(kept)


def _notes(database: Database) -> list[str]:
    found = versions.every(database)
    notes = ["Each step was measured by the judge of its own gate, and the steps are added up."]
    controls = [one.name for one in found if gains.state_of(one) == "control"]
    if controls:
        notes.append(f"Controls, of ratings that say nothing: {', '.join(controls)}. What they gain is no gain.")
    if len({one.base_digest for one in found}) > 1:
        notes.append("Versions of several base models: each is measured against its own.")
    return notes


FIGURE = Figure(
    "frontier", "Reward against KL",
    "Each dot is a version: the higher, the more reward it gained, and the further right, the further it went from the "
    "reference for it.",
    read,
)  # fmt: skip
