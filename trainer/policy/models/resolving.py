"""Finding a model by its reference.

A reference is `smollm2` (bundled, the default), `gemma` (an optional package), a folder, a GGUF file or a hub name.
"""

from __future__ import annotations

from pathlib import Path

from storage.errors import UsageError
from storage.workspace import Workspace
from trainer.policy.models.bundles import BUNDLES, bundled
from trainer.policy.models.digests import folder_digest
from trainer.policy.models.folder import ModelFolder, OnProgress, check_folder
from trainer.policy.models.gguf import converted
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
    if path.is_file() and path.suffix.lower() == ".gguf":
        return converted(path.stem, path.absolute(), workspace, on_progress)
    if path.is_dir():
        check_folder(path)
        return ModelFolder(path.name, path.absolute(), folder_digest(path, on_progress))
    if path.exists():
        raise UsageError(f"{reference} is not a model", "name a folder with safetensors weights, or a .gguf file")
    if looks_like_hub_name(reference):
        folder = download(reference, on_progress)
        check_folder(folder)
        return ModelFolder(reference.split("/")[-1], folder, folder_digest(folder, on_progress))
    raise UsageError(
        f"no model called {reference!r}: not a bundled name, not a folder, not a file",
        f"use one of {', '.join(BUNDLES)}, a folder, a GGUF file, or a hub name such as owner/model",
    )
