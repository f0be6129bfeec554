"""Win rates: how often people preferred a version's answers to those of an older one, seen blind."""

from __future__ import annotations

from storage.database import Database
from storage.feedback import winning
from storage.insight.figure import Figure, Found, Placed, Table

HEADER = ("version", "against", "by", "of", "won", "low", "high", "pairs", "verdict", "more needed")


def read(database: Database) -> Found:
    """A place for each two versions, oldest first; each source, and the held-out prompts, in a series of their own."""
    rates = winning.win_rates(database)
    rows = tuple(
        (rate.version, rate.against, rate.source, rate.language or rate.part, rate.rate, rate.low, rate.high, rate.n,
         str(rate.verdict), rate.more) for rate in rates
    )  # fmt: skip
    drawn = [rate for rate in reversed(rates) if rate.part != "language"]
    placed = Placed(f"{rate.version} over {rate.against}" for rate in drawn)
    for rate in sorted(drawn, key=lambda rate: (rate.source, rate.part)):
        name = f"{rate.source}, {'all prompts' if rate.part == 'all' else 'held-out prompts'}"
        placed.add(name, f"{rate.version} over {rate.against}", rate.rate, rate.low, rate.high, rate.n)
    plot = placed.plot("Blind win rates", "versions", "share of pairs won, a tie is one half", 0.5)
    notes = [f"{rate.version} ({rate.source}): {rate.told}." for rate in rates if rate.part == "all"]
    missing = "" if plot else "compare versions blind: review pairs of an old and a new answer in the app"
    return Found(plot, Table(HEADER, rows), tuple(notes), missing)


FIGURE = Figure(
    "win-rates", "Win rates",
    "Above one half the newer version is preferred; the interval holds however often one looks, and where it lies on "
    "one side of one half that is settled.",
    read,
)  # fmt: skip
