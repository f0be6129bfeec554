"""In the app: who rates, what Review asks about, and how far raters agree."""

from __future__ import annotations

from driving import opened, served_base, type_text, until, visible
from textual.widgets import Input

from storage import conversations, raters, samples
from storage.database import Database
from storage.feedback import log, mix, selection
from storage.feedback.selection import Selection
from storage.workspace import Workspace
from workbench.screens.review.screen import ReviewScreen
from workbench.shell.app import WorkbenchApp
from workbench.widgets.agreed import AgreementSheet
from workbench.widgets.dialogs import FormDialog, PickDialog


def filled(database: Database) -> None:
    """Two answers in each of two languages; of those in Swahili bela has judged one."""
    served_base(database)
    for language in ("sw", "fr"):
        prompt = conversations.add(database, f"{language}?", language=language, task="medicine")
        made = [samples.new(prompt.id, f"{text} in {language}", version="v0", finish_reason="eos") for text in "ab"]
        samples.add(database, made)
    log.append(database, log.score(samples.recent(database)[-1].id, 4, "bela"))


async def test_another_rater_is_asked_what_they_read_of_what_is_chosen(
    workspace: Workspace, database: Database
) -> None:
    filled(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, ReviewScreen) and app.screen.item)
        review = app.screen
        assert isinstance(review, ReviewScreen)
        assert {item.prompt.language for item in review.items} == {"sw", "fr"}

        await pilot.press("alt+r")
        await until(pilot, lambda: isinstance(app.screen, PickDialog) and "bela" in visible(app))
        await type_text(pilot, "amina")
        await until(pilot, lambda: "somebody new" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FormDialog) and isinstance(app.focused, Input))
        await type_text(pilot, "sw")
        await pilot.press("enter")
        await until(pilot, lambda: app.desk is not None and app.desk.rater == "amina" and app.screen is review)
        await until(pilot, lambda: {item.prompt.language for item in review.items} == {"sw"})
        assert raters.find(database, "amina").languages == ("sw",)
        assert app.session.rater == "amina"

        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, FormDialog) and isinstance(app.focused, Input))
        await pilot.press("tab")
        await type_text(pilot, "poetry")
        await pilot.press("tab", "tab", "tab", "tab")
        await type_text(pilot, "verses")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is review and "Nothing waits for review" in visible(app))
        assert selection.saved(database) == {"verses": Selection(task="poetry")}

        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.focused, Input) and "verses: task poetry" in visible(app))
        await pilot.press("tab", "ctrl+u", *["tab"] * 5, "ctrl+u")
        await type_text(pilot, "luck=1")
        await pilot.press("enter")
        await until(pilot, lambda: "no slice 'luck'" in visible(app))
        await pilot.press("ctrl+u")
        await type_text(pilot, "acquisition=1,random=1")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is review and review.item is not None)
        assert selection.active(database) == Selection()
        assert mix.load(database).written == "acquisition=1,random=1"

        key = review.items[0].samples[0].id
        assert review.items[0].kind == "single"
        await pilot.press("4")
        await until(pilot, lambda: log.effective(database, rater="amina"))
        (rating,) = log.effective(database, rater="amina")
        assert (rating.sample_id, rating.slice) == (key, "acquisition")

        await pilot.press("A")
        await until(pilot, lambda: isinstance(app.screen, AgreementSheet) and "too little overlap" in visible(app))
        await until(pilot, lambda: "bela" in visible(app))
        head = next(line for line in visible(app).splitlines() if "95% interval" in line)
        page = app.screen.query_one("#page")
        assert "units" in head or page.max_scroll_x > 0  # a table is never broken into lines
        await pilot.resize_terminal(40, 24)
        await until(pilot, lambda: page.max_scroll_x > 8)
        await pilot.press("right")
        await until(pilot, lambda: page.scroll_x == 8)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is review)
