"""Prompt: asking, watching and rating in place, on a real workspace."""

from __future__ import annotations

import pytest
from driving import SIZES, answer, opened, ready, served_base, type_text, until, visible

from storage import conversations, samples
from storage.database import Database
from storage.feedback import log
from storage.records import Choice, Message, RatingKind
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.engine.process import EngineDied
from workbench.shell.app import WorkbenchApp
from workbench.widgets.answers import AnswerCard
from workbench.widgets.editor import PromptInput


@pytest.fixture
def app(workspace: Workspace, database: Database) -> WorkbenchApp:
    served_base(database)
    return WorkbenchApp(workspace, start_engine=False)


async def asked(pilot, app: WorkbenchApp, *texts: str) -> None:  # type: ignore[no-untyped-def]
    """One prompt sent and answered."""
    ready(app)
    await type_text(pilot, "Why is it so")
    await pilot.press("enter")
    await until(pilot, lambda: app.conversation.is_writing)
    answer(app, *texts)
    await until(pilot, lambda: app.conversation.current is not None and app.conversation.current.samples)
    await pilot.press("escape")
    await until(pilot, lambda: isinstance(app.focused, AnswerCard))


@pytest.mark.parametrize("size", SIZES)
async def test_ask_answer_rate(app: WorkbenchApp, database: Database, size: tuple[int, int]):
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        await asked(pilot, app, "The left answer", "The right answer")
        shown = visible(app)
        assert "Why is it so" in shown
        assert "The left answer" in shown
        assert ("The right answer" in shown) == (size[0] >= 80)
        await pilot.press("4", "a")
        await until(pilot, lambda: "saved ✓" in visible(app))
        stored = samples.recent(database)
        assert {sample.text for sample in stored} == {"The left answer", "The right answer"}
        assert {sample.version for sample in stored} == {"v0"}
        assert len({sample.group_id for sample in stored}) == 1
        score, pair = log.effective(database)
        assert (score.kind, score.value) == (RatingKind.SCORE, 4)
        assert (pair.kind, pair.choice) == (RatingKind.PAIR, Choice.A)
        assert samples.get(database, pair.sample_id or "").text == "The left answer"
        await until(pilot, lambda: "4/5 preferred" in visible(app))


async def test_saved_is_not_said_when_the_rating_was_refused(app: WorkbenchApp, database: Database):
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        await asked(pilot, app, "one", "two")
        database.execute("CREATE TRIGGER main.refuse BEFORE INSERT ON ratings BEGIN SELECT RAISE(ABORT, 'no'); END")
        await pilot.press("4")
        await until(pilot, lambda: "refused" in visible(app) and "✕ not saved  4 of 5" in visible(app))
        assert "saved ✓" not in visible(app)
        assert "✕ 1 unsaved" in visible(app).splitlines()[0]
        database.execute("DROP TRIGGER main.refuse")
        await pilot.press("4")
        await until(pilot, lambda: "saved ✓" in visible(app))
        assert "unsaved" not in visible(app)
        assert [rating.value for rating in log.effective(database)] == [4]


async def test_labels_ties_notes_edits_undo_and_redo(app: WorkbenchApp, database: Database):
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await asked(pilot, app, "one", "two")
        await pilot.press("g", "right", "x", "equals_sign", "n")
        await pilot.pause()
        await type_text(pilot, "odd")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("e")
        await pilot.pause()
        await type_text(pilot, " better")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: len(log.effective(database)) == 5)
        good, bad, tie, note, edit = log.effective(database)
        assert (good.value, bad.value, tie.choice) == (1, 0, Choice.TIE)
        assert (note.text, edit.text) == ("odd", "two better")
        await pilot.press("u")
        await until(pilot, lambda: len(log.effective(database)) == 4)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(log.effective(database)) == 5)
        await until(pilot, lambda: "brought back" in visible(app))


async def test_with_one_answer_b_means_bad(app: WorkbenchApp, database: Database):
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        app.update_session(candidates=1)
        await asked(pilot, app, "only")
        await pilot.press("b")
        await until(pilot, lambda: log.effective(database))
        (label,) = log.effective(database)
        assert (label.kind, label.value) == (RatingKind.LABEL, 0)


async def test_prompts_typed_while_the_engine_starts_are_kept_and_sent(app: WorkbenchApp, database: Database):
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        for text in ("first", "second"):
            await type_text(pilot, text)
            await pilot.press("enter")
        await until(pilot, lambda: "2 prompts kept" in visible(app))
        assert [prompt.text for prompt in conversations.recent(database)] == ["second", "first"]
        ready(app)
        await until(pilot, lambda: app.conversation.is_writing)
        assert app.conversation.current is not None
        assert app.conversation.current.ask.prompt.text == "first"
        answer(app, "x", "y")
        await until(pilot, lambda: app.conversation.current.ask.prompt.text == "second")


async def test_a_dying_engine_loses_no_prompt(app: WorkbenchApp):
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        ready(app)
        await type_text(pilot, "still here")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        app.hear(EngineDied(-9, "Killed", "/logs/engine.log", (), was_ready=False))
        await until(pilot, lambda: "1 prompt kept" in visible(app) and "engine.log" in visible(app))
        ready(app)
        await until(pilot, lambda: app.conversation.is_writing)
        assert app.conversation.current is not None
        assert app.conversation.current.ask.prompt.text == "still here"


