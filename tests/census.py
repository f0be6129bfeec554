"""Which operations a piece of code runs, and which of them make the host wait for its device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

WAITING = frozenset(
    f"aten.{name}" for name in ("_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "masked_select")
)


class Census(TorchDispatchMode):
    """Every operation with the shapes that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = tree_map(_shape, args)
        self.seen.append((str(func).rsplit(".", 1)[0], str(shapes)))
        return func(*args, **(kwargs or {}))


def _shape(one: object) -> object:
    if not isinstance(one, torch.Tensor):
        return one
    return ("bool", *one.shape) if one.dtype == torch.bool else tuple(one.shape)


def waits(seen: Sequence[tuple[str, str]]) -> list[str]:
    """Those that the host waits for: it reads a number, or a shape depends on one."""
    # An index of true and false is looked for first, in a kernel of its own.
    return [
        name for name, told in seen if name in WAITING or (name in ("aten.index", "aten.index_put_") and "bool" in told)
    ]
