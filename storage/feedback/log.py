"""The log of feedback: events, appended and never changed or deleted. Undo and redo are events too.

The order is that of the table's `sequence`, given in the write transaction; keys are identities, times are only shown.
What one key press said is an *act*: a single rating, or the ratings of one gesture, which are taken back, brought
back and replaced together. The same transaction keeps `counted`, the table of what counts today
(storage/feedback/counting.py says what that is), and its sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from storage import clock
from storage.database import Database, IntegrityError
from storage.errors import UsageError, WorkbenchError
from storage.exchange.rows import BadFieldError
from storage.feedback import counting, kinds, projection
from storage.feedback.counting import Link
from storage.feedback.kinds import TURNS
from storage.feedback.outcome import USUAL_SCALE, Outcome
from storage.feedback.projection import FAMILY, encoded
from storage.feedback.projection import effects_differ as effects_differ
from storage.feedback.projection import rebuild_effects as rebuild_effects
from storage.feedback.replacing import with_replaced
from storage.records import Choice, Rating, RatingKind

LAST = 2**63 - 1  # no sequence is higher


def score(sample_id: str, value: float, rater: str, scale: tuple[float, float] = (1, 5), **more: object) -> Rating:
    """A continuous score on a stated scale; more fields of :class:`storage.records.Rating` by name."""
    fields = {"scale_low": float(scale[0]), "scale_high": float(scale[1]), **more}
    return _new(RatingKind.SCORE, rater, sample_id=sample_id, value=float(value), **fields)


def label(sample_id: str, good: bool, rater: str, **more: object) -> Rating:
    """Good or bad."""
    return _new(RatingKind.LABEL, rater, sample_id=sample_id, value=float(good), **more)


def pair(a: str, b: str, choice: Choice, rater: str, **more: object) -> Rating:
    """A preference between two samples; pass `shown_order='ba'` when b stood left, and `blind` when unnamed."""
    return _new(RatingKind.PAIR, rater, sample_id=a, other_sample_id=b, choice=Choice(choice), **more)


def best_of(best: str, shown: Sequence[str], rater: str, **more: object) -> list[Rating]:
    """The best of several answers, as one preference against each of the others: store it with :func:`gesture`.

    Args:
        shown: all the answers, as they stood from left to right.
    """
    places = {key: place for place, key in enumerate(shown)}
    return [
        pair(best, other, Choice.A, rater, shown_order="ab" if places[best] < places[other] else "ba", **more)
        for other in shown
        if other != best
    ]


def equally_good(shown: Sequence[str], rater: str, **more: object) -> list[Rating]:
    """No difference between any two of several answers, as they stood from left to right; for :func:`gesture`."""
    pairs = [(a, b) for place, a in enumerate(shown) for b in shown[place + 1 :]]
    return [pair(a, b, Choice.TIE, rater, shown_order="ab", **more) for a, b in pairs]


def ranking(tiers: Sequence[Sequence[str]], shown: Sequence[str], rater: str, **more: object) -> list[Rating]:
    """Several answers from best to worst, as one preference for every two of them; for :func:`gesture`.

    Args:
        tiers: the answers, the best first; those of one tier are equally good.
        shown: all of them, as they stood from left to right.
    """
    places = {key: place for place, key in enumerate(shown)}
    order = [(key, tier) for tier, keys in enumerate(tiers) for key in keys]

    def said(better: tuple[str, int], worse: tuple[str, int]) -> Rating:
        choice = Choice.TIE if better[1] == worse[1] else Choice.A
        left = "ab" if places[better[0]] < places[worse[0]] else "ba"
        return pair(better[0], worse[0], choice, rater, shown_order=left, **more)

    return [said(one, other) for place, one in enumerate(order) for other in order[place + 1 :]]


def none_acceptable(shown: Sequence[str], rater: str, **more: object) -> list[Rating]:
    """All of several answers are bad, as they stood from left to right; for :func:`gesture`."""
    pairs = [(a, b) for place, a in enumerate(shown) for b in shown[place + 1 :]]
    return [pair(a, b, Choice.BOTH_BAD, rater, shown_order="ab", **more) for a, b in pairs]


def edit(sample_id: str, text: str, rater: str, **more: object) -> Rating:
    """A better answer, written over the sampled one."""
    return _new(RatingKind.EDIT, rater, sample_id=sample_id, text=text, **more)


def tags(sample_id: str, values: dict[str, object], rater: str, **more: object) -> Rating:
    """Ethics and culture tags, such as `{"harm": "medical", "severity": 2}`."""
    return _new(RatingKind.TAGS, rater, sample_id=sample_id, tags=values, **more)


def in_words(kind: RatingKind, sample_id: str, text: str, rater: str, **more: object) -> Rating:
    """What a kind of rating says in words: an outcome, a note."""
    return _new(kind, rater, sample_id=sample_id, text=text, **more)


def outcome(
    sample_id: str,
    text: str,
    rater: str,
    *,
    worked: bool | None = None,
    score: float | None = None,
    scale: tuple[float, float] = USUAL_SCALE,
    **more: object,
) -> Rating:
    """What came of an answer: why, such as "the bread did not rise", whether it worked, and how well, if told."""
    return _new(RatingKind.OUTCOME, rater, sample_id=sample_id, **Outcome(worked, text, score, scale).fields, **more)


def note(sample_id: str, text: str, rater: str, **more: object) -> Rating:
    """A remark in words; it teaches nothing and is kept."""
    return in_words(RatingKind.NOTE, sample_id, text, rater, **more)


def skip(sample_id: str, rater: str, *, cannot_judge: bool = False, **more: object) -> Rating:
    """Not rated: passed over for now, or `cannot_judge` (with the reason as its `text`, such as the language)."""
    kind = RatingKind.CANNOT_JUDGE if cannot_judge else RatingKind.SKIP
    return _new(kind, rater, sample_id=sample_id, **more)


def pass_over(samples: Sequence[str], rater: str, *, cannot_judge: bool = False, **more: object) -> list[Rating]:
    """An item that is not rated, by the keys of its answers: one, a pair, or several; for :func:`gesture`."""
    if len(samples) == 1:
        return [skip(samples[0], rater, cannot_judge=cannot_judge, **more)]
    pairs = [(a, b) for place, a in enumerate(samples) for b in samples[place + 1 :]]
    return [skip(a, rater, cannot_judge=cannot_judge, other_sample_id=b, **more) for a, b in pairs]


def _new(kind: RatingKind, rater: str, **fields: object) -> Rating:
    values = {"id": clock.new_id(), "created_at": clock.now(), "rater": rater, "kind": kind, **fields}
    return msgspec.convert(values, Rating)


def append(database: Database, rating: Rating) -> Rating:
    """Store one event; when this returns it is committed and synced.

    A rating replaces the same rater's earlier one of the same kind on the same sample(s), as its kind says
    (:mod:`storage.feedback.kinds`), unless it names itself what it supersedes.

    Raises:
        WorkbenchError: the event cannot be (a score outside its scale, an unknown sample, ...); nothing was stored.
    """
    return append_many(database, [rating])[0]


def append_all(database: Database, ratings: Iterable[Rating]) -> list[Rating]:
    """Store several events in one transaction; each is taken back by itself."""
    return append_many(database, ratings)


def gesture(database: Database, ratings: Iterable[Rating]) -> list[Rating]:
    """Store what one key said, in one transaction: one undo takes all of it back, one redo brings all of it back, and a
    new gesture that says something else of any of it replaces all of it.

    Raises:
        WorkbenchError: as :func:`append`.
    """
    together = list(ratings)
    if len(together) > 1:
        key = clock.new_id()
        together = [msgspec.structs.replace(rating, gesture=key) for rating in together]
    return append_many(database, together)


def append_many(
    database: Database, ratings: Iterable[Rating], unsettled: Callable[[Rating], bool] = lambda rating: False
) -> list[Rating]:
    """Store events in their order, in one transaction (that of the caller, where there is one).

    As many calls of :func:`append` would, and much quicker: some 70 µs of processor time a rating. Returns the events
    as stored.

    Args:
        unsettled: tells of an event as stored whether what it does to others is left to the caller
            (:func:`storage.feedback.projection.settle`).

    Raises:
        WorkbenchError: as :func:`append`; nothing of all this was stored.
    """
    stored: list[Rating] = []
    with database.transaction():
        for turns, run in groupby(ratings, lambda rating: rating.kind in TURNS):
            together = list(run)
            stored += _append_run(database, together if turns else with_replaced(database, together), unsettled)
    return stored


def undo(database: Database, rater: str) -> Rating | None:
    """Take back this rater's newest act that still counts; survives a restart. None when there is none.

    Ratings from files are left alone: the rater did not just give them. Returns the act's last rating. An app that is
    open turns to what was said in it first (:mod:`storage.feedback.sitting`).
    """
    with database.transaction():
        last = newest(database, rater)
        if last is not None:
            take_back(database, last)
    return last


def redo(database: Database, rater: str) -> Rating | None:
    """Bring back what the rater's newest undo took away, unless something was rated since. None when there is none."""
    with database.transaction():
        last = newest_undo(database, rater)
        return None if last is None else bring_back(database, last)


