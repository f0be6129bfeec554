"""A model as a local folder: its weight files, and what is refused before any of them is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage.errors import WorkbenchError

OnProgress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class ModelFolder:
    """A local model, ready to load: `digest` is the SHA-256 over its weight files."""

    name: str
    path: Path
    digest: str


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
