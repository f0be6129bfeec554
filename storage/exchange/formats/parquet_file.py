"""Parquet, through pyarrow where it is installed; read and written a group of rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

from storage.errors import UsageError
from storage.exchange.format import Format
from storage.exchange.rows import Problem, Row
from storage.records import Message

ROWS_A_GROUP = 10_000


def read(file: BinaryIO) -> Iterator[Row | Problem]:
    """One row for each record of the table; the `line` of a row is its number.

    Raises:
        UsageError: pyarrow is not installed.
    """
    pyarrow = _pyarrow("reading")
    try:
        batches = pyarrow.parquet.ParquetFile(file).iter_batches(ROWS_A_GROUP)
        number = 0
        for batch in batches:
            for record in batch.to_pylist():
                number += 1
                yield Row(number, {name: value for name, value in record.items() if value is not None})
    except pyarrow.ArrowException as error:
        yield Problem(1, "", f"not a Parquet file: {error}")


def write(records: Iterable[dict[str, Any]], file: BinaryIO, columns: dict[str, Any]) -> None:
    """A table with the given columns; absent fields are null.

    Raises:
        UsageError: pyarrow is not installed.
    """
    pyarrow = _pyarrow("writing")
    types = {
        str: pyarrow.string(), float: pyarrow.float64(), bool: pyarrow.bool_(), list: pyarrow.list_(pyarrow.float64()),
        list[Message]: pyarrow.list_(pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()})),
    }  # fmt: skip
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        remaining = iter(records)
        while group := list(islice(remaining, ROWS_A_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _pyarrow(doing: str) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"{doing} Parquet needs the package pyarrow, which is not installed",
            "pip install pyarrow, or use a file that ends in .jsonl or .csv",
        ) from error
    return pyarrow


FORMAT = Format((".parquet",), read, write, recognises=lambda line: line.startswith(b"PAR1"), typed=True, text=False)
