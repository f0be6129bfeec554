"""CSV with a header line, its cells parted by commas, semicolons or tabs; cells.py says what their texts are."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from storage.exchange.cells import as_written
from storage.exchange.format import Format
from storage.exchange.rows import Problem, Row
from storage.wording import counted

_SEPARATORS = ",;\t"
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)  # a first line with which Excel names the separator
# A lone CR in a cell without quotes, as Python's csv module wrote it before 3.11.9, and pandas with it. To a reader it
# ends a line; where lines end with \n it is a character of its cell, and passes the reader as half a surrogate pair, of
# which UTF-8 holds none.
_CARRIAGE_RETURN, _PASSING = "\r", "\udc0d"
_LONGEST_HEADER = 2**24
_LARGEST_CELL = 2**31 - 1


def read(file: BinaryIO) -> Iterator[Row | Problem]:
    """One row or problem for each record under the header; rows of empty cells alone are passed over."""
    csv.field_size_limit(_LARGEST_CELL)
    header = file.readline(_LONGEST_HEADER)
    file.seek(0)
    end = "\r" if b"\r" in header.rstrip(b"\r\n") else "\r\n" if header.endswith(b"\r\n") else "\n"
    text = io.TextIOWrapper(file, encoding="utf-8", newline="" if end == "\r" else "\n")
    try:
        yield from _rows(iter(text) if end == "\r" else (_passing(line, end) for line in text))
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


def _passing(line: str, end: str) -> str:
    """A line whose CRs pass the reader, but for that of the end that the header's line has."""
    body = line.removesuffix(end).removesuffix("\n")
    return body.replace(_CARRIAGE_RETURN, _PASSING) + line[len(body) :]


def _rows(text: Iterator[str]) -> Iterator[Row | Problem]:
    first = next(text, "")
    named = _SEPARATOR_LINE.fullmatch(first)
    separator = named[1] if named else _separator(first)
    lines = csv.reader(text if named else chain([first], text), strict=True, delimiter=separator)
    header: list[str] | None = None
    passed = 1 if named else 0
    begins = 1 + passed
    try:
        for cells in lines:
            cells = [cell.replace(_PASSING, _CARRIAGE_RETURN) for cell in cells]
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) != len(header):
                    yield Problem(1, "", "the header names a column twice")
                    return
            elif any(cells):
                yield _row(header, cells, begins, separator)
            begins = lines.line_num + 1 + passed
    except csv.Error as error:
        yield Problem(lines.line_num + passed, "", f"not CSV: {error}")


def _separator(header: str) -> str:
    """What parts the most names in the header; a comma where they are alike."""
    return max(_SEPARATORS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _row(header: list[str], cells: list[str], line: int, separator: str) -> Row | Problem:
    if len(cells) > len(header):
        return Problem(
            line,
            "",
            f"{counted(len(cells), 'cell')} under {counted(len(header), 'column')}: is a text with a comma not quoted?",
        )
    if len(cells) < len(header):
        return Problem(
            line, "", f"{counted(len(cells), 'cell')} under {counted(len(header), 'column')}: is the row cut off?"
        )
    fields = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    return Row(line, fields, tuple(header), separator == ";")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    said = as_written(name, value)
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


# A file without a telling name is read as CSV where no other format knows its first line.
FORMAT = Format((".csv",), read, write, recognises=lambda line: False)