def newest(database: Database, rater: str, upto: int = LAST) -> Rating | None:
    """The last rating of this rater's newest act that counts, of those up to a sequence; those from files aside."""
    return database.record(
        Rating,
        """SELECT ratings.* FROM counted JOIN ratings ON ratings.sequence = counted.sequence
           WHERE counted.rater = ? AND counted.source != 'imported' AND counted.sequence <= ?
           ORDER BY counted.sequence DESC LIMIT 1""",
        (rater, upto),
    )


def newest_undo(database: Database, rater: str, upto: int = LAST) -> Rating | None:
    """This rater's newest undo that was not redone and after which nothing was rated, all of it up to a sequence."""
    return database.record(
        Rating,
        """SELECT * FROM ratings WHERE rater = ?1 AND source != 'imported' AND kind = 'undo' AND sequence <= ?2
             AND NOT EXISTS (SELECT 1 FROM ratings AS redone
                             WHERE redone.supersedes = ratings.id AND redone.kind = 'redo')
             AND sequence > ifnull((SELECT sequence FROM ratings WHERE rater = ?1 AND source != 'imported'
                                    AND kind NOT IN ('undo', 'redo') AND sequence <= ?2
                                    ORDER BY sequence DESC LIMIT 1), 0)
           ORDER BY sequence DESC LIMIT 1""",
        (rater, upto),
    )


