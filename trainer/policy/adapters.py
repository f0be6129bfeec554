"""LoRA adapter files: low-rank updates `scale * B @ A` to the linear layers of a base model (Hu et al. 2021).

The files use the key names and the metadata of peft, so that a version folder can be opened by peft as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from storage.durable import sync_file
from storage.errors import WorkbenchError
from trainer.policy.models.adapter_folder import CONFIG_NAME, WEIGHTS_NAME, Config, read_config

PREFIX = "base_model.model."
# The output head; a model that ties it to its embedding has no such weight until an adapter gives it one.
HEAD = "lm_head.weight"
BASE_LAYER = ".base_layer.weight"
FILE_NAME = WEIGHTS_NAME


class LowRank(NamedTuple):
    """The updates of weights that stand below each other in one matrix: A (rank, in) and B (out, rank) of each."""

    downs: list[Tensor]
    ups: list[Tensor]
    scale: float

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """All A stacked (sum of ranks, in), and all B on a block diagonal (sum of outs, sum of ranks), scaled."""
        return torch.cat(self.downs).to(dtype), (torch.block_diag(*self.ups) * self.scale).to(dtype)


@dataclass(frozen=True)
class Adapter:
    """Low-rank updates by the name of the weight they change.

    Attributes:
        pairs: weight name -> (A: (rank, in), B: (out, rank)).
        scale: what `B @ A` is multiplied with.
    """

    pairs: dict[str, tuple[Tensor, Tensor]]
    scale: float
    kind: ClassVar[str] = "lora"

    @property
    def names(self) -> set[str]:
        """The weights that it changes."""
        return set(self.pairs)

    def merge(self, name: str, weight: Tensor) -> Tensor:
        """The weight with its update, computed in fp32 from the pristine weight and rounded once.

        Raises:
            WorkbenchError: the update does not fit the weight.
        """
        if name not in self.pairs:
            return weight
        down, up = (part.to(weight.device) for part in self.update(name, weight.shape))
        return torch.addmm(weight.float(), up, down).to(weight.dtype)

    def update(self, name: str, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A (rank, in) and B (out, rank) of a weight, both fp32, the scale in B.

        Raises:
            WorkbenchError: the update does not fit a weight of that shape.
        """
        down, up = self.pairs[name]
        if (up.shape[0], down.shape[1]) != tuple(shape) or up.shape[1] != down.shape[0]:
            raise WorkbenchError(
                f"the adapter's {name} is {tuple(up.shape)} x {tuple(down.shape)}, the model's {tuple(shape)}",
                "this adapter was trained on another base model",
            )
        return down.float(), up.float() * self.scale

    def joined(self, shapes: Mapping[str, tuple[int, int]], device: torch.device) -> LowRank | None:
        """The updates of weights that are multiplied as one, by their shapes; None when none of them is adapted."""
        if not self.names & shapes.keys():
            return None
        parts = [
            self.update(name, shape) if name in self.pairs else (torch.zeros(0, shape[1]), torch.zeros(shape[0], 0))
            for name, shape in shapes.items()
        ]
        downs, ups = zip(*parts, strict=True)
        return LowRank([down.to(device) for down in downs], [up.to(device) for up in ups], 1.0)

    def is_finite(self) -> bool:
        """Whether all values are."""
        return all(bool(torch.isfinite(part).all()) for pair in self.pairs.values() for part in pair)

    def write(self, folder: Path, base: str) -> Path:
        """Write it as peft does, synced; returns the file of the weights. `base` names the model it belongs to."""
        rank = next(iter(self.pairs.values()))[0].shape[0]
        write_adapter(folder / FILE_NAME, self.pairs, alpha=self.scale * rank, base=base)
        return folder / FILE_NAME


