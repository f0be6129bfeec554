"""The engine answers the prompts that come next while a person is on Review, and gives way when they leave."""

from __future__ import annotations

from driving import served_base, until, visible, with_engine
from fake_talk import FakeEngine

from storage import conversations, samples
from storage.database import Database
from storage.workspace import Workspace
from workbench.screens.review.screen import ReviewScreen
from workbench.shell.app import WorkbenchApp


def answers(database: Database) -> dict[str, int]:
    found: dict[str, int] = {}
    for sample in samples.recent(database):
        prompt = conversations.get(database, sample.prompt_id)
        found[prompt.text] = found.get(prompt.text, 0) + 1
    return found


async def test_prompts_are_answered_ahead_and_why_there_are_no_more_is_said(
    workspace: Workspace, database: Database, fake: FakeEngine
) -> None:
    for n in range(3):
        conversations.add(database, f"prompt {n}", language="en")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(140, 40)) as pilot:
        served_base(database)
        await with_engine(pilot, fake)
        assert fake.heard("generate") == [], "nobody is on Review"
        await pilot.press("f2")
        screen = app.screen
        assert isinstance(screen, ReviewScreen)
        await until(pilot, lambda: answers(database) == {f"prompt {n}": 2 for n in range(3)})
        await until(pilot, lambda: screen.item is not None and "v0 has answered every prompt" in visible(app))
        conversations.add(database, "hang", language="en")
        await pilot.press("4")  # the screen looks again
        await until(pilot, lambda: "more on the way" in visible(app))
        await pilot.press("f1")
        await until(pilot, lambda: len(fake.heard("cancel")) == 1)
        assert "hang" not in answers(database), "an answer that was cut short is not kept"


async def test_without_an_engine_it_says_why_nothing_comes(workspace: Workspace, database: Database) -> None:
    conversations.add(database, "Why?", language="en")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.desk is not None and app.rated is not None)
        await pilot.press("f2")
        await until(pilot, lambda: "0 wait: the engine is starting" in visible(app))
