"""Library: find a prompt, read all that was said of its answers, and say more, by keys alone."""

from __future__ import annotations

import pytest
from driving import SIZES, opened, served_base, type_text, until, visible
from textual.widgets import Input

from storage import conversations, jobs, samples, versions
from storage.database import Database
from storage.feedback import log, outcome
from storage.library import PAGE
from storage.records import Message, Prompt, Sample, Split
from storage.workspace import Workspace
from workbench.screens.library.screen import LibraryScreen
from workbench.shell.app import WorkbenchApp

BREAD = "面包为什么会发起来？"


@pytest.fixture
def bread(database: Database) -> Prompt:
    """A conversation with two answers, of which the first was scored by another, among prompts of other languages."""
    served_base(database)
    earlier = (Message("user", "你好"), Message("assistant", "你好！"))
    asked = conversations.add(database, BREAD, language="zh", task="explanation", split=Split.TRAIN, earlier=earlier)
    made = [samples.new(asked.id, text, version="v0", finish_reason="eos") for text in ("酵母。", "不知道。")]
    samples.add(database, made)
    log.append(database, log.score(made[0].id, 2, "bo"))
    for language, text in (("es", "¿Por qué sube el pan?"), ("sw", "Kwa nini mkate huumuka?")):
        conversations.add(database, text, language=language, split=Split.HELD_OUT)
    return asked


def answers(database: Database, prompt: Prompt) -> list[Sample]:
    return samples.of_prompt(database, prompt.id)


async def browsing(pilot) -> LibraryScreen:  # type: ignore[no-untyped-def]
    app = await opened(pilot)
    assert app.desk is not None
    app.desk.rater = "ana"
    await pilot.press("f5")
    await until(pilot, lambda: isinstance(app.screen, LibraryScreen) and app.screen.shelf)
    return app.screen  # type: ignore[return-value]


def standings(screen: LibraryScreen) -> list[tuple[str, str, str]]:
    """What the opened answer's history says: who, what, and what has become of it."""
    return [] if screen.answered is None else [
        (one.rating.rater, str(one.rating.kind), str(one.standing)) for one in screen.answered.told
    ]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
async def test_a_prompt_is_found_read_and_judged_anew_by_keys_alone(
    workspace: Workspace, database: Database, bread: Prompt, size: tuple[int, int]
):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        screen = await browsing(pilot)
        assert [one.text for one in screen.shelf] == [one.text for one in conversations.recent(database)]
        await pilot.press("slash")
        await type_text(pilot, "发起")
        await until(pilot, lambda: [one.text for one in screen.shelf] == [BREAD])
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "answer 1 of 2" in visible(app) and "你好" in visible(app))
        assert standings(screen) == [("bo", "score", "counts")]
        await pilot.press("4")
        await until(pilot, lambda: len(standings(screen)) == 2)
        await pilot.press("3")
        await until(pilot, lambda: len(standings(screen)) == 3)
        assert standings(screen)[1:] == [("ana", "score", "replaced"), ("ana", "score", "counts")]
        await pilot.press("u")
        await until(pilot, lambda: len(standings(screen)) == 4)
        assert standings(screen)[1:] == [
            ("ana", "score", "counts"), ("ana", "score", "taken back"), ("ana", "undo", "turn"),
        ]  # fmt: skip
        await pilot.press("tab")
        await until(pilot, lambda: "answer 2 of 2" in visible(app))
        await pilot.press("o")
        await until(pilot, lambda: "why, in words" in visible(app))
        await type_text(pilot, "it rose")
        await pilot.press("shift+tab")
        await type_text(pilot, "9")
        await pilot.press("enter")
        await until(pilot, lambda: "9 lies outside the scale" in visible(app))
        await pilot.press("backspace", "4", "shift+tab", "down", "enter")
        await until(pilot, lambda: standings(screen) == [("ana", "outcome", "counts")])
        assert outcome.of(screen.answered.told[0].rating) == outcome.Outcome(True, "it rose", 4.0)
        await until(pilot, lambda: "worked 4/5" in visible(app))
        await pilot.press("m")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await type_text(pilot, "no yeast")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: standings(screen)[1:] == [("ana", "mistake", "counts")])
        screen.query_one("Book").scroll_end(animate=False)
        await until(pilot, lambda: "it rose" in visible(app) and "no yeast" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: screen.opened is None and screen.table.has_focus)
    assert [(one.value, one.rater) for one in log.effective(database, sample_id=answers(database, bread)[0].id)] == [
        (2, "bo"), (4, "ana"),
    ]  # fmt: skip


