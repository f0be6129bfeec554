"""A version as GGUF files, which llama.cpp and what is built on it open: a LoRA adapter, or a whole model.

The whole model is the file that the base model came from, with the changed weights in its place: all that the version
leaves as it was, and the tokenizer, are copied as they stand, to the byte. The names of the format and its writer are
those of the `gguf` package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
from torch import Tensor

from storage.errors import UsageError
from trainer.policy.adapters import Adapter
from trainer.policy.full import Snapshot
from trainer.policy.models.folder import EMBEDDING, HEAD, shapes_of, tensor_of

# What configurations call an architecture, where GGUF has another word for it.
_OTHER_NAMES = {"mistral": "llama", "gemma3_text": "gemma3", "gpt_neox": "gptneox"}
# llama.cpp rotates neighbouring dimensions for these; transformers rotates those half a head apart.
_ROTATES_NEIGHBOURS = frozenset({"llama"})
# A norm of these multiplies by one more than its stored weight; GGUF files hold the sum.
_NORMS_ADD_ONE = ("gemma",)


def write_adapter(changes: Adapter, base: Path, path: Path) -> None:
    """Write low-rank updates as a LoRA file for `llama-cli --lora`.

    Raises:
        UsageError: the architecture is not one of GGUF's, or it changes a head that the base shares with its embedding.
    """
    names = _Names(base)
    if HEAD in changes.pairs and HEAD not in shapes_of(base):
        raise UsageError(
            "an output head that is the embedding as well cannot have an adapter in llama.cpp", "use --as merged"
        )
    rank = max(down.shape[0] for down, _ in changes.pairs.values())
    writer = gguf.GGUFWriter(path, names.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, changes.scale * rank)
    for name, (down, up) in sorted(changes.pairs.items()):
        stored = names.stored(name)
        rows = names.rotated(name, up.float() * (down.shape[0] / rank))  # what reads it divides alpha by its own rank
        writer.add_tensor(f"{stored}.lora_a", down.float().contiguous().numpy())
        writer.add_tensor(f"{stored}.lora_b", rows.contiguous().numpy())
    _finish(writer)


def write_merged(changes: Snapshot, base: Path, source: Path, path: Path) -> None:
    """Write the model of the file `source`, from which `base` was converted, with its changed weights in 16 bits (norms
    in 32).

    Raises:
        UsageError: the architecture is not one of GGUF's.
    """
    names = _Names(base)
    changed = {names.stored(name): name for name in sorted(changes.names)}
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields[gguf.Keys.General.ARCHITECTURE].contents())
    writer = gguf.GGUFWriter(path, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in (
            gguf.Keys.General.ARCHITECTURE,
            gguf.Keys.General.FILE_TYPE,
        ):
            continue
        of_list = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], of_list)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        if tensor.name not in changed:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    own = shapes_of(base)
    for stored, name in changed.items():
        # A head that was tied gets weights of its own, from the embedding.
        value = changes.merge(name, tensor_of(base, name if name in own else EMBEDDING).float())
        writer.add_tensor(stored, names.whole(name, value).contiguous().numpy())
    _finish(writer)


class _Names:
    """How GGUF files call the weights of a model, and lay them out.

    Raises:
        UsageError: its architecture is not one of GGUF's.
    """

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = str(self.config.get("model_type"))
        self.architecture = _OTHER_NAMES.get(kind, kind)
        known = {name: architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}
        if self.architecture not in known:
            raise UsageError(f"GGUF knows no architecture {kind!r}", "use --as adapter or --as merged")
        blocks = self.config.get("num_hidden_layers") or self.config.get("n_layer") or 0
        self._map = gguf.get_tensor_name_map(known[self.architecture], blocks)

    def stored(self, name: str) -> str:
        """The name in a GGUF file of a weight that transformers calls `name`."""
        found = self._map.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise UsageError(f"GGUF has no name for the weight {name}", "use --as adapter or --as merged")
        return found

    def rotated(self, name: str, rows: Tensor) -> Tensor:
        """The rows (out, ...) of a weight or an update in the order that GGUF has them."""
        stem = name.removesuffix(".weight").removesuffix(".bias")
        if self.architecture not in _ROTATES_NEIGHBOURS or not stem.endswith((".q_proj", ".k_proj")):
            return rows
        heads = self.config["num_attention_heads"]
        if stem.endswith(".k_proj"):
            heads = self.config.get("num_key_value_heads") or heads
        return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)

    def whole(self, name: str, value: Tensor) -> Tensor:
        """A weight as a GGUF file has it: a matrix in fp16, anything else in fp32."""
        if value.ndim > 1:
            return self.rotated(name, value).half()
        if self.architecture.startswith(_NORMS_ADD_ONE) and "norm" in name:
            return value.float() + 1
        return self.rotated(name, value).float()


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
