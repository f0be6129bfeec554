"""Prompt as a conversation: going on from answers, forking, judging earlier turns, finding it again."""

from __future__ import annotations

import pytest
from driving import SIZES, answer, opened, ready, served_base, type_text, until, visible
from textual.pilot import Pilot

from storage import conversations, samples, turns
from storage.database import Database
from storage.feedback import log
from storage.records import Message, Prompt, RatingKind
from storage.workspace import Workspace
from trainer.examples import collect
from workbench.screens.prompt import words
from workbench.screens.prompt.cards import cards
from workbench.screens.prompt.conversation import Exchange
from workbench.screens.prompt.turns import Turns
from workbench.shell.app import WorkbenchApp
from workbench.widgets.answers import AnswerCard
from workbench.widgets.editor import PromptInput


@pytest.fixture
def app(workspace: Workspace, database: Database) -> WorkbenchApp:
    served_base(database)
    return WorkbenchApp(workspace, start_engine=False)


async def asked(pilot: Pilot[None], app: WorkbenchApp, text: str, *texts: str) -> Prompt:
    """Write a prompt, send it, and let it be answered; returns it."""
    app.screen.query_one(PromptInput).focus()
    await type_text(pilot, text)
    await pilot.press("enter")
    await answered(pilot, app, text, *texts)
    return app.conversation.current.ask.prompt


async def answered(pilot: Pilot[None], app: WorkbenchApp, text: str, *texts: str) -> None:
    await until(pilot, lambda: app.conversation.is_writing and app.conversation.current.ask.prompt.text == text)
    answer(app, *texts)
    await until(pilot, lambda: app.conversation.current.samples)


def said(prompt: Prompt) -> list[str]:
    return [message.content for message in prompt.messages]


async def to_turn(pilot: Pilot[None], app: WorkbenchApp, place: int) -> None:
    """Go to an earlier turn by keys."""
    await pilot.press("escape")
    await until(pilot, lambda: isinstance(app.focused, AnswerCard))
    await pilot.press("z")
    listed = app.screen.query_one(Turns)
    await until(pilot, lambda: listed.has_focus and listed.highlighted is not None)
    while listed.highlighted != place:
        before = listed.highlighted
        await pilot.press("up")
        await until(pilot, lambda before=before: listed.highlighted != before)


async def test_a_conversation_of_five_turns_is_forked_twice_judged_and_gone_on_with_after_a_restart(
    app: WorkbenchApp, workspace: Workspace, database: Database
):
    conversations.set_held_out_share(database, 0)
    async with app.run_test(size=(100, 40), notifications=True) as pilot:
        await opened(pilot)
        ready(app)
        await asked(pilot, app, "one", "1a", "1b")
        assert "turn" not in str(app.screen.query_one(PromptInput).border_title)
        # Chosen by its letter from the answers, and by Enter from the empty field.
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, AnswerCard))
        await pilot.press("b")
        await until(pilot, lambda: "b ✓" in visible(app) and "en ▸ turn 2" in visible(app))
        two = await asked(pilot, app, "two", "2a", "2b")
        assert said(two) == ["one", "1b", "two"]
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.current.chosen == 0)
        three = await asked(pilot, app, "three", "3a", "3b")
        assert said(three) == ["one", "1b", "two", "2a", "three"]
        # In a conversation one goes on from the answer in focus, if none was chosen.
        await pilot.press("escape", "right")
        four = await asked(pilot, app, "four", "4a", "4b")
        assert said(four)[-3:] == ["three", "3b", "four"]
        five = await asked(pilot, app, "five", "5a", "5b")
        assert said(five) == ["one", "1b", "two", "2a", "three", "3b", "four", "4a", "five"]
        await until(pilot, lambda: "1 en ▸ one" in visible(app) and "b preferred · v0 ▸" in visible(app))
        # An earlier turn is unfolded and judged by the usual keys.
        await to_turn(pilot, app, 1)
        await pilot.press("enter")
        await until(pilot, lambda: "· v0 ▾ 2a" in visible(app))
        await pilot.press("4", "b", "enter")
        await until(pilot, lambda: len(log.effective(database)) == 3)
        await until(pilot, lambda: "a 4/5 " in visible(app))
        # Fork from the second turn, with its other answer; the first prompt is written anew; one is asked again.
        await pilot.press("F")
        await until(pilot, lambda: app.conversation.current.ask.prompt == two and app.conversation.current.chosen == 0)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, AnswerCard))
        await pilot.press("right", "enter")
        await until(pilot, lambda: app.conversation.current.chosen == 1)
        forked = await asked(pilot, app, "drei", "3c", "3d")
        assert said(forked) == ["one", "1b", "two", "2b", "drei"]
        await to_turn(pilot, app, 1)
        await pilot.press("W")
        await until(pilot, lambda: app.screen.query_one(PromptInput).text == "two")
        await type_text(pilot, "x")
        await pilot.press("enter")
        await answered(pilot, app, "twox", "2c", "2d")
        other = app.conversation.current.ask.prompt
        assert said(other) == ["one", "1b", "twox"]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, AnswerCard))
        await pilot.press("r")
        await answered(pilot, app, "twox", "2e", "2f")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.current.chosen == 0)
        await type_text(pilot, "unsent")
    scored, pair = [one for one in log.effective(database) if one.sample_id in ids(database, two)]
    assert (scored.kind, scored.value, samples.get(database, scored.sample_id or "").text) == (
        RatingKind.SCORE, 4, "2a",
    )  # fmt: skip
    assert (pair.kind, samples.get(database, pair.sample_id or "").text) == (RatingKind.PAIR, "2b")
    (taught,) = [one for one in collect(database, "0" * 64).pairs if one.prompt == two]
    assert (taught.first.text, taught.second.text, taught.first_wins) == ("2b", "2a", 1)
    stored = {tuple(said(prompt)): [one.text for one in samples.of_prompt(database, prompt.id)]
              for prompt in conversations.recent(database)}  # fmt: skip
    assert stored == {
        ("one",): ["1a", "1b"],
        ("one", "1b", "two"): ["2a", "2b"],
        ("one", "1b", "two", "2a", "three"): ["3a", "3b"],
        ("one", "1b", "two", "2a", "three", "3b", "four"): ["4a", "4b"],
        tuple(said(five)): ["5a", "5b"],
        ("one", "1b", "two", "2b", "drei"): ["3c", "3d"],
        ("one", "1b", "twox"): ["2c", "2d", "2e", "2f"],
    }
    assert len({sample.group_id for sample in samples.of_prompt(database, other.id)}) == 2
    assert [prompt.id for prompt in turns.every(database)] == [other.id, forked.id, five.id]
    assert [prompt.id for prompt in turns.every(database, "DREI")] == [forked.id]
    assert len({prompt.split for prompt in conversations.recent(database)}) == 1

    again = WorkbenchApp(workspace, start_engine=False)
    async with again.run_test(size=(100, 40), notifications=True) as pilot:
        await opened(pilot)
        ready(again)
        await until(pilot, lambda: "unsent" in visible(again) and "en ▸ turn 3" in visible(again))
        await until(pilot, lambda: "a ✓" in visible(again) and "2e" in visible(again))
        await pilot.press("enter")
        await answered(pilot, again, "unsent", "3e", "3f")
        assert said(again.conversation.current.ask.prompt) == ["one", "1b", "twox", "2e", "unsent"]
        await pilot.press("ctrl+n")
        await until(pilot, lambda: again.conversation.current is None)
        alone = await asked(pilot, again, "neu", "n1", "n2")
        assert said(alone) == ["neu"]
        await pilot.press("alt+l")
        await until(pilot, lambda: len(again.screen_stack) == 2)
        await type_text(pilot, "five")
        await until(
            pilot, lambda: "5 turns" in visible(again) and "neu" not in visible(again).split("Conversations")[1]
        )
        await pilot.press("enter")
        await until(pilot, lambda: again.conversation.current.ask.prompt.text == "five")
        six = await asked(pilot, again, "six", "6a", "6b")
        assert said(six) == [*said(five), "5a", "six"]


