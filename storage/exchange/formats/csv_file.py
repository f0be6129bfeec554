"""CSV with a header line, its cells parted by commas, semicolons or tabs.

An empty cell is an absent field, except a rated text whose rating is there. A conversation is a cell of JSON; a text
that could be taken for one is written as a conversation of one message.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from storage.exchange.format import Format
from storage.exchange.rows import Problem, Row

# A rating may be about an answer of no words at all: with these fields filled, the empty cell beside them is text.
_RATED_TEXT = {
    "score": "response", "tags": "response", "label": "completion", "chosen": "rejected", "rejected": "chosen",
}  # fmt: skip
_JSON_CELLS = ("scale", "tags")
# The cells that may hold messages, and whose message a text in them is.
_MESSAGE_CELLS = {
    "prompt": "user", "messages": "", "completion": "assistant", "response": "assistant", "chosen": "assistant",
    "rejected": "assistant",
}  # fmt: skip
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_SEPARATORS = ",;\t"
_LARGEST_CELL = 2**31 - 1


def read(file: BinaryIO) -> Iterator[Row | Problem]:
    """One row or problem for each record under the header; rows of empty cells alone are passed over."""
    csv.field_size_limit(_LARGEST_CELL)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield from _rows(text)
    finally:
        text.detach()  # or it would close the file


def write(records: Iterable[dict[str, Any]], file: BinaryIO, columns: dict[str, Any], separator: str = ",") -> None:
    """Flat records under a header of all columns; lists as JSON, absent fields as empty cells."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    # The line end is CRLF, as RFC 4180 has it: the csv module of Python before 3.11.9 quotes only those line ends in a
    # cell that are of its own, and a lone CR is a line end to every reader.
    writer = csv.writer(text, delimiter=separator, lineterminator="\r\n")
    writer.writerow(columns)
    for record in records:
        writer.writerow([_cell(name, record.get(name)) for name in columns])
    text.flush()
    text.detach()


def _rows(text: io.TextIOWrapper) -> Iterator[Row | Problem]:
    separator = _separator(text.readline())
    text.seek(0)
    lines = csv.reader(text, strict=True, delimiter=separator)
    header: list[str] | None = None
    begins = 1
    try:
        for cells in lines:
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) != len(header):
                    yield Problem(1, "", "the header names a column twice")
                    return
            elif any(cells):
                yield _row(header, cells, begins, separator)
            begins = lines.line_num + 1
    except csv.Error as error:
        yield Problem(lines.line_num, "", f"not CSV: {error}")


def _separator(header: str) -> str:
    """What parts the most names in the header; a comma where they are alike."""
    return max(_SEPARATORS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _row(header: list[str], cells: list[str], line: int, separator: str) -> Row | Problem:
    if len(cells) > len(header):
        return Problem(line, "", f"{len(cells)} cells under {len(header)} columns: is a text with a comma not quoted?")
    if len(cells) < len(header):
        return Problem(line, "", f"{len(cells)} cells under {len(header)} columns: is the row cut off?")
    fields: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    for rating, rated in _RATED_TEXT.items():
        if rating in fields and rated in header:
            fields.setdefault(rated, "")
    for name in fields.keys() & _JSON_CELLS:
        try:
            fields[name] = json.loads(fields[name])
        except ValueError:
            return Problem(line, name, "must be JSON in a CSV cell, such as [1, 5]")
    for name in fields.keys() & _MESSAGE_CELLS.keys():
        fields[name] = _as_messages(fields[name]) or fields[name]
    if "score" in fields:
        # Where semicolons part cells, commas are decimal points.
        score = fields["score"].replace(",", ".") if separator == ";" else fields["score"]
        try:
            fields["score"] = float(score)
        except ValueError:
            pass  # left as text, which the check of the record refuses with its reason
    if "label" in fields:
        fields["label"] = _TRUTH.get(fields["label"].strip().lower(), fields["label"])
    return Row(line, fields)


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


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and name in _MESSAGE_CELLS and _as_messages(value):
        value = [{"role": _MESSAGE_CELLS[name], "content": value}]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# A file without a telling name is read as CSV where no other format knows its first line.
FORMAT = Format((".csv",), read, write, recognises=lambda line: False)
