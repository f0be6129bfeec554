"""Many small pieces of work at once on a CPU: each on one thread, instead of one after the other on all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def side_by_side(work: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """What `work` makes of each item, in their order.

    Laying weights out is a chain of short operations. Split among threads, each of them ends with waiting for the
    slowest: on two cores that others used as well the bundled model took four times the processor time. What `work`
    computes on must not be used elsewhere meanwhile, and it finds one thread where it asks for their number.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(item) for item in items]
    try:
        with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)  # threads that begin later take the number that was set last, by whichever one
