"""Saving a training run so that it goes on exactly, and reading it back. Tensors go into safetensors, never pickle.

A checkpoint is a folder that appears whole or not at all: it is written under another name, synced, and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from storage.database import sync_file, sync_folder
from storage.errors import WorkbenchError
from trainer.algorithms.maths import KlController
from trainer.algorithms.ppo import Ppo

TENSORS = "tensors.safetensors"
STATE = "state.json"


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


def save_ppo(folder: Path, run: Ppo) -> None:
    """Write the whole state of a PPO run."""
    tensors: dict[str, Tensor] = {}
    for name, module in _modules(run).items():
        tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    optimizers = {}
    for name, optimizer in _optimizers(run).items():
        found, plain = _flatten(optimizer.state_dict()["state"], f"{name}/")
        tensors |= found
        optimizers[name] = plain
    for key, (down, up) in run.last_good.pairs.items():
        tensors[f"last_good/{key}/down"], tensors[f"last_good/{key}/up"] = down, up
    state = {
        "step": run.step,
        "rollbacks": run.rollbacks,
        "controller": asdict(run.controller),
        "optimizers": optimizers,
    }
    with whole_folder(folder) as partial:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, str(partial / TENSORS))
        (partial / STATE).write_text(json.dumps(state), encoding="utf-8")


def load_ppo(folder: Path, run: Ppo) -> None:
    """Put a run back into the state that :func:`save_ppo` wrote. Raises WorkbenchError when it cannot be read."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / TENSORS))
        for name, module in _modules(run).items():
            module.load_state_dict(_under(tensors, f"{name}/"))
        for name, optimizer in _optimizers(run).items():
            current = optimizer.state_dict()
            current["state"] = _unflatten(_under(tensors, f"{name}/"), state["optimizers"][name])
            optimizer.load_state_dict(current)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise WorkbenchError(
            f"the checkpoint {folder} cannot be used: {error}", "start the job anew with `trainer run`"
        ) from error
    pairs = {key: (tensors[f"last_good/{key}/down"], tensors[f"last_good/{key}/up"]) for key in run.last_good.pairs}
    run.last_good = type(run.last_good)(pairs, run.last_good.scale)
    run.step = state["step"]
    run.rollbacks = state["rollbacks"]
    run.controller = KlController(**state["controller"])


def _modules(run: Ppo) -> dict[str, torch.nn.Module]:
    return {"policy": run.policy, "value_adapter": run.value_adapter, "value_head": run.value_head}


def _optimizers(run: Ppo) -> dict[str, torch.optim.Optimizer]:
    return {"policy_optimizer": run.policy_optimizer, "value_optimizer": run.value_optimizer}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _flatten(state: dict[int, dict[str, Any]], prefix: str) -> tuple[dict[str, Tensor], list[int]]:
    """An optimizer's state by parameter number -> tensors by name, and the numbers that have state."""
    tensors = {}
    for number, values in state.items():
        for key, value in values.items():
            tensors[f"{prefix}{number}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors, sorted(state)


def _unflatten(tensors: dict[str, Tensor], numbers: list[int]) -> dict[int, dict[str, Tensor]]:
    return {number: _under(tensors, f"{number}/") for number in numbers}
