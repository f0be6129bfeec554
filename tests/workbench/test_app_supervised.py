"""The app over an engine process that misbehaves: what is seen of prompts that wait, are dropped or are set aside."""

from __future__ import annotations

import os
import signal

import pytest
from driving import opened, served_base, type_text, until, visible, with_engine
from fake_talk import FakeEngine

from storage import conversations, samples
from storage.database import Database
from storage.feedback import census, log
from storage.workspace import Workspace
from workbench.engine.machine import RESTARTS
from workbench.screens.prompt.conversation import SENDINGS
from workbench.shell.app import WorkbenchApp
from workbench.widgets.editor import PromptInput


@pytest.fixture
def served(database: Database) -> Database:
    """The database with the version that the engine serves."""
    served_base(database)
    return database


@pytest.fixture
def app(workspace: Workspace, served: Database) -> WorkbenchApp:
    return WorkbenchApp(workspace, start_engine=False)


async def send(pilot, *texts: str) -> None:  # type: ignore[no-untyped-def]
    for text in texts:
        await type_text(pilot, text)
        await pilot.press("enter")
        await until(pilot, lambda: not pilot.app.screen.query_one(PromptInput).text)


async def test_a_poison_prompt_is_set_aside_on_screen_and_can_be_taken_back(
    app: WorkbenchApp, served: Database, fake: FakeEngine
):
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await with_engine(pilot, fake)
        await send(pilot, "die at once", "well")
        await until(pilot, lambda: len(samples.recent(served)) == 3)
        assert len(fake.heard("generate")) == SENDINGS + 1
        await until(pilot, lambda: "set aside" in visible(app))
        stored = {sample.text: sample for sample in samples.recent(served)}
        assert set(stored) == {"die at once ", "well 0", "well 1"}
        half = stored["die at once "]
        assert (half.finish_reason, half.version, half.token_ids) == ("cancelled", "v0", None)
        await until(pilot, lambda: "set aside, it ended the engine 2 times: die at once" in visible(app))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: app.screen.query_one(PromptInput).text == "die at once")
        assert "it ended the engine" not in visible(app)


async def test_a_rating_is_of_the_answer_in_focus_also_where_the_one_before_it_never_came(
    app: WorkbenchApp, served: Database, fake: FakeEngine
):
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await with_engine(pilot, fake)
        await send(pilot, "die late backwards")
        await until(pilot, lambda: "set aside" in visible(app) and app.conversation.current.samples)
        (came,) = samples.recent(served)
        assert (came.position, came.text) == (1, "die late backwards 1")
        await pilot.press("escape", "5", "right", "4")
        await until(pilot, lambda: census.rated(served) == 1)
        (rating,) = log.effective(served)
        assert (rating.sample_id, rating.value) == (came.id, 4)


async def test_waiting_prompts_are_dropped_and_their_text_stays(app: WorkbenchApp, served: Database, fake: FakeEngine):
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await with_engine(pilot, fake)
        await send(pilot, "hang on", "second", "third")
        await until(pilot, lambda: "2 prompts kept" in visible(app))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "2 dropped" in visible(app))
        assert app.screen.query_one(PromptInput).text == "third"
        await pilot.press("escape")  # stops the answer being written
        await until(pilot, lambda: app.engine.state == "ready" and samples.recent(served))
        assert [heard["what"] for heard in fake.heard()] == ["start", "load", "generate", "cancel"]
        assert {prompt.text for prompt in conversations.recent(served)} == {"hang on", "second", "third"}


async def test_f5_after_too_many_deaths_goes_on_with_what_waits(app: WorkbenchApp, fake: FakeEngine):
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await with_engine(pilot, fake)
        for n in range(RESTARTS + 1):
            assert app.supervisor is not None
            await until(pilot, lambda: app.engine.state == "ready", 30)
            assert app.supervisor.pid is not None
            os.kill(app.supervisor.pid, signal.SIGKILL)
            await until(pilot, lambda n=n: len(fake.heard("start")) > n + 1 or app.engine.state == "down", 30)
        await until(pilot, lambda: app.engine.state == "down" and "f8" in visible(app))
        await send(pilot, "still here")
        await until(pilot, lambda: "1 prompt kept, waiting: the engine is down" in visible(app))
        await pilot.press("f8")
        await until(pilot, lambda: "still here 0" in visible(app), 30)


async def test_what_was_said_before_closing_is_kept(app: WorkbenchApp, served: Database, fake: FakeEngine):
    async with app.run_test(size=(100, 30)) as pilot:
        await with_engine(pilot, fake)
        await send(pilot, "hang on")
        await until(pilot, lambda: app.engine.state == "writing")
    (sample,) = samples.recent(served)
    assert (sample.text, sample.finish_reason) == ("hang on ", "cancelled")
    assert fake.living() == []


async def test_prompts_before_the_engine_is_ready_can_be_dropped(app: WorkbenchApp):
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "^t" not in visible(app)
        await send(pilot, "first")
        await until(pilot, lambda: "1 prompt kept, waiting: the engine is starting (^t drops)" in visible(app))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "1 dropped" in visible(app))
        assert not app.conversation.waiting
