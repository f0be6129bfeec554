"""The number formats of GGUF files: from blocks of bytes to numbers, as `ggml` defines them (ggml-quants.c).

A block holds 32 or 256 neighbouring numbers of a row in few bits, with their scales. Everything is computed in fp32 in
the order in which the `gguf` package computes it: the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 1 << 18  # numbers that are unpacked together: what a cache near a core holds
GROUP = 32  # neighbours that share a scale in the formats of 4 bits


@dataclass(frozen=True)
class Format:
    """
    Attributes:
        numbers, size: numbers and bytes of a block.
        unpack: (blocks, size) bytes -> (blocks, numbers) fp32.
    """

    name: str
    numbers: int
    size: int
    unpack: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Grid:
    """Weights of 4 bits: `codes * step + low`.

    Attributes:
        codes: (out, in) from 0 to 15, bytes. step, low: (out, in / 32), fp32.
    """

    codes: Tensor
    step: Tensor
    low: Tensor

    def rows(self, order: Callable[[Tensor], Tensor]) -> Grid:
        """The same with its rows in another order."""
        return Grid(order(self.codes), order(self.step), order(self.low))

    @staticmethod
    def joined(grids: list[Grid]) -> Grid:
        """Several, one below the other."""
        if len(grids) == 1:
            return grids[0]
        return Grid(*(torch.cat(parts) for parts in zip(*((g.codes, g.step, g.low) for g in grids), strict=True)))


def unpacked(
    raw: Tensor,
    format: Format,  # noqa: A002
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Numbers of that shape from the bytes of a tensor, rounded once."""
    found = torch.empty(shape, dtype=dtype)
    blocks, places = raw.view(-1, format.size), found.view(-1, format.numbers)
    at_once = AT_ONCE // format.numbers
    for part, place in zip(blocks.split(at_once), places.split(at_once), strict=True):
        place.copy_(format.unpack(part))
    return found


def grid_of(raw: Tensor, format: Format, shape: tuple[int, ...]) -> Grid | None:  # noqa: A002
    """The codes of a matrix as the file has them; None where its format is not one of 4 bits."""
    if format.name not in _GRIDS:
        return None
    codes, step, low = _GRIDS[format.name](raw.view(-1, format.size))
    return Grid(codes.view(shape), step.reshape(shape[0], -1), low.reshape(shape[0], -1))


def _half(raw: Tensor, place: int) -> Tensor:
    """(blocks, 1) fp32: the 16-bit float that stands there."""
    return raw[:, place : place + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """(..., n) bytes -> (..., 2n): their lower halves, then their upper ones."""
    return torch.cat([packed & 15, packed >> 4], -1)


def _fifth_bits(raw: Tensor, place: int) -> Tensor:
    """(blocks, 32): 16 or 0 for each bit of the four bytes that stand there."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((raw[:, place : place + 4, None] >> shifts & 1) << 4).flatten(1)


def _grid_4_0(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    step = _half(raw, 0)
    return _nibbles(raw[:, 2:]), step, -8 * step


def _grid_4_1(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _nibbles(raw[:, 4:]), _half(raw, 0), _half(raw, 2)


def _scales(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(blocks, 8) fp32 each: step and low of the groups of a block of 256; scales have 6 bits."""
    first, second, third = raw[:, 4:16].unflatten(1, (3, 4)).unbind(1)
    steps = torch.cat([first & 63, (third & 15) | (first >> 6 << 4)], 1)
    lows = torch.cat([second & 63, (third >> 4) | (second >> 6 << 4)], 1)
    return _half(raw, 0) * steps.float(), -(_half(raw, 2) * lows.float())


def _grid_4_k(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _nibbles(raw[:, 16:].unflatten(1, (4, 32))).flatten(1), *_scales(raw)


def _q4_0(raw: Tensor) -> Tensor:
    return (_nibbles(raw[:, 2:]).to(torch.int8) - 8).float().mul_(_half(raw, 0))


def _on_grid(grid: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
    def unpack(raw: Tensor) -> Tensor:
        codes, step, low = grid(raw)
        groups = codes.float().unflatten(1, (-1, GROUP))
        return groups.mul_(step[..., None]).add_(low[..., None]).flatten(1)

    return unpack


def _q5_0(raw: Tensor) -> Tensor:
    codes = _nibbles(raw[:, 6:]) | _fifth_bits(raw, 2)
    return (codes.to(torch.int8) - 16).float().mul_(_half(raw, 0))


def _q5_1(raw: Tensor) -> Tensor:
    codes = _nibbles(raw[:, 8:]) | _fifth_bits(raw, 4)
    return codes.float().mul_(_half(raw, 0)).add_(_half(raw, 2))


def _q8_0(raw: Tensor) -> Tensor:
    return raw[:, 2:].contiguous().view(torch.int8).float().mul_(_half(raw, 0))


def _q5_k(raw: Tensor) -> Tensor:
    step, low = _scales(raw)
    high = (raw[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1) << 4
    codes = _nibbles(raw[:, 48:].unflatten(1, (4, 32))).view(-1, 8, GROUP) | high
    return codes.float().mul_(step[..., None]).add_(low[..., None]).flatten(1)


def _q6_k(raw: Tensor) -> Tensor:
    low, high = raw[:, :128].unflatten(1, (2, 64)), raw[:, 128:192].unflatten(1, (2, 1, 32))
    low = torch.cat([low & 15, low >> 4], -1).unflatten(2, (4, 32))
    codes = low | (high >> torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None] & 3) << 4
    step = _half(raw, 208) * raw[:, 192:208].contiguous().view(torch.int8).float()
    groups = (codes.to(torch.int8) - 32).float().view(-1, 16, 16)
    return groups.mul_(step[..., None]).flatten(1)


def _plain(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda raw: raw.view(dtype).float()


_GRIDS = {"Q4_0": _grid_4_0, "Q4_1": _grid_4_1, "Q4_K": _grid_4_k}
# By the number that stands for them in a file (ggml.h). Others are left to transformers.
FORMATS = {
    0: Format("F32", 1, 4, _plain(torch.float32)),
    1: Format("F16", 1, 2, _plain(torch.float16)),
    2: Format("Q4_0", 32, 18, _q4_0),
    3: Format("Q4_1", 32, 20, _on_grid(_grid_4_1)),
    6: Format("Q5_0", 32, 22, _q5_0),
    7: Format("Q5_1", 32, 24, _q5_1),
    8: Format("Q8_0", 32, 34, _q8_0),
    12: Format("Q4_K", 256, 144, _on_grid(_grid_4_k)),
    13: Format("Q5_K", 256, 176, _q5_k),
    14: Format("Q6_K", 256, 210, _q6_k),
    30: Format("BF16", 1, 2, _plain(torch.bfloat16)),
}