async def test_a_filter_shows_one_split_alone_and_says_what_it_does_not_know(
    workspace: Workspace, database: Database, bread: Prompt
):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await browsing(pilot)
        await pilot.press("f")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("tab")
        await type_text(pilot, "held")
        await until(pilot, lambda: "want one of" in visible(app))
        await type_text(pilot, "-out")
        await pilot.press("enter")
        await until(pilot, lambda: [one.language for one in screen.shelf] == ["sw", "es"])
        await until(pilot, lambda: "2 prompts · held-out" in visible(app))
        await pilot.press("f")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        app.screen.query_one("#field-split", Input).value = ""
        app.screen.query_one("#field-answer", Input).value = "知"
        await pilot.press("enter")
        await until(pilot, lambda: [one.text for one in screen.shelf] == [BREAD])
        await pilot.press("enter")
        await until(pilot, lambda: "answer 2 of 2" in visible(app))  # which has these words


async def test_a_long_list_is_read_by_the_page_and_keeps_its_place_when_others_ask(
    workspace: Workspace, database: Database
):
    served_base(database)
    with database.transaction():
        for n in range(2 * PAGE + 5):
            conversations.add(database, f"number {n}", language="en", split=Split.TRAIN)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await browsing(pilot)
        assert len(screen.shelf) == PAGE
        await pilot.press("end")
        await until(pilot, lambda: len(screen.shelf) == 2 * PAGE)
        assert screen.selected is not None
        front = screen.selected.text
        assert front == f"number {PAGE + 5}", "the last one of the first page"
        asked = conversations.add(database, "number new", language="en", split=Split.TRAIN)
        samples.add(database, [samples.new(asked.id, "an answer", version="v0", finish_reason="eos")])
        await until(pilot, lambda: screen.shelf[0].text == "number new")
        await until(pilot, lambda: screen.selected is not None and screen.selected.text == front)
        await pilot.press("end")
        await until(pilot, lambda: len(screen.shelf) == 2 * PAGE + 6 and not screen.more)


async def test_a_prompt_is_held_out_after_what_follows_is_said_and_never_trains_again(
    workspace: Workspace, database: Database, bread: Prompt
):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await browsing(pilot)
        await pilot.press("end")
        await until(pilot, lambda: screen.selected is not None and screen.selected.id == bread.id)
        await pilot.press("L")
        await until(pilot, lambda: "never less strict" in visible(app))
        await pilot.press("tab", "ctrl+a", "ctrl+k")
        await type_text(pilot, "held-out")
        await pilot.press("enter")
        await until(pilot, lambda: "1 rating will measure" in " ".join(visible(app).split()))
        await pilot.press("enter")
        await until(pilot, lambda: [one.split for one in screen.shelf] == ["held-out"] * 3)
        assert conversations.by_split(database, Split.TRAIN) == []
        await pilot.press("L")
        await until(pilot, lambda: "never less strict" in visible(app))
        await pilot.press("tab", "ctrl+a", "ctrl+k")
        await type_text(pilot, "train")
        await pilot.press("enter")
        await until(pilot, lambda: "never becomes train" in visible(app))
        await pilot.press("shift+tab", "ctrl+a", "ctrl+k")
        await type_text(pilot, "zh-TW")
        await pilot.press("tab", "ctrl+a", "ctrl+k")
        await type_text(pilot, "ethics")
        await pilot.press("enter")
        await until(pilot, lambda: "count as Chinese (Taiwan)" in " ".join(visible(app).split()))
        await pilot.press("enter")
        await until(pilot, lambda: [one.split for one in screen.shelf if one.language == "zh-TW"] == ["ethics"])
        await pilot.press("enter")
        await until(pilot, lambda: "language: zh → zh-TW" in visible(app))


async def test_why_says_what_an_answer_was_rewarded_for_or_what_is_missing(
    workspace: Workspace, database: Database, bread: Prompt
):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await browsing(pilot)
        assert not screen.check_action("explain", ())
        await pilot.press("slash")
        await type_text(pilot, BREAD)
        await pilot.press("enter")
        await until(pilot, lambda: len(screen.shelf) == 1)
        await pilot.press("enter")
        await until(pilot, lambda: screen.answered is not None)
        await pilot.press("w")
        await until(pilot, lambda: "no reward model was fitted" in visible(app))
        await until(pilot, lambda: "trainer reward" in visible(app))


async def test_a_rating_names_the_versions_that_it_shaped(workspace: Workspace, database: Database, bread: Prompt):
    base = versions.get(database, "v0")
    rating = log.effective(database, sample_id=answers(database, bread)[0].id)[0]
    job = jobs.claim(database, "a test", job_id=jobs.enqueue(database, "dpo", {}).id)
    jobs.link_ratings(database, job, [rating.id])
    for parent, made_by in (("v0", job.id), ("v1", None), ("v0", None)):
        versions.add_candidate(database, base=base, parent=parent, file="f", sha256="", job_id=made_by)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await browsing(pilot)
        await pilot.press("slash")
        await type_text(pilot, "发起")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "answer 1 of 2" in visible(app))
        await until(pilot, lambda: "shaped v1 v2" in visible(app))
