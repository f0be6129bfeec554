"""JSON: one array of records, one object, or several documents after one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from storage.exchange.format import Format
from storage.exchange.json_text import DECODER, is_object, not_json, row_of
from storage.exchange.rows import Problem, Row

_SPACE = " \t\r\n"


def read(file: BinaryIO) -> Iterator[Row | Problem]:
    """The records of a JSON text, each with the line on which it begins. Reading ends at the first syntax error.

    The text is held in memory: what belongs together is only known at its end.
    """
    text = file.read().decode()
    position, inside = _skip(text, 0, _SPACE), False
    if text[position : position + 1] == "[":
        position, inside = _skip(text, position + 1, _SPACE), True
    line, counted = 1, 0
    while position < len(text):
        line, counted = line + text.count("\n", counted, position), position
        if inside and text[position] == "]":
            rest = _skip(text, position + 1, _SPACE)
            if rest < len(text):
                yield Problem(line + text.count("\n", counted, rest), "", "there is more text after the closing ]")
            return
        try:
            value, position = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield Problem(getattr(error, "lineno", line), "", not_json(error))
            return
        yield row_of(value, line)
        after = _skip(text, position, _SPACE)
        if inside and text[after : after + 1] == ",":
            after = _skip(text, after + 1, _SPACE)
        elif inside and text[after : after + 1] != "]":
            there = line + text.count("\n", counted, after)
            yield Problem(there, "", "not JSON: expected , or ] after a record")
            return
        position = after
    if inside:
        yield Problem(text.count("\n") + 1, "", "not JSON: the array never ends")


def write(records: Iterable[dict[str, Any]], file: BinaryIO, columns: dict[str, Any]) -> None:
    """One array, a record a line."""
    before = b"[\n"
    for record in records:
        file.write(before + msgspec.json.encode(record))
        before = b",\n"
    file.write(b"\n]\n" if before == b",\n" else b"[]\n")


def recognises(line: bytes) -> bool:
    """An array, or an object that the first line does not hold whole."""
    start = line.lstrip()[:1]
    return start == b"[" or (start == b"{" and not is_object(line))


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


FORMAT = Format((".json",), read, write, recognises, nested=True, typed=True)