def read_adapter(path: Path) -> Adapter:
    """Read an adapter file.

    An update whose scale is its own has it folded into B, so that one scale holds for all.

    Raises:
        WorkbenchError: missing, truncated, holding values that are not finite, no adapter, or more than one.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (OSError, SafetensorError) as error:
        raise WorkbenchError(f"the adapter {path} cannot be read: {error}", "it is damaged or incomplete") from error
    config = None if "lora_alpha" in metadata else _config_beside(path)
    pairs, scales = {}, {}
    for key, down in tensors.items():
        if key.endswith(BASE_LAYER):  # of an output head peft saves the weight that the update stands beside, too
            continue
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            raise WorkbenchError(
                f"the adapter {path} holds more than low-rank updates, such as {key}",
                "merge it into its base model with peft (`merge_and_unload`), and load the merged folder",
            )
        if key.endswith(".lora_B.weight"):
            continue
        up = tensors.get(key.replace(".lora_A.", ".lora_B."))
        if up is None:
            raise WorkbenchError(f"the adapter {path} has {key} without its lora_B", "it is damaged or incomplete")
        module = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        pairs[f"{module}.weight"] = (down, up)
        scales[f"{module}.weight"] = config.scale(module, down.shape[0]) if config else 0.0
    if not pairs:
        raise WorkbenchError(f"{path} holds no LoRA weights", "name the file of a LoRA adapter")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise WorkbenchError(f"the adapter {path} holds values that are not finite", "it must not be served")
    if config is None:
        return Adapter(pairs, float(metadata["lora_alpha"]) / float(metadata["r"]))
    common = next(iter(scales.values()))
    return Adapter(
        {
            name: (down, up if scales[name] == common else up.float() * (scales[name] / common))
            for name, (down, up) in pairs.items()
        },
        common,
    )


def write_adapter(path: Path, pairs: dict[str, tuple[Tensor, Tensor]], *, alpha: float, base: str) -> None:
    """Write an adapter file and peft's configuration beside it; both are synced to disk.

    Args:
        alpha: updates are scaled by alpha / r, where r is the rank of the first pair. Pairs of other ranks get the
            same scale, which peft is told by its rank and alpha patterns.
    """
    rank = next(iter(pairs.values()))[0].shape[0]
    others = {name.removesuffix(".weight"): down.shape[0] for name, (down, _) in pairs.items() if down.shape[0] != rank}
    tensors = {}
    for name, (down, up) in pairs.items():
        key = PREFIX + name.removesuffix(".weight")
        tensors[f"{key}.lora_A.weight"] = down.detach().to("cpu", torch.float32).contiguous()
        tensors[f"{key}.lora_B.weight"] = up.detach().to("cpu", torch.float32).contiguous()
    metadata = {"format": "pt", "r": str(rank), "lora_alpha": repr(float(alpha)), "base": base}
    save_file(tensors, str(path), metadata=metadata)
    sync_file(path)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": others,
        "alpha_pattern": {name: alpha / rank * other for name, other in others.items()},
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": _target_modules(list(pairs)),
    }
    config_file = path.with_name(CONFIG_NAME)
    config_file.write_text(json.dumps(config, indent=2), encoding="utf-8")
    sync_file(config_file)


def _config_beside(path: Path) -> Config:
    """peft's configuration beside an adapter's weights, which says how strongly they count."""
    file = path.with_name(CONFIG_NAME)
    if not file.is_file():
        raise WorkbenchError(f"the scale of the adapter {path} is unknown", f"put its {CONFIG_NAME} beside it")
    return read_config(file)


def _target_modules(names: Sequence[str]) -> list[str]:
    """What peft is told to adapt: kinds of modules where all layers from the first on have the same adapted, else each
    module by its name, since peft would adapt the others of its kind as well."""
    modules = [name.removesuffix(".weight") for name in names]
    layers: dict[int, set[str]] = {}
    for module in modules:
        if found := re.search(r"\.(\d+)\.", module):
            layers.setdefault(int(found[1]), set()).add(module[found.end() :])
    alike = set(layers) == set(range(len(layers))) and len(set(map(frozenset, layers.values()))) <= 1
    return sorted({module.split(".")[-1] for module in modules} if alike else set(modules))
