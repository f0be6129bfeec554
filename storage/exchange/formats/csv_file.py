"""CSV with a header line. An empty cell is an absent field, except a rated text whose rating is there."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from storage.exchange.rows import Problem, Row

# A rating may be about an answer of no words at all: with these fields filled, the empty cell beside them is text.
_RATED_TEXT = {
    "score": "response", "tags": "response", "label": "completion", "chosen": "rejected", "rejected": "chosen",
}  # fmt: skip
_JSON_CELLS = ("scale", "tags")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def read(text: str) -> list[Row | Problem]:
    """One row or problem for each record under the header."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[Row | Problem] = []
    header: list[str] | None = None
    begins = 1
    try:
        for cells in lines:
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) != len(header):
                    return [Problem(1, "", "the header names a column twice")]
            elif cells:
                found.append(_row(header, cells, begins))
            begins = lines.line_num + 1
    except csv.Error as error:
        found.append(Problem(lines.line_num, "", f"not CSV: {error}"))
    return found


def write(records: list[dict[str, Any]]) -> str:
    """Flat records as CSV text; columns in order of first use, lists as JSON, absent fields as empty cells."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for record in records:
        writer.writerow([_cell(record.get(name)) for name in columns])
    return out.getvalue()


def _row(header: list[str], cells: list[str], line: int) -> Row | Problem:
    if len(cells) > len(header):
        return Problem(line, "", f"{len(cells)} cells under {len(header)} columns: is a text with a comma not quoted?")
    fields: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=False) if cell}
    for rating, rated in _RATED_TEXT.items():
        if rating in fields and rated in header:
            fields.setdefault(rated, "")
    for name in fields.keys() & _JSON_CELLS:
        try:
            fields[name] = json.loads(fields[name])
        except ValueError:
            return Problem(line, name, "must be JSON in a CSV cell, such as [1, 5]")
    if "score" in fields:
        try:
            fields["score"] = float(fields["score"])
        except ValueError:
            pass  # left as text, which the check of the record refuses with its reason
    if "label" in fields:
        fields["label"] = _TRUTH.get(fields["label"].strip().lower(), fields["label"])
    return Row(line, fields)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
