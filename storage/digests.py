"""Which file is this: the SHA-256 of what is in it, remembered in the workspace until something about it changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from storage.workspace import Workspace

FILE_NAME = "digests.json"
# A file that changed as short a time ago may change again within one tick of the file system's clock, unseen.
SETTLED = 2.0  # seconds


def sha256_of(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def remembered(workspace: Workspace, path: Path, before_hashing: Callable[[], None] = lambda: None) -> str:
    """The digest of a file that may be large: it is read once, and again when its size, times or place on disk change.

    Args:
        before_hashing: called where the file has to be read.

    Raises:
        OSError: it cannot be read.
    """
    memory = workspace.models / FILE_NAME
    key, stamp = os.path.abspath(path), _stamp(path)
    known = _read(memory).get(key)
    if known is not None and known[:-1] == stamp:
        return str(known[-1])
    before_hashing()
    digest = sha256_of(path)
    settled = time.time_ns() - path.stat().st_ctime_ns > SETTLED * 1e9
    if settled and _stamp(path) == stamp:
        _remember(memory, key, [*stamp, digest])
    return digest


def of_all(
    files: Sequence[Path], workspace: Workspace | None, before_hashing: Callable[[], None] = lambda: None
) -> str:
    """One digest of the files of a model, in their order: SHA-256 over theirs, which a workspace remembers."""
    total = hashlib.sha256()
    for file in files:
        one = remembered(workspace, file, before_hashing) if workspace else sha256_of(file)
        total.update(bytes.fromhex(one))
    return total.hexdigest()


def _stamp(path: Path) -> list[int]:
    """What changes when the content does. The time of change is the system's own; that of modification can be set."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _read(memory: Path) -> dict[str, list]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(memory: Path, key: str, entry: list) -> None:
    """Add an entry, and forget files that are gone. Where nothing can be written the file is read at each start."""
    kept = {path: value for path, value in _read(memory).items() if os.path.exists(path)}
    partial = memory.with_name(f".{FILE_NAME}.{os.getpid()}")
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps(kept | {key: entry}, indent=1), encoding="utf-8")
        os.replace(partial, memory)
