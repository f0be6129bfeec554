"""What every screen keeps whatever the size: both answers, undo and help in the footer, and keys of one meaning."""

from __future__ import annotations

import pytest
from driving import answer, opened, ready, served_base, type_text, until, visible
from textual import events
from textual.pilot import Pilot
from textual.widgets import OptionList

from docs.invented import furnish
from storage import conversations, samples
from storage.database import Database, open_database
from storage.feedback import log
from storage.workspace import Workspace
from workbench.screens.help.screen import HelpScreen
from workbench.shell.actions import ACTIONS, BY_ID, NUMBERS
from workbench.shell.app import WorkbenchApp
from workbench.widgets.answers import AnswerCard, AnswerGrid, CardFacts, line_of
from workbench.widgets.dialogs import Dialog
from workbench.widgets.editor import PromptInput
from workbench.widgets.table import RowTable

SMALL = (40, 12)
LEFT = "The first answer goes on for quite a while, " * 8 + "and this is the end of the first one."
RIGHT = "The second one is short."


@pytest.fixture
def app(workspace: Workspace, database: Database) -> WorkbenchApp:
    served_base(database)
    return WorkbenchApp(workspace, start_engine=False)


async def answered(pilot: Pilot[None], app: WorkbenchApp, *texts: str) -> None:
    """One prompt sent and answered; the prompt field keeps the focus."""
    ready(app)
    app.update_session(candidates=len(texts))
    await type_text(pilot, "Why")
    await pilot.press("enter")
    await until(pilot, lambda: app.conversation.is_writing)
    answer(app, *texts)
    await until(pilot, lambda: app.conversation.current is not None and app.conversation.current.samples)


def foot(app: WorkbenchApp) -> str:
    return visible(app).splitlines()[-1]


# Both answers


async def test_both_answers_of_a_pair_are_seen_in_a_small_terminal(workspace: Workspace, database: Database):
    served_base(database)
    prompt = conversations.add(database, "Why?", language="en")
    made = [samples.new(prompt.id, text, version="v0", finish_reason="eos") for text in (LEFT, RIGHT)]
    samples.add(database, made)
    for sample in made:
        log.append(database, log.score(sample.id, 3, "rater"))
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot)
        assert app.desk is not None
        app.desk.rater = "rater"
        await pilot.press("f2")
        await until(pilot, lambda: "▸ left" in visible(app))
        lengths = {text: str(len(text)) for text in (LEFT, RIGHT)}  # in characters: the tokens are not known
        for key, shown in (("tab", "▸ left"), ("left", "▸ right"), ("shift+tab", "▸ left"), ("right", "▸ right")):
            screen = visible(app)
            assert shown in screen
            assert all(length in screen for length in lengths.values())
            if app.screen.sample.text == RIGHT:  # type: ignore[attr-defined]
                assert RIGHT in screen
            else:
                await pilot.press("end")
                await until(pilot, lambda: "end of the first" in " ".join(visible(app).split()))
            await pilot.press(key)
        await pilot.press("a")
        await until(pilot, lambda: "Nothing waits" in visible(app))


async def test_several_answers_on_prompt_are_seen_in_a_small_terminal(app: WorkbenchApp):
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot)
        await answered(pilot, app, LEFT, RIGHT, "the third")
        await pilot.press("tab")
        for name, text in (("a", "The first answer"), ("b", RIGHT), ("c", "the third"), ("a", "The first answer")):
            await until(pilot, lambda name=name: f"▸ {name}" in visible(app))
            assert text in " ".join(visible(app).split())
            await pilot.press("tab")


async def test_another_item_begins_with_its_first_answer_at_its_top(app: WorkbenchApp):
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot)
        await answered(pilot, app, RIGHT, LEFT)
        await pilot.press("tab", "tab", "end")
        await until(pilot, lambda: "end of the first" in " ".join(visible(app).split()))
        await pilot.press("i")
        await answered(pilot, app, LEFT, RIGHT)
        await until(pilot, lambda: "▸ a" in visible(app) and "The first answer" in visible(app))
        assert app.screen.query_one(AnswerGrid).cards[1].scroll_y == 0


