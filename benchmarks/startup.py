"""How long from the command to the first painted frame, on a workspace that was opened before.

    python benchmarks/startup.py [--runs 5] [--json]

Each run starts the real command under a pseudo-terminal and waits for the frame that names the screens. A run before
the measured ones writes the byte code and makes the workspace.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import signal
import statistics
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

PAINTED = b"6 Versions"
ROOM = (24, 80)
PATIENCE = 60.0


def first_frame(workspace: Path) -> float:
    """Seconds from starting the command to the first frame; the app is ended afterwards."""
    environment = {**os.environ, "TERM": "xterm-256color", "WORKBENCH_WORKSPACE": str(workspace)}
    began = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *ROOM, 0, 0))
        os.execve(sys.executable, [sys.executable, "-m", "workbench"], environment)
    try:
        seen = b""
        while PAINTED not in seen:
            if not select.select([terminal], [], [], PATIENCE)[0]:
                raise TimeoutError(f"no frame within {PATIENCE:g} s; the terminal shows {seen[-500:]!r}")
            seen += os.read(terminal, 65536)
        return time.perf_counter() - began
    finally:
        _end(pid, terminal)


def _end(pid: int, terminal: int) -> None:
    """Leave by the quit key, so that the engine is closed too; a command that does not react is killed."""
    os.write(terminal, b"\x11")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                os.read(terminal, 65536)
            except OSError:
                pass
        if os.waitpid(pid, os.WNOHANG)[0]:
            break
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(terminal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        first = first_frame(workspace)
        runs = [first_frame(workspace) for _ in range(options.runs)]
    result = {"first_start": first, "runs": runs, "median": statistics.median(runs), "unit": "s to the first frame"}
    if options.json:
        print(json.dumps(result))
        return
    print("start        seconds to the first frame")
    print(f"first        {first:.3f}")
    for number, seconds in enumerate(runs, 2):
        print(f"{number:<12} {seconds:.3f}")
    print(f"median of {len(runs)}  {result['median']:.3f}")


if __name__ == "__main__":
    main()
