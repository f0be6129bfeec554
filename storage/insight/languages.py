"""Languages: what a version gained and lost in each, over its parent."""

from __future__ import annotations

from typing import Any

from storage import evaluations, versions
from storage.comparison import number
from storage.database import Database
from storage.insight.figure import Cell, Figure, Found, Placed, Point, Table
from storage.records import Version, VersionState

HEADER = ("version", "against", "what", "language", "gain", "low", "high", "n")
REWARD = "reward, by the gate's judge"


def read(database: Database) -> Found:
    """The newest published version that a gate measured by language, else the newest of any state: its gain in reward,
    a place a language. Where no gate measured any, what the version measured last gained on suites."""
    measured = [one for one in versions.every(database) if _gains(one)]
    shown = next((one for one in measured if one.state == VersionState.PUBLISHED), next(iter(measured), None))
    on_suites = [one.gain for one in evaluations.newest(database)
                 if one.gain and one.gain.language and evaluations.leads(one.now.suite, one.now.metric)]  # fmt: skip
    placed = Placed(
        sorted({*(str(one.language) for one in on_suites), *(one for own in measured for one in _gains(own))})
    )
    rows = list[tuple[Cell, ...]]()
    for version in measured:
        for language, gain in sorted(_gains(version).items()):
            mean, low, high, n = (number(gain.get(name)) for name in ("mean", "low", "high", "n"))
            count = None if n is None else int(n)
            rows.append((version.name, version.parent, REWARD, language, mean, low, high, count))
            if version is shown:
                placed.add(REWARD, language, mean, low, high, count)
    for one in on_suites:
        what = f"{one.suite} {one.metric.removesuffix(evaluations.GAIN)}"
        rows.append((one.version, one.against, what, one.language, one.value, one.low, one.high, one.n))
        if shown is None:
            placed.add(what, str(one.language), one.value, one.low, one.high, one.n)
    if not rows:
        return Found(None, Table(HEADER), missing="measure a version by language: `trainer run`, or `trainer evaluate`")
    name, parent = (shown.name, shown.parent) if shown else rows[0][:2]
    unit = "reward gained" if shown else "gain, above 0 is better"
    plot = placed.plot(f"What {name} gained over {parent}, by language", "language", unit, 0.0)
    missing = "" if plot else "no gain by language is known: its gate had too little to measure"
    return Found(plot, Table(HEADER, tuple(rows)), tuple(_notes(placed, shown)), missing)


def _notes(placed: Placed, shown: Version | None) -> list[str]:
    points = [(series.name, point) for series in placed.series for point in series.points]
    only = len(placed.series) == 1
    lost = [_where(point, what, only) for what, point in points if point.high is not None and point.high < 0]
    won = [_where(point, what, only) for what, point in points if point.low is not None and point.low > 0]
    told = [f"Surely {word} in {', '.join(those)}." for word, those in (("worse", lost), ("better", won)) if those]
    if shown is None:
        return [*told, "No gate measured by language: of the version that was last measured on suites."]
    return [*told, f"Of {shown.name}, which is {shown.state}: the newest published version that a gate measured by "
            "language, or the newest of all. Its intervals together are wrong as often as one is."]  # fmt: skip


def _where(point: Point, what: str, only: bool) -> str:
    return point.label if only else f"{point.label} ({what})"


def _gains(version: Version) -> dict[str, dict[str, Any]]:
    """What its gate measured, by language."""
    found = version.metrics.get("reward_gain_by_language")
    return {name: gain for name, gain in found.items() if isinstance(gain, dict)} if isinstance(found, dict) else {}


FIGURE = Figure(
    "languages", "Languages",
    "Above 0 the version is better in that language than its parent; a language whose whole interval lies below 0 pays "
    "for the others.",
    read,
)  # fmt: skip
