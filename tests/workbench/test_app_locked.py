"""The app while another program holds the workspace, or the disk takes nothing: alive, honest, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from driving import answer, opened, ready, served_base, type_text, until, visible
from holding import held
from textual.pilot import Pilot

import workbench.shell.hands
from storage import conversations, jobs, packs, samples, versions
from storage.database import Database, DatabaseError
from storage.feedback import log
from storage.records import Sample
from storage.workspace import Workspace
from workbench.desk import Desk, writes_of
from workbench.shell.app import WorkbenchApp
from workbench.widgets.answers import AnswerCard
from workbench.widgets.editor import PromptInput
from workbench.widgets.leaving import LeaveDialog

LONG = 60.0
LONGEST_PAUSE = 1.0  # seconds that the event loop may stand still on a busy machine; a wait for SQLite takes longer


@pytest.fixture
def unhurried() -> None:
    """Writes that take longer than a blink are what this file is about."""


@asynccontextmanager
async def ticking(seconds: float = LONGEST_PAUSE) -> AsyncIterator[None]:
    """The event loop turns all the while: a timer keeps its time."""
    pauses: list[float] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            pauses.append(time.monotonic() - before)

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()
    assert len(pauses) > 5
    assert max(pauses) < seconds


def answers(database: Database, count: int = 3) -> list[Sample]:
    served_base(database)
    prompt = conversations.add(database, "Qu'est-ce qu'un glacier ?", language="fr")
    made = [
        samples.new(prompt.id, f"answer {n}", version="v0", finish_reason="eos", group_id=f"{n}") for n in range(count)
    ]
    samples.add(database, made)
    return made


async def reviewing(pilot: Pilot[None]) -> Any:
    app = await opened(pilot)
    await pilot.press("f2")
    await until(pilot, lambda: getattr(app.screen, "item", None) is not None and "why:" in visible(app))
    return app.screen


async def test_a_rating_waits_for_another_program_and_is_stored_once_on_its_item(
    workspace: Workspace, database: Database
):
    answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await reviewing(pilot)
        item = screen.item
        async with ticking():
            with held(workspace):
                await pilot.press("s")
                await until(pilot, lambda: "saving… skipped" in visible(app))
                assert screen.item is item
                assert "saving…" in visible(app).splitlines()[0]
                await pilot.press("g")  # meant for what is on screen: it must not hit the next item
                await until(pilot, lambda: "what you pressed was not taken" in visible(app))
                await pilot.press("f6", "f2")  # other screens live
                await until(pilot, lambda: app.current_mode == "review" and screen.item is item)
                assert log.effective(database) == []
            await until(pilot, lambda: "saved ✓" in visible(app), LONG)
            await until(pilot, lambda: "what you pressed meanwhile was not taken" in visible(app))
        assert screen.item is not item
        (stored,) = log.effective(database)
        assert (stored.kind, stored.sample_id) == ("skip", item.samples[0].id)
        await until(pilot, lambda: not app.saver.pending)


async def test_a_prompt_is_kept_until_it_is_stored_and_what_is_typed_meanwhile_stays(
    workspace: Workspace, database: Database
):
    served_base(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        editor = app.screen.query_one(PromptInput)
        async with ticking():
            with held(workspace):
                await type_text(pilot, "first")
                await pilot.press("enter")
                await until(pilot, lambda: "saving… your prompt" in visible(app))
                assert editor.text == "first"
                await type_text(pilot, " second")
            await until(pilot, lambda: editor.text == " second", LONG)
        assert [prompt.text for prompt in conversations.recent(database)] == ["first"]
        assert [exchange.ask.prompt.text for exchange in app.conversation.waiting] == ["first"]


async def test_answers_are_stored_by_themselves_when_the_lock_ends(workspace: Workspace, database: Database):
    served_base(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        ready(app)
        await type_text(pilot, "why")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        with held(workspace):
            answer(app, "one", "two")
            await until(pilot, lambda: "one" in visible(app) and "saving…" in visible(app))
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.focused, AnswerCard))
            await pilot.press("4")  # nothing to rate yet
        await until(pilot, lambda: app.conversation.current.samples, LONG)
        await pilot.press("4")
        await until(pilot, lambda: "4/5" in visible(app))
        assert [rating.value for rating in log.effective(database)] == [4]


async def test_leaving_waits_for_what_is_not_stored(workspace: Workspace, database: Database):
    answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await reviewing(pilot)
        with held(workspace):
            await pilot.press("s")
            await until(pilot, lambda: "saving… skipped" in visible(app))
            await pilot.press("ctrl+q")
            await until(pilot, lambda: isinstance(app.screen, LeaveDialog) and "· skipped" in visible(app))
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            await pilot.press("ctrl+q")
            await until(pilot, lambda: isinstance(app.screen, LeaveDialog))
            assert app.is_running
        await until(pilot, lambda: app._exit, LONG)
    assert [rating.kind for rating in log.effective(database)] == ["skip"]


async def test_one_may_leave_without_it_at_once(workspace: Workspace, database: Database):
    answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    with held(workspace):
        async with app.run_test(size=(80, 24)) as pilot:
            await reviewing(pilot)
            await pilot.press("s")
            await until(pilot, lambda: "saving… skipped" in visible(app))
            await pilot.press("ctrl+q")
            await until(pilot, lambda: isinstance(app.screen, LeaveDialog))
            began = time.monotonic()
            await pilot.press("y")
            await until(pilot, lambda: app._exit)
        assert time.monotonic() - began < 20
    assert log.effective(database) == []


async def test_a_lock_that_outlasts_all_patience_is_told_and_the_key_works_again(
    workspace: Workspace, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workbench.shell.hands, "PATIENCE", 0.5)
    answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await reviewing(pilot)
        item = screen.item
        with held(workspace):
            await pilot.press("s")
            await until(pilot, lambda: "✕ not saved  skipped" in visible(app))
            await until(pilot, lambda: "another program holds the workspace" in visible(app))
            assert screen.item is item
            assert "unsaved" in visible(app).splitlines()[0]
        await pilot.press("s")
        await until(pilot, lambda: "saved ✓" in visible(app))
        assert len(log.effective(database)) == 1
        assert screen.item is not item


async def test_a_text_that_could_not_be_stored_comes_back_to_be_tried_again(
    workspace: Workspace, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workbench.shell.hands, "PATIENCE", 0.5)
    answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await reviewing(pilot)
        with held(workspace):
            await pilot.press("n")
            await until(pilot, lambda: len(app.screen_stack) == 2)
            await type_text(pilot, "odd words")
            await pilot.press("ctrl+j")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            await until(pilot, lambda: len(app.screen_stack) == 2 and "it is not stored yet" in visible(app))
            await until(pilot, lambda: "odd words" in visible(app))
        await pilot.press("ctrl+j")
        await until(pilot, lambda: "saved ✓" in visible(app))
        assert [rating.text for rating in log.effective(database)] == ["odd words"]


# A disk that is full, or that fails, at each write in turn: found by looking at the desk, so that none is forgotten.

FAILURES = ["database or disk is full", "disk I/O error"]


@pytest.fixture
async def desk(workspace: Workspace, database: Database) -> AsyncIterator[Desk]:
    """A desk whose workspace has everything that any write needs."""
    (workspace.versions / "v1.safetensors").write_bytes(b"weights")
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    versions.add_candidate(
        database, base=base, parent="v0", file="versions/v1.safetensors",
        sha256=versions.sha256_of(workspace.versions / "v1.safetensors"),
    )  # fmt: skip
    versions.publish(database, workspace, "v1")
    desk = await Desk.open(workspace, "rater", waits=print)
    yield desk
    await desk.close(5)


def arguments(name: str, database: Database) -> tuple[Any, ...]:
    """Something to write, by the name of the method."""
    from storage.feedback.mix import Mix
    from storage.feedback.queue import ReviewItem
    from storage.feedback.selection import Selection
    from storage.records import Prompt
    from workbench.engine import protocol
    from workbench.screens.prompt.conversation import Ask, Exchange
    from workbench.shell.left import Left
    from workbench.shell.session import Session

    prompt = conversations.add(database, "Barafu ni nini?", language="sw")
    one, two = (samples.new(prompt.id, text, version="v0") for text in ("maji", "mawe"))
    samples.add(database, [one, two])
    job = jobs.enqueue(database, "run", {})
    exchange = Exchange(Ask(prompt, protocol.Generate("r", "Barafu ni nini?")))
    exchange.answers[0] = protocol.Answer("r", 0, "maji", [1], "eos", "v0", 1)
    assert isinstance(prompt, Prompt)
    return {
        "save_session": (Session(language="sw"),), "keep": (1, Left("a draft")), "set_held_out_share": (0.3,),
        "remember_prompt": ("Jua ni nini?", "sw", ""), "remember_answers": (exchange,),
        "put_to_use": (prompt, "ethics", "physics", "en"), "add_packs": (packs.chosen(["fr/summary"]),),
        "score": (one, 4), "label": (one, True), "pair": (one, two, "a"), "prefer": (one, [one, two]),
        "tie": ([one, two],), "edit": (one, "maji magumu"), "tell": (one, "outcome", "imeganda"),
        "skip": (ReviewItem("pair", prompt, (one, two), "", ""),), "rank": ([[one.id], [two.id]], [one.id, two.id]),
        "reject": ([one.id, two.id],), "tag": (one, {"harm": True}), "put_rater": ("amina", "human", ["sw"]),
        "choose_work": (Selection(task="physics"), "physics", Mix()),
        "undo": (), "redo": (), "queue_job": ("run", {}, 3), "requeue_job": (job,), "cancel_job": (job,),
        "serve": ("v0",), "serve_before": (), "remember_model": ("owner/model",),
    }[name]  # fmt: skip


def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    tables = database.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {table["name"]: database.rows(f"SELECT * FROM {table['name']}") for table in tables}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", writes_of(Desk))
async def test_a_write_that_the_disk_refuses_leaves_nothing_and_can_be_tried_again(
    desk: Desk, database: Database, name: str, failure: str
):
    given = arguments(name, database)
    if name in ("undo", "redo"):
        await desk.label(arguments("label", database)[0], True)
    if name == "redo":
        await desk.undo()
    before = everything(database)

    class Failing:
        """The connection, on a disk that takes nothing but the beginning and the end of a transaction."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def execute(self, sql: str, *more: Any) -> Any:
            if sql.split(None, 1)[0] in ("INSERT", "UPDATE", "DELETE", "REPLACE"):
                raise DatabaseError(failure)
            return self._connection.execute(sql, *more)

        def executemany(self, sql: str, *more: Any) -> Any:
            raise DatabaseError(failure)

    real: list[Any] = []

    def fail(database: Database) -> None:
        real.append(database.connection)
        database.connection = Failing(database.connection)

    def mend(database: Database) -> None:
        database.connection = real[0]

    await desk.writing.do(fail)
    with pytest.raises(Exception, match=r"the disk is full|the disk does not answer"):
        await getattr(desk, name)(*given)
    assert everything(database) == before
    await desk.writing.do(mend)
    await getattr(desk, name)(*given)
    assert everything(database) != before


async def test_a_full_disk_is_said_and_the_rating_is_stored_when_there_is_room(
    workspace: Workspace, database: Database
):
    """SQLite's own refusal: the file may not grow."""
    answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await reviewing(pilot)
        item = screen.item
        assert app.desk is not None
        pages = database.scalar("PRAGMA page_count")
        await app.desk.writing.do(lambda database: database.execute(f"PRAGMA max_page_count = {pages}"))
        await pilot.press("n")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        app.screen.query_one("TextArea").load_text("long " * 5000)  # type: ignore[attr-defined]
        await pilot.press("ctrl+j")
        await until(pilot, lambda: "the disk is full" in visible(app))
        await until(pilot, lambda: "it is not stored yet" in visible(app))
        assert screen.item is item
        await app.desk.writing.do(lambda database: database.execute("PRAGMA max_page_count = 1000000"))
        await pilot.press("ctrl+j")
        await until(pilot, lambda: "saved ✓" in visible(app))
        assert [len(rating.text or "") for rating in log.effective(database)] == [len("long " * 5000)]
