"""What a foreign layout of feedback is to an import; each one is a module of `layouts/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from storage.exchange.rows import BadFieldError

Fields = Mapping[str, Any]


class Layout(msgspec.Struct, frozen=True):
    """One public layout of records, and how its records become ours (those of docs/data-formats.md).

    Attributes:
        name: as `--as` takes it.
        known_by: in words, how a record of it is recognised.
        becomes: for each field that is read, what becomes of it, in words.
        left: in words, what a record may hold beside these that is not read, and why where that is not plain.
        recognises: whether the fields of a record are those of this layout.
        read: our records of one of its records. Raises BadFieldError for what cannot be read.
        reads: the names of the fields that were read, where `becomes` cannot name them.
        together: the name that consecutive records share which are one thing together; None for one that stands alone.
            `read` is then given `{"together": [fields, ...]}`.
    """

    name: str
    known_by: str
    becomes: dict[str, str]
    recognises: Callable[[Fields], bool]
    read: Callable[[Fields], list[dict[str, Any]]]
    left: str = ""
    reads: Callable[[Fields], set[str]] | None = None
    together: Callable[[Fields], str | None] = lambda fields: None

    def row(self) -> str:
        """This layout as a row of the table in docs/data-formats.md."""
        names: dict[str, list[str]] = {}
        for name, meaning in self.becomes.items():
            names.setdefault(meaning, []).append(f"`{name}`")
        becomes = "; ".join(f"{', '.join(named)}: {meaning}" for meaning, named in names.items())
        return f"| `{self.name}` | {self.known_by} | {becomes} | {self.left or 'no others are known'} |"


def has(fields: Fields, *names: str) -> bool:
    """Whether all of these fields are there."""
    return all(name in fields for name in names)


def need(fields: Fields, *names: str) -> None:
    """Raises BadFieldError for the first of these fields that is missing."""
    for name in names:
        if name not in fields:
            raise BadFieldError(name, "is missing")


def kept(fields: Fields, *names: str) -> dict[str, Any]:
    """Those of these fields that are there."""
    return {name: fields[name] for name in names if name in fields}
