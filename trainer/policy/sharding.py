"""Weights cut among the processes of a job, by torch's `fully_shard`: each keeps an equal part of those of every layer.

A layer's weights are put together while it runs and dropped after it, once more in the backward pass. All processes
must come to each layer equally often, and in the same order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def mesh_of(device: torch.device, count: int) -> Any:
    """The processes that share weights, as torch counts them."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device.type, (count,))


def shard(module: nn.Module, mesh: Any, dtype: torch.dtype | None = None) -> None:
    """Keep this process's part of a module's parameters, which must be the same in all of them. Gradients are summed.

    What is kept counts as the whole tensor: it has its shape, and an optimizer steps each part where it is. A single
    number stays whole.

    Args:
        dtype: what they are sent and computed with in; None leaves theirs.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    numbers = {parameter for parameter in module.parameters() if not parameter.ndim}
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    sharded = fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=numbers, reshard_after_forward=True)
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def is_split(tensor: Tensor) -> bool:
    """Whether the other processes have parts of it."""
    return hasattr(tensor, "full_tensor")  # asked so, torch's distributed tensors need not be imported


def whole(tensor: Any) -> Any:
    """A tensor put together from all processes' parts; others as they are."""
    return tensor.full_tensor() if is_split(tensor) else tensor


def part_like(tensor: Any, value: Tensor) -> Tensor:
    """A whole value, cut as another tensor of its shape is; unchanged where that one is not."""
    if not is_split(tensor):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)
