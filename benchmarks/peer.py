"""The other side of a comparison: a program in a process of its own, which takes a turn whenever it is told to.

The program writes one JSON object a line to its standard output: first what it says when it is ready, then one answer
for each line that it reads. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import cache_folder

PROGRAMS = Path(__file__).resolve().parent / "peers"
ROOT = PROGRAMS.parents[1]


class Peer:
    """A running program of `benchmarks/peers`."""

    def __init__(self, program: str, arguments: Sequence[str], python: Path = Path(sys.executable)) -> None:
        own = {"PYTHONPATH": str(ROOT)} if python == Path(sys.executable) else {}
        self.program = program
        self.process = subprocess.Popen(
            [str(python), str(PROGRAMS / program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **own},
        )
        self.facts = self._answer()

    def turn(self) -> dict[str, Any]:
        """Let it do its work once; what it says about that."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.program} ended with exit code {self.process.wait()}; see its messages")
        return json.loads(line)


def environment_of(name: str, requirements: Sequence[str], patience: float = 1800) -> Path:
    """The Python of a virtual environment with these packages, made on the first call and kept.

    Raises:
        RuntimeError: they cannot be installed; the message holds the end of what pip said.
    """
    folder = cache_folder() / name
    python = folder / "bin" / "python"
    done = folder / "installed.json"
    if done.exists() and json.loads(done.read_text(encoding="utf-8")) == list(requirements):
        return python
    print(f"installing {', '.join(requirements)} into a virtual environment", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)  # one that was half made begins anew
    try:
        ran = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *requirements],
            capture_output=True, text=True, timeout=patience,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"installing {name} took more than {patience:g} s") from error
    if ran.returncode:
        raise RuntimeError(f"{name} cannot be installed: {ran.stderr.strip()[-500:]}")
    done.write_text(json.dumps(list(requirements)), encoding="utf-8")
    return python
