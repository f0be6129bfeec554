"""Prompt: ask, watch the answers being written side by side, and rate them in place."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static, TextArea

from storage import clock
from storage.errors import WorkbenchError
from storage.languages import matching
from storage.records import RatingKind, Sampling
from workbench.engine import protocol
from workbench.screens.prompt.conversation import Ask, Exchange
from workbench.shell.actions import spoken
from workbench.shell.screen import WorkbenchScreen, present
from workbench.text import one_line, safe_text
from workbench.widgets.answers import AnswerGrid, CardFacts
from workbench.widgets.editor import PromptInput, edit_outside
from workbench.widgets.judging import Rater, use_of

if TYPE_CHECKING:
    from storage.records import Rating, Sample

LETTERS = "abcd"
_WELCOME = (
    "Ask something, in any language.",
    "The answers appear here side by side, to be scored, compared and edited.",
)


class PromptScreen(Rater, WorkbenchScreen):
    """The prompt on top, the answers in the middle, the next prompt below."""

    CSS_PATH = "style.tcss"
    KEY = "prompt"
    AUTO_FOCUS = "PromptInput"

    def body(self) -> ComposeResult:
        yield Static(id="asked", markup=False)
        yield Static(id="empty", markup=False)
        yield AnswerGrid(id="answers")
        yield Static(id="said", markup=False)
        yield PromptInput(id="input", placeholder="Write a prompt", compact=True)

    def on_mount(self) -> None:
        self.recalled = -1
        self.draft = ""
        self.said = Content("")
        self.drafted = False
        self._draw_settings()

    # Drawing

    async def reload(self) -> None:
        if not self.drafted and self.store is not None:
            self.drafted = True
            if self.workbench.session.draft and not self.editor.text:
                self.editor.write(self.workbench.session.draft)
        exchange = self.workbench.conversation.current
        facts = self._cards(exchange)
        grid = self.query_one(AnswerGrid)
        if len(grid.cards) == len(facts):
            grid.update(facts)
        else:
            await grid.show(facts)
        self._draw_asked(exchange)
        self._draw_settings()
        self._draw_said()
        self.refresh_bindings()

    def _cards(self, exchange: Exchange | None) -> list[CardFacts]:
        if exchange is None:
            return []
        language = exchange.ask.prompt.language
        speed = self.workbench.engine.speed
        cards = []
        for n, (text, tokens) in enumerate(zip(exchange.texts, exchange.tokens, strict=True)):
            answer = exchange.answers.get(n)
            parts = [f"{tokens} tokens", language]
            if answer is not None:
                parts += [answer.version] if answer.finish_reason == "eos" else [answer.version, answer.finish_reason]
            elif speed is not None:
                parts.append(f"{speed:.0f} tok/s")
            stored = n < len(exchange.samples)
            verdict = self.verdict(exchange.samples[n]) if stored else ""
            writing = exchange.state in ("writing", "waiting") and answer is None
            cards.append(CardFacts(LETTERS[n], text, " · ".join(parts), verdict, writing))
        return cards

    def _draw_asked(self, exchange: Exchange | None) -> None:
        asked, empty = self.query_one("#asked", Static), self.query_one("#empty", Static)
        present(empty, exchange is None)
        present(asked, exchange is not None)
        present(self.query_one(AnswerGrid), exchange is not None)
        if exchange is None:
            empty.update(_welcome(self.workbench.keys))
            return
        generate = exchange.ask.generate
        facts = f"T {generate.sampling.temperature:g} · {generate.count} answer{'s' * (generate.count > 1)}"
        asked.update(
            Content.assemble(
                (one_line(exchange.ask.prompt.language, 12), "bold $accent"),
                (f"{use_of(exchange.ask.prompt)} ▸ ", "$text-muted"),
                (safe_text(exchange.ask.prompt.text), "bold"), (f"   {facts}", "$text-muted"),
            )
        )  # fmt: skip

    def _draw_settings(self) -> None:
        session = self.workbench.session
        sampling = session.sampling
        parts = [f"T {sampling.temperature:g}", f"top-p {sampling.top_p:g}", f"{sampling.max_new_tokens} tokens",
                 f"{session.candidates} answer{'s' * (session.candidates > 1)}"]  # fmt: skip
        if session.seed is not None:
            parts.append(f"seed {session.seed}")
        if session.system:
            parts.append(f"system: {one_line(session.system, 24)}")
        self.editor.border_title = Content.assemble((one_line(session.language, 12), "bold $accent"), " ▸")
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

    def action_send(self) -> None:
        """Store the prompt and put it in the engine's queue."""
        text = self.editor.text.strip("\n")
        if not text.strip():
            return
        if self.store is None:
            self.say(Content.styled("the workspace is being opened; your prompt stays here", "$text-warning"))
            return
        if self.ask(text):
            self.editor.write("")
            self.recalled = -1
            self.workbench.update_session(draft="")

    def ask(self, text: str) -> bool:
        """Queue a prompt with the session's parameters; False when it could not be stored."""
        app, session = self.workbench, self.workbench.session
        assert self.store is not None
        try:
            prompt = self.store.remember_prompt(text, session.language, session.system)
        except Exception as error:  # the prompt stays in its field
            app.report(error)
            return False
        generate = protocol.Generate(
            request=clock.new_id(), prompt=text, system=session.system, count=session.candidates,
            seed=secrets.randbelow(2**31) if session.seed is None else session.seed, sampling=session.sampling,
        )  # fmt: skip
        app.conversation.ask(Ask(prompt, generate))
        self.said = Content("")
        app.send_waiting()
        self.call_later(self.read)
        return True

    def action_again(self) -> None:
        exchange = self.workbench.conversation.current
        if exchange is not None:
            self.ask(exchange.ask.prompt.text)

    def action_stop(self) -> None:
        exchange = self.workbench.conversation.current
        if exchange is not None:
            self.workbench.send(protocol.Cancel(exchange.ask.generate.request))

    def action_drop(self) -> None:
        """Drop what waits and what was set aside. The newest text comes back where nothing is being written."""
        aside = list(self.workbench.conversation.aside)
        dropped = self.workbench.drop_waiting()
        gone = [*aside, *dropped]
        if gone and not self.editor.text.strip():
            self.editor.write(gone[-1].ask.prompt.text)
        history = spoken(self.workbench.keys["prompt.history"][0])
        self.say(Content.styled(f"{len(gone)} dropped; {history} finds what was asked", "$text-muted"))
        self.call_later(self.read)

    def on_prompt_input_recall(self, message: PromptInput.Recall) -> None:
        """Up and down walk through earlier prompts; below the newest stands what was being written."""
        found = self.store.history(limit=100) if self.store is not None else []
        if self.recalled < 0:
            self.draft = self.editor.text
        self.recalled = max(-1, min(self.recalled + message.step, len(found) - 1))
        self.editor.write(self.draft if self.recalled < 0 else found[self.recalled].text)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        self.workbench.session = msgspec.structs.replace(self.workbench.session, draft=self.editor.text)
        self.refresh_bindings()

    def action_editor(self) -> None:
        try:
            self.editor.write(edit_outside(self.app, self.editor.text))
        except WorkbenchError as error:
            self.workbench.report(error)

    def action_history(self) -> None:
        from workbench.widgets.dialogs import PickDialog

        def find(typed: str) -> list[tuple[str, Content]]:
            found = self.store.history(typed) if self.store is not None else []
            return [
                (p.text, Content.assemble((f"{one_line(p.language, 8):<4}", "$accent"), one_line(p.text, 160)))
                for p in found
            ]

        def chosen(text: str | None) -> None:
            if text is not None:
                self.editor.write(text)
                self.editor.focus()

        self.app.push_screen(PickDialog("Earlier prompts", find, placeholder="search"), chosen)

    def action_language(self) -> None:
        from workbench.widgets.dialogs import PickDialog

        def find(typed: str) -> list[tuple[str, Content]]:
            return [(tag, Content.assemble((f"{tag:<8}", "bold $accent"), name)) for tag, name in matching(typed)]

        def chosen(tag: str | None) -> None:
            if tag is not None:
                self.workbench.update_session(language=tag)
                self._draw_settings()

        self.app.push_screen(PickDialog("Language", find, placeholder="a language or a BCP 47 tag"), chosen)

    def action_parameters(self) -> None:
        from workbench.screens.prompt import parameters

        def chosen(values: dict[str, object] | None) -> None:
            if values is not None:
                self.workbench.update_session(**parameters.changes(values, Sampling()))
                self._draw_settings()

        self.app.push_screen(parameters.dialog(self.workbench.session), chosen)

    # Rating

    @property
    def answers(self) -> list[Sample]:
        """The stored answers on screen; empty while they are being written."""
        exchange = self.workbench.conversation.current
        return exchange.samples if exchange is not None else []

    @property
    def sample(self) -> Sample | None:
        """The answer in focus."""
        current = self.query_one(AnswerGrid).current
        return self.answers[current] if current < len(self.answers) else None

    def verdict(self, sample: Sample) -> str:
        """What this rater says of an answer, in a few signs."""
        if self.store is None:
            return ""
        return " ".join(filter(None, (_in_short(rating, sample) for rating in self.store.ratings_of(sample))))

    def action_prefer(self, letter: str) -> None:
        best = self.answers[LETTERS.index(letter)]
        others = [sample for sample in self.answers if sample is not best]
        self.record(lambda store: store.prefer(best, others), f"{letter} preferred")

    def action_bad_one(self) -> None:
        self.action_bad()

    def action_tie(self) -> None:
        self.record(lambda store: store.tie(self.answers), "tie")

    def action_previous(self) -> None:
        grid = self.query_one(AnswerGrid)
        grid.select(grid.current - 1)

    def action_next(self) -> None:
        grid = self.query_one(AnswerGrid)
        grid.select(grid.current + 1)

    def action_leave_input(self) -> None:
        grid = self.query_one(AnswerGrid)
        grid.select(grid.current)

    def action_write(self) -> None:
        self.editor.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys mean something now: it depends on the focus, and on how many answers are finished."""
        writing, answers = self.editor.has_focus, len(self.answers)
        conversation = self.workbench.conversation
        match action:
            case "stop":
                return conversation.is_writing
            case "drop":
                return bool(conversation.waiting or conversation.aside)
            case "send":
                return writing
            case "leave_input":
                return writing and bool(self.query_one(AnswerGrid).cards) and not conversation.is_writing
            case "write":
                return not writing and not conversation.is_writing
            case "prefer":
                return answers > 1 and LETTERS.index(str(parameters[0])) < answers
            case "tie":
                return answers > 1
            case "bad_one":
                return answers == 1
            case "score" | "good" | "bad" | "edit" | "note" | "copy" | "again":
                return answers >= 1
            case "previous" | "next":
                return not writing and len(self.query_one(AnswerGrid).cards) > 1
        return True


def _welcome(keys: dict[str, tuple[str, ...]]) -> Content:
    """What stands on the screen before the first prompt."""
    hints = [(keys[f"prompt.{word}"][0], word) for word in ("language", "parameters", "history")]
    offered = [Content.assemble((spoken(key), "bold $accent"), (f" {word}", "$text-muted")) for key, word in hints]
    first, second = _WELCOME
    lines = [Content.styled(first, "bold"), Content.styled(second, "$text-muted"), Content("")]
    return Content("\n").join([*lines, Content("   ").join(offered)])


def _in_short(rating: Rating, sample: Sample) -> str:
    match rating.kind:
        case RatingKind.SCORE:
            return f"{rating.value:g}/{rating.scale_high:g}"
        case RatingKind.LABEL:
            return "good" if rating.value else "bad"
        case RatingKind.PAIR:
            if rating.choice in ("tie", "both-bad"):
                return "tie" if rating.choice == "tie" else "both bad"
            preferred = rating.sample_id if rating.choice == "a" else rating.other_sample_id
            return "preferred" if preferred == sample.id else ""
        case RatingKind.EDIT:
            return "edited"
        case RatingKind.NOTE:
            return "noted"
    return ""


def _spoken(key: str) -> str:
    from workbench.shell.actions import spoken

    return spoken(key)
