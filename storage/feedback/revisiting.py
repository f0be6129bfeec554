"""Items of the queue that were judged already, or were on screen when an app closed: found again by their answers, with
what the rater says of them today."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

import msgspec

from storage import conversations
from storage.database import Database
from storage.feedback import kinds, log
from storage.feedback.kinds import SETTLING, RatingKind
from storage.feedback.projection import encoded
from storage.feedback.queue import ReviewItem, shown_order
from storage.records import Rating, Sample

AT_ONCE = 50  # ratings that are looked through for the next judged item


class Revisited(msgspec.Struct, frozen=True):
    """An item, what its rater says of it today, and the sequence of the rating that it was found by."""

    item: ReviewItem
    said: tuple[Rating, ...]
    sequence: int = 0


class Ahead(msgspec.Struct, frozen=True):
    """An item by the keys of its answers, in the order in which the item holds them."""

    samples: tuple[str, ...]
    reason: str = ""
    slice: str = ""


def is_done(said: Iterable[Rating], required: Collection[str]) -> bool:
    """Whether a rater is through with an item: passed over, or every required attribute is said."""
    settled = [rating for rating in said if rating.kind in SETTLING]
    passed = any(rating.kind in (RatingKind.SKIP, RatingKind.CANNOT_JUDGE) for rating in settled)
    return passed or set(required) <= {rating.attribute for rating in settled}


def said_of(database: Database, rater: str, samples: Sequence[Sample]) -> tuple[Rating, ...]:
    """What a rater says today of a single answer, or of several beside each other, oldest first."""
    keys = {sample.id for sample in samples}
    found = {
        rating.id: rating
        for sample in samples
        for rating in log.effective(database, rater=rater, sample_id=sample.id)
        if (rating.other_sample_id is None) == (len(keys) == 1) and {rating.other_sample_id, sample.id} - {None} <= keys
    }
    return tuple(found.values())


def again(database: Database, rater: str, rating: Rating) -> Revisited | None:
    """The item that a rating of a rater is about; None for an undo."""
    if rating.sample_id is None:
        return None
    act = [one for one in log.act(database, rating) if one.sample_id is not None]
    # From left to right: by how many of the others each stood right of.
    left_of: dict[str, int] = {}
    for one in act:
        for key in (one.sample_id, one.other_sample_id):
            if key is not None:
                left_of.setdefault(key, 0)
        right = one.sample_id if one.shown_order == "ba" else one.other_sample_id
        if right is not None:
            left_of[right] += 1
    found = _samples(database, left_of)
    if len(found) > 2:
        found.sort(key=lambda sample: (left_of[sample.id], sample.position))
    order = (rating.shown_order or "ab") if len(found) == 2 else None
    item = _item(database, tuple(found), order, "judged before", rating.slice or "")
    sequence = database.scalar("SELECT sequence FROM ratings WHERE id = ?", (rating.id,))
    return None if item is None else Revisited(item, said_of(database, rater, found), sequence)


def before(database: Database, rater: str, sequence: int, seen: Collection[frozenset[str]] = ()) -> Revisited | None:
    """The item that a rater judged last before a sequence, of those that are not `seen` (each by the keys of its
    answers); None where there is none."""
    while True:
        rows = database.records(
            Rating,
            """SELECT ratings.* FROM counted JOIN ratings ON ratings.sequence = counted.sequence
               WHERE counted.rater = ?1 AND counted.source != 'imported' AND counted.sequence < ?2
               ORDER BY counted.sequence DESC LIMIT ?3""",
            (rater, sequence, AT_ONCE),
        )
        for rating in rows:
            found = again(database, rater, rating) if rating.kind in SETTLING else None
            if found is not None and frozenset(one.id for one in found.item.samples) not in seen:
                return found
        if len(rows) < AT_ONCE:
            return None
        sequence = database.scalar("SELECT sequence FROM ratings WHERE id = ?", (rows[-1].id,))


def reopened(database: Database, rater: str, kept: Sequence[Ahead], required: Collection[str]) -> list[Revisited]:
    """Items that waited when an app closed, but for those that the rater is through with by now."""
    found = []
    for one in kept:
        samples = _samples(database, one.samples)
        if not samples or len(samples) < len(one.samples):
            continue
        order = shown_order(rater, samples[0].id, samples[1].id) if len(samples) == 2 else None
        item = _item(database, tuple(samples), order, one.reason, one.slice)
        said = _but_skips(said_of(database, rater, samples))
        if item is not None and not is_done(said, required):
            found.append(Revisited(item, said))
    return found


def with_said(database: Database, rater: str, items: Iterable[ReviewItem]) -> list[Revisited]:
    """Items with what the rater has said of them already: of some attributes, say. A repeat is asked anew."""
    new = (item for item in items if item.slice != "repeat")
    return [Revisited(item, _but_skips(said_of(database, rater, item.samples))) for item in new]


def words(said: Sequence[Rating], attribute: str, shown: Sequence[Sample]) -> str:
    """What ratings say of an attribute of an item, as its answers stand from left to right; empty where nothing."""
    about = [one for one in said if one.attribute == attribute and one.kind in SETTLING]
    if not about or about[-1].kind != RatingKind.PAIR:
        return " ".join(filter(None, (kinds.words(one, shown[0].id) for one in about)))
    if len(shown) == 2:
        choice = about[-1].choice
        if choice in ("a", "b"):
            better = about[-1].sample_id if choice == "a" else about[-1].other_sample_id
            return "left is better" if better == shown[0].id else "right is better"
        return "tie" if choice == "tie" else "both bad"
    if any(one.choice == "both-bad" for one in about):
        return "none acceptable"
    won = {sample.id: 0 for sample in shown}
    for one in about:
        if one.choice in ("a", "b"):
            won[str(one.sample_id if one.choice == "a" else one.other_sample_id)] += 1
    ranked = sorted(enumerate(shown), key=lambda pair: -won[pair[1].id])
    letters = "abcd"[ranked[0][0]]
    for (_, before_), (place, sample) in pairwise(ranked):
        letters += (" = " if won[before_.id] == won[sample.id] else " > ") + "abcd"[place]
    return letters


def _but_skips(said: Iterable[Rating]) -> tuple[Rating, ...]:
    """What was skipped in an earlier session is asked again."""
    return tuple(rating for rating in said if rating.kind != RatingKind.SKIP)


def _samples(database: Database, keys: Iterable[str]) -> list[Sample]:
    wanted = list(keys)
    found = database.records(
        Sample, "SELECT * FROM samples WHERE id IN (SELECT value FROM json_each(?))", (encoded(wanted),)
    )
    return sorted(found, key=lambda sample: wanted.index(sample.id))


def _item(
    database: Database, samples: tuple[Sample, ...], order: str | None, reason: str, slice_: str
) -> ReviewItem | None:
    if not samples:
        return None
    kind = {1: "single", 2: "pair"}.get(len(samples), "ranking")
    prompt = conversations.get(database, samples[0].prompt_id)
    others = kind == "pair" and samples[0].version != samples[1].version
    return ReviewItem(kind, prompt, samples, reason, reason, order, others, slice_)