def take_back(database: Database, rating: Rating) -> Rating:
    """Append the undo of a rating, and so of its whole act. Returns the undo."""
    return append(database, _new(RatingKind.UNDO, rating.rater, supersedes=rating.id, source=rating.source))


def bring_back(database: Database, undone: Rating) -> Rating:
    """Append the redo of an undo. Returns the rating that counts again."""
    assert undone.supersedes is not None
    append(database, _new(RatingKind.REDO, undone.rater, supersedes=undone.id, source=undone.source))
    return get(database, undone.supersedes)


def get(database: Database, rating_id: str) -> Rating:
    """One event by its key. Raises KeyError when there is none."""
    found = database.record(Rating, "SELECT * FROM ratings WHERE id = ?", (rating_id,))
    if found is None:
        raise KeyError(rating_id)
    return found


def act(database: Database, rating: Rating) -> list[Rating]:
    """All that was said together with a rating, itself included, in order."""
    if rating.gesture is None:
        return [rating]
    return database.records(Rating, "SELECT * FROM ratings WHERE gesture = ? ORDER BY sequence", (rating.gesture,))


def position(database: Database) -> int:
    """The sequence of the newest event: what comes later has a higher one. 0 where there is none."""
    return database.scalar("SELECT ifnull(max(sequence), 0) FROM main.ratings")


