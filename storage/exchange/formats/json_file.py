"""JSON: one array of records, one object, or several documents after one another."""

from __future__ import annotations

import json
from typing import Any

from storage.exchange.rows import Problem, Row

_SPACE = " \t\r\n"


def read(text: str) -> list[Row | Problem]:
    """The records of a JSON text, each with the line on which it begins. Reading ends at the first syntax error."""
    found: list[Row | Problem] = []
    position, inside = _skip(text, 0, _SPACE), False
    if text[position : position + 1] == "[":
        position, inside = _skip(text, position + 1, _SPACE), True
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        if inside and text[position] == "]":
            rest = _skip(text, position + 1, _SPACE)
            if rest < len(text):
                found.append(Problem(text.count("\n", 0, rest) + 1, "", "there is more text after the closing ]"))
            return found
        try:
            value, position = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            return [*found, Problem(getattr(error, "lineno", line), "", not_json(error))]
        found.append(row_of(value, line))
        after = _skip(text, position, _SPACE)
        if inside and text[after : after + 1] == ",":
            after = _skip(text, after + 1, _SPACE)
        elif inside and text[after : after + 1] != "]":
            return [*found, Problem(text.count("\n", 0, after) + 1, "", "not JSON: expected , or ] after a record")]
        position = after
    if inside:
        found.append(Problem(text.count("\n") + 1, "", "not JSON: the array never ends"))
    return found


def row_of(value: Any, line: int) -> Row | Problem:
    """A decoded value as a row; null fields count as absent."""
    if not isinstance(value, dict):
        return Problem(line, "", 'a record must be a JSON object, such as {"prompt": "..."}')
    return Row(line, {name: field for name, field in value.items() if field is not None})


def not_json(error: Exception) -> str:
    """A syntax error in words."""
    if isinstance(error, RecursionError):
        return "not JSON that can be read: nested too deeply"
    return f"not JSON: {getattr(error, 'msg', error)}"


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return made


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