async def test_escape_cancels_and_what_was_said_is_kept(app: WorkbenchApp, database: Database):
    sent: list[protocol.Request] = []
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        app.send = sent.append  # type: ignore[method-assign]
        ready(app)
        await type_text(pilot, "long")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        await pilot.press("escape")
        request = app.conversation.current.ask.generate.request
        assert sent[-1] == protocol.Cancel(request)
        for n in (0, 1):
            app.hear(protocol.Answer(request, n, f"part {n}", [1], "cancelled", "v0", 1))
        app.hear(protocol.Done(request, 2, 1.0, 2.0))
        await until(pilot, lambda: len(samples.recent(database)) == 2)
        assert {sample.finish_reason for sample in samples.recent(database)} == {"cancelled"}


async def test_streamed_text_is_drawn_before_the_end(app: WorkbenchApp):
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        ready(app)
        await type_text(pilot, "hi")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.is_writing)
        request = app.conversation.current.ask.generate.request
        app.hear(protocol.Text(request, 0, "half an ", 2))
        app.hear(protocol.Text(request, 0, "answer", 3))
        await until(pilot, lambda: "half an answer" in visible(app))
        await until(pilot, lambda: "3 tokens" in visible(app))


async def test_language_parameters_and_draft_return_in_the_next_session(workspace: Workspace, database: Database):
    served_base(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        await pilot.press("ctrl+l")
        await pilot.pause()
        await type_text(pilot, "es-ar")
        await pilot.press("enter")
        await until(pilot, lambda: app.session.language == "es-AR")
        await pilot.press("ctrl+g")
        await pilot.pause()
        await pilot.press("backspace", "3", "enter")
        await until(pilot, lambda: app.session.candidates == 3)
        await type_text(pilot, "a draft")
        await pilot.press("f3")
        await until(pilot, lambda: app.session.screen == "train")
    again = WorkbenchApp(workspace, start_engine=False)
    async with again.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert again.current_mode == "train"
        await pilot.press("f1")
        await until(pilot, lambda: "a draft" in visible(again))
        assert again.session.language == "es-AR"
        assert "3 answers" in visible(again)


async def test_a_wrong_parameter_is_explained_and_kept(app: WorkbenchApp):
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        await pilot.press("ctrl+g")
        await pilot.pause()
        await pilot.press("9", "enter")
        await until(pilot, lambda: "want 1 to 4" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        assert app.session.candidates == 2


async def test_history_is_recalled_and_searched(app: WorkbenchApp, database: Database):
    for text in ("Was ist Eis?", "Qu'est-ce que le sel ?", "Habari gani?"):
        conversations.add(database, text)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        editor = app.screen.query_one(PromptInput)
        await type_text(pilot, "mine")
        await pilot.press("up", "up")
        assert editor.text == "Qu'est-ce que le sel ?"
        await pilot.press("down", "down")
        assert editor.text == "mine"
        await pilot.press("ctrl+f")
        await pilot.pause()
        await type_text(pilot, "Eis")
        await until(pilot, lambda: "Was ist Eis?" in visible(app) and "Habari" not in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: editor.text == "Was ist Eis?")


async def test_several_lines_are_sent_with_ctrl_j(app: WorkbenchApp, database: Database):
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        app.screen.query_one(PromptInput).write("one\ntwo")
        await pilot.press("enter")
        await type_text(pilot, "three")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: conversations.recent(database))
        assert conversations.recent(database)[0].text == "one\ntwo\nthree"


async def test_the_footer_names_only_what_works_now(app: WorkbenchApp):
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        assert "enter send" in visible(app).splitlines()[-1]
        assert "score" not in visible(app).splitlines()[-1]
        await asked(pilot, app, "one", "two")
        await until(pilot, lambda: "1-5 score" in visible(app).splitlines()[-1])
        assert "a/b prefer" in visible(app).splitlines()[-1]
        assert "enter send" not in visible(app).splitlines()[-1]


async def test_the_footer_names_the_key_that_sends_a_prompt_of_several_lines(app: WorkbenchApp):
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        app.screen.query_one(PromptInput).write("one\ntwo")
        await until(pilot, lambda: "^j send" in visible(app).splitlines()[-1])
        assert "enter send" not in visible(app).splitlines()[-1]
        app.screen.query_one(PromptInput).write("one")
        await until(pilot, lambda: "enter send" in visible(app).splitlines()[-1])


async def test_four_answers_stay_a_small_tree(app: WorkbenchApp):
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        app.update_session(candidates=4)
        await asked(pilot, app, *("words " * 200 for _ in range(4)))
        assert all(card.display for card in app.screen.query(AnswerCard))
        assert len(list(app.screen.walk_children())) < 60


async def test_a_conversation_from_the_history_goes_on_under_its_turns(app: WorkbenchApp, database: Database):
    turns = (Message("user", "How do I dry basil?"), Message("assistant", "Hang it or use an oven?"))
    one = conversations.add(database, "Oven.", language="en", system="Be short.", earlier=turns)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        ready(app)
        await pilot.press("up", "enter")
        await until(pilot, lambda: app.conversation.is_writing)
        assert app.conversation.current is not None
        ask = app.conversation.current.ask
        assert (ask.prompt, ask.generate.questions()[0].messages) == (one, one.messages)
        answer(app, "Low heat.", "Two hours.")
        await until(pilot, lambda: "Two hours." in visible(app))
        await until(pilot, lambda: "1 und ▸ How do I dry basil?" in visible(app))
        await until(pilot, lambda: "said elsewhere" in visible(app))
        await pilot.press("up")
        await until(pilot, lambda: "en ▸ turn 2" in visible(app))
        await type_text(pilot, " Slowly?")
        await pilot.press("enter")
        await until(pilot, lambda: len(conversations.recent(database)) == 2)
        branch = conversations.recent(database)[0]
        assert (branch.text, branch.system, branch.earlier) == ("Oven. Slowly?", "Be short.", turns)
