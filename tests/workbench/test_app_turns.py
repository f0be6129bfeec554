"""Keys that come all at once, as over a slow line, do what they do when they come one by one."""

from __future__ import annotations

import pytest
from driving import answer, opened, ready, served_base, type_text, until
from textual.events import Key, Paste
from textual.pilot import Pilot

from storage.database import Database
from storage.feedback import log
from storage.workspace import Workspace
from workbench.shell.app import WorkbenchApp
from workbench.widgets.answers import AnswerCard
from workbench.widgets.dialogs import FormDialog
from workbench.widgets.editor import SafeInput, SafeTextArea


@pytest.fixture
def app(workspace: Workspace, database: Database) -> WorkbenchApp:
    served_base(database)
    return WorkbenchApp(workspace, start_engine=False)


def at_once(app: WorkbenchApp, *keys: str) -> None:
    """Press keys, and characters, before the app takes the first of them."""
    for key in keys:
        app.post_message(Key(key, key if len(key) == 1 else None))


async def with_an_answer(pilot: Pilot[None], app: WorkbenchApp) -> None:
    await opened(pilot)
    ready(app)
    await type_text(pilot, "Q")
    await pilot.press("enter")
    await until(pilot, lambda: app.conversation.is_writing)
    answer(app, "one")
    await until(pilot, lambda: app.conversation.current is not None and app.conversation.current.samples)
    await pilot.press("escape")
    await until(pilot, lambda: isinstance(app.focused, AnswerCard))


async def test_a_text_is_whole_when_it_is_accepted(app: WorkbenchApp, database: Database):
    async with app.run_test(size=(80, 24)) as pilot:
        await with_an_answer(pilot, app)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.focused, SafeTextArea) and len(app.screen_stack) == 2)
        app.post_message(Paste("maji "))
        at_once(app, *"ya moto", "ctrl+j")
        await until(pilot, lambda: log.effective(database))
        assert [one.text for one in log.effective(database)] == ["maji ya moto"]


async def test_what_follows_a_tab_stands_in_the_next_field(app: WorkbenchApp):
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: isinstance(app.screen, FormDialog) and isinstance(app.focused, SafeInput))
        first, second = list(app.screen.query(SafeInput))[:2]
        app.screen.set_focus(first)
        at_once(app, "ctrl+u", *"0.5", "tab", "ctrl+u", *"0.25", "shift+tab", "end", "7")
        await until(pilot, lambda: "7" in first.value)
        assert (first.value, second.value) == ("0.57", "0.25")


async def test_a_widget_that_goes_holds_up_no_key(app: WorkbenchApp):
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: isinstance(app.focused, SafeInput))
        assert app.focused is not None
        at_once(app, "7")
        app.focused.remove()
        at_once(app, "escape", "f2")
        await until(pilot, lambda: app.current_mode == "review")
