"""Parquet, through pyarrow where it is installed."""

from __future__ import annotations

from storage.errors import UsageError
from storage.exchange.rows import Problem, Row


def read(data: bytes) -> list[Row | Problem]:
    """One row for each record of the table; the `line` of a row is its number.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "reading Parquet needs the package pyarrow, which is not installed",
            "pip install pyarrow, or save the file as JSONL or CSV",
        ) from error
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except pyarrow.ArrowException as error:
        return [Problem(1, "", f"not a Parquet file: {error}")]
    return [
        Row(number, {name: value for name, value in record.items() if value is not None})
        for number, record in enumerate(table.to_pylist(), start=1)
    ]
