"""Cells of a table, which are text, as values of our fields.

An empty cell is an absent field, except a rated text whose rating is there. A conversation is a cell of JSON; a text
that could be taken for one is written as a conversation of one message.
"""

from __future__ import annotations

import json
from typing import Any

from storage.exchange.rows import BadFieldError, Row

# A rating may be about an answer of no words at all: with these fields filled, the empty cell beside them is text.
_RATED_TEXT = {
    "score": "response", "tags": "response", "label": "completion", "chosen": "rejected", "rejected": "chosen",
}  # fmt: skip
_JSON_CELLS = ("scale", "tags", "outcome_scale")
_NUMBER_CELLS = ("score", "outcome_score")
# The cells that may hold messages, and whose message a text in them is.
_MESSAGE_CELLS = {
    "prompt": "user", "messages": "", "completion": "assistant", "response": "assistant", "other_response": "assistant",
    "chosen": "assistant", "rejected": "assistant",
}  # fmt: skip
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def typed(row: Row) -> Row:
    """A row of our own fields with their values; one that is of no table is itself. Raises BadFieldError."""
    if row.columns is None:
        return row
    fields = dict(row.fields)
    for rating, rated in _RATED_TEXT.items():
        if rating in fields and rated in row.columns:
            fields.setdefault(rated, "")
    for name in fields.keys() & set(_JSON_CELLS):
        try:
            fields[name] = json.loads(fields[name])
        except (ValueError, RecursionError):
            raise BadFieldError(name, "must be JSON in a CSV cell, such as [1, 5]") from None
    for name in fields.keys() & _MESSAGE_CELLS.keys():
        fields[name] = _as_messages(fields[name]) or fields[name]
    for name in fields.keys() & set(_NUMBER_CELLS):
        # Where semicolons part cells, commas are decimal points.
        written = fields[name].replace(",", ".") if row.decimal_comma else fields[name]
        try:
            fields[name] = float(written)
        except ValueError:
            pass  # left as text, which the check of the record refuses with its reason
    if "label" in fields:
        fields["label"] = _TRUTH.get(fields["label"].strip().lower(), fields["label"])
    return Row(row.line, fields)


def as_written(name: str, value: Any) -> Any:
    """A value of one of our fields as a cell of it holds it: what :func:`typed` reads as the same again."""
    if isinstance(value, str) and name in _MESSAGE_CELLS and _as_messages(value):
        return [{"role": _MESSAGE_CELLS[name], "content": value}]
    return value


def _as_messages(cell: str) -> list[Any] | None:
    """The messages that a cell holds; None where it holds anything else."""
    if not cell.lstrip().startswith("["):
        return None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(found, list) and found and all(isinstance(one, dict) and "role" in one for one in found)
    return found if sound else None
