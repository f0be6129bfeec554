"""What all screens share: the bars, the keys of the registry, and how they hear of news."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingsMap
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from storage.errors import WorkbenchError
from workbench.shell import keymap
from workbench.shell.action import Action
from workbench.shell.bars import Bar, HeaderBar, KeyBar, TabBar
from workbench.shell.messages import News, Opened

if TYPE_CHECKING:
    from workbench.desk import Desk
    from workbench.shell.app import WorkbenchApp

Answer = TypeVar("Answer")
WIDTHS = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]
HEIGHTS = [(0, "-short"), (18, "-normal"), (34, "-tall")]


def present(widget: Widget, on: bool) -> None:
    """Show or hide a widget; what the style sheet hides in a small terminal stays hidden."""
    widget.set_class(not on, "absent")


def put(line: Static, drawn: Content, *, layout: bool = True) -> None:
    """Draw into a line what it does not show yet. Without `layout` its size stays what it is."""
    shown = line.content
    if not (isinstance(shown, Content) and shown.is_same(drawn)):
        line.update(drawn, layout=layout)


def packed(parts: list[Content], width: int) -> Content:
    """The parts in as few lines of `width` cells as hold them, none of them broken."""
    lines: list[list[Content]] = [[]]
    room = width
    for part in parts:
        if lines[-1] and part.cell_length > room:
            lines.append([])
            room = width
        lines[-1].append(part)
        room -= part.cell_length + 3
    return Content("\n").join(Content("   ").join(line) for line in lines)


class WorkbenchScreen(Screen[None]):
    """One of the numbered screens. A subclass gives `KEY`, `body`, `reload`, `paint`, and which news it draws.

    Reading runs beside the event loop: `look_again` starts it, and looks once more where news came meanwhile.
    """

    KEY: ClassVar[str] = ""
    NEWS: ClassVar[tuple[type[News], ...]] = ()
    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS

    def __init__(self, chosen_keys: dict[str, tuple[str, ...]]) -> None:
        super().__init__()
        self._usual_bindings = self._bindings
        self.take_keys(chosen_keys)
        self._looking = self._look_once_more = False
        self._drawing = asyncio.Lock()

    def take_keys(self, chosen_keys: dict[str, tuple[str, ...]]) -> None:
        """Go by these keys from now on."""
        self._bindings = BindingsMap.merge([keymap.bindings(self.KEY, chosen_keys), self._usual_bindings])  # ours first

    @property
    def workbench(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)

    @property
    def desk(self) -> Desk | None:
        """The open workspace; None in the first moments."""
        return self.workbench.desk

    def compose(self) -> ComposeResult:
        yield HeaderBar()
        yield TabBar(self.KEY)
        yield Static(id="banner", markup=False)
        with Vertical(id="body"):
            yield from self.body()
        yield KeyBar()

    def body(self) -> ComposeResult:
        """The widgets between the bars; every screen has its own (an abstract class would clash with Textual's)."""
        raise NotImplementedError

    async def reload(self) -> None:
        """Read the workspace again and draw what changed."""

    async def draw(self) -> None:
        """Draw what is known, one drawing after the other; a screen of an app that ends draws nothing any more."""
        async with self._drawing:
            try:
                if self.app.is_running:
                    await self.paint()
            except NoMatches:
                if self.app.is_running:
                    raise

    async def paint(self) -> None:
        """Put what is known into the widgets."""

    def hear(self, news: News) -> None:
        """Take news while this screen is in front: by default, those of `NEWS` make it read and draw anew."""
        if isinstance(news, (Opened, *self.NEWS)):
            self.look_again()

    def on_screen_resume(self) -> None:
        self.refresh_bars()
        self.show_banner(self.workbench.banner)
        self.look_again()

    def on_resize(self) -> None:
        self.call_after_refresh(self.refresh_bindings)  # some actions are for what there is no room for

    def look_again(self) -> None:
        """Reload, soon; a workspace that cannot be read at this moment is told, and read again at the next news."""
        self._look_once_more = True
        if not self._looking and self.is_attached and self.app.is_running:
            self._looking = True
            self._look()

    @work(group="look")
    async def _look(self) -> None:
        try:
            while self._look_once_more:
                self._look_once_more = False
                try:
                    await self.reload()
                except WorkbenchError as error:
                    self.workbench.report(error)
        finally:
            self._looking = False

    async def attempt(self, ask: Callable[[Desk], Awaitable[Answer]]) -> Answer | None:
        """What the workspace answers; None where none is open yet, or where it cannot be read, which is told."""
        try:
            return None if self.desk is None else await ask(self.desk)
        except WorkbenchError as error:
            self.workbench.report(error)
            return None

    def in_footer(self, action: Action) -> bool:
        """Whether the footer names an action that works now."""
        return True

    def refresh_bars(self) -> None:
        """Draw the bars that have something else to tell."""
        for bar in self.children:
            if isinstance(bar, Bar):
                bar.look_again()

    def show_banner(self, banner: Content | None) -> None:
        """Run a line above the screen, or take it away."""
        for line in self.query("#banner").results(Static):  # none before the screen is composed
            present(line, banner is not None)
            line.update(banner or "")
