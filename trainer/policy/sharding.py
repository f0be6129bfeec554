"""Weights cut among the processes of a job, as FSDP asks for: each keeps an equal part of the weights of every layer.

A layer is put together where it is computed with and dropped after it, once more in the backward pass (layers are
computed again there). All processes must come to each layer equally often, and in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Split = Callable[[Tensor], Tensor]


def splitter(device: torch.device, count: int) -> Split:
    """What keeps this process's part of a tensor, cut along its first dimension among `count` processes.

    Every process must give it the same tensor; nothing is sent. What comes back counts as the whole tensor: it has its
    shape, and an optimizer steps each part where it is.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh(device.type, (count,))

    def split(tensor: Tensor) -> Tensor:
        part = tensor.detach().chunk(count)[mesh.get_rank() :][:1]
        own = part[0].to(device, copy=True) if part else tensor.new_empty((0, *tensor.shape[1:]), device=device)
        return DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=tensor.shape, stride=tensor.stride())

    return split


def is_split(tensor: Tensor) -> bool:
    """Whether the other processes have parts of it."""
    return hasattr(tensor, "full_tensor")  # asked so, torch's distributed tensors need not be imported


def whole(tensor: Any) -> Any:
    """A tensor put together from all processes' parts, with the sum of their gradients flowing back; others as is."""
    if tensor is None or not is_split(tensor):
        return tensor
    from torch.distributed.tensor import Partial

    return tensor.full_tensor(grad_placements=[Partial()])


def part_like(tensor: Tensor, value: Tensor) -> Tensor:
    """A whole value, cut as another tensor of its shape is; unchanged where that one is not."""
    if not is_split(tensor):
        return value
    from torch.distributed.tensor import distribute_tensor

    like: Any = tensor
    return distribute_tensor(value.to(tensor.device), like.device_mesh, like.placements, src_data_rank=None)
