"""What a file format is to import and export; each one is a module of `formats/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from storage.exchange.rows import Problem, Row


class Format(msgspec.Struct, frozen=True):
    """One file format.

    Attributes:
        endings: of file names, in lower case; `.gz` may follow those of text.
        read: the records of a file, one row or problem each, in order; it may be read again from the start.
        write: records to a file, as they come; `columns` are the names of all fields a record may have, each with the
            type of its values (`list[Message]` is a conversation).
        recognises: whether a file without a telling name is of this format, by its first line that is not blank.
        nested: whether it holds records of every shape, and not just cells under columns.
        typed: whether a column holds values of one type: all prompts of a file are lists of messages as soon as one is.
        text: whether it is text, which may be compressed and in an encoding that its first bytes name.
    """

    endings: tuple[str, ...]
    read: Callable[[BinaryIO], Iterator[Row | Problem]]
    write: Callable[[Iterable[dict[str, Any]], BinaryIO, dict[str, Any]], None]
    recognises: Callable[[bytes], bool]
    nested: bool = False
    typed: bool = False
    text: bool = True
