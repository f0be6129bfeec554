"""What goes wrong in the chaos run: locks that are held, processes that stand still, clocks that step, disks that fail.

Failing disks and stepping clocks come from `chaos_shim.c`, which is compiled once into the work folder. Where there is
no compiler (or no Linux) those two are left out.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from storage.database import open_database
from storage.workspace import Workspace

SOURCE = Path(__file__).with_name("chaos_shim.c")
COMPILERS = ("cc", "gcc", "clang")
SLOTS = {"app": 0, "second app": 1, "trainer": 2, "command": 3}  # whose writes fail; an engine shares its app's
FOR_EVER = 2**30


class _Slot(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("error", "after", "times", "failed")]


class _Control(ctypes.Structure):
    _fields_ = [("clock", ctypes.c_int64), ("slots", _Slot * 16)]


class Faults:
    """The shim and its control file. `missing` says why there is none; empty where there is."""

    def __init__(self, work: Path, root: Path) -> None:
        self.root = root
        self.library = work / "shim.so"
        self.missing = self._compile()
        self.path = work / "control"
        if not self.path.exists():  # one that a process obeys already must not be written anew
            self.path.write_bytes(bytes(ctypes.sizeof(_Control)))
        with self.path.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), 0)
        self._control = _Control.from_buffer(self._mapped)

    def environment(self, slot: str) -> dict[str, str]:
        """What to add to a process's environment, so that it obeys."""
        plain = {"OMP_NUM_THREADS": "1"}
        if self.missing:
            return plain
        return plain | {
            "LD_PRELOAD": str(self.library), "CHAOS_CONTROL": str(self.path), "CHAOS_ROOT": str(self.root),
            "CHAOS_SLOT": str(SLOTS[slot]),
        }  # fmt: skip

    def set_clock(self, seconds: float) -> None:
        """Every process's clock, this far from the true time."""
        self._control.clock = int(seconds * 1e9)

    def fail(self, slot: str, error: int, after: int, times: int = FOR_EVER) -> None:
        """Let the writes of a slot's processes fail after some more of them, a number of times."""
        chosen = self._control.slots[SLOTS[slot]]
        chosen.after, chosen.times, chosen.error = after, times, error

    def heal(self) -> int:
        """No disk fails any more; returns how many calls did."""
        failed = 0
        for slot in self._control.slots:
            failed += slot.failed
            slot.error = slot.failed = 0
        return failed

    def _compile(self) -> str:
        if not sys.platform.startswith("linux"):
            return "the shim is made for Linux"
        found = next(filter(None, map(shutil.which, COMPILERS)), None)
        if found is None:
            return f"none of {', '.join(COMPILERS)} is installed"
        if not self.library.exists() or self.library.stat().st_mtime < SOURCE.stat().st_mtime:
            line = [found, "-O2", "-shared", "-fPIC", "-o", str(self.library), str(SOURCE), "-ldl"]
            made = subprocess.run(line, capture_output=True, text=True, check=False)
            return made.stderr.strip()
        return ""


class Lock:
    """The write lock of the workspace, held by this process for some seconds."""

    def __init__(self, workspace: Workspace, seconds: float) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(workspace, seconds), daemon=True)
        self._thread.start()

    def _hold(self, workspace: Workspace, seconds: float) -> None:
        with open_database(workspace) as database, database.transaction():
            self._ended.wait(seconds)

    def join(self) -> None:
        """Wait until it is given back."""
        self._thread.join()

    def release(self) -> None:
        """Give it back now."""
        self._ended.set()
        self._thread.join()


def stand_still(pid: int, seconds: float) -> threading.Timer:
    """SIGSTOP a process, and let it go on (SIGCONT) after some seconds; the timer of that is returned."""

    def go_on() -> None:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # killed meanwhile

    timer = threading.Timer(seconds, go_on)
    timer.daemon = True
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        pass
    timer.start()
    return timer


FULL, BROKEN = errno.ENOSPC, errno.EIO
