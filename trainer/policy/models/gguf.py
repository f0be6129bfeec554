"""GGUF files: converted once into a folder of the workspace; later starts load the converted copy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.durable import sync_file, sync_folder
from storage.errors import WorkbenchError
from storage.workspace import Workspace
from trainer.policy.models.digests import weights_digest
from trainer.policy.models.folder import ModelFolder, OnProgress

MANIFEST = "manifest.json"
# The tokenizer takes the first third of a conversion, writing the last tenth.
UNPACKING_FROM, WRITING_FROM = 0.35, 0.9


def converted_folder(name: str, source: Path, size: int, workspace: Workspace) -> Path:
    signature = f"{source.name}:{size}"
    return workspace.models / f"{name}-{hashlib.sha256(signature.encode()).hexdigest()[:8]}"


def converted(
    name: str, source: Path, workspace: Workspace, on_progress: OnProgress, size: int | None = None
) -> ModelFolder:
    """The converted copy of a GGUF file (of `size` bytes, where it is gone already), made once per workspace."""
    folder = converted_folder(name, source, source.stat().st_size if size is None else size, workspace)
    with _lock(workspace.models / f"{folder.name}.lock"):
        if not (folder / MANIFEST).exists():
            _convert(source, folder, on_progress)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return ModelFolder(name, folder, manifest["digest"])


def _convert(source: Path, folder: Path, on_progress: OnProgress) -> None:
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
    digest = weights_digest(partial)
    for file in partial.iterdir():
        sync_file(file)
    _write_manifest(partial, {"source": source.name, "digest": digest})
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


def _write_manifest(folder: Path, content: dict[str, str]) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    sync_file(path)
    sync_folder(folder)


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
