"""Asking, and where in a conversation: what is written goes on from the answer that was chosen, or stands alone.

Until one has gone on from an answer, each prompt stands alone; in a conversation, what is written next goes on from the
chosen answer, or from the one in focus.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from msgspec.structs import replace
from textual import work
from textual.content import Content
from textual.widgets import TextArea

from storage import clock, turns
from storage.errors import WorkbenchError
from workbench.engine import protocol
from workbench.screens.prompt import choosing
from workbench.screens.prompt.conversation import Ask, Draft, Exchange, Place
from workbench.screens.prompt.turns import LETTERS, Turns
from workbench.shell.actions import spoken
from workbench.shell.screen import WorkbenchScreen
from workbench.widgets.answers import AnswerGrid
from workbench.widgets.editor import PromptInput, edit_outside
from workbench.widgets.judging import Rater

if TYPE_CHECKING:
    from storage.records import Prompt


class AskingScreen(Rater, WorkbenchScreen):
    """The half of Prompt that asks; the other half draws and judges."""

    def on_mount(self) -> None:
        self.earlier: list[Prompt] = []
        self.recalled = -1
        self.before = Draft()  # what was being written when earlier prompts were recalled
        self.said = Content("")
        self.restored = False  # whether what was being written when the app closed is in the field

    def restore(self) -> None:
        """Put what was being written when the app closed into the field, before what was typed since it opened."""
        self.restored = True
        kept, typed = self.workbench.draft, self.editor.text
        if kept.text:
            self.write(Draft(f"{kept.text}\n{typed}", place=kept.place) if typed else kept)
            self.say(Content.styled("what you were writing is here again", "$text-muted"))
        elif typed:
            self.workbench.draft = self._rewritten(kept, typed)

    def draw_settings(self) -> None:
        """Draw where and how what is written is asked; every screen has its own."""
        raise NotImplementedError

    @property
    def prompt(self) -> Prompt | None:
        """The prompt in focus."""
        if (turn := self.query_one(Turns).turn) is not None:
            return turn.prompt
        exchange = self.workbench.conversation.current
        return exchange.ask.prompt if exchange is not None else None

    # What is written

    @property
    def editor(self) -> PromptInput:
        return self.query_one("#input", PromptInput)

    @property
    def place(self) -> Place:
        """Where in a conversation stands what is being written."""
        draft, now, session = self.workbench.draft, self.workbench.conversation.current, self.workbench.session
        if draft.place is not None:
            return draft.place
        if now is not None and now.goes_on and now.answers and not now.is_under_way:
            return now.after(self._gone_on_from(now))
        return Place(session.language, session.system)

    def _gone_on_from(self, exchange: Exchange) -> int:
        """The answer that one goes on from: the chosen one, or the one in focus."""
        places = sorted(exchange.answers)
        if exchange.chosen is not None:
            return exchange.chosen
        current = self.query_one(AnswerGrid).current
        return current if current in places else places[0]

    def action_choose(self) -> None:
        """Go on from the answer in focus, and write."""
        self.choose(self.query_one(AnswerGrid).current)
        self.editor.focus()

    def choose(self, answer: int) -> None:
        """Go on from an answer to what is on screen: what is written then stands after it."""
        place = self.workbench.conversation.choose(answer)
        if place is None:
            return
        draft = self.workbench.draft
        if draft.of is None:
            draft.place = place if draft.text.strip() else None
        self.draw_settings()
        self.call_later(self.draw)

    async def action_send(self) -> None:
        """Store the prompt and put it in the engine's queue; it stays in its field until it is stored."""
        text, draft = self.editor.text, self.workbench.draft
        if not text.strip():
            return
        if self.desk is None:
            self.say(Content.styled("the workspace is being opened; your prompt stays here", "$text-warning"))
        elif draft.place is None and self.workbench.conversation.is_awaited:
            self.say(Content.styled("what you go on from is still being written; send it again then", "$text-warning"))
        elif draft.of is not None and draft.of.text == text:
            self._ask(draft.of)
            self._sent(text)
        else:
            await self.ask(text)

    async def ask(self, text: str) -> None:
        """Store a prompt and queue it."""
        place = self.place

        def stored(prompt: Prompt) -> None:
            self._ask(prompt)
            self._sent(text)

        await self.record(
            lambda desk: desk.remember_prompt(text, place.language, place.system, place.earlier), "your prompt", stored
        )

    def _sent(self, text: str) -> None:
        """Take the prompt out of its field, and leave there what was typed meanwhile."""
        if self.editor.text.startswith(text):
            self.write(Draft(self.editor.text.removeprefix(text)))
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
        """Ask what is in focus again, with a fresh seed."""
        if (prompt := self.prompt) is not None:
            self._ask(prompt)

    def action_rewrite(self) -> None:
        """Write what was asked anew: the conversation forks before it."""
        turn, prompt = self.query_one(Turns).turn, self.prompt
        if prompt is not None:
            self._recall(prompt)
        elif turn is not None and (now := self.workbench.conversation.current) is not None:
            self.write(Draft(turn.asked, place=replace(Place.of(now.ask.prompt), earlier=turn.earlier)))
        self.editor.focus()

    def action_fork(self) -> None:
        """Show the turn in focus again with its answers, to go on from it once more: what came after it stays in the
        history."""
        turn = self.query_one(Turns).turn
        if turn is None or turn.prompt is None or turn.sample is None:
            return
        exchange = Exchange.answered(turn.prompt, turn.answers)
        exchange.chosen, exchange.goes_on = turn.place, True
        self.show(exchange)

    def show(self, exchange: Exchange) -> None:
        """Put stored answers on screen, and go on from there."""
        if self.workbench.conversation.is_writing:
            self.say(Content.styled("an answer is being written: stop it, or wait", "$text-warning"))
            return
        self.workbench.conversation.current = exchange
        if not self.editor.text.strip():
            self.write(Draft())
        self.editor.focus()
        self.workbench.save_session()
        self.look_again()

    def action_new(self) -> None:
        """Begin a new conversation; what was being written comes along."""
        self.workbench.conversation.leave()
        self.said = Content("")
        self.write(Draft(self.editor.text))
        self.editor.focus()
        self.workbench.save_session()
        self.call_later(self.draw)

    def open(self, prompt: Prompt) -> None:
        """Go on with a conversation: with its last answers, or, where it has none, with its last prompt."""
        self._open(prompt)

    @work(exclusive=True, group="conversations")
    async def _open(self, prompt: Prompt) -> None:
        stored = await self.attempt(lambda desk: desk.read(turns.latest, prompt, len(LETTERS)))
        self.said = Content("")
        if stored:
            exchange = Exchange.answered(prompt, stored)
            exchange.goes_on = True
            self.show(exchange)
        elif stored is not None:
            self._recall(prompt)
            self.editor.focus()

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

    def action_leave_input(self) -> None:
        self.query_one(AnswerGrid).step(0)

    def write(self, draft: Draft) -> None:
        """Put a text into the field, in place of what stands there."""
        self.workbench.draft = draft
        self.editor.write(draft.text)
        self.draw_settings()

    def _recall(self, prompt: Prompt) -> None:
        """Write an earlier prompt: sent as it is, it is that one again, with its language and its use."""
        self.write(Draft(prompt.text, prompt, Place.of(prompt)))

    async def on_prompt_input_recall(self, message: PromptInput.Recall) -> None:
        """Up and down walk through earlier prompts; below the newest stands what was being written."""
        if self.recalled < 0:
            self.before = self.workbench.draft
            self.earlier = await self.attempt(lambda desk: desk.history(limit=100)) or []
        self.recalled = max(-1, min(self.recalled + message.step, len(self.earlier) - 1))
        earlier = self.earlier[self.recalled] if self.recalled >= 0 else None
        self.write(self.before) if earlier is None else self._recall(earlier)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        draft, text = self.workbench.draft, self.editor.text
        if self.restored and text != draft.text:
            self.workbench.draft = self._rewritten(draft, text)
            self.draw_settings()
        self.refresh_bindings()

    def _rewritten(self, draft: Draft, text: str) -> Draft:
        """A draft with another text. The first letter settles where it stands: after the answer in focus, say."""
        now, place = self.workbench.conversation, draft.place
        if not text.strip():
            return Draft(text, place=place if not draft.text.strip() else None)
        if place is None and not now.is_awaited:
            place = self.place
            if now.current is not None and place.earlier:
                now.choose(self._gone_on_from(now.current))
                self.call_later(self.draw)
        return Draft(text, draft.of, place)

    def action_editor(self) -> None:
        try:
            self.write(self._rewritten(self.workbench.draft, edit_outside(self.app, self.editor.text)))
        except WorkbenchError as error:
            self.workbench.report(error)

    def action_history(self) -> None:
        def chosen(prompt: Prompt) -> None:
            self._recall(prompt)
            self.editor.focus()

        choosing.earlier_prompt(self, chosen)

    def action_conversations(self) -> None:
        choosing.conversation(self, self.open)

    def write_in(self, language: str) -> None:
        """Go on in a language, whatever the turns before are in."""
        self.workbench.update_session(language=language)
        if self.place.language != language:
            draft = self.workbench.draft
            draft.of, draft.place = None, replace(self.place, language=language)
            self.draw_settings()

    async def action_language(self) -> None:
        await choosing.language(self)

    def action_parameters(self) -> None:
        choosing.parameters(self)
