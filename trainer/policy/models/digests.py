"""Which weights these are: digests of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trainer.policy.models.folder import OnProgress, weight_files


def folder_digest(folder: Path, on_progress: OnProgress) -> str:
    """The digest of a user's own folder; remembered next to its sizes and times when the folder can be written to."""
    files = weight_files(folder)
    stamp = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    cache = folder / ".workbench-digest.json"
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return known["digest"]
    except (OSError, ValueError, KeyError):
        pass
    on_progress(f"checking {folder.name}", None)
    digest = weights_digest(folder)
    try:
        cache.write_text(json.dumps({"stamp": stamp, "digest": digest}), encoding="utf-8")
    except OSError:
        pass  # a read-only folder is hashed at each start instead
    return digest


def weights_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()
