"""The kinds of rating, one entry each: what a rating of the kind says, and all that follows from it.

A new kind is a name in :class:`RatingKind`, an entry in :data:`KINDS`, and what it teaches in trainer/examples.py. The
log, what counts, the census, the queue, import and export, and the words on screen are read from here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from storage.exchange.rows import BadFieldError, number, shown
from storage.feedback import outcome, tag_sheet

if TYPE_CHECKING:
    from storage.records import Rating


class RatingKind(StrEnum):
    """What a rating event says. `undo` and `redo` act on the event they supersede."""

    SCORE = "score"
    LABEL = "label"
    PAIR = "pair"
    EDIT = "edit"
    TAGS = "tags"
    OUTCOME = "outcome"
    MISTAKE = "mistake"
    NOTE = "note"
    SKIP = "skip"
    CANNOT_JUDGE = "cannot-judge"
    UNDO = "undo"
    REDO = "redo"


TURNS = (RatingKind.UNDO, RatingKind.REDO)
Name = tuple[object, ...]


@dataclass(frozen=True)
class Asked:
    """How the app asks for what is said of an answer in words: the key and its label and help, the title of the dialog,
    and what is said when it is stored."""

    key: str
    label: str
    help: str
    title: str
    stored: str


@dataclass(frozen=True)
class Kind:
    """One kind of rating.

    Attributes:
        says: the fields of :class:`storage.records.Rating` that hold what it says.
        judges: whether it says how good an answer is: only such ratings are counted as ratings.
        settles: whether the rater has no more to be asked about what was rated.
        names: what, beside the rater, the kind and the source, names the rating that a new one replaces; None where a
            new one stands beside the earlier ones.
        check: raises BadFieldError where what a rating says cannot be.
        words: what it says of a sample, for a card: a word or two; empty where a card says nothing of it.
        asked: how the app asks for it, where it is said in words beside all else; other kinds have keys of their own.
        teaches: how many examples it teaches the trainer, by its choice and its tags; most teach one, or none at all.
        record: the fields of an import record of this kind, beside `prompt` and what every record may carry; the first
            is the rated text, the second tells the kind. Empty where there is no such record.
        read: the fields of a rating from those of a record (checked); raises BadFieldError.
        write: the fields of a record from a rating, without the texts; together with `read` it loses nothing.
    """

    says: tuple[str, ...]
    judges: bool = False
    settles: bool = True
    names: tuple[str, ...] | None = ("attribute",)
    check: Callable[[Rating], None] = lambda rating: None
    words: Callable[[Rating, str], str] = lambda rating, sample_id: ""
    asked: Asked | None = None
    teaches: Callable[[str | None, Mapping[str, Any]], int] = lambda choice, tags: 0
    record: tuple[str, ...] = ()
    read: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda fields: {}
    write: Callable[[Rating], dict[str, Any]] = lambda rating: {}


def _one(choice: str | None, tags: Mapping[str, Any]) -> int:
    return 1


# A score


def _check_score(rating: Rating) -> None:
    low, high, value = rating.scale_low, rating.scale_high, rating.value
    if low is None or high is None or not low < high:
        raise BadFieldError("scale", f"its low end {low} must lie below its high end {high}")
    if value is None or not low <= value <= high:
        raise BadFieldError("score", f"{value} lies outside the scale [{low:g}, {high:g}]")


def _read_score(fields: Mapping[str, Any]) -> dict[str, Any]:
    scale = fields.get("scale", (1.0, 5.0))
    if not isinstance(scale, list | tuple) or len(scale) != 2:
        raise BadFieldError("scale", f"must be [low, high], not {shown(scale)}")
    low, high = (number("scale", bound) for bound in scale)
    if low >= high:
        raise BadFieldError("scale", f"its low end {low:g} must lie below its high end {high:g}")
    value = number("score", fields["score"])
    if not low <= value <= high:
        raise BadFieldError("score", f"{value:g} lies outside the scale [{low:g}, {high:g}]")
    return {"value": value, "scale_low": low, "scale_high": high}


# A label


def _check_label(rating: Rating) -> None:
    if rating.value not in (0, 1):
        raise BadFieldError("label", f"must be 1 (good) or 0 (bad), not {rating.value}")


def _read_label(fields: Mapping[str, Any]) -> dict[str, Any]:
    value = fields["label"]
    if not isinstance(value, bool | int) or value not in (0, 1):
        raise BadFieldError("label", f"must be true or false, not {shown(value)}")
    return {"value": float(value)}


# A pair


def _check_pair(rating: Rating) -> None:
    if rating.choice is None:
        raise BadFieldError("choice", "must be a, b, tie or both-bad")
    if rating.other_sample_id is None or rating.other_sample_id == rating.sample_id:
        raise BadFieldError("other_sample_id", "must name another answer than sample_id")
    if rating.value is not None and not 0 <= rating.value <= 1:
        raise BadFieldError("value", f"must be the probability, from 0 to 1, that the first is better: {rating.value}")


def _pair_words(rating: Rating, sample_id: str) -> str:
    if rating.choice in ("tie", "both-bad"):
        return "tie" if rating.choice == "tie" else "both bad"
    return "preferred" if sample_id == (rating.sample_id if rating.choice == "a" else rating.other_sample_id) else ""


# Tags


def harm(tags: Mapping[str, Any]) -> float:
    """How much a harm tag weighs: a third for each degree of its severity (1 to 3); 0 where no harm is named."""
    if not tags.get("harm") and "severity" not in tags:
        return 0.0
    severity = tags.get("severity", 1)
    degree = float(severity) if isinstance(severity, int | float) else 1.0
    return min(max(degree, 0.0), 3.0) / 3 if math.isfinite(degree) else 1.0


def _check_tags(rating: Rating) -> None:
    if rating.tags is None:
        raise BadFieldError("tags", "are missing")


def _read_tags(fields: Mapping[str, Any]) -> dict[str, Any]:
    value = fields["tags"]
    if isinstance(value, list) and value and all(isinstance(tag, str) and tag for tag in value):
        return {"tags": dict.fromkeys(value, True)}
    if not isinstance(value, dict) or not value:
        raise BadFieldError("tags", 'must be an object such as {"harm": "medical", "severity": 2}, or a list of names')
    return {"tags": value}


# What is said in words


def _check_text(rating: Rating) -> None:
    if rating.text is None:
        raise BadFieldError("text", "is missing")


def _in_words(field: str, what: str) -> dict[str, Any]:
    """Check and record of a kind that says `what` in words, in a field of its record."""

    def check(rating: Rating) -> None:
        if not (rating.text or "").strip():
            raise BadFieldError(field, f"must say in words {what}")

    def read(fields: Mapping[str, Any]) -> dict[str, Any]:
        value = fields[field]
        if not isinstance(value, str) or not value.strip():
            raise BadFieldError(field, f"must say in words {what}, not {shown(value)}")
        return {"text": value}

    return {
        "says": ("text",), "check": check, "record": ("response", field), "read": read,
        "write": lambda rating: {field: rating.text},
    }  # fmt: skip


def _check_turn(rating: Rating) -> None:
    if rating.supersedes is None:
        raise BadFieldError("supersedes", "must name the event to take back or to bring back")


KINDS: dict[RatingKind, Kind] = {
    RatingKind.SCORE: Kind(
        says=("value", "scale_low", "scale_high"), judges=True, check=_check_score, teaches=_one,
        words=lambda rating, _: f"{rating.value:g}/{rating.scale_high:g}",
        record=("response", "score", "scale"), read=_read_score,
        write=lambda rating: {"score": rating.value, "scale": [rating.scale_low, rating.scale_high]},
    ),
    RatingKind.LABEL: Kind(
        says=("value",), judges=True, check=_check_label, teaches=_one,
        words=lambda rating, _: "good" if rating.value else "bad",
        record=("completion", "label"), read=_read_label,
        write=lambda rating: {"label": bool(rating.value)},
    ),
    RatingKind.PAIR: Kind(
        says=("choice", "other_sample_id", "value"), judges=True, check=_check_pair, words=_pair_words,
        teaches=lambda choice, tags: 2 if choice == "both-bad" else 1,
        record=("chosen", "rejected"), read=lambda fields: {"choice": "a"},
    ),
    RatingKind.EDIT: Kind(
        says=("text",), judges=True, settles=True, names=(), check=_check_text, teaches=_one,
        words=lambda rating, _: "edited",
    ),
    RatingKind.TAGS: Kind(
        says=("tags",), judges=True, settles=False, check=_check_tags, teaches=lambda choice, tags: int(harm(tags) > 0),
        words=lambda rating, _: tag_sheet.words(rating.tags or {}),
        record=("response", "tags"), read=_read_tags, write=lambda rating: {"tags": rating.tags},
    ),
    RatingKind.OUTCOME: Kind(
        says=outcome.SAYS, judges=True, settles=False, check=outcome.check,
        words=lambda rating, _: outcome.words(rating),
        asked=Asked("o", "outcome", "Tell what came of the answer", "What came of this answer", "outcome told"),
        record=outcome.RECORD, read=outcome.read, write=outcome.write,
    ),
    RatingKind.MISTAKE: Kind(
        judges=True, settles=False, teaches=_one, words=lambda rating, _: "mistake",
        asked=Asked("m", "mistake", "Tell what is wrong with the answer", "What is wrong with it", "mistake told"),
        **_in_words("mistake", "what is wrong with the answer"),
    ),
    RatingKind.NOTE: Kind(
        says=("text",), settles=False, names=None, check=_check_text, words=lambda rating, _: "noted",
        asked=Asked("n", "note", "Note a remark about the answer", "A note on this answer", "noted"),
    ),
    RatingKind.SKIP: Kind(says=(), names=None, words=lambda rating, _: "skipped"),
    RatingKind.CANNOT_JUDGE: Kind(
        says=(), names=None,  # its text may say why, and need not
        words=lambda rating, _: "cannot be judged" + (f": {rating.text}" if rating.text else ""),
    ),
    RatingKind.UNDO: Kind(says=(), settles=False, names=None, check=_check_turn),
    RatingKind.REDO: Kind(says=(), settles=False, names=None, check=_check_turn),
}  # fmt: skip

JUDGING = tuple(kind for kind, entry in KINDS.items() if entry.judges)
SETTLING = tuple(kind for kind, entry in KINDS.items() if entry.settles)


def of(rating: Rating) -> Kind:
    """The entry of a rating's kind."""
    return KINDS[rating.kind]


