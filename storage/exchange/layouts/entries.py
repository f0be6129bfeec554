"""What an import record means: its fields checked and read as one entry.

| fields | entry |
|---|---|
| `prompt`, `chosen`, `rejected` | pair |
| `prompt`, `response`, `other_response`, `choice` | pair, ties included |
| `prompt`, `response`, `tags` | tags |
| `prompt`, `response`, `score` (`scale`) | score |
| `prompt`, `completion`, `label` | label |
| `prompt`, `response`, `outcome` (`outcome_reason`, `outcome_score`) | outcome |
| `prompt`, `completion` | demonstration |
| `prompt` | prompt |
| `{prompt: {response: score}}` | a score for each response |
| `event` | one event of another workspace's log |
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from storage import languages
from storage.exchange.layouts.messages import flatten, unread
from storage.exchange.rows import BadFieldError, Problem, Row, shown, text
from storage.exchange.values import one_of
from storage.feedback.kinds import KINDS
from storage.records import Message, Rating, RatingKind, Split

DEFAULT_RATER = "import"
DEFAULT_SCALE = (1.0, 5.0)
# The kinds of rating that have a record of their own; pairs are about two texts and read apart.
_JUDGEMENTS = {kind: entry for kind, entry in KINDS.items() if entry.record and kind != RatingKind.PAIR}
# Which model gave an answer, beside its text; a demonstration is written, and has none.
_MODELS = {"model", "other_model", "chosen_model", "rejected_model"}
KNOWN = {name for entry in KINDS.values() for name in entry.record} | _MODELS | {
    "prompt", "response", "other_response", "choice", "completion", "messages", "id", "rater", "language", "system",
    "task", "split", "attribute", "source", "version",
}  # fmt: skip
_JUDGED = {entry.record[1] for entry in _JUDGEMENTS.values()} | {"chosen", "rejected", "choice"}
_CHOICES = {"a": "a", "b": "b", "tie": "tie", "both-bad": "both-bad"}


class Defaults(msgspec.Struct, frozen=True):
    """What a record means that does not say."""

    language: str = "und"
    rater: str = DEFAULT_RATER
    scale: tuple[float, float] = DEFAULT_SCALE


class Entry(msgspec.Struct, frozen=True):
    """One prompt, demonstration, rating or event of a record, checked. `kind` is the kind of the rating, if it is one.

    `response` is the rated or demonstrated text (the first one of a pair, whose second one is `other`), `model` the one
    that gave it, `says` the fields of the rating that hold what it says. `split` is None where the record leaves it to
    the workspace. `prompt` is the user's last message, `earlier` the turns between the system message and it.
    """

    line: int
    kind: str
    prompt: str = ""
    language: str = "und"
    system: str = ""
    task: str = ""
    split: Split | None = None
    key: str | None = None
    rater: str = DEFAULT_RATER
    attribute: str = "overall"
    response: str = ""
    other: str = ""
    model: str = ""
    other_model: str = ""
    says: dict[str, Any] = {}
    event: Rating | None = None
    earlier: tuple[Message, ...] = ()


def parse(row: Row, defaults: Defaults) -> list[Entry | Problem]:
    """The entries of a row: one, one for each judgement, or many for the table of prompts; or what is wrong with it."""
    try:
        if "event" in row.fields:
            return [_event(row)]
        if is_table(row.fields):
            return _table(row, defaults)
        return [*_entries(row.line, *flatten(row.fields), defaults)]
    except BadFieldError as error:
        return [Problem(row.line, error.field, error.reason)]


def ignored(row: Row) -> set[str]:
    """The names of fields that an import does not read."""
    if is_own(row.fields):
        return set()
    known = KNOWN if row.fields.keys() & _JUDGED else KNOWN - _MODELS
    return row.fields.keys() - known | unread(row.fields)


def is_own(fields: dict[str, Any]) -> bool:
    """Whether a record is of the two kinds that hold no `prompt` field: an event, or a table of scores."""
    return "event" in fields or is_table(fields)


def is_table(fields: dict[str, Any]) -> bool:
    """Whether a record is the table of the articles: `{prompt: {response: score}}`."""
    return bool(fields) and all(isinstance(value, dict) for value in fields.values())


def _table(row: Row, defaults: Defaults) -> list[Entry | Problem]:
    if _is_frame(row.fields):
        reason = "are columns of numbered rows, not {prompt: {response: score}}: save the table as one record a row"
        raise BadFieldError(", ".join(map(shown, row.fields)), reason)
    found: list[Entry | Problem] = []
    for prompt, scores in row.fields.items():
        for response, score in scores.items():
            try:
                found += _entries(row.line, {"prompt": prompt, "response": response, "score": score}, (), defaults)
            except BadFieldError as error:
                place = f"{shown(prompt)} -> {shown(response)}"
                found.append(Problem(row.line, place, error.reason))
    return found


def _is_frame(fields: dict[str, Any]) -> bool:
    """Whether a table is one of columns, `{column: {row: value}}`, as pandas writes it: its rows are numbered, or its
    columns have names of ours and the same rows."""
    rows = [tuple(column) for column in fields.values()]
    numbered = any(rows) and all(row == tuple(map(str, range(len(row)))) for row in rows)
    return numbered or (len(rows) > 1 and len(set(rows)) == 1 and bool(fields.keys() & KNOWN))


def _entries(line: int, fields: dict[str, Any], earlier: tuple[Message, ...], defaults: Defaults) -> list[Entry]:
    """A record may hold several judgements of its answer, and a preference beside them: each is an entry."""
    if "prompt" not in fields:
        raise BadFieldError("prompt", "is missing")
    common = _common(line, fields, earlier, defaults)
    found = []
    if "chosen" in fields or "rejected" in fields:
        found.append(_pair(fields, common))
    elif "choice" in fields or "other_response" in fields:
        found.append(_compared(fields, common))
    for kind, entry in _JUDGEMENTS.items():
        rated, judgement, *_ = entry.record
        if judgement in fields:
            says = entry.read({"scale": defaults.scale, **fields})
            found.append(
                Entry(kind=kind, response=_rated(fields, rated), model=_model(fields, "model"), says=says, **common)
            )
    # A key is that of one rating.
    found[1:] = [msgspec.structs.replace(one, key=None) for one in found[1:]]
    if found:
        return found
    if "completion" in fields:
        return [Entry(kind="demonstration", response=text("completion", fields["completion"]), **common)]
    if "response" in fields:
        raise BadFieldError("score", "is missing: a response needs a score or tags (a demonstration is a completion)")
    return [Entry(kind="prompt", **common)]


def _common(line: int, fields: dict[str, Any], earlier: tuple[Message, ...], defaults: Defaults) -> dict[str, Any]:
    """The fields that every record may carry."""
    key = fields.get("id")
    if key is not None and (isinstance(key, bool) or not isinstance(key, str | int)):
        raise BadFieldError("id", f"must be text or a whole number, not {shown(key)}")
    return {
        "line": line,
        "prompt": text("prompt", fields["prompt"]),
        "earlier": earlier,
        "language": language(fields.get("language", defaults.language)),
        "system": text("system", fields.get("system", ""), empty=True),
        "task": text("task", fields.get("task", ""), empty=True),
        "split": _split(fields["split"]) if "split" in fields else None,
        "rater": text("rater", fields.get("rater", defaults.rater)),
        "attribute": text("attribute", fields.get("attribute", "overall")),
        "key": None if key is None else str(key),
    }


def _pair(fields: dict[str, Any], common: dict[str, Any]) -> Entry:
    for name in ("chosen", "rejected"):
        if name not in fields:
            raise BadFieldError(name, "is missing: a preference needs chosen and rejected")
    chosen, rejected = (text(name, fields[name], empty=True) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise BadFieldError("rejected", "is the same text as chosen")
    if "choice" in fields:
        raise BadFieldError("choice", "stands beside chosen and rejected, which say already which answer is better")
    return Entry(
        kind="pair", response=chosen, other=rejected, says=KINDS[RatingKind.PAIR].read(fields),
        model=_model(fields, "chosen_model"), other_model=_model(fields, "rejected_model"), **common,
    )  # fmt: skip


def _compared(fields: dict[str, Any], common: dict[str, Any]) -> Entry:
    """Two answers in the order in which they were shown, and which is better: a, b, tie or both-bad."""
    for name in ("response", "other_response", "choice"):
        if name not in fields:
            raise BadFieldError(name, "is missing: a comparison needs response, other_response and choice")
    response, other = (text(name, fields[name], empty=True) for name in ("response", "other_response"))
    if response == other:
        raise BadFieldError("other_response", "is the same text as response")
    return Entry(
        kind="pair", response=response, other=other, says={"choice": one_of("choice", fields["choice"], _CHOICES)},
        model=_model(fields, "model"), other_model=_model(fields, "other_model"), **common,
    )  # fmt: skip


def _model(fields: dict[str, Any], name: str) -> str:
    return text(name, fields[name]) if name in fields else ""


def _rated(fields: dict[str, Any], usual: str) -> str:
    """The rated text, under its usual name or the other one."""
    for name in (usual, "response", "completion"):
        if name in fields:
            return text(name, fields[name], empty=True)
    raise BadFieldError(usual, "is missing: a rating needs the text that was rated")


def language(value: Any) -> str:
    """A language tag in its normal form. Raises BadFieldError when it is none."""
    try:
        return languages.normal(text("language", value))
    except languages.BadTagError as error:
        raise BadFieldError("language", f"{error}, not {shown(value)}") from None


def _split(value: Any) -> Split:
    if value not in tuple(Split):
        raise BadFieldError("split", f"must be train, held-out or ethics, not {shown(value)}")
    return Split(value)


def _event(row: Row) -> Entry:
    """One event as `workbench export events` writes it; it keeps its key, moment, rater and source."""
    fields = row.fields
    try:
        rating = msgspec.convert({**fields, "kind": fields["event"]}, Rating)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        raise BadFieldError(place.rstrip("`").replace("kind", "event") or "event", reason) from None
    for name in ("id", "supersedes", "sample_id", "other_sample_id"):
        if name in fields and not is_key(fields[name]):
            raise BadFieldError(name, "must be a key as `workbench export events` writes it (a UUID of version 7)")
    if rating.kind in (RatingKind.UNDO, RatingKind.REDO):
        return Entry(row.line, "event", event=rating)
    if rating.sample_id is None:
        raise BadFieldError("sample_id", "is missing")
    for name, needed in (("prompt", True), ("response", True), ("other_response", rating.other_sample_id is not None)):
        if needed and name not in fields:
            raise BadFieldError(name, "is missing")
    flat, earlier = flatten(fields)
    return Entry(
        kind="event", response=text("response", flat["response"], empty=True),
        other=text("other_response", flat.get("other_response", ""), empty=True), event=rating,
        **_common(row.line, flat, earlier, Defaults()),
    )  # fmt: skip


def is_key(value: Any) -> bool:
    """Whether a value is a key as this program makes them (a UUID of version 7), so that it can be kept as one."""
    try:
        return isinstance(value, str) and UUID(value).version == 7 and value == str(UUID(value))
    except ValueError:
        return False
