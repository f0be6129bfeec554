"""Another program that holds the workspace: a real process with the write lock, for as long as a test wants."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from storage.workspace import Workspace

_HOLD = """
import sys
from pathlib import Path
from storage.database import open_database
from storage.workspace import Workspace
with open_database(Workspace(Path(sys.argv[1]))) as database:
    with database.transaction():
        print("held", flush=True)
        sys.stdin.readline()
"""


@contextmanager
def held(workspace: Workspace) -> Iterator[None]:
    """The write lock is another process's; it is let go at the end."""
    command = [sys.executable, "-c", _HOLD, str(workspace.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.stdin.write("\n")
            process.stdin.close()
            process.wait()
