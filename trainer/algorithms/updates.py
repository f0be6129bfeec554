"""One step of an optimizer, the same for every method and any number of processes."""

from __future__ import annotations

import math

import torch
from torch import nn, optim

from trainer.policy.sharding import whole
from trainer.processes import Processes


def take_step(optimizer: optim.Optimizer, most: float, processes: Processes) -> tuple[float, bool]:
    """Add up the gradients of all processes, scale them down to the norm `most`, and step if they are finite.

    Returns:
        the norm before scaling (not a number when it is not finite), and whether the step was taken.
    """
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    processes.add_gradients(parameters)
    norm = whole(nn.utils.clip_grad_norm_(parameters, most))
    finite = bool(torch.isfinite(norm))
    if finite:
        optimizer.step()
    return float(norm) if finite else math.nan, finite
