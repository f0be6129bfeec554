"""Insight: what the feedback and the versions come to, a figure at a time, drawn large over its table."""

from __future__ import annotations

import asyncio
import time

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.css.query import NoMatches
from textual.timer import Timer
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.insight import FIGURES
from storage.insight.figure import Cell, Figure, Found, Table
from workbench.screens.insight.chooser import Chooser
from workbench.screens.insight.tables import fill, row_at, row_like
from workbench.screens.insight.told import FigureSheet, how_to_read, nothing_yet
from workbench.shell.messages import Measured, News, Opened, RatingsChanged, VersionsChanged
from workbench.shell.screen import WorkbenchScreen, present, put
from workbench.text import from_home
from workbench.widgets.figures import FigureView
from workbench.widgets.table import RowTable

PASSING = 0.1  # seconds that a figure is looked at before it is read: one that is passed by is not
REST = 10  # times as long as the reading of a figure took, until news have it read again


class InsightScreen(WorkbenchScreen):
    """The chosen figure is read while the screen is in front, and no other; what was read of the others is kept."""

    CSS_PATH = "style.tcss"
    KEY = "insight"
    AUTO_FOCUS = "#chooser"
    NEWS = (RatingsChanged, VersionsChanged, Measured)

    def body(self) -> ComposeResult:
        with Horizontal(id="insight"):
            yield Chooser()
            with Vertical(id="drawn"):
                yield FigureView(id="figure", classes="pane")
                yield Static(id="empty", markup=False)
                yield Static(id="how", markup=False)
                yield RowTable(cursor_type="row", zebra_stripes=False, fixed_columns=1)

    def on_mount(self) -> None:
        self.at = 0
        self.known: dict[str, Found | WorkbenchError] = {}
        self.tabled = ("", Table(()))
        self.read_at = self.took = 0.0
        self.soon: Timer | None = None

    @property
    def figure(self) -> Figure:
        return FIGURES[self.at]

    @property
    def found(self) -> Found | None:
        """What is known of the chosen figure."""
        found = self.known.get(self.figure.name)
        return found if isinstance(found, Found) else None

    @property
    def table(self) -> RowTable:
        return self.query_one(RowTable)

    @property
    def row(self) -> tuple[Cell, ...]:
        """The row in focus of the figure's table; empty where there is none."""
        return row_at(self.found, self.table.cursor_row)

    @property
    def version(self) -> str:
        """The version that the row in focus is of; empty where no row is in sight."""
        header = self.found.table.header if self.found is not None and self.table.display else ()
        return str(self.row[header.index("version")] or "") if "version" in header and self.row else ""

    # Reading

    def hear(self, news: News) -> None:
        """News have the figure read again: at once where that is quick, else after a rest in proportion."""
        rest = self.read_at + REST * self.took - time.monotonic()
        if isinstance(news, Opened) or not isinstance(news, self.NEWS) or rest <= 0:
            super().hear(news)
        elif self.soon is None:
            self.soon = self.set_timer(rest, self._rested)

    def _rested(self) -> None:
        self.soon = None
        if self.is_current:
            self.look_again()

    async def reload(self) -> None:
        """Read the chosen figure, beside what the other screens read."""
        if self.desk is None:
            return
        figure, began = self.figure, time.monotonic()
        try:
            self.known[figure.name] = await self.desk.look_through(figure.read)
        except WorkbenchError as error:
            self.known[figure.name] = error
        self.read_at = time.monotonic()
        self.took = self.read_at - began
        await self.draw()

    # Drawing

    async def paint(self) -> None:
        self.query_one(Chooser).show([figure.title for figure in FIGURES], self.at)
        found = self.found
        plot = found.plot if found is not None else None
        present(self.query_one("#figure"), plot is not None)
        present(self.query_one("#empty"), plot is None)
        self.query_one("#drawn").set_class(plot is not None and bool(plot.places), "rows")
        if plot is not None:
            self.query_one(FigureView).show(plot)
        else:
            known = self.known.get(self.figure.name)
            put(self.query_one("#empty", Static), nothing_yet(self.figure, known, self.workbench))
        put(self.query_one("#how", Static), how_to_read(self.figure, found))
        self._fill(found)
        self.refresh_bindings()

    def _fill(self, found: Found | None) -> None:
        """Put the rows into the table; the one in focus stays in focus where it is still among them."""
        table = found.table if found is not None else Table(())
        present(self.table, bool(table.rows))
        name, before = self.tabled
        if (self.figure.name, table) == (name, before):
            return
        self.tabled = (self.figure.name, table)
        place = self.table.cursor_row if name == self.figure.name else 0
        fill(self.table, table)
        if place < len(before.rows):
            place = row_like(table, before.rows[place], place)
        self.table.move_cursor(row=place)

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def on_data_table_row_highlighted(self) -> None:
        self.refresh_bindings()

    # Acting

    async def action_choose(self, by: int) -> None:
        await self.action_show_figure((self.at + by) % len(FIGURES))

    async def action_show_figure(self, place: int) -> None:
        """Draw another figure: what is known of it at once, and as it is today when it is read."""
        self.at = place
        self.query_one(FigureView).scroll_home(animate=False)
        await self.draw()
        if self.soon is not None:
            self.soon.stop()
        self.soon = self.set_timer(PASSING, self._rested)

    def action_table(self) -> None:
        if self.found is not None:
            self.app.push_screen(FigureSheet(self.figure, self.found))

    @work(exclusive=True, group="write")
    async def action_write(self) -> None:
        """Write what is drawn into the workspace's exports, beside what is there, and say where."""
        from workbench.screens.insight.saving import write

        plot = self.found.plot if self.found is not None else None
        if plot is None:
            return
        try:
            written, left_out = await asyncio.to_thread(write, self.figure, plot, self.workbench.workspace.exports)
        except WorkbenchError as error:
            self.workbench.report(error)
            return
        names = ", ".join(path.name for path in written)
        told = f"written: {names}\nin {from_home(written[0].parent)}"
        self.workbench.say(f"{told}\n{left_out}" if left_out else told)

    @work(exclusive=True, group="go")
    async def action_version(self) -> None:
        """Go to the version of the row in focus."""
        name = self.version
        await self.workbench.action_show("versions")
        self.workbench.base_screen.go_to(name)  # type: ignore[attr-defined]  # it is VersionsScreen

    def action_columns(self, by: int) -> None:
        self.table.scroll_columns(by)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        try:
            match action:
                case "table":
                    return self.found is not None and bool(self.found.table.rows)
                case "write":
                    return self.found is not None and self.found.plot is not None
                case "version":
                    return bool(self.version)
                case "columns":
                    return self.table.display and self.table.is_cut
        except (NoMatches, AttributeError):  # it is not mounted yet
            return False
        return True
