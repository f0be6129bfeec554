"""GGUF files as model folders of the workspace.

A llama's file is read where it lies: its folder holds configuration and tokenizer alone, which takes a moment, and gets
a copy of the weights when something first asks for one (`whole`), such as training. What transformers must unpack is
converted at once. Either way the folder is made once for each content that such a file has had.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec

from storage import converted as copies
from storage import digests
from storage.durable import sync_file, sync_folder
from storage.errors import WorkbenchError
from storage.workspace import Workspace
from trainer.policy.models.folder import ModelFolder, OnProgress, is_gguf, open_weights, refuse_pointer, weight_files
from trainer.policy.models.gguf_file import GgufFile, GgufWeights, as_safetensors, digest_of
from trainer.policy.models.gguf_model import is_read, write_model
from trainer.policy.models.gguf_unpacking import unpack

WEIGHTS = "model.safetensors"
_ONE_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}$")


def check(path: Path) -> None:
    """Refuse what cannot be converted, before any work.

    Raises:
        WorkbenchError: a pointer in its place, no GGUF file, or one of several parts.
    """
    refuse_pointer(path)
    if not is_gguf(path):
        raise WorkbenchError(f"{path} is no GGUF file: it does not begin as one", "fetch it again")
    if _ONE_OF_SEVERAL.search(path.stem):
        raise WorkbenchError(
            f"{path} is one of several parts of a model", "join them first: llama-gguf-split --merge FIRST-PART WHOLE"
        )


@dataclass(frozen=True)
class Converting:
    """Making model folders of GGUF files.

    Attributes:
        whole: whether the folder must have weights, or may leave them where they are.
        known: digests of models by those of their GGUF files, where they were computed before.
    """

    workspace: Workspace
    on_progress: OnProgress
    whole: bool = True
    known: dict[str, str] | None = None

    def converted(self, name: str, source: Path) -> ModelFolder:
        """The folder of a GGUF file.

        Raises:
            WorkbenchError: it cannot be unpacked, or changed while it was.
        """
        check(source)
        return self.copy_of(name, digests.remembered(self.workspace, source), lambda: nullcontext(source), source)

    def copy_of(
        self,
        name: str,
        sha256: str,
        opened: Callable[[], AbstractContextManager[Path]],
        source: Path | None = None,
    ) -> ModelFolder:
        """The folder of the file with that digest; where there is none yet, the file is `opened` and converted.

        Args:
            source: where the file lies, if it stays there.
        """
        folder = copies.place(self.workspace, name, sha256)
        if not (folder / copies.MANIFEST).exists():
            with _lock(self.workspace.models / f"{sha256[:12]}.lock"):
                folder = copies.place(self.workspace, name, sha256)
                if not (folder / copies.MANIFEST).exists():  # another process was no quicker
                    with opened() as file:
                        self._make(file, folder, sha256, source)
        manifest = copies.read(folder)
        straight = manifest.straight or (self.known or {}).get(sha256) == manifest.digest  # of an earlier release
        if source is not None and straight:
            now = msgspec.structs.replace(manifest, source_path=str(source), straight=True)
            if now != manifest:
                copies.write(folder, now)
        return self.at(folder, name)

    def at(self, folder: Path, name: str) -> ModelFolder:
        """The model of a folder that was made here before.

        Raises:
            WorkbenchError: it lacks the weights that are asked for, and what it was made of is gone or another.
        """
        manifest = copies.read(folder)
        source = self._source(manifest)
        if not weight_files(folder) and (self.whole or source is None):
            with _lock(self.workspace.models / f"{manifest.source_sha256[:12]}.lock"):
                if not weight_files(folder):
                    self._write_weights(folder, manifest, source)
        return ModelFolder(name, folder, manifest.digest, source=source)

    def _source(self, manifest: copies.Manifest) -> Path | None:
        """The file that a folder was made of, where it still lies there and its weights are read there."""
        source = Path(manifest.source_path) if manifest.straight and manifest.source_path else None
        try:
            same = source is not None and digests.remembered(self.workspace, source) == manifest.source_sha256
        except OSError:
            return None
        return source if same else None

    def _make(self, file: Path, folder: Path, sha256: str, source: Path | None) -> None:
        """Make the folder beside its final place, then rename it: one that is half made is never seen."""
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        stays = str(source) if source is not None else ""
        try:
            read = GgufFile(file)
            straight = bool(stays) and is_read(read)
            if straight:
                self.on_progress(f"reading {file.name}", None)
                partial.mkdir()
                write_model(read, partial)
                digest = (self.known or {}).get(sha256) or digest_of(GgufWeights(file))
            else:
                unpack(file, partial, self.on_progress)
                digest = digests.of_all(weight_files(partial), None)
        except Exception as error:
            raise WorkbenchError(
                f"{file} cannot be unpacked: {error}",
                "check the file against its publisher's digest, or fetch it again",
            ) from error
        if source is not None and digests.remembered(self.workspace, source) != sha256:
            shutil.rmtree(partial)
            raise _changed(source)
        for one in partial.iterdir():
            sync_file(one)
        copies.write(partial, copies.Manifest(file.name, digest, sha256, stays, straight))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        sync_folder(folder.parent)
        self.on_progress(f"{folder.name} is ready", 1.0)

    def _write_weights(self, folder: Path, manifest: copies.Manifest, source: Path | None) -> None:
        """Write the copy of the weights, and name it once it is whole."""
        if source is None:
            raise WorkbenchError(
                f"{folder} has no weights, and {manifest.source_path or 'the file that it was made of'} is no longer "
                "what it was made of",
                f"put {manifest.source} back, or delete {folder}",
            )
        self.on_progress(f"writing the weights of {folder.name}", None)
        partial = folder / f".{WEIGHTS}.partial"
        weights = open_weights(source)
        with partial.open("wb") as file:
            for piece in as_safetensors(weights):
                file.write(piece)
        if digests.of_all([partial], None) != manifest.digest:
            partial.unlink()
            raise _changed(source)
        sync_file(partial)
        os.replace(partial, folder / WEIGHTS)
        sync_folder(folder)


def _changed(source: Path) -> WorkbenchError:
    return WorkbenchError(f"{source} changed while it was being read", "start again once it is complete")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process convert while others wait; the lock goes with the process that holds it."""
    import fcntl

    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
