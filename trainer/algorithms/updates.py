"""One step of an optimizer, the same for every method and any number of processes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from trainer.policy.sharding import whole
from trainer.processes import Processes


def adamw(groups: Iterable[dict[str, Any]]) -> optim.AdamW:
    """AdamW as policy and value use it: no decay of weights, and an eps that keeps the first steps of small gradients
    small."""
    return optim.AdamW(groups, lr=0.0, eps=1e-5, weight_decay=0.0, fused=True)


def take_step(optimizer: optim.Optimizer, most: float, processes: Processes) -> tuple[float, bool]:
    """Add up the gradients of all processes, scale them down to the norm `most`, and step if they are finite.

    Returns:
        the norm before scaling (not a number when it is not finite), and whether the step was taken.
    """
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    processes.add_gradients(parameters)
    norm = float(whole(nn.utils.clip_grad_norm_(parameters, most)))  # all that the host waits for
    finite = math.isfinite(norm)
    if finite:
        optimizer.step()
    return norm if finite else math.nan, finite
