"""The app: it paints first, then opens the workspace and starts the engine, and tells the screen in front what is new.

The event loop owns all state and never waits: the workspace is worked on other threads (`workbench/desk.py`), the
engine and the trainer are other processes. All writes go through one :class:`~workbench.shell.saving.Saver`.
"""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
from textual import work

from storage.errors import WorkbenchError
from workbench.engine import protocol
from workbench.engine.machine import Report, Restarting
from workbench.engine.process import EngineDied
from workbench.engine.status import EngineStatus, after
from workbench.engine.supervisor import Supervisor
from workbench.screens import PLACES
from workbench.screens.prompt.conversation import Conversation, Draft, Exchange
from workbench.shell import messages, models
from workbench.shell.follow import Follower, swap_banner
from workbench.shell.frame import Frame
from workbench.shell.saving import BLINK, Latest, Saver
from workbench.shell.screen import WorkbenchScreen
from workbench.shell.session import Session
from workbench.shell.watch import Watch
from workbench.text import one_line
from workbench.training.outcome import ended
from workbench.training.status import TrainerStatus

if TYPE_CHECKING:
    from storage.records import Sample
    from storage.workspace import Workspace
    from workbench.desk import Desk
    from workbench.shell.left import Left, Reviewing, Seat

LOOK_SECONDS = 0.25
KEEP_SECONDS = 0.5  # so long after the last key what is being written is on its way to the disk
AGAIN_SECONDS = 2.0  # between two tries to save what could not be saved, and that nobody needs to ask for
AFTER_SAVING_SECONDS = 0.03  # what is drawn next comes first, then what has changed is looked for
STREAM_SECONDS = 1 / 25
BANNER_SECONDS = 12.0
CLOSING_SECONDS = 2.0  # how long an app that is closed waits for the last writes
GIVING_UP_SECONDS = 0.5  # and then for the one that waits for a lock to give up


