"""Converted copies of models in a workspace: what each was made from, and whether that is still what it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from storage.durable import sync_file, sync_folder
from storage.workspace import Workspace

MANIFEST = "manifest.json"
_NAMED_BY = 12  # characters of the digest


class Manifest(msgspec.Struct, frozen=True):
    """What a copy says of itself.

    Attributes:
        source: the name of the file that it was made from.
        digest: of the copy's weights (`digests.of_all`).
        source_sha256: of that file; empty in copies of earlier releases, which went by its name and size.
        source_path: where it lay; empty where it was put together for the purpose.
        straight: whether its weights are read there, so that the copy may have none yet.
    """

    source: str
    digest: str
    source_sha256: str = ""
    source_path: str = ""
    straight: bool = False


def place(workspace: Workspace, name: str, source_sha256: str) -> Path:
    """Where the copy of a file of that content stands, or is to stand; one is used whatever the file is called."""
    short = source_sha256[:_NAMED_BY]
    found = [folder for folder in workspace.models.glob(f"*-{short}") if (folder / MANIFEST).is_file()]
    return min(found, default=workspace.models / f"{name}-{short}")


def name_of(folder: Path) -> str:
    """What the model of a copy is called."""
    return folder.name.rpartition("-")[0] or folder.name


def read(folder: Path) -> Manifest:
    """The manifest of a copy. Raises OSError or ValueError where it is none."""
    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a copy, whole and synced: the last thing that makes it one."""
    partial = folder / f".{MANIFEST}.{os.getpid()}"
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    sync_file(partial)
    os.replace(partial, folder / MANIFEST)
    sync_folder(folder)


def every(workspace: Workspace) -> Iterator[tuple[Path, Manifest]]:
    """All copies; a folder whose manifest cannot be read is none."""
    for path in sorted(workspace.models.glob(f"*/{MANIFEST}")):
        try:
            yield path.parent, read(path.parent)
        except (OSError, ValueError):
            continue