def effective(database: Database, *, rater: str | None = None, sample_id: str | None = None) -> list[Rating]:
    """The ratings that count today (not undone, not replaced), oldest first."""
    conditions: list[str] = ["1"]
    parameters: dict[str, object] = {"rater": rater, "sample": None}
    if rater is not None:
        # Of one sample the rows are few; the + keeps SQLite from reading all that the rater said instead.
        conditions.append(f"{'' if sample_id is None else '+'}counted.rater = :rater")
    if sample_id is not None:
        parameters["sample"] = database.scalar("SELECT sequence FROM samples WHERE id = ?", (sample_id,))
        conditions.append(
            """counted.sequence IN (SELECT sequence FROM counted WHERE sample = :sample
                                    UNION ALL SELECT sequence FROM counted WHERE other = :sample AND other > 0)"""
        )
    return database.records(
        Rating,
        f"""SELECT ratings.* FROM counted JOIN ratings ON ratings.sequence = counted.sequence
            WHERE {" AND ".join(conditions)} ORDER BY counted.sequence""",
        parameters,
    )


def effective_at(database: Database, sequence: int) -> list[Rating]:
    """The ratings that counted when the event of this sequence was the newest, oldest first.

    What has counted since then differs only among the families of later events.
    """
    later = [row["id"] for row in database.rows("SELECT id FROM ratings WHERE sequence > ?", (sequence,))]
    if not later:
        return effective(database)
    family = database.rows(
        f"{FAMILY} SELECT sequence, id, kind, supersedes, gesture FROM ratings WHERE id IN (SELECT id FROM family)",
        (encoded(later),),
    )
    links = [Link(row["id"], row["kind"], row["supersedes"], row["gesture"]) for row in family
             if row["sequence"] <= sequence]  # fmt: skip
    return database.records(
        Rating,
        """SELECT * FROM ratings WHERE sequence IN (
               SELECT sequence FROM counted WHERE sequence NOT IN (SELECT value FROM json_each(?))
               UNION ALL SELECT sequence FROM ratings WHERE id IN (SELECT value FROM json_each(?)))
           ORDER BY sequence""",
        (encoded([row["sequence"] for row in family]), encoded(sorted(counting.counted(links)))),
    )


def history(database: Database, sample_id: str) -> list[Rating]:
    """Every event about a sample, the undone ones and their undos included, oldest first."""
    return database.records(
        Rating,
        """WITH RECURSIVE about(id) AS (
               SELECT id FROM ratings WHERE sample_id = ?1 OR other_sample_id = ?1
               UNION SELECT ratings.id FROM ratings JOIN about ON ratings.supersedes = about.id
               UNION SELECT turn.id FROM ratings JOIN about ON ratings.id = about.id
                     JOIN ratings AS mates ON mates.gesture = ratings.gesture
                     JOIN ratings AS turn ON turn.supersedes = mates.id AND turn.kind = 'undo')
           SELECT * FROM ratings WHERE id IN (SELECT id FROM about) ORDER BY sequence""",
        (sample_id,),
    )


def _append_run(database: Database, ratings: list[Rating], unsettled: Callable[[Rating], bool]) -> list[Rating]:
    """Insert events, all of them turns or none, and settle what counts."""
    before = position(database)
    current = None

    def checked() -> Iterator[Rating]:
        nonlocal current
        for current in ratings:
            kinds.check(current)
            yield current

    try:
        database.insert_many("ratings", checked())
    except (BadFieldError, IntegrityError) as error:
        assert current is not None
        refusal = UsageError if isinstance(error, BadFieldError) else WorkbenchError
        raise refusal(f"this {current.kind} rating was refused: {error}", "nothing was stored") from error
    projection.count(database, "ratings.sequence > ?", before)
    tied = [rating for rating in ratings if rating.supersedes is not None or rating.gesture is not None]
    projection.settle(database, [rating.id for rating in tied if not unsettled(rating)])
    return ratings
