"""GGUF files: converted once into a folder of the workspace; later starts load the converted copy."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from storage import converted as copies
from storage import digests
from storage.durable import sync_file, sync_folder
from storage.errors import WorkbenchError
from storage.workspace import Workspace
from trainer.policy.models.folder import ModelFolder, OnProgress, refuse_pointer, weight_files

# The tokenizer takes the first third of a conversion, writing the last tenth.
UNPACKING_FROM, WRITING_FROM = 0.35, 0.9
_MAGIC = b"GGUF"
_ONE_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}$")


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


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


def converted(name: str, source: Path, workspace: Workspace, on_progress: OnProgress) -> ModelFolder:
    """The converted copy of a GGUF file: one for each content that such a file has had, made once a workspace.

    Raises:
        WorkbenchError: it cannot be unpacked, or changed while it was.
    """
    check(source)
    sha256 = digests.remembered(workspace, source)
    made = copy_of(name, sha256, workspace, on_progress, lambda: nullcontext(source), str(source))
    if digests.remembered(workspace, source) != sha256:
        raise WorkbenchError(f"{source} changed while it was being read", "start again once it is complete")
    return made


def copy_of(
    name: str,
    sha256: str,
    workspace: Workspace,
    on_progress: OnProgress,
    opened: Callable[[], AbstractContextManager[Path]],
    source_path: str = "",
) -> ModelFolder:
    """The converted copy of the file with that digest; where there is none yet, the file is `opened` and converted."""
    with _lock(workspace.models / f"{sha256[:12]}.lock"):
        folder = copies.place(workspace, name, sha256)
        if not (folder / copies.MANIFEST).exists():
            with opened() as source:
                _convert(source, folder, sha256, source_path, on_progress)
    return ModelFolder(name, folder, copies.read(folder).digest)


def _convert(source: Path, folder: Path, sha256: str, source_path: str, on_progress: OnProgress) -> None:
    """Unpack GGUF weights to bf16 safetensors beside the final place, then rename: a half-made copy is never seen."""
    import torch
    import transformers

    on_progress(f"reading the tokenizer of {source.name}", 0.02)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
        on_progress(f"unpacking {source.name}", UNPACKING_FROM)
        with _reported(on_progress, f"unpacking {source.name}"):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(source.parent), gguf_file=source.name, dtype=torch.bfloat16
            )
    except Exception as error:
        raise WorkbenchError(
            f"{source} cannot be unpacked: {error}", "check the file against its publisher's digest, or fetch it again"
        ) from error
    # The loaded model still believes that it is quantised and would refuse to be saved plainly.
    model.hf_quantizer = None  # type: ignore[assignment]
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    on_progress(f"writing {folder.name}", WRITING_FROM)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    digest = digests.of_all(weight_files(partial), None)
    for file in partial.iterdir():
        sync_file(file)
    copies.write(partial, copies.Manifest(source.name, digest, sha256, source_path))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    sync_folder(folder.parent)
    on_progress(f"{folder.name} is ready", 1.0)


@contextmanager
def _reported(on_progress: OnProgress, text: str) -> Iterator[None]:
    """Forward the progress bar that transformers draws while it unpacks tensors, as fractions of the whole."""
    from transformers import modeling_gguf_pytorch_utils as unpacking

    original = getattr(unpacking, "tqdm", None)
    if original is None:
        yield
        return

    def fraction(done: float) -> float:
        return UNPACKING_FROM + (WRITING_FROM - UNPACKING_FROM) * done

    class Forwarded(original):  # type: ignore[misc, valid-type]
        def update(self, n: float = 1) -> bool | None:
            shown = super().update(n)
            if self.total:
                on_progress(text, fraction(self.n / self.total))
            return shown

        def __iter__(self) -> Iterator:
            for index, item in enumerate(super().__iter__()):
                on_progress(text, fraction(index / self.total) if self.total else None)
                yield item

    unpacking.tqdm = Forwarded
    try:
        yield
    finally:
        unpacking.tqdm = original


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
