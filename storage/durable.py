"""What makes a write last: files and folders flushed to the disk, and which file systems can be trusted with locks."""

from __future__ import annotations

import os
from pathlib import Path

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "glusterfs", "lustre"}
)


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, or an empty text where the platform does not say."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    resolved = str(path.resolve())
    best, kind = "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, folder, name, *_ = line.split(" ")
        folder = folder.replace("\\040", " ")
        inside = resolved == folder or resolved.startswith(folder.rstrip("/") + "/")
        if inside and len(folder) >= len(best):
            best, kind = folder, name
    return kind


def sync_file(path: Path) -> None:
    """Flush a file to disk. A failure is raised and never retried: after one, the kernel may have dropped the pages."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
