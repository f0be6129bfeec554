"""Weights by name, read from a model's files with what a version changes in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from storage.errors import WorkbenchError
from trainer.policy.models import open_weights, weight_files
from trainer.policy.models.quantised import Grid

EMBEDDING = "model.embed_tokens.weight"


class Changes(Protocol):
    """What a version changes in its base model: an adapter, or the weights of a full version in memory."""

    kind: ClassVar[str]  # lora or full

    @property
    def names(self) -> set[str]: ...

    def merge(self, name: str, weight: Tensor) -> Tensor: ...


class Weights:
    """Tensors by name with changes merged in; read from disk as they are asked for.

    Raises:
        WorkbenchError: a file is damaged, or something is changed that the model does not have.

    Attributes:
        full: the file of a full version, where it is not those of the base model.
    """

    def __init__(self, files: Sequence[Path], changes: Changes | None = None) -> None:
        self.changes = changes
        self.full: Path | None = None
        self._files: dict[str, Any] = {}
        for file in files:
            opened = open_weights(file)
            self._files.update(dict.fromkeys(opened.keys(), opened))
        if changes:
            check_known(changes, self._files.keys())

    @classmethod
    def open(cls, folder: Path, full_version: Path | None = None, source: Path | None = None) -> Weights:
        """The weights of a model folder, or of a full version of it.

        Args:
            source: the GGUF file that the model comes as, to read its weights from.

        Raises:
            WorkbenchError: a weight has another shape there than in the base model (as the headers have it).
        """
        base = cls(weight_files(folder) if source is None else [source])
        if full_version is None:
            return base
        full = cls([full_version])
        full.full = full_version
        for name in full._files.keys() & base._files.keys():
            here, there = (weights._files[name].get_slice(name).get_shape() for weights in (full, base))
            if here != there:
                raise unfit(name, here, there)
        return full

    def get(self, name: str) -> Tensor | None:
        """A tensor, or None when the model has none of that name."""
        opened = self._files.get(name)
        if opened is None:
            return None
        tensor = opened.get_tensor(name)
        merged = self.changes.merge(name, tensor) if self.changes else tensor
        # A view would keep the whole file in memory, beside the copies that are made of most weights.
        return merged.clone() if merged is tensor else merged

    def grid(self, names: Sequence[str]) -> Grid | None:
        """The 4-bit codes of weights, one below the other, where the file has those of all and none is changed."""
        changed = self.changes.names if self.changes else set()
        coded = [getattr(self._files.get(name), "grid", None) for name in names if name not in changed]
        found = [codes(name) for name, codes in zip(names, coded, strict=False) if codes is not None]
        grids = [grid for grid in found if grid is not None]
        return Grid.joined(grids) if len(grids) == len(names) else None

    def names(self) -> list[str]:
        """All tensor names."""
        return list(self._files)


def check_known(changes: Changes, names: Iterable[str]) -> None:
    """Raise WorkbenchError when something is changed that is not among these weights."""
    if unknown := changes.names.difference(names):
        raise WorkbenchError(
            f"the version changes weights that the model lacks, such as {min(unknown)}",
            "this version was trained on another base model",
        )


def unfit(name: str, here: Sequence[int], there: Sequence[int]) -> WorkbenchError:
    """What there is to say of a weight whose shape in a version is not that in the model."""
    return WorkbenchError(
        f"{name} is {tuple(here)}, the model needs {tuple(there)}", "this version was trained on another base model"
    )
