"""A job's metrics for other programs: as CSV, as JSON lines, or as events that TensorBoard reads."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from storage import clock
from storage.durable import sync_file
from storage.errors import UsageError
from storage.records import Metric
from storage.troubles import of_file

COLUMNS = ("step", "name", "language", "value")


def as_csv(found: Sequence[Metric]) -> str:
    """One row a figure under a header; a language or value that is null is empty."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows([getattr(metric, column) for column in COLUMNS] for metric in found)
    return written.getvalue()


def as_jsonl(found: Sequence[Metric]) -> str:
    """One object a line, with the columns of the CSV."""
    lines = (msgspec.json.encode({column: getattr(metric, column) for column in COLUMNS}) for metric in found)
    return "".join(line.decode() + "\n" for line in lines)


FORMATS: dict[str, Callable[[Sequence[Metric]], str]] = {"csv": as_csv, "jsonl": as_jsonl}


def write_events(found: Sequence[Metric], out: str) -> None:
    """Write the figures as scalars into a new folder for TensorBoard; it appears when it is complete.

    Raises:
        UsageError: no folder is named, it exists and is not empty, or it cannot be written.
    """
    folder = Path(out)
    partial = folder.with_name(f".{folder.name}.{clock.new_id()}")
    if out == "-":
        raise UsageError("TensorBoard reads folders, not a stream", "name a new folder with --out DIR")
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(f"{folder} exists already", "name a new folder: TensorBoard would mix the two runs")
        folder.parent.mkdir(parents=True, exist_ok=True)
        from tensorboardX import SummaryWriter  # a second to import

        writer = SummaryWriter(str(partial))
        for metric in found:
            if metric.value is not None:
                tag = metric.name if metric.language is None else f"{metric.name}/{metric.language}"
                writer.add_scalar(tag, metric.value, metric.step)
        writer.close()
        for file in partial.iterdir():
            sync_file(file)
        os.replace(partial, folder)
    except OSError as error:
        raise of_file(f"cannot write {folder}", error, hint="name another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
