"""Ratings: append-only events of feedback. Undo and redo are events too; nothing is ever changed or deleted."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from storage import clock
from storage.database import Database
from storage.errors import WorkbenchError
from storage.records import Choice, Rating, RatingKind, Source


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


def edit(sample_id: str, text: str, rater: str, **more: object) -> Rating:
    """A better answer, written over the sampled one."""
    return _new(RatingKind.EDIT, rater, sample_id=sample_id, text=text, **more)


def tags(sample_id: str, values: dict[str, object], rater: str, **more: object) -> Rating:
    """Ethics and culture tags, such as `{"harm": "medical", "severity": 2}`."""
    return _new(RatingKind.TAGS, rater, sample_id=sample_id, tags=values, **more)


def note(sample_id: str, text: str, rater: str, **more: object) -> Rating:
    """A remark in words; it teaches nothing and is kept."""
    return _new(RatingKind.NOTE, rater, sample_id=sample_id, text=text, **more)


def skip(sample_id: str, rater: str, *, cannot_judge: bool = False, **more: object) -> Rating:
    """Not rated: passed over for now, or `cannot_judge` (say, a language the rater does not read)."""
    kind = RatingKind.CANNOT_JUDGE if cannot_judge else RatingKind.SKIP
    return _new(kind, rater, sample_id=sample_id, **more)


def _new(kind: RatingKind, rater: str, **fields: object) -> Rating:
    values = {"id": clock.new_id(), "created_at": clock.now(), "rater": rater, "kind": kind, **fields}
    return msgspec.convert(values, Rating)


def append(database: Database, rating: Rating) -> Rating:
    """Store one event; when this returns it is committed and synced.

    A new score, label or pair by the same rater on the same sample(s) and attribute supersedes the earlier one.

    Raises:
        WorkbenchError: the event breaks a rule of the schema (a score outside its scale, an unknown sample, ...).
    """
    with database.transaction():
        if rating.supersedes is None:
            rating = msgspec.structs.replace(rating, supersedes=_earlier(database, rating))
        try:
            database.insert("ratings", rating)
        except Exception as error:
            raise WorkbenchError(f"this {rating.kind} rating was refused: {error}", "nothing was stored") from error
        database.execute("INSERT INTO rating_effects VALUES (?, 1)", (rating.id,))
        if rating.supersedes:
            _settle(database, _family(database, rating.id))
    return rating


def append_all(database: Database, ratings: Iterable[Rating]) -> list[Rating]:
    """Store several events in one transaction."""
    with database.transaction():
        return [append(database, rating) for rating in ratings]


def undo(database: Database, rater: str) -> Rating | None:
    """Take back this rater's newest rating that still counts; survives a restart. None when there is none.

    Ratings from files are left alone: the rater did not just give them.
    """
    with database.transaction():
        last = database.record(
            Rating,
            "SELECT * FROM effective_ratings WHERE rater = ? AND source != 'imported' ORDER BY id DESC LIMIT 1",
            (rater,),
        )
        if last is None:
            return None
        append(database, _new(RatingKind.UNDO, rater, supersedes=last.id, source=last.source))
    return last


def redo(database: Database, rater: str) -> Rating | None:
    """Bring back what the rater's newest undo took away, unless something was rated since. None when there is none."""
    with database.transaction():
        last = database.record(
            Rating,
            """SELECT ratings.* FROM ratings JOIN rating_effects ON rating_effects.rating_id = ratings.id
               WHERE rater = ? AND effective = 1 AND kind = 'undo'
                 AND ratings.id > ifnull((SELECT max(id) FROM ratings WHERE rater = ?
                                          AND kind NOT IN ('undo', 'redo')), '')
               ORDER BY ratings.id DESC LIMIT 1""",
            (rater, rater),
        )
        if last is None or last.supersedes is None:
            return None
        append(database, _new(RatingKind.REDO, rater, supersedes=last.id, source=last.source))
    return get(database, last.supersedes)


def get(database: Database, rating_id: str) -> Rating:
    """One event by its key. Raises KeyError when there is none."""
    found = database.record(Rating, "SELECT * FROM ratings WHERE id = ?", (rating_id,))
    if found is None:
        raise KeyError(rating_id)
    return found


def effective(database: Database, *, rater: str | None = None, sample_id: str | None = None) -> list[Rating]:
    """The ratings that count today (not undone, not replaced), oldest first."""
    conditions = ["1"]
    if rater is not None:
        conditions.append("rater = :rater")
    if sample_id is not None:
        conditions.append("(sample_id = :sample OR other_sample_id = :sample)")
    return database.records(
        Rating,
        f"SELECT * FROM effective_ratings WHERE {' AND '.join(conditions)} ORDER BY id",
        {"rater": rater, "sample": sample_id},
    )


