"""Finding a model by its reference.

A reference is `smollm2` (bundled, the default), `gemma` (an optional package), a folder, a GGUF file or a hub name.
"""

from __future__ import annotations

from pathlib import Path

from storage import digests
from storage.errors import UsageError
from storage.workspace import Workspace
from trainer.policy.models.bundles import BUNDLES, bundled
from trainer.policy.models.folder import ModelFolder, OnProgress, check_folder, weight_files
from trainer.policy.models.gguf import converted, is_gguf
from trainer.policy.models.hub import download, looks_like_hub_name


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
        return bundled(reference, workspace, on_progress)
    path = Path(reference).expanduser()
    if path.is_file() and (path.suffix.lower() == ".gguf" or is_gguf(path)):
        return converted(path.stem, path.absolute(), workspace, on_progress)
    if path.is_dir():
        return _folder(path.name, path.absolute(), workspace, on_progress)
    if path.exists():
        raise UsageError(f"{reference} is not a model", "name a folder with safetensors weights, or a .gguf file")
    if looks_like_hub_name(reference):
        return _folder(reference.split("/")[-1], download(reference, on_progress), workspace, on_progress)
    raise UsageError(
        f"no model called {reference!r}: not a bundled name, not a folder, not a file",
        f"use one of {', '.join(BUNDLES)}, a folder, a GGUF file, or a hub name such as owner/model",
    )


def _folder(name: str, folder: Path, workspace: Workspace, on_progress: OnProgress) -> ModelFolder:
    ggufs = sorted(file.name for file in folder.glob("*.gguf"))
    if ggufs and not (folder / "config.json").exists():
        raise UsageError(f"{folder} holds GGUF files", f"name one of them, such as {folder / ggufs[0]}")
    check_folder(folder)
    digest = digests.of_all(weight_files(folder), workspace, lambda: on_progress(f"checking {folder.name}", None))
    return ModelFolder(name, folder, digest)
