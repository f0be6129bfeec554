"""What all screens share: the bars, the keys of the registry, and how they hear of news."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import BindingsMap
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from storage.errors import WorkbenchError
from workbench.shell import keymap
from workbench.shell.bars import HeaderBar, KeyBar, TabBar

if TYPE_CHECKING:
    from workbench.desk import Store
    from workbench.shell.app import WorkbenchApp

Answer = TypeVar("Answer")
WIDTHS = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]
HEIGHTS = [(0, "-short"), (18, "-normal"), (34, "-tall")]


def present(widget: Widget, on: bool) -> None:
    """Show or hide a widget; what the style sheet hides in a small terminal stays hidden."""
    widget.set_class(not on, "absent")


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
    """One of the numbered screens. A subclass gives `KEY`, `body`, and `reload`."""

    KEY: ClassVar[str] = ""
    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS

    def __init__(self, chosen_keys: dict[str, tuple[str, ...]]) -> None:
        super().__init__()
        self._bindings = BindingsMap.merge([self._bindings, keymap.bindings(self.KEY, chosen_keys)])

    @property
    def workbench(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)

    @property
    def store(self) -> Store | None:
        """The open workspace; None in the first moments."""
        return self.workbench.store

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

    async def on_screen_resume(self) -> None:
        self.refresh_bars()
        self.show_banner(self.workbench.banner)
        if self.store is not None:
            await self.read()

    async def read(self) -> None:
        """Reload; a workspace that cannot be read at this moment is told, and read again at the next news."""
        try:
            await self.reload()
        except Exception as error:
            self._report_unread(error)

    def attempt(self, ask: Callable[[Store], Answer]) -> Answer | None:
        """What the workspace answers; None where none is open yet, or where it cannot be read, which is told."""
        try:
            return None if self.store is None else ask(self.store)
        except Exception as error:
            self._report_unread(error)
            return None

    def _report_unread(self, error: Exception) -> None:
        from storage.database import DatabaseError

        if not isinstance(error, DatabaseError | WorkbenchError):
            raise error
        self.workbench.report(error)

    def refresh_bars(self) -> None:
        for bar in (*self.query(HeaderBar), *self.query(TabBar), *self.query(KeyBar)):
            bar.refresh()

    def show_banner(self, banner: Content | None) -> None:
        """Run a line above the screen, or take it away."""
        line = self.query_one("#banner", Static)
        present(line, banner is not None)
        line.update(banner or "")
