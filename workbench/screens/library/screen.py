"""Library: find any prompt, read it whole, and see and change what was said of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Input, Static

from storage import conversations, library
from storage.library import PAGE, Answered, Shelved
from storage.records import Change, Sample, Split
from storage.wording import counted
from workbench.screens.library import told
from workbench.shell.messages import AnswersChanged, RatingsChanged
from workbench.shell.screen import WorkbenchScreen, present
from workbench.text import cell, one_line
from workbench.widgets.editor import SafeInput
from workbench.widgets.judging import Rater
from workbench.widgets.sheets import Sheet
from workbench.widgets.table import RowTable

if TYPE_CHECKING:
    from workbench.desk import Desk

NEAR = 20  # rows from the end of what was read: from here on the next page is asked for
# The widths of all columns but the prompt's, whose room is what they leave; in a narrow terminal they are out of sight.
BY_AI = "by AI"
COLUMNS = {"language": 8, "prompt": 0, "answers": 7, "rated": 5, BY_AI: 5, "split": 8, "task": 12}
NARROW = 60


class Book(VerticalScroll, can_focus=True):
    """The opened prompt; it scrolls as one."""


class LibraryScreen(Rater, WorkbenchScreen):
    """A list, newest first, that is read by the page; or one prompt of it, opened, with one answer at a time."""

    CSS_PATH = "style.tcss"
    KEY = "library"
    AUTO_FOCUS = "RowTable"
    NEWS = (AnswersChanged, RatingsChanged)

    def body(self) -> ComposeResult:
        yield SafeInput(id="search", placeholder="search in any script", compact=True)
        yield Static(id="found", markup=False)
        yield Static(id="empty", markup=False)
        yield RowTable(cursor_type="row", zebra_stripes=False)
        yield Static(id="detail", classes="pane", markup=False)
        yield Static(id="head", markup=False)
        with Book():
            for name in ("turns", "corrected", "answer", "history"):
                yield Static(id=name, markup=False)
        yield Sheet()
        yield Static(id="said", markup=False)

    def on_mount(self) -> None:
        self.shelf: list[Shelved] = []
        self.more = False  # whether there is another page
        self.only: dict[str, str] = {}
        self.opened: Shelved | None = None
        self.place = 0
        self.answered: Answered | None = None
        self.corrected: list[Change] = []
        self.shown: object = None

    @property
    def table(self) -> RowTable:
        return self.query_one(RowTable)

    @property
    def searching(self) -> Input:
        return self.query_one("#search", Input)

    @property
    def selected(self) -> Shelved | None:
        row = self.table.cursor_row
        return self.shelf[row] if 0 <= row < len(self.shelf) else None

    # Reading

    async def reload(self) -> None:
        """Read again what is on screen: as much of the list as was read, or the answer that is shown."""
        if self.desk is None:
            return
        if (opened := self.opened) is not None:
            now = await self.desk.read(library.prompt, opened.id)
            corrected = await self.desk.read(conversations.changes, opened.id)
            answered = await self.desk.read(library.answer, opened.id, self.place)
            if self.opened is opened:  # it may have been closed meanwhile
                self.opened, self.answered, self.corrected = now, answered, corrected
        else:
            much = max(PAGE, len(self.shelf))
            self.shelf = await self._page(self.desk, self.searching.value, None, much)
            self.more = len(self.shelf) == much
        await self.draw()

    @work(exclusive=True, group="more")
    async def read_on(self) -> None:
        """Read the page after the last one."""
        shelf = self.shelf
        search, last = self.searching.value, shelf[-1].sequence
        found = await self.attempt(lambda desk: self._page(desk, search, last, PAGE))
        if found is not None and self.shelf is shelf:
            self.shelf, self.more = [*shelf, *found], len(found) == PAGE
            await self.draw()

    async def _page(self, desk: Desk, search: str, before: int | None, limit: int) -> list[Shelved]:
        # All answers are looked through for words in one: beside what the other screens read.
        read = desk.look_through if "answer" in self.only else desk.read
        return await read(library.page, search, before, limit, self.only)

    def look_anew(self) -> None:
        """Something else is asked for: begin at the first page."""
        self.shelf, self.more = [], False
        self.look_again()

    # Drawing

    async def paint(self) -> None:
        opened = self.opened
        for name in ("#head", "Book"):
            present(self.query_one(name), opened is not None)
        for name in ("#search", "#found"):
            present(self.query_one(name), opened is None)
        present(self.query_one("#detail"), opened is None and bool(self.shelf))
        present(self.table, opened is None)
        self.table.set_class(not self.shelf, "bare")  # an empty one keeps the focus, or the search would take the keys
        present(self.query_one("#empty"), opened is None and not self.shelf)
        if opened is None:
            self._draw_list()
        else:
            self._draw_book(opened)
        self.refresh_bindings()

    def _draw_list(self) -> None:
        wanted = (self.size.width, tuple(self.shelf))
        if wanted != self.shown:
            self.shown = wanted
            self._fill()
        number = f"{len(self.shelf)}+ prompts" if self.more else counted(len(self.shelf), "prompt")
        only = "".join(f" · {one_line(value, 20)}" for value in self.only.values())
        self.query_one("#found", Static).update(Content.assemble((number, "bold"), (only, "$accent")))
        self.query_one("#empty", Static).update(self._nothing())
        self._draw_detail()

    def _fill(self) -> None:
        """Put what was read into the table; the prompt in focus stays in focus where it is still among it."""
        table, width = self.table, self.size.width - 2
        before = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value if table.row_count else None
        table.clear(columns=True)
        by_ai = any(one.judged for one in self.shelf)  # a column of their own, where there are any
        columns = {name: room for name, room in COLUMNS.items() if by_ai or name != BY_AI}
        for name, room in columns.items():
            least = 10 if width < NARROW else sum(columns.values()) + 2 * (len(columns) - 1)
            table.add_column(Text(name), key=name, width=room or max(12, width - least - 4))
        for one in self.shelf:
            words = one_line(one.text, 200)
            table.add_row(
                cell(one.language, "bold"), cell(words), Text(str(one.answers or ""), justify="right"),
                Text(str(one.ratings or ""), justify="right"), *[Text(str(one.judged or ""), justify="right")][:by_ai],
                Text(one.split), cell(one.task), key=one.id,
            )  # fmt: skip
        found = next((row for row, one in enumerate(self.shelf) if one.id == before), 0)
        table.move_cursor(row=found)

    def _draw_detail(self) -> None:
        one = self.selected
        if one is not None:
            detail = self.query_one("#detail", Static)
            detail.border_title = Content(f"{one_line(one.language, 12)} · {one.split}")
            detail.update(told.turns(one))

    def _draw_book(self, opened: Shelved) -> None:
        answered = self.answered
        self.query_one("#head", Static).update(told.head(opened, answered))
        self.query_one("#turns", Static).update(told.turns(opened))
        present(self.query_one("#corrected"), bool(self.corrected))
        self.query_one("#corrected", Static).update(told.corrections(self.corrected))
        for name in ("#answer", "#history"):
            present(self.query_one(name), answered is not None)
        if answered is not None:
            self.query_one("#answer", Static).update(told.answer_text(answered))
            self.query_one("#history", Static).update(told.history(answered))

    def _nothing(self) -> Content:
        if self.desk is None:
            first, second = "Opening the workspace.", ""
        elif self.searching.value or self.only:
            first, second = "No prompt is like that.", "Search for other words, or take the filter off."
        else:
            first, second = "No prompt yet.", "Ask one on Prompt, add packs of them, or import a file."
        return Content("\n").join([Content.styled(first, "bold"), Content.styled(second, "$text-muted")])

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def say(self, line: Content) -> None:
        self.query_one("#said", Static).update(line)

    # Finding

    def on_input_changed(self) -> None:
        self.look_anew()

    async def on_input_submitted(self) -> None:
        await self.action_close()

    def on_data_table_row_highlighted(self) -> None:
        self._draw_detail()
        if self.more and self.table.cursor_row >= len(self.shelf) - NEAR:
            self.read_on()

    def action_search(self) -> None:
        self.searching.focus()

    def action_filter(self) -> None:
        from workbench.screens.library.correcting import filter_form

        def chosen(values: dict[str, object] | None) -> None:
            if values is not None:
                self.only = {name: str(value) for name, value in values.items() if value}
                self.look_anew()

        self.app.push_screen(filter_form(self.only), chosen)

    @work(exclusive=True, group="use")
    async def action_use(self) -> None:
        """Ask for language, split and task; say first what follows from another language or split."""
        from workbench.screens.library.correcting import follows, use_form
        from workbench.widgets.dialogs import ConfirmDialog

        prompt = self.opened or self.selected
        if prompt is None:
            return
        hanging = await self.attempt(lambda desk: desk.read(library.hanging, prompt.id))
        if hanging is None:
            return
        chosen = await self.app.push_screen_wait(use_form(prompt, hanging))
        if chosen is None:
            return
        language, split, task = str(chosen["language"]), Split(str(chosen["split"])), str(chosen["task"])
        if told := follows(prompt, hanging, language, split):
            title = f"From now on {' and '.join({language, split} - {prompt.language, prompt.split})}"
            if not await self.app.push_screen_wait(ConfirmDialog(title, told)):
                return
        words = " ".join(filter(None, (language, split, task)))
        await self.record(lambda desk: desk.put_to_use(prompt, split, task, language), words)

    # Files and packs

    @work(exclusive=True, group="exchange")
    async def action_import(self) -> None:
        from workbench.screens.library.exchanging import bring_in

        if self.desk is not None and (found := await bring_in(self.workbench, self.desk)) is not None:
            new = (
                f"{counted(found.prompts, 'prompt')}, {counted(found.samples, 'answer')}, "
                f"{counted(found.ratings, 'rating is', 'ratings are')} new"
            )
            self.saved(f"{counted(found.records, 'record')}: {new}")

    @work(exclusive=True, group="exchange")
    async def action_export(self) -> None:
        from workbench.screens.library.exchanging import write_out

        if self.desk is not None and (said := await write_out(self.workbench, self.desk)) is not None:
            self.say(said)

    @work(exclusive=True, group="exchange")
    async def action_packs(self) -> None:
        from workbench.screens.library.exchanging import choose_packs

        chosen = None if self.desk is None else await choose_packs(self.workbench, self.desk)
        if chosen is not None:
            await self.record(
                lambda desk: desk.add_packs(chosen), "packs",
                lambda added: self.saved(f"{counted(added.new, 'prompt is', 'prompts are')} new, of {added.prompts}"),
            )  # fmt: skip

    def action_columns(self, by: int) -> None:
        self.table.scroll_columns(by)

    # Reading one

    async def action_open(self) -> None:
        """Open the prompt in focus at its first answer, of those that the filter asks for."""
        one = self.selected
        if one is None:
            return
        place = await self.attempt(lambda desk: desk.read(library.place_of, one.id, self.only)) or 0
        answered = await self.attempt(lambda desk: desk.read(library.answer, one.id, place))
        self.corrected = await self.attempt(lambda desk: desk.read(conversations.changes, one.id)) or []
        self.opened, self.answered, self.place = one, answered, place
        self.say(Content(""))
        await self.draw()
        book = self.query_one(Book)
        book.scroll_home(animate=False)
        book.focus()

    async def action_close(self) -> None:
        """From the opened prompt to the list, from the search to what it found."""
        self.opened = self.answered = None
        await self.draw()
        self.table.focus()
        self.look_again()

    def action_next(self) -> None:
        self._step(1)

    def action_previous(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        if self.answered is not None:
            self.place = (self.place + by) % self.answered.count
            self.look_again()

    def action_explain(self) -> None:
        """Show what the answer on screen was rewarded for."""
        from workbench.widgets.trainer_sheet import TrainerSheet

        if self.sample is not None:
            self.app.push_screen(TrainerSheet("What the answer was rewarded for", ["explain", self.sample.id]))

    # Rating

    @property
    def sample(self) -> Sample | None:
        """The answer on screen."""
        return None if self.answered is None else self.answered.sample

    def saved(self, words: str) -> None:
        super().saved(words)
        self.look_again()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        try:
            writing, cut = self.searching.has_focus, self.table.is_cut
        except NoMatches:
            return False
        listed = self.opened is None and not writing
        if (decided := self.in_sheet(action)) is not None:
            return decided
        match action:
            case "open":
                return listed and bool(self.shelf)
            case "use":
                return self.opened is not None or (listed and bool(self.shelf))
            case "search" | "filter" | "import" | "export" | "packs":
                return listed
            case "columns":
                return listed and cut
            case "score":
                return self.answered is not None and self.scores(*parameters)
            case "good" | "bad" | "edit" | "tell" | "tags" | "copy" | "explain":
                return self.answered is not None
            case "next" | "previous":
                return self.answered is not None and self.answered.count > 1
            case "close":
                return not listed
            case "undo" | "redo":
                return not writing
        return True
