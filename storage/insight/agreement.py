"""Agreement: how far raters agree with each other, and each with themselves."""

from __future__ import annotations

from storage.database import Database
from storage.feedback import agreement, habits
from storage.feedback.agreement import OVERALL
from storage.insight.figure import Cell, Figure, Found, Placed, Table

HEADER = ("figure", "of", "attribute", "kind", "value", "low", "high", "n", "raters", "why not")


def read(database: Database) -> Found:
    """Alpha with a place a language, all of them first; below it in the table, in what share each says the same."""
    measured = agreement.measure(database).agreement
    own = [one for one in habits.measure(database)[0] if one.again.n]
    placed = Placed(sorted({one.language for one in measured if one.language}))
    rows = list[tuple[Cell, ...]]()
    for one in measured:
        low, high = one.interval or (None, None)
        of = one.language or "all"
        rows.append(("alpha", of, one.attribute, one.kind, one.alpha, low, high, one.units, one.raters, one.why))
        name = one.kind if one.attribute == OVERALL else f"{one.kind}, {one.attribute}"
        placed.add(name, of, one.alpha, low, high, one.units)
    for rater in own:
        again = rater.again
        rows.append(("same again", rater.rater, OVERALL, "", again.share, again.low, again.high, again.n, 1, ""))
    plot = placed.plot("How far raters agree", "language", "Krippendorff's alpha", 0.0)
    missing = "" if plot else "let two raters judge the same ten answers: `workbench raters`, Review"
    return Found(plot, Table(HEADER, tuple(rows)), tuple(_notes(database)) if rows else (), missing)


def _notes(database: Database) -> list[str]:
    sources = [
        row["source"] for row in database.rows("SELECT DISTINCT source FROM tally_of_ratings WHERE ratings > 0")
        if row["source"] != "ai"
    ]  # fmt: skip
    if len(sources) < 2:
        return []
    return [f"Raters of several sources are in it together: {', '.join(sorted(sources))}. Judge models are not."]


FIGURE = Figure(
    "agreement", "Agreement",
    "1 is agreement in all, 0 what chance gives: below some 0.67 what is learned is one rater's taste as much as the "
    "answers' worth.",
    read,
)  # fmt: skip
