"""Balance: what is rated, and how often it is called good, by language; and whether what stands left is preferred."""

from __future__ import annotations

from storage.database import Database
from storage.feedback import habits
from storage.feedback.leanings import LEFT, LONGER, leanings
from storage.insight.figure import Figure, Found, Placed, Table
from storage.wording import counted

HEADER = ("language", "kind", "by", "ratings", "what", "share", "low", "high", "of", "from")


def read(database: Database) -> Found:
    """A place a language, all of them first; who rated is part of a series' name."""
    found = [one for one in leanings(habits.newest(database)) if one.what != LONGER and one.share.n]
    rows = tuple(
        (one.language or "all", one.kind, one.source, one.ratings, one.what, one.share.share, one.share.low,
         one.share.high, one.share.n, one.of) for one in found
    )  # fmt: skip
    placed = Placed(sorted({one.language for one in found if one.language}))
    notes = []
    for one in found:
        share = one.share
        if share.share is None or share.low is None or share.high is None:
            continue
        placed.add(f"{one.what}, {one.source}", one.language or "all", share.share, share.low, share.high, share.n)
        if one.what == LEFT and not share.low <= 0.5 <= share.high:
            side = "left" if share.share > 0.5 else "right"
            where = f"in {one.language}" if one.language else "in all languages"
            notes.append(
                f"What stands at the {side} is preferred {where} ({one.source}): left {share.share:.0%} "
                f"[{share.low:.0%}, {share.high:.0%}] of {counted(share.n, 'decided pair')}."
            )
    if sum(one.ratings for one in found if one.language is None) >= habits.NEWEST:
        notes.append(f"Of the newest {habits.NEWEST:,} ratings.")
    plot = placed.plot("What is said, by language", "language", "share of ratings", 0.5)
    missing = "" if plot else "rate answers first: Review in the app, or `workbench import`"
    return Found(plot, Table(HEADER, rows), tuple(notes), missing)


FIGURE = Figure(
    "balance", "Balance",
    "Shares near one half tell good from bad best; a share of left preferred that keeps away from one half is a habit "
    "and no judgement.",
    read,
)  # fmt: skip
