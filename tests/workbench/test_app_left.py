"""What an app was at when it closed, however it closed, is there at the next start; and two apps do not mix theirs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from driving import answer, opened, ready, served_base, type_text, until, visible
from terminal import ENTER, Ended, Terminal

from storage import conversations, samples, settings
from storage.database import Database
from storage.feedback import log
from storage.records import RatingKind, Sampling, Split
from storage.workspace import Workspace
from workbench.cli import cli, run_command
from workbench.desk import Desk
from workbench.shell import session
from workbench.shell.app import WorkbenchApp
from workbench.shell.left import Seat
from workbench.widgets.answers import AnswerCard
from workbench.widgets.editor import PromptInput

HELD_OUT = "\u200fما هو النهر؟ \u2067(أو\u2069 الجدول)\r\n\x85\u2028?"


@pytest.mark.parametrize("how", ["term", "hangup"])
def test_a_signal_closes_the_app_and_keeps_what_was_not_sent_or_not_answered(
    workspace: Workspace, database: Database, tmp_path: Path, how: str
):
    session.save(database, session.Session(rater="ana", model=str(tmp_path / "no model")))
    terminal = Terminal("workbench", "--workspace", str(workspace.root))
    terminal.until("engine down.* 0 rated")
    for text in ("first", "second"):
        terminal.press(f"\x1b[200~{text}\x1b[201~")
        terminal.until(lambda screen, text=text: text in screen)
        terminal.press(ENTER)
        terminal.until("prompt.? kept")
        terminal.until(lambda screen, text=text: f" {text}" not in screen)
    terminal.press("\x1b[200~half a\rthought \u200f\x1b[31m\x1b[201~")
    terminal.until("thought ⇽␛")
    if how == "hangup":
        os.close(terminal.child.fileno())
    else:
        os.kill(terminal.pid, signal.SIGTERM)
    assert ended(terminal) == {"term": 128 + signal.SIGTERM, "hangup": 128 + signal.SIGHUP}[how]
    kept = settings.get(database, "left-1")
    assert kept["draft"] == "half a\nthought \u200f\x1b[31m"
    assert [one["generate"]["prompt"] for one in kept["waiting"]] == ["first", "second"]


def ended(terminal: Terminal, seconds: float = 20.0) -> int:
    """The exit code of a program that is coming to its end."""
    deadline = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(terminal.pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        assert time.monotonic() < deadline, "the app does not end"
        try:
            terminal.read(0.05)
        except (Ended, ValueError, OSError):
            time.sleep(0.05)


async def test_the_next_start_goes_on_where_the_app_was(workspace: Workspace, database: Database):
    served_base(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        ready(app)
        for text in ("one", "two", "three"):
            await type_text(pilot, text)
            await pilot.press("enter")
            await until(pilot, lambda: not app.screen.query_one(PromptInput).text)
        answer(app, "left", "right")
        await until(pilot, lambda: app.conversation.current.ask.prompt.text == "two")
        answer(app, "the left one", "the right one")
        await until(pilot, lambda: len(samples.recent(database)) == 4)
        await until(pilot, lambda: app.conversation.current.ask.prompt.text == "three")
        await type_text(pilot, "dra")
    again = WorkbenchApp(workspace, start_engine=False)
    async with again.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "dra" in again.screen.query_one(PromptInput).text)
        assert [waiting.ask.prompt.text for waiting in again.conversation.waiting] == ["three"]
        ready(again)
        await until(pilot, lambda: again.conversation.is_writing)
        answer(again, "drei", "trois")
        await until(pilot, lambda: "drei" in visible(again))
        await pilot.pause(0.1)
    once_more = WorkbenchApp(workspace, start_engine=False)
    async with once_more.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "drei" in visible(once_more) and "trois" in visible(once_more))
        assert not once_more.conversation.waiting
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(once_more.focused, AnswerCard))
        await pilot.press("right", "n")
        await until(pilot, lambda: len(once_more.screen_stack) == 2)
        await type_text(pilot, "half a no")
    noting = WorkbenchApp(workspace, start_engine=False)
    async with noting.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "trois" in visible(noting))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(noting.focused, AnswerCard))
        await pilot.press("right", "n")
        await until(pilot, lambda: "half a no" in visible(noting))
        await type_text(pilot, "te")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: log.effective(database))
        assert [rating.text for rating in log.effective(database)] == ["half a note"]
        assert not noting.half_written
        await pilot.press("4")
        await until(pilot, lambda: len(log.effective(database)) == 2)
        _, score = log.effective(database)
        assert samples.get(database, score.sample_id or "").text == "trois"


async def test_two_windows_keep_what_each_was_at(workspace: Workspace, database: Database):
    one, two = WorkbenchApp(workspace, start_engine=False), WorkbenchApp(workspace, start_engine=False)
    async with one.run_test(size=(80, 24)) as first:
        await opened(first)
        await type_text(first, "of one")
        async with two.run_test(size=(80, 24)) as second:
            await opened(second)
            assert two.seat is not None
            assert two.seat.number == 2
            await type_text(second, "of two")
    seats = [Seat.take(workspace) for _ in range(3)]
    assert [seat.number for seat in seats] == [1, 2, 3]
    desk = await Desk.open(workspace, "ana", waits=print)
    assert [(await desk.left(seat.number)).draft.text for seat in seats] == ["of one", "of two", ""]
    await desk.close(5)
    for seat in seats:
        seat.leave()


async def test_an_earlier_question_is_the_same_prompt_again(workspace: Workspace, database: Database):
    asked = conversations.add(database, HELD_OUT, language="ar", system="Be brief.", split=Split.HELD_OUT)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("ctrl+f")
        await until(pilot, lambda: "1 Prompt" in visible(app) and len(app.screen_stack) == 2)
        await until(pilot, lambda: "وه ام" in visible(app))
        await pilot.press("enter")
        editor = app.screen_stack[0].query_one(PromptInput)
        await until(pilot, lambda: editor.text == HELD_OUT)
        await until(pilot, lambda: "ar ▸" in visible(app))
        await until(pilot, lambda: "system: Be brief." in visible(app))
        await pilot.press("ctrl+j")
        await until(pilot, lambda: app.conversation.waiting)
        assert app.conversation.waiting[0].ask.prompt == asked
        assert app.conversation.waiting[0].ask.generate.prompt == HELD_OUT
        assert "en ▸" in visible(app)  # what is written next is in the session's language
        # Edited it is another prompt, in the same language; what is chosen then holds.
        await pilot.press("up")
        await until(pilot, lambda: editor.text == HELD_OUT)
        await type_text(pilot, "x")
        await until(pilot, lambda: editor.text == HELD_OUT + "x")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: len(app.conversation.waiting) == 2)
        edited = app.conversation.waiting[1].ask.prompt
        assert (edited.text, edited.language, edited.system) == (HELD_OUT + "x", "ar", "Be brief.")
        await pilot.press("up")
        app.update_session(language="fa")
        await until(pilot, lambda: "fa ▸" in visible(app))
    assert len(conversations.recent(database)) == 2


async def test_an_edit_begins_with_the_answer_as_it_is_and_is_stored_as_it_is(workspace: Workspace, database: Database):
    served_base(database)
    app = WorkbenchApp(workspace, start_engine=False)
    said = "\u200fنعم\x9b \u2028\r\n "
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        ready(app)
        await type_text(pilot, "why")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        answer(app, said, "two")
        await until(pilot, lambda: app.conversation.current.samples)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, AnswerCard))
        await pilot.press("y")
        assert app.clipboard == said
        await pilot.press("e")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("ctrl+j")  # nothing was changed: nothing is stored
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("e")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await type_text(pilot, "x")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: log.effective(database))
        (edit,) = log.effective(database)
        assert (edit.kind, edit.text) == (RatingKind.EDIT, said + "x")


async def test_what_a_command_sets_while_the_app_is_open_stays_set(workspace: Workspace, database: Database):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for name, value in (("temperature", "0.5"), ("system-prompt", " Be\nbrief. ")):
            assert run_command(cli, ["--workspace", str(workspace.root), "settings", name, value]) == 0
        app.update_session(language="sw", sampling=Sampling(top_p=0.9))
        await type_text(pilot, "abc")
    stored = session.load(database)
    assert (stored.language, stored.sampling) == ("sw", Sampling(temperature=0.5, top_p=0.9))
    assert stored.system == " Be\nbrief. "
