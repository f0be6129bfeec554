"""Finding a model by its reference.

A reference is `smollm2` (bundled, the default), `gemma` (an optional package), a folder (of a model, or of an adapter
as peft saves one), a GGUF file or a hub name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from storage import converted as copies
from storage import digests
from storage.errors import UsageError, WorkbenchError
from storage.workspace import Workspace
from trainer.policy.models.adapter_folder import CONFIG_NAME, check_adapter_folder, is_adapter_folder
from trainer.policy.models.bundles import BUNDLES, bundled
from trainer.policy.models.folder import ModelFolder, OnProgress, check_folder, is_gguf, weight_files
from trainer.policy.models.gguf import Converting
from trainer.policy.models.hub import download, looks_like_hub_name


def resolve(
    reference: str,
    workspace: Workspace,
    on_progress: OnProgress = lambda text, fraction: None,
    *,
    whole: bool = True,
) -> ModelFolder:
    """The local folder of a model; converts or downloads it first where needed. Of an adapter, that of its base model.

    Args:
        whole: whether the folder must hold the weights. Otherwise those of a GGUF file may be left there (`source`).

    Raises:
        UsageError: the reference names nothing that exists here.
        WorkbenchError: the weights are damaged, pickled, or want to run code of their own.
    """
    return _Resolving(workspace, on_progress, Converting(workspace, on_progress, whole)).model(reference)


@dataclass(frozen=True)
class _Resolving:
    """
    Attributes:
        beneath: whether it is the base model of an adapter that is looked for.
    """

    workspace: Workspace
    on_progress: OnProgress
    converting: Converting
    beneath: bool = False

    def model(self, reference: str, revision: str | None = None) -> ModelFolder:
        if reference in BUNDLES:
            return bundled(reference, self.converting)
        path = Path(reference).expanduser()
        if path.is_file() and (path.suffix.lower() == ".gguf" or is_gguf(path)):
            return self.converting.converted(path.stem, path.absolute())
        if path.is_dir():
            return self.folder(path.name, path.absolute())
        if path.exists():
            raise UsageError(f"{reference} is not a model", "name a folder with safetensors weights, or a .gguf file")
        if looks_like_hub_name(reference):
            folder = download(reference, self.on_progress, revision)
            return self.folder(reference.split("/")[-1], folder, "" if revision else reference)
        raise UsageError(
            f"no model called {reference!r}: not a bundled name, not a folder, not a file",
            f"use one of {', '.join(BUNDLES)}, a folder, a GGUF file, or a hub name such as owner/model",
        )

    def folder(self, name: str, folder: Path, hub: str = "") -> ModelFolder:
        if is_adapter_folder(folder):
            return self.base_of(folder)
        if folder.parent == self.workspace.models and (folder / copies.MANIFEST).is_file():
            return self.converting.at(folder, copies.name_of(folder))
        ggufs = sorted(file.name for file in folder.glob("*.gguf"))
        if ggufs and not (folder / "config.json").exists():
            raise UsageError(f"{folder} holds GGUF files", f"name one of them, such as {folder / ggufs[0]}")
        check_folder(folder)
        files, told = weight_files(folder), f"checking {folder.name}"
        digest = digests.of_all(files, self.workspace, lambda: self.on_progress(told, None))
        return ModelFolder(name, folder, digest, hub)

    def base_of(self, folder: Path) -> ModelFolder:
        """The base model of an adapter folder; a path that it names is looked for beside it too."""
        if self.beneath:
            raise UsageError(f"{folder} is an adapter itself", "an adapter belongs to a model")
        config = check_adapter_folder(folder)
        beside = folder / config.base
        try:
            found = replace(self, beneath=True).model(str(beside) if beside.is_dir() else config.base, config.revision)
        except WorkbenchError as error:
            raise UsageError(
                f"the adapter in {folder} belongs to {config.base}, which cannot be loaded: {error.message}",
                f"write where it is to base_model_name_or_path in {folder / CONFIG_NAME}",
            ) from error
        return replace(found, adapter=folder)
