"""How much memory is free, how much was used at most, and what was freed given back to the system."""

from __future__ import annotations

import ctypes
import math
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch


def release() -> None:
    """Hand freed memory back now; to be called between phases that need memory of different shapes.

    The C library keeps what it was once given, in pieces that fit the phase before: without this the sampler's weights
    and the activations of an update lie beside each other, a third more at the peak. Takes some 20 ms. Elsewhere than
    with glibc nothing happens.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def peak(device: torch.device) -> float:
    """The most memory used so far, in bytes: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def available(device: torch.device) -> float:
    """Bytes that can still be allocated: on the card, or in this machine's memory within the limit of our cgroup."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    return min(float(psutil.virtual_memory().available), cgroup_room())


def cgroup_room(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes left under the memory limits of this process's control groups (version 1 or 2); infinite without any."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return math.inf
    room = math.inf
    for line in lines:
        number, controllers, place = line.split(":", 2)
        if number == "0":
            base, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = base / place.lstrip("/")
        for group in [folder, *folder.parents]:
            if group == base.parent:
                break
            room = min(room, _left(group, limit, usage))
    return room


def _left(group: Path, limit: str, usage: str) -> float:
    """Bytes left in one control group; file pages that the kernel may drop at any time count as free."""
    try:
        most = float((group / limit).read_text())
        used = float((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group here, or "max"
        return math.inf
    return most - used + float(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
