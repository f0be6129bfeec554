"""Cells of a table, which are text, as values of our fields.

An empty cell is an absent field, except a rated text whose rating is there.
"""

from __future__ import annotations

import json

from storage.exchange.rows import BadFieldError, Row

# A rating may be about an answer of no words at all: with these fields filled, the empty cell beside them is text.
_RATED_TEXT = {
    "score": "response", "tags": "response", "label": "completion", "chosen": "rejected", "rejected": "chosen",
}  # fmt: skip
_JSON_CELLS = ("scale", "tags")
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
    if "score" in fields:
        # Where semicolons part cells, commas are decimal points.
        score = fields["score"].replace(",", ".") if row.decimal_comma else fields["score"]
        try:
            fields["score"] = float(score)
        except ValueError:
            pass  # left as text, which the check of the record refuses with its reason
    if "label" in fields:
        fields["label"] = _TRUTH.get(fields["label"].strip().lower(), fields["label"])
    return Row(row.line, fields)
