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
    shape, and an optimizer steps each part where it is. A single number stays whole.
    """
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (count,))
    return lambda tensor: _part(tensor, mesh, device) if tensor.ndim else tensor.to(device)


def _part(tensor: Tensor, mesh: Any, device: torch.device) -> Tensor:
    """This process's part, copied so that the whole can be forgotten."""
    from torch.distributed.tensor import DTensor, Shard

    parts = tensor.detach().chunk(mesh.size())
    here = mesh.get_local_rank()
    own = parts[here] if here < len(parts) else tensor.detach()[:0]
    local = own.to(device, copy=True)
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=tensor.shape, stride=tensor.stride())


def is_split(tensor: Tensor) -> bool:
    """Whether the other processes have parts of it."""
    return hasattr(tensor, "full_tensor")  # asked so, torch's distributed tensors need not be imported


def whole(tensor: Any) -> Any:
    """A tensor put together from all processes' parts, with the sum of their gradients flowing back; others as is."""
    if tensor is None or not is_split(tensor):
        return tensor
    from torch.distributed.tensor import Partial

    return tensor.full_tensor(grad_placements=[Partial()])


def part_like(tensor: Any, value: Tensor) -> Tensor:
    """A whole value, cut as another tensor of its shape is; unchanged where that one is not."""
    return _part(value, tensor.device_mesh, tensor.device) if is_split(tensor) else value
