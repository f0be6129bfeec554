"""The app: it paints first, then opens the workspace and starts the engine, and tells the screens what is new.

The event loop owns all state. The engine and the trainer are other processes; their news arrive as protocol events and
as changes of the database, which is watched through `PRAGMA data_version`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from textual.app import App, SystemCommand
from textual.binding import BindingsMap
from textual.content import Content
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.screen import Screen

from storage.errors import WorkbenchError
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.engine.machine import Report, Restarting
from workbench.engine.process import EngineDied
from workbench.engine.status import EngineStatus, after
from workbench.engine.supervisor import Supervisor
from workbench.screens.prompt.conversation import Conversation, Exchange
from workbench.shell import keymap, themes
from workbench.shell.actions import SCREENS, of_screen
from workbench.shell.screen import WorkbenchScreen
from workbench.shell.session import DEFAULT_THEME, Session
from workbench.text import one_line, safe_text
from workbench.training.outcome import outcome, swap_figures
from workbench.training.status import TrainerStatus
from workbench.widgets.filter import SafeFilter

if TYPE_CHECKING:
    from workbench.desk import Store
    from workbench.training.launcher import Trainers

POLL_SECONDS = 0.25
LIVENESS_LOOKS = 4  # every so many looks, also ask whether the trainer still lives
STREAM_SECONDS = 1 / 25
BANNER_SECONDS = 12.0


def run(workspace: Workspace) -> None:
    """Open the app on a workspace; returns when it is closed.

    Raises:
        UsageError: the workspace cannot be used, or a keymap file is wrong.
    """
    workspace.prepare()
    WorkbenchApp(workspace).run()


def _screen(name: str, kind: str, chosen: dict[str, tuple[str, ...]]) -> Screen[Any]:
    """A screen, imported when it is first shown."""
    return getattr(importlib.import_module(f"workbench.screens.{name}.screen"), kind)(chosen)


class WorkbenchApp(App[None]):
    """The alignment workbench on one workspace. Without `start_engine` it shows everything and answers nothing.

    `model` is `smollm2`, `gemma`, a folder, a GGUF file or a hub name.
    """

    TITLE = "workbench"
    CSS_PATH = Path(__file__).with_name("workbench.tcss")
    DEFAULT_MODE = "prompt"
    ESCAPE_TO_MINIMIZE = False
    NOTIFICATION_TIMEOUT = 6

    def __init__(self, workspace: Workspace, *, model: str | None = None, start_engine: bool = True) -> None:
        super().__init__()
        self.workspace = workspace
        self.chosen_keys = keymap.load(workspace)
        self.keys = keymap.effective(self.chosen_keys)
        self._bindings = BindingsMap.merge([self._bindings, keymap.bindings("app", self.chosen_keys)])
        for name in ("prompt", "review", "train", "versions"):
            self.add_mode(name, partial(_screen, name, f"{name.title()}Screen", self.chosen_keys))
        self.model = model  # None: the one of the last session
        self.start_engine = start_engine
        self.first_run = not workspace.database.exists()
        self.session = Session()
        self.store: Store | None = None
        self.trainers: Trainers | None = None
        self.supervisor: Supervisor | None = None
        self.engine = EngineStatus()
        self.trainer = TrainerStatus()
        self.conversation = Conversation()
        self.rated: int | None = None
        self.banner: Content | None = None
        self._seen, self._looks = -1, 0
        self._problem = ""
        self._unpainted = False
        for theme in themes.THEMES:
            self.register_theme(theme)
        self.theme = DEFAULT_THEME

    # Start and end

    def on_mount(self) -> None:
        if self.first_run:
            from workbench.screens.first_run.screen import FirstRunScreen

            self.push_screen(FirstRunScreen())
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.run_worker(self._open(), name="open", exit_on_error=True)

    async def _open(self) -> None:
        """After the first paint: the database, the last session, the engine."""
        await asyncio.to_thread(importlib.import_module, "workbench.training.launcher")
        from workbench.desk import Store
        from workbench.shell import session
        from workbench.training.launcher import Trainers

        try:
            store = Store.open(self.workspace, "")
        except WorkbenchError as error:
            self.report(error)
            self.engine = EngineStatus("down", detail=error.message)
            self.refresh_bars()
            return
        self.session = session.load(store.database)
        if self.model is not None:
            self.session = msgspec.structs.replace(self.session, model=self.model)
        store.rater = self.session.rater
        self.store = store
        self.trainers = Trainers(store.database, self.workspace)
        if self.session.theme in self.available_themes:
            self.theme = self.session.theme
        if self.session.screen != self.current_mode and not self.first_run:
            await self.switch_mode(self.session.screen)
        await self._look()
        self.set_interval(POLL_SECONDS, self._look)
        self.set_interval(STREAM_SECONDS, self._paint_stream)
        if self.start_engine:
            self.supervise(Supervisor(self.workspace, report=self.report))

    def supervise(self, supervisor: Supervisor) -> None:
        """Hear of an engine from now on, and have it load the session's model."""
        self.supervisor = supervisor
        supervisor.listen(self.hear)
        supervisor.load(self.session.model)

    async def on_unmount(self) -> None:
        if self.supervisor is not None:
            await self.supervisor.close()
        for exchange in self.conversation.close():
            self._keep_answers(exchange)
        if self.store is not None:
            self.save_session()
            self.store.close()
            self.store = None

    def update_session(self, **changes: object) -> None:
        """Change what is remembered, and write it down."""
        self.session = msgspec.structs.replace(self.session, **changes)
        self.save_session()

    def save_session(self) -> None:
        from workbench.shell import session

        if self.store is not None:
            session.save(self.store.database, self.session)

    # News from the engine

    def hear(self, event: Report) -> None:
        """Take an event of the engine."""
        pinned = not self.session.follow
        self.engine = replace(after(self.engine, event), pinned=pinned)
        mine = self.conversation.hear(event)
        match event:
            case protocol.Text():
                self._unpainted = True
                return
            case protocol.Answer():
                self._unpainted = True
            case protocol.Ready():
                self.run_worker(self._look())
            case protocol.Done() if mine:
                self._keep_answers(self.conversation.current)
            case protocol.Swapped():
                self._announce(event)
            case protocol.Failed(during=during, error=error, hint=hint):
                if during == "swap":
                    hint = hint or "the version before goes on answering"
                self.report(WorkbenchError(error, hint))
                if mine:
                    self._keep_answers(self.conversation.current)
            case EngineDied() | Restarting():
                self._mourn(event)
        self.send_waiting()
        self.refresh_bars()
        self._tell_screens()

    def _keep_answers(self, exchange: Exchange | None) -> None:
        """Store what was answered; the Prompt screen may rate it from now on."""
        self._unpainted = True
        if self.store is None or exchange is None or not exchange.answers:
            return
        try:
            exchange.samples = self.store.remember_answers(exchange)
        except Exception as error:
            self.report(WorkbenchError(f"the answers could not be stored: {error}", "they stay on screen; copy them"))

    def _mourn(self, ended: EngineDied | Restarting) -> None:
        """The engine is gone: its prompt waits for the next one, or is set aside."""
        aside = self.conversation.engine_ended()
        if isinstance(ended, EngineDied):
            if ended.again:
                self.report(WorkbenchError(f"{ended.error}; starting it again", ended.hint), severity="warning")
            else:
                key = self.keys["app.restart-engine"][0]
                self.report(WorkbenchError(ended.error, f"{ended.hint}; {key} starts it again"))
        if aside is not None:
            self._keep_answers(aside)
            what = f"set aside: {one_line(aside.ask.prompt.text, 60)}"
            self.report(WorkbenchError(f"{aside.error}; {what}", "its text is in the history; the others go on"))

    def action_restart_engine(self) -> None:
        if self.supervisor is not None:
            self.supervisor.restart()

    def send_waiting(self) -> None:
        """Send the next prompt if the engine is free."""
        if self.engine.is_ready and (request := self.conversation.next_request()) is not None:
            self.send(request)
            self._unpainted = True

    def drop_waiting(self) -> list[Exchange]:
        """Drop the prompts that wait for the engine; returns them, oldest first. Their answers so far are kept."""
        dropped = self.conversation.drop()
        for exchange in dropped:
            self._keep_answers(exchange)
        return dropped

    def send(self, request: protocol.Generate | protocol.Cancel) -> None:
        """Hand a request to the engine; a failure becomes a toast."""
        if self.supervisor is not None:
            self.supervisor.send(request)

    # News from the workspace

    async def _look(self) -> None:
        """Look whether the workspace has changed; never raises, since it runs on a timer."""
        store = self.store
        if store is None:
            return
        try:
            seen = store.changed()
            self._looks += 1
            if seen == self._seen and self._looks % LIVENESS_LOOKS:
                return
            news, self._seen = seen != self._seen, seen
            if self.trainers is not None and (problem := self.trainers.reap()) is not None:
                self.report(problem)
            before, self.trainer = self.trainer, store.trainer()
            if before.state in ("training", "stopping") and self.trainer.state == "idle":
                job = store.newest_job()
                self.say(f"training is done: {outcome(job)}" if job else "training is done")
            if news:
                self.rated = store.rated()
            self._follow(store)
            if news or self.trainer != before:
                self.refresh_bars()
                self._tell_screens()
            self._problem = ""
        except Exception as error:  # on a timer: say it once, and go on looking
            if str(error) != self._problem:
                self.report(error)
            self._problem = str(error)

    def refresh_facts(self) -> None:
        """After a write of our own, which the watch does not see."""
        if self.store is not None:
            self.rated = self.store.rated()
            self.trainer = self.store.trainer()
            self.refresh_bars()

    def _follow(self, store: Store) -> None:
        """Ask the engine for the served version when it answers with another."""
        served = store.served()
        if served is not None and self.supervisor is not None and self.session.follow and self.engine.is_ready:
            self.supervisor.follow(served.name)

    def follow(self, on: bool) -> None:
        """Follow what is published, or stay on the loaded version (then the header says "pinned")."""
        self.update_session(follow=on)
        self.engine = replace(self.engine, pinned=not on)
        if self.store is not None:
            self._follow(self.store)
        self.refresh_bars()

    def load_version(self, name: str) -> None:
        """Answer with a version; one whose swap failed is tried again."""
        if self.supervisor is not None:
            self.supervisor.swap(name)

    def _announce(self, swapped: protocol.Swapped) -> None:
        """Run the swap banner for some seconds."""
        parts = [Content.assemble((f"▲ {swapped.previous} → {swapped.version}", "bold"))]
        found = self.store.find_version(swapped.version) if self.store else None
        for label, value in swap_figures(found.metrics if found else {}):
            parts.append(Content(f"{label} {value}"))
        if swapped.proof:
            parts.append(Content(f"proof: {one_line(swapped.proof)}"))
        self.banner = Content.assemble(" ", Content("  ").join(parts))
        self._show_banner()
        self.set_timer(BANNER_SECONDS, self._end_banner)

    def _end_banner(self) -> None:
        self.banner = None
        self._show_banner()

    def _show_banner(self) -> None:
        if isinstance(self.base_screen, WorkbenchScreen):
            self.base_screen.show_banner(self.banner)

    # Screens

    @property
    def base_screen(self) -> Screen[Any]:
        """The numbered screen in front, under any dialog."""
        return self.screen_stack[0]

    def refresh_bars(self) -> None:
        for screen in self.screen_stack:
            refresh: Callable[[], None] | None = getattr(screen, "refresh_bars", None)
            if refresh is not None and screen.is_mounted:
                refresh()

    def _tell_screens(self) -> None:
        screen = self.base_screen
        if isinstance(screen, WorkbenchScreen) and screen.is_mounted:
            screen.call_later(screen.read)

    def _paint_stream(self) -> None:
        """Show what arrived since the last time; at most 25 times a second."""
        if self._unpainted:
            self._unpainted = False
            self.refresh_bars()
            self._tell_screens()

    async def action_show(self, name: str) -> None:
        await self.switch_mode(name)
        if self.session.screen != name:
            self.update_session(screen=name)

    def action_help(self) -> None:
        from workbench.screens.help.screen import HelpScreen

        self.push_screen(HelpScreen(getattr(self.screen, "KEY", "prompt"), self.keys))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action in ("show", "help") and self.screen.is_modal)

    def watch_theme(self, name: str) -> None:
        if self.store is not None and self.session.theme != name:
            self.update_session(theme=name)

    def report(self, error: BaseException, severity: SeverityLevel = "error") -> None:
        """An error as a toast: what happened, what to do, and where the details are."""
        message = error.message if isinstance(error, WorkbenchError) else str(error) or type(error).__name__
        hint = error.hint if isinstance(error, WorkbenchError) else f"logs are in {self.workspace.logs}"
        text = safe_text(f"{message}\n{hint}" if hint else message)
        self.notify(text, severity=severity, timeout=12, markup=False)

    def say(self, text: str) -> None:
        self.notify(safe_text(text), markup=False)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: the actions of the screen in front and those of everywhere, then Textual's own."""
        base = self.base_screen
        for action in (*of_screen(getattr(base, "KEY", "")), *of_screen("app")):
            owner = "" if action.screen == "app" else f"{SCREENS[action.screen]}: "
            if action.method != "command_palette" and not action.method.startswith("app."):
                call = partial(self.run_action, action.method, self if action.screen == "app" else base)
                yield SystemCommand(f"{owner}{action.help}", action.id, call)
        for command in super().get_system_commands(screen):
            if command.title in ("Theme", "Screenshot", "Maximize", "Minimize"):
                yield command

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.VARIABLES

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), SafeFilter()]