def name_of(rating: Rating) -> Name | None:
    """What a rating is about, and by whom: a later one of the same name replaces it. None where nothing does.

    A pair is about the same two answers whichever of them it names first.
    """
    names = of(rating).names
    if names is None:
        return None
    about = frozenset((rating.sample_id, rating.other_sample_id))
    return (about, rating.rater, rating.kind, rating.source, *(getattr(rating, name) for name in names))


def check(rating: Rating) -> None:
    """Raise BadFieldError where what a rating says cannot be."""
    if rating.kind not in TURNS and rating.sample_id is None:
        raise BadFieldError("sample_id", "is missing")
    of(rating).check(rating)


def words(rating: Rating, sample_id: str) -> str:
    """What a rating says of a sample, in a word or two."""
    return of(rating).words(rating, sample_id)


def examples_taught(kind: str, choice: str | None, tags: str | None) -> int:
    """How many examples a rating teaches, from its columns: what SQL asks when it makes `counted`."""
    entry = KINDS.get(kind)  # type: ignore[call-overload]  # a member of RatingKind equals its text
    return 0 if entry is None else entry.teaches(choice, json.loads(tags) if tags else {})


def sql_list(kinds: tuple[RatingKind, ...]) -> str:
    """Kinds as a list for SQL: `('score', 'label')`."""
    return "(" + ", ".join(f"'{kind.value}'" for kind in kinds) + ")"
