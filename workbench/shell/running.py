"""The app from its start to its exit code."""

from __future__ import annotations

from storage.workspace import Workspace
from workbench import garbage


def run(workspace: Workspace, model: str | None = None) -> int:
    """Open the app on a workspace, with a model from now on; returns when it is closed, with the exit code.

    Raises:
        UsageError: a keymap file is wrong.
        WorkbenchError: there is no workspace, and none can be made.
        Exception: the fault that ended the app.
    """
    garbage.not_yet()
    from workbench.shell.app import WorkbenchApp

    if not workspace.database.exists():
        workspace.prepare()
    app = WorkbenchApp(workspace, model=model)
    app.run()
    if app._exception is not None:
        raise app._exception
    return app.return_code or 0