def effective_at(database: Database, moment: str) -> list[Rating]:
    """The ratings that counted at a moment, oldest first: later events, undos included, are left out."""
    events = database.records(Rating, "SELECT * FROM ratings WHERE created_at <= ? ORDER BY id", (moment,))
    counted = counting((event.id, event.kind, event.supersedes) for event in events)
    return [event for event in events if event.id in counted and event.kind not in (RatingKind.UNDO, RatingKind.REDO)]


def history(database: Database, sample_id: str) -> list[Rating]:
    """Every event about a sample, the undone ones and their undos included, oldest first."""
    return database.records(
        Rating,
        """WITH RECURSIVE about(id) AS (
               SELECT id FROM ratings WHERE sample_id = ?1 OR other_sample_id = ?1
               UNION SELECT ratings.id FROM ratings JOIN about ON ratings.supersedes = about.id)
           SELECT * FROM ratings WHERE id IN (SELECT id FROM about) ORDER BY id""",
        (sample_id,),
    )


def rebuild_effects(database: Database) -> None:
    """Derive `rating_effects` anew from the events alone."""
    with database.transaction():
        database.execute("DELETE FROM rating_effects")
        database.execute("INSERT INTO rating_effects SELECT id, 1 FROM ratings")
        _settle(database, _links(database))


def effects_differ(database: Database) -> int:
    """How many events `rating_effects` tells differently from the events themselves; 0 when it is sound."""
    stored = {row["rating_id"] for row in database.rows("SELECT rating_id FROM rating_effects WHERE effective = 1")}
    missing = database.scalar("SELECT count(*) FROM ratings WHERE id NOT IN (SELECT rating_id FROM rating_effects)")
    return len(stored ^ counting(_links(database))) or missing


def counting(events: Iterable[tuple[str, str, str | None]]) -> set[str]:
    """The keys of the events that count, of all `(id, kind, supersedes)`, in any order.

    An undo counts until it is redone. A rating counts unless it is undone, or replaced: directly or down the line, by
    a rating that is not undone itself. This definition is the only one; `rating_effects` caches its result.
    """
    events = list(events)
    parent = {key: earlier for key, _, earlier in events}
    redone = {earlier for _, kind, earlier in events if kind == RatingKind.REDO}
    undone = {earlier for key, kind, earlier in events if kind == RatingKind.UNDO and key not in redone}
    replaced: set[str] = set()
    for key, kind, earlier in events:
        if kind in (RatingKind.UNDO, RatingKind.REDO) or key in undone:
            continue
        while earlier and earlier not in replaced:
            replaced.add(earlier)
            earlier = parent.get(earlier)
    return parent.keys() - undone - redone - replaced


def _earlier(database: Database, rating: Rating) -> str | None:
    """The effective event that this one replaces: same rater, kind, sample(s) and attribute.

    The `+` keeps SQLite from walking all events of the rater; those of one sample are few.
    """
    if rating.kind not in (RatingKind.SCORE, RatingKind.LABEL, RatingKind.PAIR, RatingKind.TAGS):
        return None
    return database.scalar(
        """SELECT id FROM effective_ratings
           WHERE +rater = :rater AND kind = :kind AND attribute = :attribute AND source = :source
             AND ((sample_id = :sample AND other_sample_id IS :other)
                  OR (sample_id = :other AND other_sample_id = :sample))
           ORDER BY id DESC LIMIT 1""",
        {
            "rater": rating.rater,
            "kind": rating.kind,
            "attribute": rating.attribute,
            "source": Source(rating.source),
            "sample": rating.sample_id,
            "other": rating.other_sample_id,
        },
    )


def _links(database: Database) -> list[tuple[str, str, str | None]]:
    """Every event as `(id, kind, supersedes)`."""
    return [tuple(row.values()) for row in database.rows("SELECT id, kind, supersedes FROM ratings")]


def _family(database: Database, rating_id: str) -> list[tuple[str, str, str | None]]:
    """The events tied to one through `supersedes`, up and down, as `(id, kind, supersedes)`."""
    found = database.rows(
        """WITH RECURSIVE family(id) AS (
               SELECT ?
               UNION SELECT ratings.supersedes FROM ratings JOIN family ON ratings.id = family.id
                     WHERE ratings.supersedes NOT NULL
               UNION SELECT ratings.id FROM ratings JOIN family ON ratings.supersedes = family.id)
           SELECT id, kind, supersedes FROM ratings WHERE id IN (SELECT id FROM family)""",
        (rating_id,),
    )
    return [tuple(row.values()) for row in found]


def _settle(database: Database, events: list[tuple[str, str, str | None]]) -> None:
    """Write into `rating_effects` which of these events count."""
    counted = counting(events)
    for key, _, _ in events:
        effective = int(key in counted)
        database.execute(
            "UPDATE rating_effects SET effective = ? WHERE rating_id = ? AND effective != ?",
            (effective, key, effective),
        )