@pytest.mark.parametrize("screen", ["f1", "f2"])
async def test_a_prompt_that_has_no_room_is_read_whole(app: WorkbenchApp, screen: str):
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot)
        app.update_session(system="Be brief.")
        app.screen.query_one(PromptInput).write("Why? " * 60 + "And how?")
        await pilot.press("enter")
        ready(app)
        await until(pilot, lambda: app.conversation.is_writing)
        answer(app, LEFT, RIGHT)
        await until(pilot, lambda: app.conversation.current is not None and app.conversation.current.samples)
        await pilot.press("escape", screen)
        wanted = "p all" if screen == "f2" else "score"
        await until(pilot, lambda: wanted in foot(app))
        assert "how?" not in visible(app)
        await pilot.press("p")
        await until(pilot, lambda: "Be brief." in visible(app))
        await pilot.press("end")
        await until(pilot, lambda: "how?" in visible(app))
        await pilot.press("escape")
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "how?" in visible(app) and "p prompt" not in foot(app))


@pytest.mark.parametrize("width", range(8, 60, 4))
def test_the_line_of_answers_names_them_all_with_their_lengths(width: int):
    facts = [CardFacts("a", "x", verdict="4/5 preferred", tokens=120), CardFacts("b", "y", tokens=9)]
    line = line_of(facts, 1, "tab", width).plain
    assert line.startswith("  a 120")
    assert "▸ b 9" in line
    assert len(line) <= max(width, len("  a 120  ▸ b 9"))
    assert "characters" in line_of([*facts, CardFacts("c", "four")], 0, "tab", 80).plain


# The footer


async def test_undo_and_help_are_in_the_footer_at_every_width(app: WorkbenchApp, database: Database):
    prompt = conversations.add(database, "Why?", language="en")
    made = [samples.new(prompt.id, text, version="v0", finish_reason="eos") for text in (LEFT, RIGHT)]
    samples.add(database, made)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await answered(pilot, app, LEFT, RIGHT)

        def fits(width: int) -> bool:
            shown = foot(app).rstrip()
            return len(shown) <= width and " undo  " in shown and shown.endswith(" help")

        for focus in ("i", "escape", "f2"):
            await pilot.press(focus)
            for width in (120, 100, 80, 60, 40, 30, 24):
                await pilot.resize_terminal(width, 24)
                await until(pilot, lambda width=width: app.size.width == width and fits(width))
            await pilot.resize_terminal(80, 24)
            await until(pilot, lambda: app.size.width == 80)
            shown = foot(app)
            first, last = {"i": ("send", "help"), "escape": ("score", "help"), "f2": ("score", "help")}[focus]
            assert shown.index(first) < shown.index("undo") < shown.index(last)


# Keys of one meaning


async def test_lists_and_sheets_leave_room_for_their_keys_in_a_small_terminal(app: WorkbenchApp):
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot)
        await answered(pilot, app, LEFT, RIGHT)
        for key in ("ctrl+l", "alt+t"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, Dialog) and app.screen.query_one(OptionList).options)
            await until(pilot, lambda: "esc cancel" in visible(app))
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, Dialog))
        await pilot.press("tab", "t", "h", "3")
        await until(pilot, lambda: "● 3" in visible(app))
        shown = visible(app)
        assert all(name in shown for name in ("violence", "incoherent", "1-3 severity"))


@pytest.mark.parametrize("digit", "0123456789")
def test_a_digit_scores_or_does_nothing(digit: str):
    assert all(action.label == "score" for action in ACTIONS if digit in action.keys and not action.sheet)


async def test_digits_leave_every_other_screen_as_it_is(app: WorkbenchApp):
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for name, number in NUMBERS.items():
            await pilot.press(f"f{number}")
            if name != "prompt":
                await pilot.press(*"123456")
                await pilot.pause()
                assert (app.current_mode, len(app.screen_stack)) == (name, 1)


def test_escape_is_one_action_of_a_screen_at_most():
    with_escape = [action.id.partition(".")[0] for action in ACTIONS if "escape" in action.keys and not action.sheet]
    assert sorted(with_escape) == ["dialog", "library", "prompt"]