class WorkbenchApp(Frame):
    """The alignment workbench on one workspace. Without `start_engine` it shows everything and answers nothing. `model`
    is `smollm2`, `gemma`, a folder, a GGUF file or a hub name."""

    desk: Desk | None = None  # the open workspace; None in the first moments

    def __init__(self, workspace: Workspace, *, model: str | None = None, start_engine: bool = True) -> None:
        super().__init__(workspace)
        self.model = model  # the one that is loaded; at first what was asked for: None is the one of the last session
        self.start_engine = start_engine
        self.first_run = not workspace.database.exists()
        self.session = Session()
        self.looking = Watch(self.tell, self.report)
        self.saver = Saver(self._saved, self.report)
        self.remembered: Latest[Session] | None = None
        self.draft = Draft()
        self.half_written: dict[str, str] = {}  # edits, notes and outcomes whose dialog is open, or was when it closed
        self.reviewing: Reviewing | None = None  # what Review is at, or was when it closed
        self.seat: Seat | None = None
        self.left: Latest[Left] | None = None
        self._unasked: list[Exchange] | None = None  # what waits for the next start, of an app that closes
        self.follower = Follower()
        self.supervisor: Supervisor | None = None
        self.engine = EngineStatus()
        self.conversation = Conversation()
        self._unpainted = False
        self._written: tuple[str, dict[str, str]] = "", {}  # what was last written down of what is being written

    @property
    def trainer(self) -> TrainerStatus:
        return self.looking.trainer

    @property
    def rated(self) -> int | None:
        """How many ratings count today, but for judge models'; None before they were counted."""
        return self.looking.rated

    @property
    def judged(self) -> int:
        """How many ratings of judge models count today."""
        return self.looking.judged

    # Start and end

    def on_mount(self) -> None:
        if self.first_run:
            from workbench.screens.first_run.screen import FirstRunScreen

            self.push_screen(FirstRunScreen())
        self.call_after_refresh(self._open)

    @work
    async def _open(self) -> None:
        """After the first paint: the database, the last session, the engine."""
        await asyncio.to_thread(importlib.import_module, "workbench.desk")
        from workbench.desk import Desk
        from workbench.shell.left import Seat, left, words_of

        try:
            desk = await Desk.open(self.workspace, "", waits=self.looking.say_once)
            chosen = await desk.session()
            self.seat = seat = await asyncio.to_thread(Seat.take, self.workspace, await desk.seats_left())
            found = await desk.left(seat.number)
        except WorkbenchError as error:
            self.report(error)
            self.engine = EngineStatus("down", detail=error.message)
            self.refresh_bars()
            return
        self.session, desk.rater, desk.asked, self.desk = chosen, chosen.rater, chosen.asked, desk
        self.draft = found.draft
        self.half_written |= found.half_written
        self.reviewing = found.reviewing
        self.conversation.waiting.extendleft(reversed(found.waiting))
        self.conversation.current = self.conversation.current or found.shown
        if desk.read_only is not None:
            self.report(desk.read_only, severity="warning")
        else:
            self.remembered = Latest(
                self.saver, "what you chose", lambda: self.session, desk.save_session, self.looking.say_once
            )
            self.left = Latest(
                self.saver, "what is not sent yet",
                lambda: left(self.draft, self.half_written, *self._under_way(), self.reviewing),
                lambda at, _: desk.keep(seat.number, at), self.looking.say_once,
            )  # fmt: skip
        if self.model is not None:
            self.update_session(model=models.whole(self.model))
        if found.half_written:
            self.say(words_of(found.half_written))
        self.turn_texts(chosen.bidi)
        if chosen.theme in self.available_themes:
            self.theme = chosen.theme
        if (
            chosen.screen != self.current_mode
            and not self.first_run
            and chosen.screen in {place.name for place in PLACES}
        ):
            await self.switch_mode(chosen.screen)
        self.tell(messages.Opened())
        self._look_soon()
        self.set_interval(LOOK_SECONDS, self._look_soon)
        self.set_interval(KEEP_SECONDS, self._keep_writing)
        self.set_interval(AGAIN_SECONDS, self._save_again)
        self.set_interval(STREAM_SECONDS, self._paint_stream)
        if self.start_engine:
            self.supervise(Supervisor(self.workspace, report=self.report))

    def supervise(self, supervisor: Supervisor) -> None:
        """Hear of an engine from now on, and have it load the session's model."""
        self.supervisor = self.follower.supervisor = supervisor
        supervisor.listen(self.hear)
        supervisor.load(self.session.model)

    async def action_quit(self) -> None:
        """Leave; where something is not on disk yet, say so and wait."""
        from workbench.widgets.leaving import LeaveDialog

        self.save_session()
        if await self.saver.settled(BLINK):
            self.exit()
        elif not isinstance(self.screen, LeaveDialog):
            self.push_screen(LeaveDialog(self.saver), lambda leave: self.exit() if leave else None)

    async def on_unmount(self) -> None:
        """The one end of the app, whatever ended it: what was said and what was not sent yet is kept."""
        conversation, desk = self.conversation, self.desk
        unasked, now = list(conversation.waiting), conversation.current
        for exchange in conversation.close():
            self._keep_answers(exchange)
            if exchange is now and not exchange.answers:
                unasked.insert(0, exchange)  # nothing was said to it: it waits for the next start
        self._unasked = unasked
        ending = asyncio.create_task(self.supervisor.close()) if self.supervisor is not None else None
        if desk is not None:
            await self.saver.settled(CLOSING_SECONDS)  # answers that are stored are among what is kept
            self.save_session()
            await self.saver.settled(CLOSING_SECONDS)
        if ending is not None:
            await ending
        if desk is not None:
            self.desk = None
            await desk.close(GIVING_UP_SECONDS)
        if self.seat is not None:
            self.seat.leave()

    def _under_way(self) -> tuple[list[Exchange], Exchange | None]:
        """The prompts that are not answered, and the exchange on screen."""
        unasked = self.conversation.unanswered if self._unasked is None else self._unasked
        return unasked, self.conversation.current

    def update_session(self, **changes: object) -> None:
        """Change what is remembered, and write it down."""
        self.session = msgspec.structs.replace(self.session, **changes)
        if self.desk is not None:
            self.desk.asked = self.session.asked
        self.save_session()
        self.tell(messages.SessionChanged())

    def save_session(self) -> None:
        """Write down what is chosen and what the window is at, where either has changed."""
        if self.remembered is not None and self.left is not None:
            self.remembered.save()
            self.left.save()

    def _keep_writing(self) -> None:
        """Write down what is being written, where a key has changed it since the last time."""
        writing = self.draft.text, dict(self.half_written)
        if self.left is not None and writing != self._written:
            self._written = writing
            self.left.save()

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
                models.loaded(self)
                self.follower.follow(self.engine)
                self.follower.stay(self.engine, self.session.pinned)
            case protocol.Done() if mine:
                self._keep_answers(self.conversation.current)
            case protocol.Swapped():
                self._announce(event)
            case protocol.Failed(during=during, error=error, hint=hint):
                if during == "swap":
                    hint = hint or "the version before goes on answering"
                elif during == "load":
                    hint = models.not_loaded(self, hint)
                self.report(WorkbenchError(error, hint))
                if mine:
                    self._keep_answers(self.conversation.current)
            case EngineDied() | Restarting():
                self._mourn(event)
        self.send_waiting()
        self.refresh_bars()
        self.tell(messages.EngineMoved())

    def _keep_answers(self, exchange: Exchange | None) -> None:
        """Store what was answered; the Prompt screen may rate it once that is done."""
        self._unpainted = True
        desk = self.desk
        if desk is None or exchange is None or not exchange.answers:
            return

        def stored(samples: list[Sample]) -> None:
            exchange.samples = {sample.position: sample for sample in samples}
            self.tell(messages.AnswersChanged())

        def failed(error: WorkbenchError) -> None:
            self.looking.say_once(
                WorkbenchError(f"the answers are not stored yet: {error.message}", "it is tried again")
            )

        key = f"answers {exchange.ask.generate.request}"
        self.saver.begin(key, "answers", lambda: desk.remember_answers(exchange), stored, failed, by_itself=True)

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

    def follow(self, on: bool) -> None:
        """Follow what is published, or stay on the loaded version (then the header says "pinned")."""
        self.update_session(follow=on, pinned="" if on else self.engine.version or "")
        self.engine = replace(self.engine, pinned=not on)
        self.follower.follow(self.engine)
        self.refresh_bars()

    @work
    async def _announce(self, swapped: protocol.Swapped) -> None:
        """Run the swap banner for some seconds; what is pinned is so in the next start too."""
        if not self.session.follow:
            self.update_session(pinned=swapped.version)
        try:
            found = await self.desk.find_version(swapped.version) if self.desk is not None else None
        except WorkbenchError:
            found = None  # its figures cannot be read now; that it answers is told all the same
        self.show_banner(swap_banner(swapped, found))
        self.set_timer(BANNER_SECONDS, lambda: self.show_banner(None))

    # News from the workspace

    def _look_soon(self) -> None:
        """Look whether the workspace has changed, beside the event loop."""
        if self.desk is not None and self.is_running:
            self._look(self.desk)

    @work
    async def _look(self, desk: Desk) -> None:
        if await self.looking.look(desk):
            self.refresh_bars()
            self.follower.served = self.looking.seen.served if self.looking.seen else None
            self.follower.follow(self.engine)

    def _save_again(self) -> None:
        self.saver.try_again(asked=False)
        self.save_session()

    def _saved(self) -> None:
        """A write has begun to take long, or has ended: the header says so, and the news are fetched at once."""
        self.refresh_bars()
        if self.is_running:
            self.set_timer(AFTER_SAVING_SECONDS, self._look_soon)

    def tell(self, news: messages.News) -> None:
        """Pass news to the screen in front; another one reads everything when it comes to the front."""
        if isinstance(news, messages.TrainingDone):
            self.say(ended(news.job))
        if isinstance(self.base_screen, WorkbenchScreen) and self.base_screen.is_mounted:
            self.base_screen.hear(news)

    def _paint_stream(self) -> None:
        """Show what arrived since the last time; at most 25 times a second."""
        if self._unpainted:
            self._unpainted = False
            self.refresh_bars()
            self.tell(messages.Streamed())

    # Screens

    async def action_show(self, name: str) -> None:
        await self.switch_mode(name)
        if self.session.screen != name:
            self.update_session(screen=name)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What applies now; with the palette open, where it was called."""
        front = self.front
        if getattr(front, "takes_every_key", False):
            return False
        match action:
            case "show":
                return not front.is_modal and parameters != (self.current_mode,)
            case "settings" | "rater" | "model" | "command_palette" | "jump" | "keymap" | "about" | "themes":
                return not front.is_modal
            case "help":
                return not front.is_modal or hasattr(front, "KEY")
            case "restart_engine":
                return self.supervisor is not None
        return True

    def watch_theme(self, name: str) -> None:
        if self.desk is not None and self.session.theme != name and not getattr(self.front, "previews_themes", False):
            self.update_session(theme=name)

    def choose_theme(self, name: str | None) -> None:
        if name is not None:
            self.watch_theme(name)
