"""Prompt: ask, watch the answers being written side by side, and rate them in place."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static, TextArea

from storage import clock
from storage.errors import WorkbenchError
from storage.languages import matching
from workbench.engine import protocol
from workbench.screens.prompt.cards import LETTERS, cards
from workbench.screens.prompt.conversation import Ask, Draft, Exchange
from workbench.screens.prompt.welcome import welcome
from workbench.shell.action import Action
from workbench.shell.actions import spoken
from workbench.shell.messages import AnswersChanged, EngineMoved, News, RatingsChanged, SessionChanged, Streamed
from workbench.shell.screen import WorkbenchScreen, present
from workbench.shell.session import SETTINGS
from workbench.text import one_line, safe_text
from workbench.widgets.answers import AnswerGrid
from workbench.widgets.editor import PromptInput, edit_outside
from workbench.widgets.judging import Rater, use_of
from workbench.widgets.reading import PromptSheet, is_cut
from workbench.widgets.sheets import Sheet
from workbench.widgets.turns import TurnsBefore

if TYPE_CHECKING:
    from storage.records import Message, Prompt, Rating, Sample


class PromptScreen(Rater, WorkbenchScreen):
    """The prompt on top, the answers in the middle, the next prompt below."""

    CSS_PATH = "style.tcss"
    KEY = "prompt"
    AUTO_FOCUS = "PromptInput"
    NEWS = (AnswersChanged, RatingsChanged)

    def body(self) -> ComposeResult:
        yield TurnsBefore()
        yield Static(id="asked", markup=False)
        yield Static(id="empty", markup=False)
        yield AnswerGrid(id="answers")
        yield Sheet()
        yield Static(id="said", markup=False)
        yield PromptInput(id="input", placeholder="Write a prompt", compact=True)

    def on_mount(self) -> None:
        self.painted: Exchange | None = None
        self.ratings: dict[str, list[Rating]] = {}
        self.earlier: list[Prompt] = []
        self.recalled = -1
        self.before = Draft()  # what was being written when earlier prompts were recalled
        self.said = Content("")
        self.drafted = False
        self.chosen: tuple[str, str] | None = None  # the language and system prompt of the session
        self._draw_settings()

    # Drawing

    async def reload(self) -> None:
        """What was said of the answers on screen; then everything is drawn."""
        if not self.drafted and self.desk is not None:
            self.drafted, self.chosen = True, None
            if not self.editor.text:
                self._write(self.workbench.draft)
        if self.desk is not None and self.answers:
            self.ratings = await self.desk.ratings_of(self.answers)
        await self.draw()

    def hear(self, news: News) -> None:
        """A streamed piece is drawn and nothing read."""
        match news:
            case Streamed() | EngineMoved():
                self.call_later(self.draw)
            case SessionChanged():
                self._draw_settings()
            case _:
                super().hear(news)

    async def paint(self) -> None:
        exchange = self.workbench.conversation.current
        grid = self.query_one(AnswerGrid)
        await grid.show(cards(exchange, self.ratings, self.workbench.engine.speed))
        if exchange is not self.painted:
            self.painted = exchange
            grid.begin()
            self.call_after_refresh(self.refresh_bindings)  # by then it is known whether the prompt is cut
        self._draw_asked(exchange)
        self._draw_settings()
        self._draw_said()
        self.refresh_bindings()

    def _draw_asked(self, exchange: Exchange | None) -> None:
        asked, empty = self.query_one("#asked", Static), self.query_one("#empty", Static)
        present(empty, exchange is None)
        present(asked, exchange is not None)
        present(self.query_one(AnswerGrid), exchange is not None)
        self.query_one(TurnsBefore).show(exchange.ask.prompt if exchange is not None else None)
        if exchange is None:
            empty.update(welcome(self.workbench.keys))
            return
        generate = exchange.ask.generate
        facts = f"T {generate.sampling.temperature:g} · {generate.count} answer{'s' * (generate.count > 1)}"
        if exchange.note:
            facts += f" · {one_line(exchange.note)}"
        asked.update(
            Content.assemble(
                (one_line(exchange.ask.prompt.language, 12), "bold $accent"),
                (f"{use_of(exchange.ask.prompt)} ▸ ", "$text-muted"),
                (safe_text(exchange.ask.prompt.text), "bold"), (f"   {facts}", "$text-muted"),
            )
        )  # fmt: skip

    def _draw_settings(self) -> None:
        session = self.workbench.session
        chosen = (session.language, session.system)
        if self.chosen not in (None, chosen):  # it holds for what is being written too, wherever that came from
            self.workbench.draft.of = None
        self.chosen = chosen
        sampling = session.sampling
        parts = [f"T {sampling.temperature:g}", f"top-p {sampling.top_p:g}", f"{sampling.max_new_tokens} tokens",
                 f"{session.candidates} answer{'s' * (session.candidates > 1)}"]  # fmt: skip
        if session.seed is not None:
            parts.append(f"seed {session.seed}")
        language, system = self.asks_in
        if system:
            parts.append(f"system: {one_line(system, 24)}")
        after = f" after {len(self.turns)} turn{'s' * (len(self.turns) > 1)}" if self.turns else ""
        self.editor.border_title = Content.assemble(
            (one_line(language, 12), "bold $accent"), " ▸", (after, "$text-muted")
        )  # fmt: skip
        self.editor.border_subtitle = Content.styled(" · ".join(parts), "$text-muted")

    def _draw_said(self) -> None:
        line = self.said
        waiting = len(self.workbench.conversation.waiting)
        drops = spoken(self.workbench.keys["prompt.drop"][0])
        if waiting:
            engine = self.workbench.engine
            why = "the one before is being answered" if engine.is_ready else f"the engine is {engine.state}"
            queued = f"{waiting} prompt{'s' * (waiting > 1)} kept, waiting: {why} ({drops} drops)"
            line = Content("   ").join([Content.styled(queued, "$text-warning"), *([line] if line.plain else [])])
        for exchange in self.workbench.conversation.aside:
            text = one_line(exchange.ask.prompt.text, 40)
            aside = f"set aside, it ended the engine {exchange.sent} times: {text} ({drops} takes it back)"
            line = Content("\n").join([Content.styled(aside, "$text-error"), *([line] if line.plain else [])])
        self.query_one("#said", Static).update(line)
        present(self.query_one("#said"), bool(line.plain))

    def say(self, line: Content) -> None:
        self.said = line
        self._draw_said()

    # Asking

    @property
    def editor(self) -> PromptInput:
        return self.query_one("#input", PromptInput)

    @property
    def asks_in(self) -> tuple[str, str]:
        """Language and system prompt of what is being written: an earlier prompt's own, until others are chosen."""
        chosen = self.workbench.draft.of or self.workbench.session
        return chosen.language, chosen.system

    @property
    def turns(self) -> tuple[Message, ...]:
        """What was said before what is being written, where that comes from an earlier prompt."""
        earlier = self.workbench.draft.of
        return earlier.earlier if earlier is not None else ()

    async def action_send(self) -> None:
        """Store the prompt and put it in the engine's queue; it stays in its field until it is stored."""
        text, earlier = self.editor.text, self.workbench.draft.of
        if not text.strip():
            return
        if self.desk is None:
            self.say(Content.styled("the workspace is being opened; your prompt stays here", "$text-warning"))
            return
        if earlier is not None and earlier.text == text:
            self._ask(earlier)
            self._sent(text)
        else:
            await self.ask(text)

    async def ask(self, text: str) -> None:
        """Store a prompt and queue it."""

        def stored(prompt: Prompt) -> None:
            self._ask(prompt)
            self._sent(text)

        asked = (text, *self.asks_in, self.turns)
        await self.record(lambda desk: desk.remember_prompt(*asked), "your prompt", stored)

    def _sent(self, text: str) -> None:
        """Take the prompt out of its field, and leave there what was typed meanwhile."""
        if self.editor.text.startswith(text):
            self._write(Draft(self.editor.text.removeprefix(text)))
        self.recalled = -1
        self.workbench.save_session()

    def _ask(self, prompt: Prompt) -> None:
        """Queue a stored prompt with the session's parameters."""
        app, session = self.workbench, self.workbench.session
        generate = protocol.Generate(
            request=clock.new_id(), prompt=prompt.text, system=prompt.system, earlier=prompt.earlier,
            count=session.candidates,
            seed=secrets.randbelow(2**31) if session.seed is None else session.seed, sampling=session.sampling,
        )  # fmt: skip
        app.conversation.ask(Ask(prompt, generate))
        self.said = Content("")
        app.send_waiting()
        self.call_later(self.draw)

    def action_again(self) -> None:
        if (exchange := self.workbench.conversation.current) is not None:
            self._ask(exchange.ask.prompt)

    def action_stop(self) -> None:
        """Whatever the moment, nothing is being written afterwards, and the answers are in front."""
        exchange = self.workbench.conversation.current
        if exchange is not None and self.workbench.conversation.is_writing:
            self.workbench.send(protocol.Cancel(exchange.ask.generate.request))
        self.action_leave_input()

    def action_drop(self) -> None:
        """Drop what waits and what was set aside. The newest text comes back where nothing is being written."""
        aside = list(self.workbench.conversation.aside)
        dropped = self.workbench.drop_waiting()
        gone = [*aside, *dropped]
        if gone and not self.editor.text.strip():
            self._recall(gone[-1].ask.prompt)
        history = spoken(self.workbench.keys["prompt.history"][0])
        self.say(Content.styled(f"{len(gone)} dropped; {history} finds what was asked", "$text-muted"))
        self.call_later(self.draw)

    def _write(self, draft: Draft) -> None:
        """Put a text into the field, in place of what stands there."""
        self.workbench.draft = draft
        self.editor.write(draft.text)
        self._draw_settings()

    def _recall(self, prompt: Prompt) -> None:
        """Write an earlier prompt: sent as it is, it is that one again, with its language and its use."""
        self._write(Draft(prompt.text, prompt))

    async def on_prompt_input_recall(self, message: PromptInput.Recall) -> None:
        """Up and down walk through earlier prompts; below the newest stands what was being written."""
        if self.recalled < 0:
            self.before = self.workbench.draft
            self.earlier = await self.attempt(lambda desk: desk.history(limit=100)) or []
        self.recalled = max(-1, min(self.recalled + message.step, len(self.earlier) - 1))
        earlier = self.earlier[self.recalled] if self.recalled >= 0 else None
        self._write(self.before if earlier is None else Draft(earlier.text, earlier))

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        draft, text = self.workbench.draft, self.editor.text
        if text != draft.text:
            self.workbench.draft = Draft(text, draft.of if text.strip() else None)
            self._draw_settings()
        self.refresh_bindings()

    def action_editor(self) -> None:
        try:
            self._write(Draft(edit_outside(self.app, self.editor.text), self.workbench.draft.of))
        except WorkbenchError as error:
            self.workbench.report(error)

    def action_history(self) -> None:
        from workbench.widgets.dialogs import PickDialog

        earlier: dict[str, Prompt] = {}

        async def find(typed: str) -> list[tuple[str, Content]]:
            found = {p.id: p for p in await self.attempt(lambda desk: desk.history(typed)) or []}
            earlier.update(found)
            return [
                (key, Content.assemble((f"{one_line(p.language, 8):<4}", "$accent"), one_line(p.transcript, 160)))
                for key, p in found.items()
            ]

        def chosen(key: str | None) -> None:
            if key is not None:
                self._recall(earlier[key])
                self.editor.focus()

        self.app.push_screen(PickDialog("Earlier prompts", find, placeholder="search"), chosen)

    async def action_language(self) -> None:
        await asyncio.to_thread(matching, "")  # the names of languages are read from disk the first time
        from workbench.widgets.dialogs import PickDialog

        async def find(typed: str) -> list[tuple[str, Content]]:
            found = await asyncio.to_thread(matching, typed)  # the names are read from disk the first time
            return [(tag, Content.assemble((f"{tag:<8}", "bold $accent"), name)) for tag, name in found]

        def chosen(tag: str | None) -> None:
            if tag is not None:
                self.workbench.update_session(language=tag)

        self.app.push_screen(PickDialog("Language", find, placeholder="a language or a BCP 47 tag"), chosen)

    def action_parameters(self) -> None:
        from workbench.widgets.settings import apply, form

        shaping = [setting for setting in SETTINGS if setting.where == "answers"]

        def chosen(values: dict[str, object] | None) -> None:
            if values is not None:
                apply(self.workbench, shaping, values)

        self.app.push_screen(form("Parameters", shaping, self.workbench.session, {}), chosen)

    # Rating

    @property
    def answers(self) -> list[Sample]:
        """The stored answers on screen; empty while they are being written."""
        return list(self.stored.values())

    @property
    def stored(self) -> dict[int, Sample]:
        """The same by the number of their card: of one that the engine did not live to finish there is none."""
        exchange = self.workbench.conversation.current
        return exchange.samples if exchange is not None else {}

    @property
    def sample(self) -> Sample | None:
        """The answer in focus."""
        return self.stored.get(self.query_one(AnswerGrid).current)

    async def action_prefer(self, letter: str) -> None:
        shown = self.answers
        best = self.stored[LETTERS.index(letter)]
        await self.record(lambda desk: desk.prefer(best, shown), f"{letter} preferred")

    async def action_bad_one(self) -> None:
        await self.action_bad()

    async def action_tie(self) -> None:
        answers = self.answers
        await self.record(lambda desk: desk.tie(answers), "tie")

    def saved(self, words: str) -> None:
        super().saved(words)
        self.look_again()

    def action_previous(self) -> None:
        self.query_one(AnswerGrid).step(-1)

    def action_next(self) -> None:
        self.query_one(AnswerGrid).step(1)

    def action_leave_input(self) -> None:
        self.query_one(AnswerGrid).step(0)

    def action_prompt(self) -> None:
        if (exchange := self.workbench.conversation.current) is not None:
            self.app.push_screen(PromptSheet(exchange.ask.prompt))

    def action_write(self) -> None:
        self.editor.focus()

    def in_footer(self, action: Action) -> bool:
        return action.id != "prompt.stop" or self.workbench.conversation.is_writing

    def takes_key(self, action: Action, key: str) -> bool:
        """Whether a key of an action means that now: Enter in a prompt of several lines is one more line."""
        return not (action.id == "prompt.send" and key == "enter" and "\n" in self.editor.text)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys mean something now: it depends on the focus, and on how many answers are finished."""
        if (decided := self.in_sheet(action)) is not None:
            return decided
        writing, answers = self.editor.has_focus, len(self.answers)
        conversation = self.workbench.conversation
        match action:
            case "stop":
                return conversation.is_writing or (writing and bool(self.query_one(AnswerGrid).cards))
            case "drop":
                return bool(conversation.waiting or conversation.aside)
            case "send":
                return writing
            case "leave_input":
                return writing and bool(self.query_one(AnswerGrid).cards)
            case "write":
                return not writing
            case "prompt":
                return conversation.current is not None and is_cut(self.query_one("#asked", Static))
            case "prefer":
                return answers > 1 and LETTERS.index(str(parameters[0])) in self.stored
            case "tie":
                return answers > 1
            case "bad_one":
                return answers == 1 and self.sample is not None
            case "again":
                return answers >= 1
            case "score":
                return self.sample is not None and self.scores(*parameters)
            case "good" | "bad" | "edit" | "tell" | "tags" | "copy":
                return self.sample is not None
            case "previous" | "next":
                return not writing and len(self.query_one(AnswerGrid).cards) > 1
        return True
