"""Files that commands write for a person: whole or not at all, and never over what is there without being asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from storage import clock
from storage.durable import sync_file
from storage.errors import UsageError
from storage.troubles import told_of_file


def write_text(text: str, out: str, *, overwrite: bool = False) -> None:
    """Write to `out`: a file whole or not at all; `-`, pipes and devices straight.

    Raises:
        UsageError: the file exists and may not be replaced, or nothing can be written there.
    """
    path = Path(out)
    if out in ("-", "/dev/stdout"):
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    if _is_stream(path):
        with told_of_file(f"cannot write {path}"), path.open("a", encoding="utf-8", newline="") as stream:
            stream.write(text)
        return
    write_files([(path, text.encode())], overwrite=overwrite)


def write_files(files: Iterable[tuple[Path, bytes]], *, overwrite: bool = False) -> None:
    """Write files, each whole or not at all; where one exists that may not be replaced, none is written.

    Raises:
        UsageError: one exists, or cannot be written.
    """
    files = list(files)
    for path, _ in files:
        with told_of_file(f"cannot write {path}"):
            if path.exists() and not overwrite:
                raise UsageError(f"{path} exists already", "name another file, or give --overwrite to replace it")
    for path, data in files:
        with told_of_file(f"cannot write {path}"):
            _write_whole(path.resolve(), data)


def _is_stream(path: Path) -> bool:
    """Whether a path is no file to be made or replaced, but something that takes what is written."""
    descriptor = path.parts[:3] in (("/", "dev", "fd"), ("/", "proc", "self")) or path == Path("/dev/stderr")
    return descriptor or (path.exists() and not path.is_file() and not path.is_dir())


def _write_whole(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{clock.new_id()}")
    try:
        partial.write_bytes(data)
        sync_file(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
