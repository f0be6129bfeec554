"""What the app shows of itself around any screen: its modes and keys, bars, banner, toasts, themes and palette."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from textual import work
from textual.app import App
from textual.binding import BindingsMap
from textual.command import CommandPalette
from textual.content import Content
from textual.driver import Driver
from textual.events import Event, Key, Paste
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import DataTable, TextArea

from storage.errors import WorkbenchError
from storage.wording import counted
from storage.workspace import Workspace
from workbench import garbage
from workbench.screens import PLACES
from workbench.shell import bidi, clipboard, jump, keymap, models, palette, terminal, themes
from workbench.shell.screen import WorkbenchScreen
from workbench.shell.session import DEFAULT_THEME
from workbench.shell.turns import Taken, Turns
from workbench.text import safe_text
from workbench.widgets.filter import ContrastFilter, SafeFilter

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp

_LINE_FILTERS = (SafeFilter(), ContrastFilter())  # one of each: what they gave for a line is kept by the filter
TIDY_SECONDS = 0.25  # between two looks whether it is time to look for garbage

bidi.install()

# What ends the app from outside: the terminal is gone, the system goes down, somebody has had enough.
ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Frame(App[None]):
    """An app on a workspace with a mode for each screen of the list; it knows neither database nor engine."""

    TITLE = "workbench"
    CSS_PATH = Path(__file__).with_name("workbench.tcss")
    DEFAULT_MODE = PLACES[0].name
    COMMANDS = {palette.WorkbenchCommands}  # noqa: RUF012
    ESCAPE_TO_MINIMIZE = False
    NOTIFICATION_TIMEOUT = 6

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.chosen_keys = keymap.load(workspace)
        self.keys = keymap.effective(self.chosen_keys)
        self._usual_bindings = self._bindings
        self._bindings = BindingsMap.merge([self._usual_bindings, keymap.bindings("app", self.chosen_keys)])
        self.banner: Content | None = None
        self.turns_texts = bidi.app_turns("auto")
        for place in PLACES:
            self.add_mode(place.name, partial(place.open, self.chosen_keys))
        for theme in themes.THEMES:
            self.register_theme(theme)
        for name in themes.not_offered(self.available_themes):
            self.unregister_theme(name)
        self.theme = DEFAULT_THEME
        self._tidying = garbage.Tidying()
        self._turns = Turns(self, super().on_event)

    @property
    def base_screen(self) -> Screen[Any]:
        """The numbered screen in front, under any dialog."""
        return self.screen_stack[0]

    @property
    def front(self) -> Screen[Any]:
        """The screen or dialog in front, the palette aside."""
        return next(one for one in reversed(self.screen_stack) if not isinstance(one, CommandPalette))

    def refresh_bars(self) -> None:
        if not self.is_running:
            return
        for screen in self.screen_stack:
            refresh: Callable[[], None] | None = getattr(screen, "refresh_bars", None)
            if refresh is not None and screen.is_mounted:
                refresh()

    def show_banner(self, banner: Content | None) -> None:
        """Run a line above the screens, or take it away."""
        self.banner = banner
        if isinstance(self.base_screen, WorkbenchScreen):
            self.base_screen.show_banner(banner)

    def report(self, error: BaseException, severity: SeverityLevel = "error") -> None:
        """An error as a toast: what happened, what to do, and where the details are."""
        message = error.message if isinstance(error, WorkbenchError) else str(error) or type(error).__name__
        hint = error.hint if isinstance(error, WorkbenchError) else f"logs are in {self.workspace.logs}"
        text = safe_text(f"{message}\n{hint}" if hint else message)
        self.notify(text, severity=severity, timeout=12, markup=False)

    def say(self, text: str) -> None:
        self.notify(safe_text(text), markup=False)

    def turn_texts(self, mode: str) -> None:
        """Turn texts that run from right to left, or leave that to the terminal, by the setting `bidi`."""
        self.turns_texts = bidi.app_turns(mode)
        if isinstance(self._driver, terminal.Terminal):
            self._driver.keep_cells(self.turns_texts or mode == "off")
        self.refresh_css(animate=False)
        for screen in self.screen_stack:
            for area in screen.query(TextArea):
                area._line_cache.clear()
            for table in screen.query(DataTable):
                table._clear_caches()
            screen.refresh(layout=True)
            for widget in screen.query("*"):
                widget.refresh()

    def take_keys(self) -> None:
        """Read the keymap again, and go by it on every screen. Raises UsageError as `keymap.load`."""
        chosen = keymap.load(self.workspace)
        self.chosen_keys.clear()  # screens that are made later hold this very mapping
        self.chosen_keys.update(chosen)
        self.keys = keymap.effective(chosen)
        self._bindings = BindingsMap.merge([self._usual_bindings, keymap.bindings("app", chosen)])
        for screen in {one for stack in self._screen_stacks.values() for one in stack}:
            take: Callable[[dict[str, tuple[str, ...]]], None] | None = getattr(screen, "take_keys", None)
            if take is not None:
                take(chosen)
                screen.refresh_bindings()
        self.refresh_bars()

    # What can be done on every screen

    def copy_to_clipboard(self, text: str) -> None:
        self._copy(text)

    @work
    async def _copy(self, text: str) -> None:
        """Copy, by whatever can, and say by what."""
        in_page = self._driver is not None and self._driver.is_web  # the clipboard is the browser's
        by = "" if in_page else await asyncio.to_thread(clipboard.by_system, text)
        if not by:
            super().copy_to_clipboard(text)
            by = clipboard.BY_TERMINAL
        self._clipboard = text
        self.say(f"copied {counted(len(text), 'character')} by {by}")

    def action_copy(self) -> None:
        what, text = clipboard.copied_from(self.screen)
        if text:
            self.copy_to_clipboard(text)
        else:
            self.say(f"{what} is empty" if what else "nothing here can be copied; go to an answer, a row or a text")

    def export_screenshot(self, *, title: str | None = None, simplify: bool = False) -> str:
        """The screen as an SVG, whose viewer must not turn again what is turned already."""
        picture = super().export_screenshot(title=title, simplify=simplify)
        return picture.replace("<style>", "<style>text { unicode-bidi: bidi-override; direction: ltr; }", 1)

    def action_jump(self) -> None:
        found = jump.targets(self.screen)
        if not found:
            self.say("nothing here takes the focus")
            return

        def go(to: Widget | None) -> None:
            if to is not None:
                to.focus()

        self.push_screen(jump.JumpScreen(found), go)

    def action_help(self) -> None:
        from workbench.screens.help.screen import HelpScreen

        self.push_screen(HelpScreen(getattr(self.front, "KEY", self.current_mode), self.keys))

    @work
    async def action_settings(self) -> None:
        from workbench.widgets.settings import ask_settings

        await ask_settings(cast("WorkbenchApp", self))

    @work
    async def action_rater(self) -> None:
        from workbench.widgets.raters import ask_rater

        await ask_rater(cast("WorkbenchApp", self))

    def action_model(self) -> None:
        models.ask_model(cast("WorkbenchApp", self))

    def action_keymap(self) -> None:
        from workbench.widgets.rebinding import KeysDialog

        self.push_screen(KeysDialog())

    def action_about(self) -> None:
        from workbench.widgets.about import AboutSheet

        self.push_screen(AboutSheet())

    def action_themes(self) -> None:
        from workbench.widgets.theming import ThemeDialog

        self.push_screen(ThemeDialog(sorted(self.available_themes), self.theme), self.choose_theme)

    def choose_theme(self, name: str | None) -> None:
        """Go on with a theme that was looked at."""

    def get_driver_class(self) -> type[Driver]:
        return terminal.driver(super().get_driver_class())

    async def on_event(self, event: Event) -> None:
        if isinstance(event, Key | Paste) and not event.is_forwarded:
            self._tidying.key()
            await self._turns.come(event)
        else:
            await super().on_event(event)

    async def on_taken(self, mark: Taken) -> None:
        await self._turns.taken(mark)

    def on_mount(self) -> None:
        self.set_interval(TIDY_SECONDS, self._tidying.look)
        if not self.is_headless:
            for number in ENDING:
                asyncio.get_running_loop().add_signal_handler(number, self.end, number)

    def end(self, number: int) -> None:
        """Close, because a signal wants it: nothing is asked, and what can be kept is (`on_unmount`)."""
        self.exit(return_code=128 + number)

    def terminal_is_gone(self) -> None:
        """Nobody can see the app any more."""
        self.end(signal.SIGHUP)

    def _fatal_error(self) -> None:
        """A fault ends the app; `run` raises it, and it is told and written down as that of any command."""
        self.bell()
        self._close_messages_no_wait()

    def get_css_variables(self) -> dict[str, str]:
        self.theme_variables = themes.completed(super().get_css_variables())
        return self.theme_variables

    def get_line_filters(self) -> Sequence[LineFilter]:
        usual = super().get_line_filters()
        return [*_LINE_FILTERS, *usual] if self.no_color else [*usual, *_LINE_FILTERS]
