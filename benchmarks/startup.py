"""How long until the app paints, and until the engine answers: at a usual start, and at the very first.

    python -m benchmarks.startup [--rounds 5] [--against FOLDER] [--json] [--save]

Each run starts the real commands. `first frame` is the app under a pseudo-terminal, to the frame that names the
screens. `ready` and `first token` are the engine, from the start of its process to the bundled model's being loaded and
to the first token of an answer; `very first` with an empty workspace, and without the measurement of kernels that a
machine keeps. `--against` names another checkout of this program, which is measured in turns with this one. How long
Python takes to import torch alone is measured as well: no start is shorter.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measuring
from storage.workspace import Workspace

PAINTED = b"6 Versions"
ROOM = (24, 80)
PATIENCE = 120.0
HERE = Path(__file__).resolve().parents[1]
ASKED = (
    {"type": "load", "model": "smollm2", "device": "cpu"},
    {"type": "generate", "request": "r", "prompt": "Why is the sky blue?", "sampling": {"max_new_tokens": 8}},
)
FIGURES = ("ready", "first token", "processor", "memory")


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


def engine(checkout: Path, workspace: Path, cache: Path) -> dict[str, float]:
    """One engine from its start to the first token: seconds, seconds of processor time, and MB at the peak.

    Args:
        cache: where what is measured once a machine is kept.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-P", "-m", "workbench.engine.server", "--workspace", str(workspace)]
    found: dict[str, float] = {}
    Workspace(workspace).prepare()
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"".join(json.dumps(request).encode() + b"\n" for request in ASKED))
    process.stdin.flush()
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "failed":
            raise RuntimeError(event["error"])
        if event["type"] == "ready":
            found["ready"] = time.perf_counter() - began
        if event["type"] in ("text", "answer"):
            found["first token"] = time.perf_counter() - began
            break
    process.stdin.close()
    process.stdout.close()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    return found | {"processor": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}


def importing_torch() -> dict[str, float]:
    """What Python takes to start and import torch: seconds, seconds of processor time, MB."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", "import torch"])
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    seconds = time.perf_counter() - began
    return {"ready": seconds, "processor": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}


def measured(checkouts: dict[str, Path], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Runs of every side in turn, by what was started."""
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        app = root / "app"
        first_frame(app)  # writes the byte code, makes the workspace
        sides: dict[str, Callable[[int], dict[str, float]]] = {
            "app": lambda turn: {"ready": first_frame(app)},
            "import torch": lambda turn: importing_torch(),
        }
        for name, checkout in checkouts.items():
            usual = partial(engine, checkout, root / name, root / f"cache-{name}")
            usual()
            sides[f"engine{name}"] = lambda turn, usual=usual: usual()
            sides[f"very first{name}"] = lambda turn, name=name, checkout=checkout: engine(
                checkout, root / f"first{name}-{turn}", root / f"cache{name}-{turn}"
            )
        for turn in range(rounds):
            for side, run in sides.items():
                found.setdefault(side, []).append(run(turn))
    return found


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Median, extremes and number of each figure of each side."""
    return {
        side: {name: measuring.spread([run[name] for run in turns]) for name in FIGURES if name in turns[0]}
        for side, turns in runs.items()
    }


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--against", type=Path, help="another checkout, measured in turns with this one")
    chosen = options.parse_args()
    checkouts = {"": HERE} | ({", before": chosen.against.absolute()} if chosen.against else {})
    result = {"environment": measuring.environment(), "figures": summary(measured(checkouts, chosen.rounds))}
    if chosen.save:
        measuring.save("startup", result)
    if chosen.json:
        print(json.dumps(result))
        return
    print(f"{'median (least)':24}{'ready, s':>18}{'first token, s':>18}{'processor, s':>18}{'memory, MB':>18}")
    for side, figures in result["figures"].items():
        cells = [
            f"{figures[name]['median']:.2f} ({figures[name]['low']:.2f})" if name in figures else "-"
            for name in FIGURES
        ]
        print(f"{side:24}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
