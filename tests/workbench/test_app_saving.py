"""Saving, news and settings: the parts that stand behind every screen."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from driving import opened, served_base, type_text, until, visible

from storage import conversations, jobs, samples
from storage.database import Database
from storage.errors import UsageError, WorkbenchError
from storage.feedback import log
from storage.records import Sampling
from storage.workspace import Workspace
from workbench.cli import cli, run_command
from workbench.desk import Desk
from workbench.shell import session
from workbench.shell.app import WorkbenchApp
from workbench.shell.messages import (
    AnswersChanged,
    News,
    RatingsChanged,
    Streamed,
    TrainerMoved,
    TrainingDone,
    VersionsChanged,
)
from workbench.shell.news import Seen, look, told
from workbench.shell.saving import Latest, Saver
from workbench.shell.session import BY_NAME, SETTINGS, Session
from workbench.training.launcher import Trainers
from workbench.widgets.dialogs import FormDialog


def saver() -> Saver:
    def fault(error: Exception) -> None:
        raise error

    return Saver(lambda: None, fault)


async def test_a_failed_write_is_kept_until_one_of_its_key_is_stored():
    heard: list[object] = []
    store = saver()
    works = False

    async def write() -> str:
        if not works:
            raise WorkbenchError("no")
        return "done"

    store.begin("a", "words", write, heard.append, heard.append)
    assert store.begin("a", "other words", write, heard.append, heard.append) is None
    assert not await store.settled(1)
    assert (str(heard.pop()), store.pending, store.words) == ("no", ["words"], "✕ 1 unsaved")
    works = True
    store.try_again(asked=False)
    assert store.pending == ["words"]
    store.try_again(asked=True)
    assert await store.settled(1)
    assert (heard, store.words) == (["done"], "")


async def test_what_would_be_refused_again_is_not_kept():
    store = saver()

    async def write() -> None:
        raise UsageError("it has ended already")

    store.begin("a", "words", write, lambda _: None, lambda _: None)
    assert await store.settled(1)


async def test_of_what_changes_while_it_is_written_the_latest_is_written_last():
    written: list[int] = []
    gate = asyncio.Event()
    value = 0

    async def write(now: int, before: int) -> None:
        await gate.wait()
        written.append(now)

    store = saver()
    latest = Latest(store, "numbers", lambda: value, write, lambda _: None)
    latest.save()
    assert not store.pending
    for number in (1, 2, 3):
        value = number
        latest.save()
        await asyncio.sleep(0)
    gate.set()
    while store.pending:
        await asyncio.sleep(0)
    assert written == [1, 3]


def test_each_change_has_its_news(workspace: Workspace, database: Database):
    trainers = Trainers(workspace)
    seen = Seen()

    def news() -> set[type[News]]:
        nonlocal seen
        before, seen = seen, look(database, trainers, replace(seen, version=-2), closely=True)
        return {type(one) for one in told(before, seen)}

    news()
    assert news() == set()
    served_base(database)
    assert news() == {VersionsChanged}
    prompt = conversations.add(database, "Was ist Eis?")
    made = samples.new(prompt.id, "kalt", version="v0")
    samples.add(database, [made])
    assert news() == {AnswersChanged}
    log.append(database, log.score(made.id, 4, "ana"))
    assert news() == {RatingsChanged}
    assert seen.rated == 1
    queued = jobs.enqueue(database, "run", {})
    assert news() == {TrainerMoved}
    held = jobs.claim(database, "test", job_id=queued.id)
    assert held is not None
    news()
    jobs.finish(database, held, {})
    assert news() == {TrainerMoved, TrainingDone}


def test_nothing_is_read_where_nothing_was_written(workspace: Workspace, database: Database):
    seen = look(database, Trainers(workspace), Seen(), closely=False)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    database.connection.set_progress_handler(count, 1)
    assert look(database, Trainers(workspace), seen, closely=False) == seen
    database.connection.set_progress_handler(None, 1)
    assert steps < 20


async def test_streaming_repaints_prompt_and_no_other_screen(workspace: Workspace):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for key in ("f2", "f3", "f6"):
            await pilot.press(key)
            await until(pilot, lambda: not app.base_screen._looking)  # type: ignore[attr-defined]
            app.tell(Streamed())
            assert not app.base_screen._looking  # type: ignore[attr-defined]


async def test_a_read_does_not_queue_behind_a_write_that_waits(workspace: Workspace, database: Database):
    desk = await Desk.open(workspace, "ana", waits=print)
    database.connection.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(desk.save_session(Session(language="sw")))
    for _ in range(20):
        assert (await desk.session()).language == "en"
    assert not writing.done()
    database.connection.execute("COMMIT")
    await writing
    assert (await desk.session()).language == "sw"
    await desk.close(5)


async def test_a_write_is_done_although_nobody_waits_for_it_any_more(workspace: Workspace, database: Database):
    desk = await Desk.open(workspace, "ana", waits=print)
    database.connection.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(desk.save_session(Session(language="sw")))
    await asyncio.sleep(0)
    writing.cancel()
    database.connection.execute("COMMIT")
    await desk.close(30)
    assert session.load(database).language == "sw"


# Settings


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_explained_and_read_back_as_it_is_shown(setting: session.Setting):
    assert setting.title
    assert setting.help
    if setting.path:
        value = setting.of(Session(rater="ana"))
        assert setting.parse(setting.shown(value)) == value


def test_all_choices_of_a_session_can_be_set():
    kept = {"screen", "pinned"}  # what was done last: where one was, and the version chosen on Versions
    settable = {setting.path.partition(".")[0] for setting in SETTINGS if setting.path}
    assert settable == set(Session.__struct_fields__) - kept


def test_the_command_sets_what_the_app_reads(
    workspace: Workspace, database: Database, capsys: pytest.CaptureFixture[str]
):
    def run(*arguments: str) -> int:
        return run_command(cli, ["--workspace", str(workspace.root), "settings", *arguments])

    assert run("longest-answer", "64") == run("language", "SW-ke") == run("seed", "7") == 0
    chosen = session.load(database)
    assert (chosen.sampling, chosen.language, chosen.seed) == (Sampling(max_new_tokens=64), "sw-KE", 7)
    assert run("seed", "") == 0
    assert session.load(database).seed is None
    capsys.readouterr()
    assert run("answers", "9") == 2
    assert "answers cannot be '9': want 1 to 4" in capsys.readouterr().err


async def test_the_form_of_all_settings_changes_them(workspace: Workspace, database: Database):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        await type_text(pilot, "0.5")  # a field in focus is chosen as a whole
        await pilot.press("tab")
        await type_text(pilot, "sw")
        await pilot.press("tab")
        await type_text(pilot, "amina")
        await pilot.press("enter")
        await until(pilot, lambda: conversations.held_out_share(database) == 0.5)
        assert (app.session.language, app.session.rater) == ("sw", "amina")
        assert app.desk is not None
        assert app.desk.rater == "amina"
        await until(pilot, lambda: session.load(database).rater == "amina")
        await until(pilot, lambda: "sw ▸" in visible(app))
        assert BY_NAME["language"].of(app.session) == "sw"
