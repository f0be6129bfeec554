"""Tab-separated values, which spreadsheets and corpus tools write: CSV with tabs between its cells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

from storage.exchange.format import Format
from storage.exchange.formats import csv_file


def write(records: Iterable[dict[str, Any]], file: BinaryIO, columns: dict[str, Any]) -> None:
    """As CSV is written, with tabs."""
    csv_file.write(records, file, columns, separator="\t")


# Reading CSV finds tabs by itself.
FORMAT = Format((".tsv", ".tab"), csv_file.read, write, recognises=lambda line: False)
