"""Weights by name, read from a model's files with what a version changes in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from storage.errors import WorkbenchError
from trainer.policy.adapters import FILE_NAME, HEAD, read_adapter
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
    """Tensors by name with a version's changes applied; read from disk as they are asked for.

    Attributes:
        changes: what a version changes in the files' weights; None for a file that holds them changed already.
        is_full: whether the file is that of a full version.
    """

    def __init__(self, files: Sequence[Path], changes: Changes | None = None) -> None:
        self.changes = changes
        self.is_full = False
        self._used: set[str] = set()
        self._files: dict[str, Any] = {}
        for file in files:
            opened = open_weights(file)
            self._files.update(dict.fromkeys(opened.keys(), opened))

    @classmethod
    def open(cls, folder: Path, version_file: Path | None, source: Path | None = None) -> Weights:
        """The weights of a model folder; with a version's file, those of the version.

        Args:
            source: the GGUF file that the model comes as, to read its weights from.
        """
        files = weight_files(folder) if source is None else [source]
        if version_file is None:
            return cls(files)
        if version_file.name == FILE_NAME:
            return cls(files, read_adapter(version_file))
        full = cls([version_file])
        full.is_full = True
        full.check_shapes(cls(files))
        return full

    def changed(self, name: str) -> bool:
        """Whether a version changes this tensor of the files."""
        return self.changes is not None and name in self.changes.names

    @property
    def shares_embedding(self) -> bool:
        """Whether the embedding is that of the untouched base."""
        return not self.is_full and not self.changed(EMBEDDING)

    @property
    def shares_head(self) -> bool:
        """Whether the output head is that of the untouched base, be it tied to the embedding or not."""
        return self.shares_embedding and not self.changed(HEAD)

    def get(self, name: str) -> Tensor | None:
        """A tensor with the version's update merged in, or None when the model has none of that name.

        Where the embedding is the output head as well, a version that changes the head alone gets one made of it.
        """
        made = name == HEAD and name not in self._files and self.changed(HEAD)
        source = EMBEDDING if made else name
        opened = self._files.get(source)
        if opened is None:
            return None
        self._used.add(name)
        tensor = opened.get_tensor(source)
        merged = self.changes.merge(name, tensor) if self.changes else tensor
        # A view would keep the whole file in memory, beside the copies that are made of most weights.
        return merged.clone() if merged is tensor else merged

    def grid(self, names: Sequence[str]) -> Grid | None:
        """The 4-bit codes of weights, one below the other, where the file has those of all and none is changed."""
        found = []
        for name in names:
            codes = getattr(self._files.get(name), "grid", None)
            grid = codes(name) if codes is not None and not self.changed(name) else None
            if grid is None:
                return None
            found.append(grid)
        return Grid.joined(found)

    def check_shapes(self, base: Weights) -> None:
        """Raise WorkbenchError when a weight has another shape here than in the base model (read from the headers)."""
        for name in self._files.keys() & base._files.keys():
            here, there = (weights._files[name].get_slice(name).get_shape() for weights in (self, base))
            if here != there:
                raise WorkbenchError(
                    f"{name} is {here}, the model needs {there}", "this version was trained on another base model"
                )

    def mark_used(self, name: str) -> None:
        """Note that a weight's change was applied by other means than :meth:`get`."""
        self._used.add(name)

    def names(self) -> list[str]:
        """All tensor names."""
        return list(self._files)

    def check_all_used(self) -> None:
        """Raise WorkbenchError when the version changes a weight that this model does not have."""
        unknown = self.changes.names - self._used if self.changes else set()
        if unknown:
            raise WorkbenchError(
                f"the version changes weights that the model lacks, such as {min(unknown)}",
                "this version was trained on another base model",
            )
