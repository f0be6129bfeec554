"""Whatever a dialog has to say, its keys stay on screen."""

from __future__ import annotations

import pytest
from driving import SIZES, opened, until, visible

from storage.workspace import Workspace
from workbench.shell.app import WorkbenchApp
from workbench.widgets.editing import EditDialog


@pytest.mark.parametrize("size", SIZES)
async def test_an_edit_with_a_hint_a_fault_and_long_differences_leaves_room_for_its_keys(
    workspace: Workspace, size: tuple[int, int]
):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        before, after = (" ".join(f"{word} {n}" for n in range(60)) for word in ("maji", "moto"))
        dialog = EditDialog("A better answer", after, before, hint="it is not stored yet; accept to try again")
        app.push_screen(dialog)
        await until(pilot, lambda: "maji" in visible(app))
        dialog.complain("the database is locked; it is tried again")
        await until(pilot, lambda: "the database is locked" in visible(app) and "esc cancel" in visible(app))
