"""What the first records of a file become, for a dry run to show."""

from __future__ import annotations

from typing import Any

import msgspec

from storage.exchange.layouts.entries import KNOWN, Defaults, Entry, is_own
from storage.exchange.translating import Record

MOST = 3


class Example(msgspec.Struct, frozen=True):
    """One record of a file: its line, its layout, and what it becomes: records of our own, each with its `kind`."""

    line: int
    layout: str
    becomes: list[dict[str, Any]]


def example(record: Record, entries: list[list[Entry]], defaults: Defaults) -> Example:
    """What a record becomes; `entries` are those of each of its rows."""
    told = []
    for row, found in zip(record.rows, entries, strict=True):
        kinds = ", ".join(dict.fromkeys(entry.kind for entry in found))
        if is_own(row.fields):
            told.append({"kind": kinds, **row.fields})
            continue
        said = {name: value for name, value in row.fields.items() if name in KNOWN}
        if any(entry.kind not in ("prompt", "demonstration") for entry in found):
            said.setdefault("rater", defaults.rater)
        if "score" in said:
            said.setdefault("scale", list(defaults.scale))
        told.append({"kind": kinds, **said, "language": found[0].language})
    return Example(record.line, record.layout, told)
