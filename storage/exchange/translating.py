"""From the rows of a file to records of our own: foreign names, foreign layouts, and cells of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from storage import languages
from storage.exchange import cells, layouts, naming
from storage.exchange.layout import Layout
from storage.exchange.layouts import entries
from storage.exchange.layouts.messages import ANSWERS
from storage.exchange.rows import BadFieldError, Problem, Row, shown
from storage.exchange.values import parsed

OURS = "workbench"
# What a record of any layout may say beside what its layout knows.
_CARRIED = ("rater", "language", "task", "split")
_ASKED = ("prompt", "messages", "system", "language")
_NESTED = {"prompt", "messages", "scale", *ANSWERS}  # fields of ours that may hold more than a value
_NO_LANGUAGE = {"", "unknown", "und"}


class Reading(msgspec.Struct, frozen=True):
    """How the records of a file are read.

    `layout` is the name of a foreign one, None where the fields of each record tell; `names` are foreign names by ours.
    """

    layout: str | None = None
    names: dict[str, str] = {}


class Record(msgspec.Struct, frozen=True):
    """One record of a file: its layout, its records of our own (`rows`), the names of its fields, those that were not
    read, and our names for fields that were given and found (`renamed`)."""

    line: int
    layout: str
    rows: list[Row]
    fields: list[str]
    unread: set[str] = set()
    renamed: set[str] = set()

    def prompts(self) -> list[Row]:
        """The rows that ask something, of those that ask the same the first."""
        asking = [row for row in self.rows if "event" not in row.fields or "prompt" in row.fields]
        told = [[row.fields.get(name) for name in _ASKED] for row in asking]
        return [
            row for place, row in enumerate(asking) if told[place] not in told[:place] or entries.is_own(row.fields)
        ]


def translated(rows: Iterable[Row | Problem], reading: Reading) -> Iterator[Record | Problem]:
    """The records of a file in their order, each with what it becomes, or what is wrong with it."""
    chosen = layouts.every()[reading.layout] if reading.layout else None
    for together in _together(rows, reading, chosen):
        if isinstance(together, Problem):
            yield together
            continue
        layout, parts, found = together
        try:
            yield _record(layout, parts, found)
        except BadFieldError as error:
            yield Problem(parts[0].line, error.field, f"{error.reason}; {_fields_of(parts)}")
        except RecursionError:
            yield Problem(parts[0].line, "", "is nested too deeply")


_Together = tuple[Layout | None, list[Row], set[str]]


def _together(rows: Iterable[Row | Problem], reading: Reading, chosen: Layout | None) -> Iterator[_Together | Problem]:
    """Rows that are one thing together, with their layout; most stand alone."""
    waiting: _Together | None = None
    name: str | None = None
    for row in rows:
        if isinstance(row, Problem):
            yield row
            continue
        row, found = naming.renamed(row, reading.names) if reading.names else (row, set())
        try:
            layout = chosen or _layout_of(row)
        except BadFieldError as error:
            yield Problem(row.line, error.field, error.reason)
            continue
        own = layout.together(row.fields) if layout else None
        if waiting is not None and own is not None and own == name:
            waiting[1].append(row)
            waiting[2].update(found)
            continue
        if waiting is not None:
            yield waiting
        waiting, name = (layout, [row], found), own
        if own is None:
            yield waiting
            waiting = None
    if waiting is not None:
        yield waiting


def _layout_of(row: Row) -> Layout | None:
    """The foreign layout that the fields show; None for records of our own."""
    fields = row.fields
    # Most records are our own, and seen to be so at once.
    own = isinstance(fields.get("prompt"), str | list) and fields.keys() <= entries.KNOWN
    plain = own and not any(
        isinstance(parsed(value), dict | list) and name not in _NESTED for name, value in fields.items()
    )
    return None if plain or "event" in fields else layouts.of(fields)


def _record(layout: Layout | None, rows: list[Row], found: set[str]) -> Record:
    names = sorted({name for row in rows for name in row.fields})
    if layout is None:
        row = cells.typed(rows[0])
        return Record(row.line, OURS, [row], names, entries.ignored(row), found)
    one = rows[0].fields
    together = {"together": [row.fields for row in rows]} if layout.together(one) is not None else one
    read = set().union(*(layout.reads(row.fields) for row in rows)) if layout.reads else set(layout.becomes)
    carried = _carried(one, layout)
    made = [Row(rows[0].line, carried | _by_tag(record)) for record in layout.read(together)]
    return Record(rows[0].line, layout.name, made, names, set(names) - read - carried.keys(), found)


def _carried(fields: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """What a foreign record says in fields of our own that its layout does not read."""
    found = {
        name: fields[name] for name in _CARRIED if name in fields and (name not in layout.becomes or name == "language")
    }
    return _by_tag(found)


def _by_tag(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose language is a tag, where it was told by its English name. Raises BadFieldError for no language."""
    named = record.get("language")
    if not isinstance(named, str) or languages.is_tag(named):
        return record
    if named.strip().lower() in _NO_LANGUAGE:
        return record | {"language": languages.UNKNOWN}
    tag = languages.by_name(named)
    if tag is None:
        raise BadFieldError("language", f"no language goes by the tag or the name {shown(named)}")
    return record | {"language": tag}


def _fields_of(rows: list[Row]) -> str:
    return f"the record has the fields {', '.join(sorted(rows[0].fields))}"
