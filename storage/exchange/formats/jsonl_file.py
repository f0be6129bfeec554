"""JSON lines: one JSON object a line; blank lines are passed over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from storage.exchange.format import Format
from storage.exchange.json_text import DECODER, is_object, not_json, row_of
from storage.exchange.rows import Problem, Row


def read(file: BinaryIO) -> Iterator[Row | Problem]:
    """One row or problem for each line that is not blank."""
    # Lines end with \n alone: JSON strings may hold U+2028 and other line ends of Unicode.
    for number, line in enumerate(file, start=1):
        if not line.isspace():
            yield _read_line(line, number)


def write(records: Iterable[dict[str, Any]], file: BinaryIO, columns: dict[str, Any]) -> None:
    """One object a line."""
    for record in records:
        file.write(msgspec.json.encode(record) + b"\n")


def _read_line(line: bytes, number: int) -> Row | Problem:
    try:
        return row_of(DECODER.decode(line.decode().strip()), number)
    except (ValueError, RecursionError) as error:
        return Problem(number, "", not_json(error))


FORMAT = Format((".jsonl", ".ndjson"), read, write, is_object, nested=True, typed=True)
