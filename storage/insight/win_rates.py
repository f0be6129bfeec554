"""Win rates: how often people preferred a version's answers to those of an older one, seen blind."""

from __future__ import annotations

from storage.database import Database
from storage.feedback import winning
from storage.insight.figure import Figure, Found, Plot, Point, Series, Table

HEADER = ("version", "against", "by", "of", "won", "low", "high", "pairs", "verdict", "more needed")


def read(database: Database) -> Found:
    """A place for each two versions, oldest first; each source, and the held-out prompts, in a series of their own."""
    rates = winning.win_rates(database)
    rows = tuple(
        (rate.version, rate.against, rate.source, rate.language or rate.part, rate.rate, rate.low, rate.high, rate.n,
         str(rate.verdict), rate.more) for rate in rates
    )  # fmt: skip
    table = Table(HEADER, rows)
    if not rates:
        return Found(None, table, missing="compare versions blind: review pairs of an old and a new answer in the app")
    drawn = [rate for rate in reversed(rates) if rate.part != "language"]
    places = tuple(dict.fromkeys(f"{rate.version} : {rate.against}" for rate in drawn))
    series: dict[str, list[Point]] = {}
    for rate in drawn:
        pair = f"{rate.version} : {rate.against}"
        name = f"{rate.source}, {'all prompts' if rate.part == 'all' else 'held-out prompts'}"
        series.setdefault(name, []).append(
            Point(float(places.index(pair)), rate.rate, rate.low, rate.high, pair, rate.n)
        )
    plot = Plot("Blind win rates", "version : the one it was compared with", "share of pairs won, a tie is one half",
                tuple(Series(name, tuple(points)) for name, points in sorted(series.items())), 0.5, places)  # fmt: skip
    notes = [f"{rate.version} ({rate.source}): {rate.told}." for rate in rates if rate.part == "all"]
    return Found(plot, table, tuple(notes))


FIGURE = Figure(
    "win-rates", "Win rates",
    "Above one half the newer version is preferred; the interval holds however often one looks, and where it lies on "
    "one side of one half that is settled.",
    read,
)  # fmt: skip
