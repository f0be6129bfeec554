"""The app without an engine: `python -m benchmarks.engineless DIR`. It reviews and looks, and answers nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from storage.workspace import Workspace
from workbench import garbage

if __name__ == "__main__":
    garbage.not_yet()  # as the command does
    from workbench.shell.app import WorkbenchApp

    WorkbenchApp(Workspace(Path(sys.argv[1])).prepare(), start_engine=False).run()
