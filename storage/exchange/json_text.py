"""JSON as it is read everywhere here: strict, with a reason in words for what is none."""

from __future__ import annotations

import json
from typing import Any

from storage.exchange.rows import Problem, Row


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


def is_object(line: bytes) -> bool:
    """Whether a line is one JSON object by itself."""
    try:
        return isinstance(DECODER.decode(line.decode().strip()), dict)
    except (ValueError, RecursionError):
        return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return made


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
