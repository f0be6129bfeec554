"""Which matrix product is fastest on this processor for how many rows: measured once, in a second, and remembered.

| kernel | weights | sums | loses |
|---|---|---|---|
| packed | laid out by oneDNN, in the model's number format | fp32 | nothing |
| half | 16-bit floats (fbgemm), activations fp32 | fp32 | nothing where the weights fit: those of a bf16 file do |
| grid | 4 bits (`_weight_int4pack_mm_for_cpu`), activations bf16 | fp32 | rounding, where weights lie on such a grid |

Few rows cost what reading the weights costs, many what multiplying does: so `half` is held against `packed` in fp32 and
`grid` against `packed` in bf16 at rising numbers of rows, and serves as many as it wins. Where bf16 is native, 16-bit
floats would save nothing in layers; the output head, whose logits must be fp32, is served by them in any format.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
import platformdirs
import torch
from torch import Tensor

from trainer.policy import linear
from trainer.policy.linear import ByRows, GridLinear, HalfLinear, Linear, PackedLinear, can_pack, fits_half
from trainer.policy.models.quantised import Grid

ROWS = (1, 2, 4, 8, 16, 32, 64)
SHAPE, LAYERS, TURNS = (1536, 576), 16, 6  # of the weights that are measured with: more than a cache near a core holds
BETTER = 0.97  # a kernel wins that takes at most this share of the other's time
ALL = 1 << 30  # rows
_NAME = "kernels.json"


def frozen_linear(
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    few: bool = True,
    four_bit: bool = False,
    grid: Grid | None = None,
    threads: int | None = None,
) -> Linear:
    """The layer that serves a weight (out, in) that never changes fastest.

    Args:
        few: whether few rows may get a layout of their own that loses nothing.
        four_bit: whether they may be multiplied by 4-bit weights, where the weight lies on such a grid.
        grid: the codes that the weight was made of, where its file has them.
        threads: with how many it is multiplied; None is as many as now.
    """
    if weight.device.type != "cpu":
        return Linear(weight, bias)

    def many() -> Linear:
        return PackedLinear(weight, bias) if can_pack(weight) else Linear(weight, bias)

    if four_bit and (codes := GridLinear.of(weight, bias, grid)) and (most := few_rows("grid", threads)):
        return ByRows(codes, most, many())
    if few and weight.dtype == torch.float32 and fits_half(weight) and (most := few_rows("half", threads)):
        half = HalfLinear(weight, bias)
        return half if most >= ALL else ByRows(half, most, many())
    return many()


def remembered_in() -> Path:
    """The file of what was measured; several processors may share it."""
    return Path(platformdirs.user_cache_dir("alignment-workbench", appauthor=False)) / _NAME


def few_rows(kernel: str, threads: int | None = None) -> int:
    """Up to how many rows `half` or `grid` is faster than `packed`, with so many threads (None is as many as now)."""
    return _few_rows(kernel, threads or torch.get_num_threads())


def measure(dtype: torch.dtype, *, four_bit: bool) -> None:
    """Have at hand what :func:`frozen_linear` asks for weights of that format."""
    if dtype == torch.float32:
        few_rows("half")
    elif four_bit and dtype == torch.bfloat16:
        few_rows("grid")


@cache
def _few_rows(kernel: str, threads: int) -> int:
    key = f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {threads} threads"
    if (remembered := _remembered().get(key, {}).get(kernel)) is not None:
        return remembered
    found = measured(kernel)
    file, known = remembered_in(), _remembered()  # others may have measured meanwhile
    with suppress(OSError):  # then it is measured again by the next process
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(known | {key: known.get(key, {}) | {kernel: found}}, indent=1), encoding="utf-8")
        partial.replace(file)
    return found


def _remembered() -> dict[str, dict[str, int]]:
    """What was measured, by processor; nothing where the file cannot be used."""
    try:
        return msgspec.json.decode(remembered_in().read_bytes(), type=dict[str, dict[str, int]])
    except (OSError, msgspec.DecodeError):
        return {}


@torch.inference_mode()
def measured(kernel: str) -> int:
    """As :func:`few_rows`, measured now."""
    dtype = torch.float32 if kernel == "half" else torch.bfloat16
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randint(-8, 8, SHAPE, generator=generator).to(dtype) for _ in range(LAYERS)]
    for weight in weights:  # on a grid, of whose ends every group has one
        weight[:, :: linear.GROUP], weight[:, 1 :: linear.GROUP] = -8, 7
    make: Callable[[Tensor], Linear] = HalfLinear if kernel == "half" else _on_grid
    rivals = [
        [make(weight) for weight in weights],
        [frozen_linear(weight, None, few=False) for weight in weights],
    ]
    winning = lost = 0
    for rows in ROWS:
        x = torch.randn(rows, SHAPE[1], generator=generator).to(dtype)
        one, other = _seconds(rivals, x)
        if one <= BETTER * other:
            winning, lost = rows, 0
        else:
            lost += 1
        if lost == 2:  # once may be chance
            break
    return ALL if winning == ROWS[-1] else winning


def _on_grid(weight: Tensor) -> Linear:
    found = GridLinear.of(weight)
    assert found is not None
    return found


def _seconds(rivals: list[list[Linear]], x: Tensor) -> list[float]:
    """The least time that each takes: that of every layer, in turns, since other programs interrupt now and then."""
    best = [[float("inf")] * len(layers) for layers in rivals]
    for _ in range(TURNS):
        for layers, times in zip(rivals, best, strict=True):
            for place, layer in enumerate(layers):
                began = time.perf_counter()
                layer(x)
                times[place] = min(times[place], time.perf_counter() - began)
    return [sum(times) for times in best]


@cache
def processor() -> str:
    """The name of the processor; of the architecture alone where the system does not tell."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
