"""Length: whether longer answers are liked better, by people as by the reward model."""

from __future__ import annotations

import msgspec

from storage.comparison import number
from storage.database import Database
from storage.feedback import habits
from storage.feedback.habits import Length
from storage.feedback.kinds import RatingKind
from storage.feedback.leanings import LONGER, leanings
from storage.insight.figure import Cell, Figure, Found, Placed, Table

HEADER = ("language", "what", "by", "value", "low", "high", "n", "from")


def read(database: Database) -> Found:
    """Scores by their rank correlation with length, pairs by how much oftener the longer won, the reward model last."""
    ratings = habits.newest(database)
    placed = Placed(sorted({row["language"] for row in ratings}))
    rows, notes = list[tuple[Cell, ...]](), []
    for source, one in _scores(ratings):
        rows.append((one.language, "rank correlation of score and length", source, one.correlation, one.low, one.high,
                     one.n, one.of))  # fmt: skip
        placed.add(f"scores, {source}", one.language, one.correlation, one.low, one.high, one.n)
    for leaning in leanings(ratings):
        share = leaning.share
        if leaning.what != LONGER or leaning.language is None or not share.n:
            continue
        value, low, high = (None if part is None else 2 * part - 1 for part in (share.share, share.low, share.high))
        rows.append((leaning.language, "pairs that the longer won, less those that it lost", leaning.source, value, low,
                     high, share.n, leaning.of))  # fmt: skip
        placed.add(f"pairs, {leaning.source}", leaning.language, value, low, high, share.n)
    for series in placed.series:
        for point in series.points:
            if point.low is not None and point.high is not None and not point.low <= 0 <= point.high:
                liked = "longer" if point.y > 0 else "shorter"
                notes.append(f"{series.name}: {liked} answers are liked better in {point.label}, {point.y:+.2f} "
                             f"[{point.low:+.2f}, {point.high:+.2f}] of {point.n}.")  # fmt: skip
    rows += _of_reward_model(database, placed)
    plot = placed.plot("Liking against length", "language", "correlation with length, -1 to 1", 0.0)
    missing = "" if plot else "score or compare ten answers or more of a language: Review in the app"
    return Found(plot, Table(HEADER, tuple(rows)), tuple(notes), missing)


def _scores(ratings: list) -> list[tuple[str, Length]]:
    groups: dict[tuple[str, str], list] = {}
    for row in ratings:
        if row["kind"] == RatingKind.SCORE:
            groups.setdefault((row["language"], row["source"]), []).append(row)
    return [(source, habits.length_of(language, own)) for (language, source), own in sorted(groups.items())]


def _of_reward_model(database: Database, placed: Placed) -> list[tuple[Cell, ...]]:
    """What the newest one makes of length: in answers that it never learned from, and as an effect on pairs."""
    newest = database.row("SELECT name, metrics FROM reward_models ORDER BY sequence DESC LIMIT 1")
    if newest is None:
        return []
    told, name = msgspec.json.decode(newest["metrics"]), f"reward model {newest['name']}"
    rank, n = number(told.get("length_correlation")), told.get("length_n")
    rows: list[tuple[Cell, ...]] = []
    if rank is not None and abs(rank) <= 1 and isinstance(n, int) and n > 3:
        low, high = habits.rank_interval(rank, n)
        placed.add(name, "all", rank, low, high, n)
        rows.append(("all", "rank correlation of reward and length, unseen answers", name, rank, low, high, n, ""))
    gamma = number(told.get("gamma"))
    if gamma is not None:
        rows.append(("all", "logit of a pair for each log ratio of lengths", name, gamma, None, None, None, ""))
    return rows


FIGURE = Figure(
    "length", "Length",
    "Above 0 longer answers are liked better: where the reward model stands above the people, length alone earns "
    "reward.",
    read,
)  # fmt: skip
