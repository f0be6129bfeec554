"""Adapter folders as peft saves them: which base model they name, and how strongly each of their updates counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from storage.errors import WorkbenchError
from trainer.policy.models.folder import read_json, refuse_pointer, weight_files

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
# Whatever else of peft's LoRA changes what is computed; each is nothing, or says so, where it is not used.
_MORE_THAN_LORA = (
    "use_dora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "layer_replication", "arrow_config",
    "kasa_config", "monteclora_config", "velora_config", "trainable_token_indices", "target_parameters",
)  # fmt: skip
# With these, what training began with is no longer the base model as it is published.
_MOVES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Config:
    """What adapter_config.json says of a LoRA adapter.

    Attributes:
        base: the model that it is an adapter of, as its writer called it. revision: of that model on the hub.
    """

    base: str
    revision: str | None
    alpha: float
    alpha_pattern: Mapping[str, float]
    by_root: bool

    def scale(self, module: str, rank: int) -> float:
        """What B @ A of a module is multiplied with: alpha / rank, or alpha / sqrt(rank) in rank-stabilised LoRA. An
        alpha of its own is found as peft's `get_pattern_key` finds it, by the end of the module's name."""
        matching = (alpha for end, alpha in self.alpha_pattern.items() if re.match(rf"(.*\.)?({end})$", module))
        return float(next(matching, self.alpha)) / (rank**0.5 if self.by_root else rank)


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG_NAME).is_file() and not weight_files(folder)


def read_config(path: Path) -> Config:
    """The configuration of an adapter.

    Raises:
        WorkbenchError: damaged, of another kind than LoRA, or doing more than LoRA does.
    """
    stated = read_json(path, "fetch the adapter again, or put the file beside its weights")
    kind = stated.get("peft_type", "LORA")
    more = [name for name in _MORE_THAN_LORA if stated.get(name)]
    begins = str(stated.get("init_lora_weights", "")).lower()
    if kind != "LORA" or more:
        raise WorkbenchError(
            f"{path.parent} is no plain LoRA adapter ({', '.join(more) or kind})",
            "merge it into its base model with peft (`merge_and_unload`), and load the merged folder",
        )
    if begins.startswith(_MOVES_THE_BASE):
        raise WorkbenchError(
            f"{path.parent} was trained on a changed base model (init_lora_weights is {begins!r})",
            "save it with peft's path_initial_model_for_weight_conversion, or merge it into its base",
        )
    try:
        return Config(
            base=str(stated.get("base_model_name_or_path") or ""),
            revision=stated.get("revision"),
            alpha=float(stated["lora_alpha"]),
            alpha_pattern=dict(stated.get("alpha_pattern") or {}),
            by_root=bool(stated.get("use_rslora")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WorkbenchError(f"{path} states no alpha: {error}", "fetch the adapter again") from error


def check_adapter_folder(folder: Path) -> Config:
    """Refuse what is no adapter that can be loaded; returns its configuration.

    Raises:
        WorkbenchError: as :func:`read_config`; no safetensors weights (pickled ones are never read); no base model.
    """
    config = read_config(folder / CONFIG_NAME)
    if not (folder / WEIGHTS_NAME).is_file():
        pickled = " (found adapter_model.bin, which can run code when opened and is never read)"
        raise WorkbenchError(
            f"there is no {WEIGHTS_NAME} in {folder}{pickled if (folder / 'adapter_model.bin').exists() else ''}",
            "save the adapter with safe_serialization=True",
        )
    refuse_pointer(folder / WEIGHTS_NAME)
    if not config.base:
        raise WorkbenchError(
            f"the adapter in {folder} does not name the model that it belongs to",
            f"write its folder or hub name to base_model_name_or_path in {folder / CONFIG_NAME}",
        )
    return config


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a tokenizer that an adapter folder brings; none where its base model's is meant."""
    if not (folder / "tokenizer_config.json").is_file():
        return []
    names: Iterable[str] = (
        "tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json",
        "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
    )  # fmt: skip
    return [folder / name for name in names if (folder / name).is_file()]
