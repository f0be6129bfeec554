"""One job on several processes, as `accelerate launch` starts them: each learns from its part of every batch.

The main process alone touches the database; what it reads, and what becomes of a write, is told to the others. With
one process everything here is free.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from storage.errors import UsageError, WorkbenchError

T = TypeVar("T")


class Processes:
    """The processes that work on a job together.

    Attributes:
        rank: which of them this is; 0 is the main one.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count

    @classmethod
    def launched(cls) -> Processes:
        """The processes that a launcher has started, joined; or this one alone.

        Raises:
            UsageError: the launcher asks for something that adapters on one backbone cannot be split by.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        for variable, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
            if os.environ.get(variable, "false").lower() == "true":
                raise UsageError(
                    f"{name} was asked for, and this trainer keeps the whole base model in each process",
                    "launch with `accelerate launch --multi_gpu` or `--cpu`, which splits the batch instead",
                )
        from accelerate import PartialState

        asked = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
        # Not told so, PartialState takes launched CPU processes for single ones: each would be the main one.
        state = PartialState(cpu=asked or not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes)

    @property
    def main(self) -> bool:
        """Whether this is the one that touches the database."""
        return self.rank == 0

    def share(self, work: Callable[[], T]) -> T:
        """Do something in the main process alone, and let all of them have the result, or the error."""
        if self.count == 1:
            return work()
        told: list[tuple[T | None, BaseException | None]] = [(None, None)]
        if self.main:
            try:
                told = [(work(), None)]
            except WorkbenchError as error:
                told = [(None, error)]
            except BaseException as error:
                self._tell([(None, WorkbenchError(f"the main process failed: {type(error).__name__}: {error}"))])
                raise
        value, failed = self._tell(told)
        if failed is not None:
            raise failed
        return value

    @staticmethod
    def _tell(told: list) -> tuple:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(told)
        return told[0]

    def gather(self, rows: list[T]) -> list[T]:
        """The rows of all processes, in the order of their ranks."""
        if self.count == 1:
            return rows
        from accelerate.utils import gather_object

        return gather_object(rows)

    def sum(self, value: float) -> float:
        """A number added up over all processes."""
        return value if self.count == 1 else float(sum(self.gather([value])))

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in one exchange."""
        if self.count == 1:
            return
        import torch.distributed as dist

        with_gradient = [parameter for parameter in parameters if parameter.requires_grad]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in with_gradient]
        flat = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(flat)
        for parameter, part in zip(with_gradient, flat.split([part.numel() for part in parts]), strict=True):
            parameter.grad = part.view_as(parameter)

    def part(self, rows: list[T]) -> list[T]:
        """This process's share of a batch: neighbouring rows, so that answers to one prompt stay together."""
        each = len(rows) // self.count
        return rows[self.rank * each : (self.rank + 1) * each] if self.count > 1 else rows

    def own(self, rows: Sequence[T]) -> list[T]:
        """This process's share of any number of rows: every `count`-th of them."""
        return list(rows[self.rank :: self.count])


def concatenate(processes: Processes, values: Tensor) -> Tensor:
    """(n,) values of all processes, in the order of their ranks; not differentiable."""
    return torch.tensor(processes.gather(values.tolist()), dtype=values.dtype, device=values.device)