def ids(database: Database, prompt: Prompt) -> set[str | None]:
    return {sample.id for sample in samples.of_prompt(database, prompt.id)}


async def test_what_one_goes_on_from_is_waited_for_and_a_new_one_is_not(app: WorkbenchApp, database: Database):
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        ready(app)
        await asked(pilot, app, "one", "1a", "1b")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.current.goes_on)
        await type_text(pilot, "two")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        await type_text(pilot, "three")
        await until(pilot, lambda: "after the answer that is being written" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: "still being written" in visible(app))
        await answered(pilot, app, "two", "2a", "2b")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        assert said(app.conversation.current.ask.prompt) == ["one", "1a", "two", "2a", "three"]
        await pilot.press("ctrl+n")
        await type_text(pilot, "neu")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.waiting)
        assert said(app.conversation.waiting[0].ask.prompt) == ["neu"]


@pytest.mark.parametrize("size", SIZES)
async def test_a_long_conversation_fits_and_each_turn_is_reached(
    app: WorkbenchApp, database: Database, size: tuple[int, int]
):
    spoken = [Message(("user", "assistant")[n % 2], f"said {n} \x1b[31m" + "words " * 40) for n in range(40)]
    conversations.add(database, "last", language="fr", earlier=spoken)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        ready(app)
        await pilot.press("up", "enter")
        await answered(pilot, app, "last", "l1", "l2")
        await until(pilot, lambda: "l1" in visible(app) and "20 und ▸ said 38" in visible(app))
        await to_turn(pilot, app, 12)
        await pilot.press("space")
        await until(pilot, lambda: "said 24 ␛" in visible(app))
        for _ in range(3):  # what is longer than there is room for scrolls
            if "said 25" not in visible(app):
                await pilot.press("down")
                await pilot.pause()
        await until(pilot, lambda: "said 25" in visible(app))
        assert "l1" in visible(app) or size == (40, 12)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, AnswerCard) and "l1" in visible(app))
        assert len(list(app.screen.walk_children())) < 60


def test_what_was_left_out_of_a_conversation_is_said_beside_it():
    spoken = (Message("user", "a"), Message("assistant", "b"))
    prompt = Prompt("p", "c", "en", "2026-01-01T00:00:00.000000Z", earlier=spoken)
    whole, cut = (samples.new("p", "d", version="v0", left_out=count) for count in (0, 2))
    assert "left out" not in words.asked(Exchange.answered(prompt, [whole]), 1).plain
    assert "the earliest 2 messages were left out" in words.asked(Exchange.answered(prompt, [whole, cut]), 1).plain


def test_an_answer_whose_tokens_are_not_known_has_no_number_of_them(database: Database):
    prompt = conversations.add(database, "Why?", language="en")
    known = samples.new(prompt.id, "So", version="v0", token_ids=[1, 2], finish_reason="eos")
    cut = samples.new(prompt.id, "So it", version="v0", finish_reason="cancelled")  # the app closed while it was said
    first, second = cards(Exchange.answered(prompt, [known, cut]), {}, None)
    assert "2 tokens" in first.footnote
    assert "token" not in second.footnote
