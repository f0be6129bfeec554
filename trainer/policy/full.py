"""Full fine-tuning: every weight of the decoder layers is learned, not a low-rank update of some.

The embedding, the output head and the final norm stay those of the base model. A tied embedding then stays tied, and a
version shares its largest matrix with the base.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from storage.durable import sync_file
from storage.errors import UsageError
from trainer.policy import adapters
from trainer.policy.adapters import Adapter
from trainer.policy.lora import LoraAdapter
from trainer.policy.sharding import part_like, shard, whole
from trainer.policy.weights import Weights, unfit

FILE_NAME = "model.safetensors"


@dataclass(frozen=True)
class FullWeights:
    """New values of some weights, in the number format that they are served in.

    Attributes:
        tensors: weight name -> its value, on the CPU.
        folder: the base model, which has all other weights.
    """

    tensors: dict[str, Tensor]
    folder: Path
    kind: ClassVar[str] = "full"

    @property
    def names(self) -> set[str]:
        """The weights that it changes."""
        return set(self.tensors)

    def merge(self, name: str, weight: Tensor) -> Tensor:
        """The new value of a weight, or the weight itself when it is not changed.

        Raises:
            WorkbenchError: it has another shape.
        """
        new = self.tensors.get(name)
        if new is None:
            return weight
        if new.shape != weight.shape:
            raise unfit(name, new.shape, weight.shape)
        return new.to(weight.device)

    def is_finite(self) -> bool:
        """Whether all values are."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.tensors.values())

    def write(self, folder: Path, base: str) -> Path:
        """Write the whole model, unchanged weights included, as one synced safetensors file; returns it."""
        untouched = Weights.open(self.folder, None)
        tensors = {name: untouched.get(name) for name in untouched.names() if name not in self.tensors}
        whole = {name: value.contiguous() for name, value in (tensors | self.tensors).items() if value is not None}
        path = folder / FILE_NAME
        save_file(whole, str(path), metadata={"format": "pt", "base": base})
        sync_file(path)
        return path


Snapshot = Adapter | FullWeights


def read_version(path: Path, folder: Path) -> Snapshot:
    """What a version's file changes in its base model (a folder).

    Raises:
        WorkbenchError: it is damaged, or was made for another model.
    """
    if path.name == adapters.FILE_NAME:
        return adapters.read_adapter(path)
    here, base = Weights.open(folder, path), Weights.open(folder, None)
    changed = {}
    for name in here.names():
        value, before = here.get(name), base.get(name)
        if value is not None and before is not None and not torch.equal(value, before.to(value.dtype)):
            changed[name] = value
    return FullWeights(changed, folder)


class LayerWeights(nn.Module):
    """Master copies in fp32 of the weights of one layer.

    Args:
        values: by their names, as the model's files have them.
        dtype: what the layer computes in.
    """

    def __init__(self, values: dict[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        for name, value in values.items():
            self.register_parameter(_key(name), nn.Parameter(value))

    def forward(self, compute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `compute` makes of a function that gives the weights by their names, and of the other arguments."""
        return compute(self.value, *args, **kwargs)

    def value(self, name: str) -> Tensor | None:
        """A weight as the forward pass takes it, differentiable; None when it is not learned."""
        found = self._parameters.get(_key(name))
        return None if found is None else found.to(self.dtype)


class FullUpdate(nn.Module):
    """All weights that are learned, layer by layer; it stands where a LoRA adapter stands.

    Args:
        folder: the base model.
        names: the weights to learn, as the model's files call them.
        dtype: what the forward pass computes in.
        device: where they are kept.
        mesh: the processes that share them, if any.

    Attributes:
        layers: by what the names of a layer's weights begin with, such as `model.layers.3.`

    Raises:
        UsageError: the files call the weights by other names.
    """

    def __init__(
        self,
        folder: Path,
        names: Iterable[str],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        mesh: Any = None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.dtype = dtype
        self.first_layer = 0  # it changes all of them
        self.names = {name: _key(name) for name in names}
        self.layers: dict[str, LayerWeights] = {}
        for prefix, own in itertools.groupby(self._base_values(), lambda item: prefix_of(item[0])):
            layer = LayerWeights(dict(own), dtype).to(device)
            if mesh:
                shard(layer, mesh, dtype)
            self.layers[prefix] = layer
            self.add_module(_key(prefix), layer)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The master copies, by :attr:`names`."""
        return {key: value for layer in self.layers.values() for key, value in layer.named_parameters()}

    def snapshot(self) -> FullWeights:
        """A copy of the current values, rounded to what the forward pass takes."""
        weights = self.weights
        rounded = {
            name: whole(weights[key].detach()).to("cpu", self.dtype, copy=True) for name, key in self.names.items()
        }
        return FullWeights(rounded, self.folder)

    def load(self, parent: Snapshot) -> None:
        """Start from a version: the values of a full one, or the base with an adapter merged in.

        Raises:
            UsageError: the version changes weights that are not learned here.
        """
        unknown = parent.names - set(self.names)
        if unknown:
            raise UsageError(
                f"the version to go on from changes {min(unknown)}, which full tuning leaves as it is",
                "publish v0 first to start from the base model",
            )
        weights = self.weights
        with torch.no_grad():
            for name, value in self._base_values():
                own = weights[self.names[name]]
                own.copy_(part_like(own, parent.merge(name, value)))

    def _base_values(self) -> Iterator[tuple[str, Tensor]]:
        """The base model's own values in fp32, each with its name."""
        base = Weights.open(self.folder, None)
        for name in self.names:
            value = base.get(name)
            if value is None:
                raise UsageError(
                    f"full tuning of {self.folder.name} is not possible: its files have no weight called {name}",
                    "use --tuning lora",
                )
            yield name, value.float()


Update = LoraAdapter | FullUpdate


def prefix_of(name: str) -> str:
    """What the names of all weights of a layer begin with, up to the layer's number and a dot."""
    return name[: re.search(r"\.\d+\.", name).end()]  # type: ignore[union-attr]


def _key(name: str) -> str:
    return name.replace(".", "|")  # the name of a parameter or module may hold no dot
