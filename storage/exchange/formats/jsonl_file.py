"""JSON lines: one JSON object a line; blank lines are passed over."""

from __future__ import annotations

from storage.exchange.formats.json_file import DECODER, not_json, row_of
from storage.exchange.rows import Problem, Row


def read(text: str) -> list[Row | Problem]:
    """One row or problem for each line that is not blank."""
    # Not splitlines(): JSON strings may hold U+2028 and other line ends of Unicode.
    return [_read_line(line, number) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _read_line(line: str, number: int) -> Row | Problem:
    try:
        return row_of(DECODER.decode(line), number)
    except (ValueError, RecursionError) as error:
        return Problem(number, "", not_json(error))
