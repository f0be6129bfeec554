"""A model as a local folder: its weight files, and what is refused before any of them is read."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import WorkbenchError
from storage.wording import counted

OnProgress = Callable[[str, float | None], None]
INDEX = "model.safetensors.index.json"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Architectures whose output head is a weight of its own unless the configuration says otherwise.
_UNTIED = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Weights that are no part of the model itself: an adapter of it, and another layout of the same weights.
_BESIDE = ("adapter_", "consolidated")
_POINTER = b"version https://git-lfs.github.com/spec/"
_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class ModelFolder:
    """A local model, ready to load.

    Attributes:
        digest: SHA-256 over its weight files.
        hub: its name on the hub, where it came from there.
        adapter: the folder of an adapter that was named, of which this is the base model.
        words: a folder with another tokenizer than its own, as an adapter may bring one.
        source: the GGUF file that it comes as, where its weights can be read there; the folder may have none then.
    """

    name: str
    path: Path
    digest: str
    hub: str = ""
    adapter: Path | None = None
    words: Path | None = None
    source: Path | None = None

    @property
    def reference(self) -> str:
        """What any other program opens it by: its name on the hub, or its path."""
        return self.hub or str(self.path.absolute())


def check_folder(folder: Path) -> None:
    """Refuse what is not a plain and whole safetensors model; of the weights, only their headers are read.

    Raises:
        WorkbenchError: no config, or one that runs code; no safetensors weights (pickled ones are never read), some of
            them missing, damaged, quantised or mere pointers.
    """
    config = read_json(folder / "config.json", "a model folder needs its config.json")
    if "auto_map" in config:
        raise WorkbenchError(
            f"the model in {folder} wants to run Python code of its own (auto_map in config.json)",
            "code that comes with a model is never run; use a model whose architecture is part of transformers",
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "some method")
        raise WorkbenchError(
            f"the weights in {folder} are quantised ({method})",
            "use the model's plain safetensors weights, or a GGUF file of it",
        )
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
        refuse_pointer(folder / name)
    if not weight_files(folder):
        pickled = [file.name for file in folder.glob("*.bin")] + [file.name for file in folder.glob("*.pt*")]
        found = f" (found {', '.join(pickled)}, which can run code when opened and is never read)" if pickled else ""
        raise WorkbenchError(
            f"there are no safetensors weights in {folder}{found}",
            "convert the weights to safetensors, or use a GGUF file",
        )
    if (folder / "adapter_config.json").exists():  # transformers would load the adapter, on the model that it names
        raise WorkbenchError(
            f"{folder} holds a model and the configuration of an adapter",
            "put adapter_config.json, and its weights, into a folder of their own",
        )
    _check_weights(folder, config)


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        WorkbenchError: missing, damaged, or a pointer; with that hint.
    """
    refuse_pointer(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkbenchError(f"{path} cannot be read: {error}", hint) from error
    if not isinstance(found, dict):
        raise WorkbenchError(f"{path} cannot be read: it holds no JSON object", hint)
    return found


def refuse_pointer(path: Path) -> None:
    """Raise WorkbenchError where a file is a pointer that Git LFS left in its place. A missing file is none."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(_POINTER))
    except FileNotFoundError:
        return
    if begins == _POINTER:
        raise WorkbenchError(
            f"{path} is a Git LFS pointer, and not the file itself", f"run `git lfs pull` in {path.parent}"
        )


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a model folder, in a fixed order. As in transformers, `model.safetensors` goes first, then
    those that the index names; without either it is all that are not beside the model."""
    whole = folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    try:
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        named = set()
    return sorted(
        {folder / name for name in named}
        or {file for file in folder.glob("*.safetensors") if not file.name.startswith(_BESIDE)}
    )


def open_weights(file: Path) -> Any:
    """A file of weights, as `safetensors.safe_open` opens one for torch; a llama's GGUF file as if it were its copy.

    Raises:
        WorkbenchError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    from trainer.policy.models.gguf_file import GgufWeights

    try:
        return GgufWeights(file) if is_gguf(file) else safe_open(str(file), framework="pt")
    except (OSError, SafetensorError, ValueError, struct.error) as error:
        raise WorkbenchError(f"the weights {file} cannot be read: {error}", "the file is damaged") from error


def stored_bytes(folder: ModelFolder) -> int:
    """The size of a model's weights in bytes, as its folder has them or would."""
    if folder.source is None:
        return sum(file.stat().st_size for file in weight_files(folder.path))
    return 2 * count(folder.path, folder.source)


def count(folder: Path, source: Path | None = None) -> int:
    """How many numbers a model has, read from the headers of its files.

    Args:
        source: the GGUF file that it comes as, where it has no copy.
    """
    total = 0
    for file in weight_files(folder) if source is None else [source]:
        opened = open_weights(file)
        total += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    return total


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _check_weights(folder: Path, config: dict[str, Any]) -> None:
    files = weight_files(folder)
    missing = [file.name for file in files if not file.is_file()] or _missing_shards(files)
    if missing:
        raise WorkbenchError(
            f"{folder} lacks {len(missing)} of its weight files, such as {min(missing)}", "fetch the model again"
        )
    shapes = shapes_of(folder)
    if EMBEDDING not in shapes:  # an architecture with names of its own: transformers says what is wrong
        return
    rows, stated = shapes[EMBEDDING][0], config.get("vocab_size")
    if stated is not None and rows != stated:
        raise WorkbenchError(
            f"the weights of {folder} have embeddings of {counted(rows, 'token')}, its config.json states {stated}",
            "set vocab_size in config.json to what the weights have, or fetch the model again",
        )
    tied = config.get("tie_word_embeddings")
    if not tied and HEAD not in shapes and config.get("model_type") in _UNTIED:
        raise WorkbenchError(
            f"the weights of {folder} lack an output head ({HEAD})",
            "where it is the embedding as well, set tie_word_embeddings to true in config.json",
        )
    if tied and HEAD in shapes and not tensor_of(folder, HEAD).equal(tensor_of(folder, EMBEDDING)):
        raise WorkbenchError(
            f"the weights of {folder} have an output head of their own, its config.json says that it is the embedding",
            "set tie_word_embeddings to false in config.json",
        )


def shapes_of(folder: Path) -> dict[str, list[int]]:
    """The shapes of a model's weights, as their files call them."""
    return {name: shape for file in weight_files(folder) for name, shape in _header(file).items()}


def tensor_of(folder: Path, name: str) -> Any:
    """A weight as a model's files have it. Raises KeyError where they have none of that name."""
    from safetensors import safe_open

    file = next((file for file in weight_files(folder) if name in _header(file)), None)
    if file is None:
        raise KeyError(name)
    with safe_open(str(file), framework="pt") as opened:
        return opened.get_tensor(name)


def _header(file: Path) -> dict[str, list[int]]:
    """The shapes of a weight file's tensors."""
    from safetensors import SafetensorError, safe_open

    refuse_pointer(file)
    try:
        with safe_open(str(file), framework="numpy") as opened:
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WorkbenchError(f"the weights {file} cannot be read: {error}", "the file is damaged") from error


def _missing_shards(files: list[Path]) -> list[str]:
    """Files that by the numbers in the others' names should be there, where no index says which there are."""
    names = {file.name for file in files}
    found = [match for name in names if (match := _SHARD.fullmatch(name))]
    return [
        name
        for match in found
        for number in range(1, int(match["count"]) + 1)
        if (name := f"{match['name']}-{number:05}-of-{match['count']}.safetensors") not in names
    ]
