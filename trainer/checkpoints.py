"""Saving a learner so that it goes on exactly, and reading it back. Tensors go into safetensors, never pickle.

A checkpoint is a folder that appears whole or not at all: it is written under another name, synced, and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from storage.durable import sync_file, sync_folder
from storage.errors import EarlierReleaseError, WorkbenchError
from trainer.learner import Learner
from trainer.policy.sharding import is_split, part_like, whole

TENSORS = "tensors.safetensors"
STATE = "state.json"
ANEW = "start the job anew; what it learned from is kept"


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """Yield a folder to fill; when the block ends well it is synced and takes the place of `destination`."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    try:
        yield partial
        for file in partial.iterdir():
            sync_file(file)
        sync_folder(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if destination.exists():
        shutil.rmtree(destination)
    os.replace(partial, destination)
    sync_folder(destination.parent)


def save(folder: Path, learner: Learner) -> None:
    """Write the whole state of a learner that this process holds all of."""
    write(folder, learner, gathered(learner))


def gathered(learner: Learner, *, keep: bool = True) -> dict[str, Tensor]:
    """All tensors of a learner, on the CPU, by name. What is split among processes is put together piece by piece, so
    that all of them must ask; those that do not keep the pieces get an empty dictionary."""
    tensors: dict[str, Tensor] = {}
    for name, module in learner.modules().items():
        tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in learner.optimizers().items():
        tensors |= _flatten(optimizer.state_dict()["state"], f"{name}/")
    found = {}
    for key, value in tensors.items():
        if keep or is_split(value):
            together = whole(value.detach())
            if keep:
                found[key] = together.cpu().contiguous()
    return found


def write(folder: Path, learner: Learner, tensors: dict[str, Tensor]) -> None:
    """Write the whole state of a learner, with the tensors that :func:`gathered` gave."""
    optimizers = {name: sorted(one.state_dict()["state"]) for name, one in learner.optimizers().items()}
    state = {"learner": learner.state(), "optimizers": optimizers}
    with whole_folder(folder) as partial:
        save_file(tensors, str(partial / TENSORS))
        (partial / STATE).write_text(json.dumps(state), encoding="utf-8")


def load(folder: Path, learner: Learner) -> None:
    """Put a learner back into the state that :func:`save` wrote.

    Raises:
        EarlierReleaseError: it lacks what a learner of today remembers.
        WorkbenchError: it cannot be read, or is of another learner.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / TENSORS))
        for name, module in learner.modules().items():
            current = module.state_dict()
            module.load_state_dict(
                {key: part_like(current[key], value) for key, value in _under(tensors, f"{name}/").items()}
            )
        for name, optimizer in learner.optimizers().items():
            saved = optimizer.state_dict()
            saved["state"] = _unflatten(_under(tensors, f"{name}/"), state["optimizers"][name], optimizer)
            optimizer.load_state_dict(saved)
        learner.restore(state["learner"])
    except KeyError as error:
        raise EarlierReleaseError(
            f"the checkpoint {folder} lacks {error}: it is of an earlier release", ANEW
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise WorkbenchError(f"the checkpoint {folder} cannot be used: {reason}", ANEW) from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _flatten(state: dict[int, dict[str, Any]], prefix: str) -> dict[str, Tensor]:
    """An optimizer's state by parameter number -> tensors by name."""
    return {
        f"{prefix}{number}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, values in state.items()
        for key, value in values.items()
    }


def _unflatten(tensors: dict[str, Tensor], numbers: list[int], optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
    """The state of the parameters of some numbers; what has the shape of its parameter is split as that one is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        number: {
            key: part_like(parameters[number], value) if value.shape == parameters[number].shape else value
            for key, value in _under(tensors, f"{number}/").items()
        }
        for number in numbers
    }
