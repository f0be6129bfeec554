"""A GGUF file: what it states, its tensors, and those of a llama by the names that model folders give them."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.policy.models.quantised import FORMATS, Format, Grid, grid_of, unpacked

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32  # bytes, unless the file states another
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """Where a tensor is: its shape, rows first; `kind` is its format's number, `start` counts from the data's begin."""

    shape: tuple[int, ...]
    kind: int
    start: int


class GgufFile:
    """A file, mapped into memory; tensors are read as they are asked for.

    Attributes:
        stated: its metadata. tensors: by their names there.

    Raises:
        ValueError, struct.error: it is no such file, or breaks off. OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:  # a private map: torch wants memory that could be written
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if self._bytes[:4] != MAGIC:
            raise ValueError("it does not begin as a GGUF file does")
        self._at = 4
        version, count, entries = self._numbers("IQQ")
        if version not in _VERSIONS:
            raise ValueError(f"it is of version {version}")
        self.stated: dict[str, Any] = {self._string(): self._value(*self._numbers("I")) for _ in range(entries)}
        self.tensors = dict(self._stored() for _ in range(count))
        alignment = self.stated.get("general.alignment", _ALIGNMENT)
        self._data = -(-self._at // alignment) * alignment

    def format(self, name: str) -> Format | None:
        """The number format of a tensor; None for one that is not read here."""
        return FORMATS.get(self.tensors[name].kind)

    def raw(self, name: str) -> Tensor:
        """(bytes,) of a tensor, in the map itself.

        Raises:
            ValueError: the file ends before.
        """
        stored, form = self.tensors[name], self.format(name)
        if form is None:
            raise ValueError(f"the number format {stored.kind} of {name} is not read here")
        size = math.prod(stored.shape) // form.numbers * form.size
        if self._data + stored.start + size > len(self._bytes):
            raise ValueError(f"it ends within {name}")
        return torch.frombuffer(self._bytes, dtype=torch.uint8, count=size, offset=self._data + stored.start)

    def _numbers(self, format: str) -> tuple[Any, ...]:  # noqa: A002
        found = struct.unpack_from("<" + format, self._bytes, self._at)
        self._at += struct.calcsize("<" + format)
        return found

    def _string(self) -> str:
        (length,) = self._numbers("Q")
        self._at += length
        if self._at > len(self._bytes):
            raise ValueError("it breaks off")
        return self._bytes[self._at - length : self._at].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            of, length = self._numbers("IQ")
            if of in _NUMBERS:
                return list(self._numbers(f"{length}{_NUMBERS[of]}"))
            return [self._value(of) for _ in range(length)]
        if kind not in _NUMBERS:
            raise ValueError(f"a value is of the unknown kind {kind}")
        return self._numbers(_NUMBERS[kind])[0]

    def _stored(self) -> tuple[str, Stored]:
        name = self._string()
        (dimensions,) = self._numbers("I")
        shape = self._numbers(f"{dimensions}Q")
        kind, start = self._numbers("IQ")
        return name, Stored(tuple(reversed(shape)), kind, start)


class GgufWeights:
    """The weights of a llama's GGUF file as safetensors opens those of its converted copy: the same names, the same
    numbers to the bit (bf16)."""

    def __init__(self, path: Path) -> None:
        self.file = GgufFile(path)
        self._names = {ours: name for name in self.file.tensors if (ours := folder_name(name)) is not None}
        self._heads = self.file.stated["llama.attention.head_count"]
        self._key_heads = self.file.stated.get("llama.attention.head_count_kv", self._heads)

    def keys(self) -> list[str]:
        return sorted(self._names)

    def get_slice(self, name: str) -> Shape:
        return Shape(self.file.tensors[self._names[name]].shape)

    def get_tensor(self, name: str) -> Tensor:
        """A weight, bf16."""
        stored = self._names[name]
        form = self.file.format(stored)
        assert form is not None  # `raw` refuses it
        shape = self.file.tensors[stored].shape
        return self._rows(name, unpacked(self.file.raw(stored), form, shape, torch.bfloat16))

    def grid(self, name: str) -> Grid | None:
        """The codes of a weight, where it is one of 4 bits."""
        stored = self._names.get(name)
        form = self.file.format(stored) if stored else None
        if stored is None or form is None:
            return None
        found = grid_of(self.file.raw(stored), form, self.file.tensors[stored].shape)
        return None if found is None else found.rows(partial(self._rows, name))

    def _rows(self, name: str, found: Tensor) -> Tensor:
        """The rows of queries and keys as folders order them: llama.cpp rotates neighbours, transformers halves."""
        heads = {"q_proj": self._heads, "k_proj": self._key_heads}.get(name.rsplit(".", 2)[-2])
        if heads is None:
            return found
        return found.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(found.shape)


@dataclass(frozen=True)
class Shape:
    """What safetensors calls a slice, as far as it is asked here."""

    shape: tuple[int, ...]

    def get_shape(self) -> list[int]:
        return list(self.shape)


def folder_name(name: str) -> str | None:
    """What model folders call a tensor of a llama; None for one that they do not have."""
    if name.removesuffix(".weight") in _WHOLE:
        return _WHOLE[name.removesuffix(".weight")] + ".weight"
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if found is None or found[2] not in _LAYER:
        return None
    return f"model.layers.{found[1]}.{_LAYER[found[2]]}.weight"


def as_safetensors(weights: GgufWeights) -> Iterator[Any]:
    """The bytes of the converted copy, `model.safetensors` as the safetensors package writes it, piece by piece."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in weights.keys():  # noqa: SIM118
        shape = weights.get_slice(name).get_shape()
        begin, end = end, end + math.prod(shape) * torch.bfloat16.itemsize
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    yield struct.pack("<Q", len(written)) + written
    for name in weights.keys():  # noqa: SIM118
        yield weights.get_tensor(name).contiguous().view(-1).view(torch.uint8).numpy()


def digest_of(weights: GgufWeights) -> str:
    """The digest of the model, which is that of its converted copy (`storage.digests.of_all`), without making one."""
    whole = hashlib.sha256()
    for piece in as_safetensors(weights):
        whole.update(piece)
    return hashlib.sha256(whole.digest()).hexdigest()
