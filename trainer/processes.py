"""One job on several processes, as `accelerate launch` starts them: each learns from its part of every batch.

The main process alone touches the database; what it reads, and what becomes of a write, is told to the others. With
one process everything here is free.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from storage.errors import UsageError, WorkbenchError
from storage.wording import counted

if TYPE_CHECKING:  # torch comes only where it is needed: wrong usage answers at once
    from torch import Tensor, nn

T = TypeVar("T")
# What torchrun and accelerate call the number and the rank of the processes, and what MPI's launchers call them.
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK")
# How long one that fails waits for the others to say that they fail alike.
PATIENCE = timedelta(seconds=20)
# How long the others wait for the main one to write a checkpoint or a version; a launcher ends them when it dies.
LONGEST_WAIT = timedelta(hours=4)


class Processes:
    """The processes that work on a job together.

    Attributes:
        rank: which of them this is; 0 is the main one.
        count: how many there are.
        sharded: whether each keeps a part of the weights only. All must then run the model equally often.
    """

    def __init__(self, rank: int = 0, count: int = 1, *, sharded: bool = False) -> None:
        self.rank = rank
        self.count = count
        self.sharded = sharded
        self._farewell: Any = None

    @classmethod
    def launched(cls) -> Processes:
        """The processes that a launcher has started, joined; or this one alone.

        Raises:
            UsageError: the launcher asks for a way to split a model that there is not.
        """
        if _told(COUNTS, 1) == 1:
            _warn_if_alone()
            return cls()
        _refuse_other_ways()
        # Told so by accelerate, transformers would read the weights in the main process alone and leave others empty.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        import torch
        from accelerate import PartialState

        # Not told so, PartialState takes launched CPU processes for single ones: each would be the main one.
        cpu = _asked("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
        state = PartialState(cpu=cpu, timeout=LONGEST_WAIT)
        found = cls(state.process_index, state.num_processes, sharded=_asked("ACCELERATE_USE_FSDP"))
        found._farewell = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        return found

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

        with in_touch():
            broadcast_object_list(told)
        return told[0]

    @contextmanager
    def together(self, tell: Callable[[WorkbenchError], None]) -> Iterator[None]:
        """From the first thing they do to the last. Where all fail alike, the main one tells it, and all of several
        leave with the exit code of the error.

        A launcher ends the others as soon as one has left, so each waits until it was told. One that fails alone tells
        it itself; the others then fail when they next wait for it.
        """
        if self.count == 1:
            yield
            return
        import torch.distributed as dist

        try:
            yield
        except WorkbenchError as error:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            alike = self._all_say(str(error))
            if self.main or not alike:
                tell(error)
            if alike:
                self._all_say("told")
            raise SystemExit(error.exit_code) from error
        finally:
            dist.destroy_process_group()

    def _all_say(self, text: str) -> bool:
        """Whether all processes come here with the same text before the patience ends."""
        import torch.distributed as dist

        said: list[str | None] = [None] * self.count
        try:
            dist.all_gather_object(said, text, group=self._farewell)
        except RuntimeError:
            return False
        return set(said) == {text}

    def gather(self, rows: list[T]) -> list[T]:
        """The rows of all processes, in the order of their ranks."""
        if self.count == 1:
            return rows
        from accelerate.utils import gather_object

        with in_touch():
            return gather_object(rows)

    def sum(self, value: float) -> float:
        """A number added up over all processes."""
        return value if self.count == 1 else float(sum(self.gather([value])))

    def add(self, values: Tensor) -> Tensor:
        """A tensor added up over all processes; not differentiable."""
        if self.count == 1:
            return values
        import torch.distributed as dist

        total = values.clone()
        with in_touch():
            dist.all_reduce(total)
        return total

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in one exchange."""
        if self.count == 1:
            return
        import torch

        from trainer.policy.sharding import is_split

        # The gradients of split weights were added up as they flowed back to each process's part.
        with_gradient = [p for p in parameters if p.requires_grad and not is_split(p)]
        if not with_gradient:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in with_gradient]
        total = self.add(torch.cat([part.flatten() for part in parts]))
        for parameter, part in zip(with_gradient, total.split([part.numel() for part in parts]), strict=True):
            parameter.grad = part.view_as(parameter)

    def parts(self, rows: list[T]) -> list[list[T]]:
        """Each process's share of a batch: neighbouring rows, so that answers to one prompt stay together."""
        borders = [len(rows) * rank // self.count for rank in range(self.count + 1)]
        return [rows[begin:end] for begin, end in itertools.pairwise(borders)]

    def part(self, rows: list[T]) -> list[T]:
        """This process's share of a batch."""
        return self.parts(rows)[self.rank]

    def shares(self, rows: Sequence[T]) -> list[list[T]]:
        """Any number of rows, dealt out to the processes one by one."""
        return [list(rows[rank :: self.count]) for rank in range(self.count)]

    def cut(self, shares: Sequence[list[T]], into_parts: Callable[[list[T]], list[list[T]]]) -> list[list[T]]:
        """This process's share in the parts that run through the model at once: where weights are sharded, as many of
        them as every other process has.

        Args:
            shares: those of all processes.

        Raises:
            UsageError: weights are sharded, and a process has nothing to do.
        """
        if not self.sharded:
            return into_parts(shares[self.rank])
        if not all(shares):
            raise UsageError(
                f"{counted(sum(map(len, shares)), 'answer')} at once cannot be shared by "
                f"{counted(self.count, 'process', 'processes')}",
                "choose a larger batch, or launch fewer processes",
            )
        cuts = [into_parts(share) for share in shares]
        count = min(max(map(len, cuts)), min(map(len, shares)))
        parts = cuts[self.rank]
        while len(parts) < count:
            longest = max(parts, key=len)
            place, half = parts.index(longest), len(longest) // 2
            parts[place : place + 1] = [longest[:half], longest[half:]]
        most = len(parts) - count + 1  # to be put together; the first ones are the shortest
        return [[row for part in parts[:most] for row in part], *parts[most:]]


def concatenate(processes: Processes, values: Tensor) -> Tensor:
    """(n,) values of all processes, in the order of their ranks; not differentiable."""
    import torch

    return torch.tensor(processes.gather(values.tolist()), dtype=values.dtype, device=values.device)


@contextmanager
def in_touch() -> Iterator[None]:
    """Say in words that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        import torch.distributed as dist

        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise WorkbenchError(
            "another process of this job has ended", "it said why; `trainer jobs` lists the job to resume"
        ) from error


def _told(names: Sequence[str], otherwise: int) -> int:
    """The first of some environment variables that is set, as a number."""
    return next((int(os.environ[name]) for name in names if name in os.environ), otherwise)


def _asked(variable: str) -> bool:
    """Whether accelerate's launcher was told so."""
    return os.environ.get(variable, "false").lower() in ("true", "1")


def _refuse_other_ways() -> None:
    if _asked("ACCELERATE_USE_DEEPSPEED"):
        raise UsageError(
            "DeepSpeed was asked for, whose engine this trainer does not use",
            "`accelerate launch --use_fsdp` splits weights and optimizer among the processes, as ZeRO stage 3 does",
        )
    if _asked("ACCELERATE_USE_FSDP") and _asked("FSDP_OFFLOAD_PARAMS"):
        raise UsageError(
            "FSDP was asked to keep its parts in the memory of the host, and this trainer keeps them where it computes",
            "leave out --fsdp_offload_params, and launch more processes if the parts are too large",
        )


def _warn_if_alone() -> None:
    """Say so where several processes were asked for and the launcher started one.

    `accelerate launch --num_processes N` does that on a CPU; it leaves an address to meet at, and nobody to meet.
    """
    if "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        print(
            "accelerate started one process only, and the work goes on in it; for N processes on a CPU launch with\n"
            "  accelerate launch --multi_gpu --num_processes N -m trainer ...    (it needs no GPU), or with torchrun",
            file=sys.stderr,
        )
