"""What is being written outlives a kill, to the character, and comes back with a word that says so."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from driving import answer, opened, ready, served_base, type_text, until, visible
from hypothesis import given
from hypothesis import strategies as st
from terminal import Terminal

from storage import conversations, samples, settings
from storage.database import Database, open_database
from storage.feedback.tag_sheet import REASONS
from storage.workspace import Workspace
from workbench.screens.prompt.conversation import Draft, Place
from workbench.shell import left, session
from workbench.shell.app import WorkbenchApp
from workbench.widgets.answers import AnswerCard
from workbench.widgets.editor import PromptInput

COMBINED = "e\u0301 \u0915\u094d\u0937 👩\u200d🚀 \u00a0"
BOTH_WAYS = f"\u05e9\u05b8\u05dc\u05d5\u05dd \u200f(1)\u2067 \u0639\u064e\u2069\n{COMBINED}"
AGAIN = "is here again"
OTHER = next(key for key, reason in REASONS.items() if reason == "other")


def kill(terminal: Terminal) -> None:
    os.kill(terminal.pid, signal.SIGKILL)
    os.waitpid(terminal.pid, 0)


def kept(database: Database, seat: int, text: str, seconds: float = 60.0) -> None:
    """Wait until this is what a window is written down to be at."""
    deadline = time.monotonic() + seconds
    while (settings.get(database, f"left-{seat}") or {}).get("draft") != text:
        assert time.monotonic() < deadline, settings.get(database, f"left-{seat}")
        time.sleep(0.02)


def test_two_apps_are_killed_and_each_draft_is_there_again(workspace: Workspace, database: Database, tmp_path: Path):
    session.save(database, session.Session(rater="ana", model=str(tmp_path / "no model")))

    def started() -> Terminal:
        terminal = Terminal("workbench", "--workspace", str(workspace.root))
        terminal.until("engine down.* 0 rated")
        return terminal

    one, two = started(), started()
    for terminal, text in ((one, "of one " + BOTH_WAYS), (two, "of two")):
        terminal.press(f"\x1b[200~{text}\x1b[201~")
    kept(database, 1, "of one " + BOTH_WAYS)
    kept(database, 2, "of two")
    two.press("\x15")  # emptied
    kept(database, 2, "")
    two.press("late")
    kept(database, 2, "late")
    kill(one)
    kill(two)
    one = started()
    one.until(AGAIN)
    kept(database, 1, "of one " + BOTH_WAYS)
    one.press("\n")  # sent
    kept(database, 1, "")
    two = started()  # the window with the other number comes first, as it holds something
    two.until("late")
    two.until(AGAIN)
    kill(one)
    kill(two)
    asked = database.scalar("SELECT text FROM prompts")
    assert asked == "of one " + BOTH_WAYS


@given(text=st.text(), note=st.text(), system=st.text())
def test_any_text_is_kept_as_it_is(tmp_path_factory, text: str, note: str, system: str):
    place = tmp_path_factory.getbasetemp() / "drafts"
    with open_database(Workspace(place).prepare()) as database:
        draft = Draft(text, place=Place("he", system))
        left.keep(database, 3, left.left(draft, {"a note": note}, [], None))
        found = left.find(database, 3)
        assert (found.draft, found.half_written) == (draft, {"a note": note})
        assert left.seats(database) == [3]
        left.keep(database, 3, left.left(Draft(), {}, [], None))
        assert not left.seats(database)


async def test_what_was_kept_stands_before_what_is_typed_at_once(workspace: Workspace, database: Database):
    left.keep(database, 1, left.left(Draft("kept"), {}, [], None))
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        app.screen.query_one(PromptInput).insert("typed")
        await opened(pilot)
        editor = app.screen.query_one(PromptInput)
        await until(pilot, lambda: AGAIN in visible(app))
        assert editor.text == app.draft.text == "kept\ntyped"
        await type_text(pilot, "!")
        await until(pilot, lambda: app.draft.text == "kept\ntyped!")


async def test_a_half_written_note_is_named_at_the_start_and_gone_when_it_is_emptied(
    workspace: Workspace, database: Database
):
    served_base(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        ready(app)
        await type_text(pilot, "why")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        answer(app, "one", "two")
        await until(pilot, lambda: app.conversation.current.samples)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, AnswerCard))
        await pilot.press("n")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await type_text(pilot, "a no")
        await until(pilot, lambda: "a no" in settings.get(database, "left-1")["half_written"].values())
    again = WorkbenchApp(workspace, start_engine=False)
    async with again.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await until(pilot, lambda: any("“a no” is half written" in one.message for one in again._notifications))
        await until(pilot, lambda: "two" in visible(again))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(again.focused, AnswerCard))
        await pilot.press("n")
        await until(pilot, lambda: len(again.screen_stack) == 2)
        await pilot.press(*["backspace"] * 4)
        await until(pilot, lambda: not settings.get(database, "left-1")["half_written"])


async def test_a_reason_that_is_half_written_is_kept_until_it_is_stored(workspace: Workspace, database: Database):
    served_base(database)
    prompt = conversations.add(database, "why", language="en")
    samples.add(database, [samples.new(prompt.id, "so", finish_reason="eos")])
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("f2")
        await until(pilot, lambda: "so" in visible(app) and "why:" in visible(app))
        for ending in ("escape", "ctrl+j"):
            await pilot.press("c", OTHER)
            await until(pilot, lambda: "Why it cannot be judged" in visible(app))
            await type_text(pilot, "too long")
            await until(pilot, lambda: "too long" in settings.get(database, "left-1")["half_written"].values())
            await pilot.press(ending)
            await until(pilot, lambda: not app.half_written)
        await until(pilot, lambda: "Nothing waits" in visible(app))
    assert database.scalar("SELECT text FROM ratings") == "too long"