async def test_escape_ends_at_the_answers_whatever_was_going_on(app: WorkbenchApp):
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        cancelled: list[object] = []
        app.send = cancelled.append  # type: ignore[method-assign]
        await pilot.press("escape")
        assert isinstance(app.focused, PromptInput), "there is no answer to go to"
        ready(app)
        await type_text(pilot, "Why")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        del cancelled[:]
        assert "esc stop" in foot(app)
        await type_text(pilot, "next")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.focused, AnswerCard))
        assert len(cancelled) >= 1
        answer(app, LEFT, RIGHT)
        await until(pilot, lambda: not app.conversation.is_writing)
        del cancelled[:]
        for before in ("i", "tab", "ctrl+g", "question_mark"):
            await pilot.press(before)
            await pilot.pause()
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            if before == "ctrl+g":
                continue
            await until(pilot, lambda: isinstance(app.focused, AnswerCard))
            await pilot.press("escape")
            await pilot.pause()
            assert isinstance(app.focused, AnswerCard), "twice is as once"
        assert cancelled == []
        assert app.screen.query_one(PromptInput).text == "next"


async def test_a_question_mark_in_an_empty_field_is_help_and_else_a_sign(app: WorkbenchApp):
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen) and "Keys · Prompt" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await type_text(pilot, "Why")
        await pilot.press("question_mark")
        await until(pilot, lambda: app.screen.query_one(PromptInput).text == "Why?")
        assert "f12 help" in foot(app)
        await pilot.press("ctrl+f")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys · In a dialog" in visible(app))
        assert "Go to Train" not in visible(app), "that does not work here"
        await pilot.press("escape", "a", "question_mark")
        await until(pilot, lambda: "a?" in visible(app))
        assert len(app.screen_stack) == 2


async def test_undo_works_while_a_prompt_is_written(app: WorkbenchApp, database: Database):
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await answered(pilot, app, LEFT, RIGHT)
        await pilot.press("tab", "4")
        await until(pilot, lambda: log.effective(database))
        await pilot.press("i", "n", "o")
        assert "alt+u undo" in foot(app)
        app.post_message(events.Key("alt+u", "u"))  # as it comes from a terminal
        await until(pilot, lambda: not log.effective(database))
        assert app.screen.query_one(PromptInput).text == "no"


# The palette


async def test_the_palette_shows_keys_and_groups_and_only_what_applies(app: WorkbenchApp):
    async with app.run_test(size=(120, 56)) as pilot:
        await opened(pilot)

        async def offered() -> list[str]:
            await pilot.press("ctrl+p")
            await until(pilot, lambda: "f7  Choose" in visible(app))
            lines = visible(app).splitlines()
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            return lines

        def line(lines: list[str], action: str) -> str:
            return next((line for line in lines if BY_ID[action].help in line), "")

        before = await offered()
        assert line(before, "prompt.history").split()[:2] == ["^f", "Search"]
        assert line(before, "prompt.send").split()[:2] == ["Prompt", "enter"], "the first of its group"
        assert line(before, "app.show-review").split()[:3] == ["Go", "to", "f2"]
        for out_of_place in ("prompt.note", "prompt.score-1", "prompt.drop", "app.show-prompt", "app.restart-engine"):
            assert line(before, out_of_place) == ""
        await answered(pilot, app, LEFT)
        await pilot.press("escape")
        after = await offered()
        assert line(after, "prompt.note").split()[0] == "n"
        assert line(after, "prompt.score-1")
        assert line(after, "prompt.tie") == "", "there is one answer"
        await pilot.press("ctrl+p")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await type_text(pilot, "better")
        await until(pilot, lambda: "better answer over this one" in visible(app) and "Go to" not in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: "A better answer" in visible(app))


# Tables


async def test_every_column_of_a_table_comes_into_sight(workspace: Workspace):
    with open_database(workspace) as database:
        furnish(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot)
        await pilot.press("f6")
        await until(pilot, lambda: "v2" in visible(app) and "←/→ more" in foot(app))
        table = app.screen.query_one(RowTable)
        names = [column.label.plain for column in table.ordered_columns if column.label.plain]
        seen: set[str] = set()
        for _ in names:
            head = next(line for line in visible(app).splitlines() if "version" in line).split()
            seen |= set(head)
            assert "v2" in visible(app), "which row it is stays in sight"
            await pilot.press("right")
            await pilot.pause()
        assert seen >= set(names)
        for _ in names:
            await pilot.press("left")
        await until(pilot, lambda: table.scroll_x == 0)
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "columns" not in foot(app) and "made" in visible(app))
