"""Review: one item at a time, judged by a key, on a real workspace."""

from __future__ import annotations

import pytest
from driving import SIZES, opened, served_base, until, visible

from storage import conversations, samples
from storage.database import Database
from storage.feedback import log
from storage.records import Choice, Message, RatingKind, Sample
from storage.workspace import Workspace
from workbench.screens.review.screen import ReviewScreen
from workbench.shell.app import WorkbenchApp

ASKED = (("fr", "Qu'est-ce qu'un glacier ?"), ("sw", "Barafu ni nini?"), ("ja", "氷とは何ですか。"))


def single_answers(database: Database) -> list[Sample]:
    served_base(database)
    made = []
    for language, text in ASKED:
        prompt = conversations.add(database, text, language=language)
        made.append(
            samples.new(prompt.id, f"answer in {language}", version="v0", token_ids=[1, 2], finish_reason="eos")
        )
    samples.add(database, made)
    return made


def pair_of_answers(database: Database) -> list[Sample]:
    served_base(database)
    prompt = conversations.add(database, "Was ist ein Gletscher?", language="de")
    made = [samples.new(prompt.id, f"{name} answer", version="v0", finish_reason="eos") for name in ("early", "late")]
    samples.add(database, made)
    # Single answers are judged already, so that the pair is what is left.
    for sample in made:
        log.append(database, log.score(sample.id, 3, "rater"))
    return made


async def reviewing(pilot) -> ReviewScreen:  # type: ignore[no-untyped-def]
    app = await opened(pilot)
    assert app.desk is not None
    app.desk.rater = "rater"
    await pilot.press("f2")
    await until(pilot, lambda: isinstance(app.screen, ReviewScreen) and app.screen.is_mounted)
    return app.screen  # type: ignore[return-value]


async def test_keys_pressed_at_once_each_take_their_own_item(workspace: Workspace, database: Database):
    single_answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: "1 of 3" in visible(app))
        before = [item.samples[0].id for item in screen.items]
        for key in ("s", "c", "l", "s"):
            app.simulate_key(key)
        await until(pilot, lambda: len(screen.done) == 3)
        stored = [(rating.kind, rating.sample_id) for rating in log.effective(database)]
        assert stored == list(zip(("skip", "cannot-judge", "skip"), before, strict=True))


@pytest.mark.parametrize("size", SIZES)
async def test_scores_move_on_to_the_next_item(workspace: Workspace, database: Database, size: tuple[int, int]):
    single_answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: "1 of 3" in visible(app))
        first = screen.sample
        await pilot.press("5")
        await until(pilot, lambda: "2 of 3" in visible(app) and "saved ✓" in visible(app))
        (score,) = log.effective(database)
        assert first is not None
        assert (score.sample_id, score.value, score.rater) == (first.id, 5, "rater")
        assert score.duration_ms is not None
        await pilot.press("g")
        await until(pilot, lambda: "3 of 3" in visible(app))
        await pilot.press("x")
        await until(pilot, lambda: "Nothing waits" in visible(app))
        assert [rating.kind for rating in log.effective(database)] == ["score", "label", "label"]


@pytest.mark.parametrize("key", ["a", "b", "equals_sign", "x"])
async def test_a_pair_is_stored_by_what_stood_where(workspace: Workspace, database: Database, key: str):
    pair_of_answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: "left" in visible(app) and "right" in visible(app))
        assert "v0" not in "\n".join(visible(app).splitlines()[1:])  # blind: the header alone names a version
        item = screen.item
        assert item is not None
        left, right = item.shown
        await pilot.press(key)
        await until(pilot, lambda: "Nothing waits" in visible(app))
        stored = log.effective(database)[-1]
        assert (stored.kind, stored.shown_order, stored.blind) == (RatingKind.PAIR, item.shown_order, True)
        if key in "ab":
            preferred = stored.sample_id if stored.choice is Choice.A else stored.other_sample_id
            assert preferred == (left if key == "a" else right).id
        else:
            assert stored.choice == (Choice.TIE if key == "equals_sign" else Choice.BOTH_BAD)


async def test_a_digit_on_a_pair_does_nothing(workspace: Workspace, database: Database):
    pair_of_answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: screen.item is not None)
        before = len(log.effective(database))
        await pilot.press("3")
        await pilot.pause(0.1)
        assert app.current_mode == "review"
        assert len(log.effective(database)) == before


async def test_undo_brings_the_item_back(workspace: Workspace, database: Database):
    single_answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: screen.item is not None)
        first = screen.item
        await pilot.press("2")
        await until(pilot, lambda: screen.item is not first)
        await pilot.press("u")
        await until(pilot, lambda: screen.item is first)
        assert log.effective(database) == []
        await pilot.press("ctrl+r")
        await until(pilot, lambda: screen.item is not first)
        assert len(log.effective(database)) == 1


async def test_skip_and_cannot_judge_are_kept_apart(workspace: Workspace, database: Database):
    single_answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: screen.item is not None)
        await pilot.press("s")
        await until(pilot, lambda: "skipped" in visible(app))
        assert "skipped · v0" not in visible(app), "it is asked again, blind"
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "judged, 1 back" in visible(app))
        assert "v0" not in "".join(visible(app).splitlines()[1:])
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: not screen.pile.visits)
        await pilot.press("c", "l")
        await until(pilot, lambda: len(log.effective(database)) == 2)
        await until(pilot, lambda: "language · v0" in visible(app))
        assert [rating.kind for rating in log.effective(database)] == ["skip", "cannot-judge"]
        assert app.rated == 0


async def test_new_answers_appear_without_asking(workspace: Workspace, database: Database):
    served_base(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await reviewing(pilot)
        await until(pilot, lambda: "Nothing waits" in visible(app))
        single_answers(database)
        await until(pilot, lambda: "1 of 3" in visible(app))


async def test_why_an_item_is_asked_holds_no_count_of_an_earlier_moment(workspace: Workspace, database: Database):
    """Items are read ahead, and the bars below tell how many there are by now."""
    single_answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: screen.item is not None)
        assert "has 0 ratings" in screen.item.why, "as it was when it was chosen"
        await pilot.press("4")
        await until(pilot, lambda: "2 of" in visible(app) and "saved ✓" in visible(app))
        await until(pilot, lambda: "why: not rated yet" in visible(app))
        assert "has 0 ratings" not in visible(app)


async def test_languages_are_counted(workspace: Workspace, database: Database):
    single_answers(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: screen.item is not None)
        language = screen.item.prompt.language
        await pilot.press("4")
        await until(pilot, lambda: f"{language} ▇" in visible(app))
        await until(pilot, lambda: "pace" in visible(app))


@pytest.mark.parametrize("size", SIZES)
async def test_the_turns_before_stand_above_what_was_asked_last(
    workspace: Workspace, database: Database, size: tuple[int, int]
):
    served_base(database)
    turns = [Message(role, f"{role} says {n} [/INST]\x1b[2J") for n in range(3) for role in ("user", "assistant")]
    prompt = conversations.add(database, "And then?", language="en", system="Be short.", earlier=turns)
    samples.add(database, [samples.new(prompt.id, "The end.", version="v0", finish_reason="eos")])
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await reviewing(pilot)
        await until(pilot, lambda: "And then?" in visible(app) and "The end." in visible(app))
        shown = visible(app)
        assert "assistant ▸ assistant says 2" in shown
        assert shown.index("assistant says 2") < shown.index("And then?")
        if size[1] > 18:
            assert "says 2 [/INST]␛[2J" in shown
            assert "… 4 turns before" in shown
            assert "assistant says 1" in shown
        assert "user says 0" not in shown
