"""Prompt: ask, watch the answers being written side by side, and rate them in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from storage import turns
from workbench.screens.prompt import words
from workbench.screens.prompt.asking import AskingScreen
from workbench.screens.prompt.cards import cards
from workbench.screens.prompt.conversation import Exchange
from workbench.screens.prompt.turns import LETTERS, Turns
from workbench.screens.prompt.welcome import welcome
from workbench.shell.action import Action
from workbench.shell.messages import AnswersChanged, EngineMoved, News, RatingsChanged, SessionChanged, Streamed
from workbench.shell.screen import present
from workbench.widgets.answers import AnswerGrid
from workbench.widgets.editor import PromptInput
from workbench.widgets.reading import PromptSheet, is_cut
from workbench.widgets.sheets import Sheet

if TYPE_CHECKING:
    from storage.records import Prompt, Rating, Sample
    from storage.turns import Turn


class PromptScreen(AskingScreen):
    """The prompt on top, the answers in the middle, the next prompt below."""

    CSS_PATH = "style.tcss"
    KEY = "prompt"
    AUTO_FOCUS = "PromptInput"
    NEWS = (AnswersChanged, RatingsChanged)

    def body(self) -> ComposeResult:
        yield Turns()
        yield Static(id="asked", markup=False)
        yield Static(id="empty", markup=False)
        yield AnswerGrid(id="answers")
        yield Sheet()
        yield Static(id="said", markup=False)
        yield PromptInput(id="input", placeholder="Write a prompt", compact=True)

    def on_mount(self) -> None:
        self.painted: Exchange | None = None
        self.ratings: dict[str, list[Rating]] = {}
        self.turns: tuple[str, Sequence[Turn]] = ("", ())  # before what was asked, by its key
        self.chosen: tuple[str, str] | None = None  # the language and system prompt of the session
        self.draw_settings()

    # Drawing

    async def reload(self) -> None:
        """What was said of the answers on screen; then everything is drawn."""
        self._begin()
        now = self.workbench.conversation.current
        if self.desk is not None and now is not None:
            prompt = now.ask.prompt
            if self.turns[0] != prompt.id:
                self.turns = (prompt.id, await self.desk.read(turns.before, prompt, len(LETTERS)))
            said = [*(answer for turn in self.turns[1] for answer in turn.answers), *now.samples.values()]
            self.ratings = await self.desk.ratings_of(said)
        await self.draw()

    def hear(self, news: News) -> None:
        """A streamed piece is drawn and nothing read."""
        self._begin()
        match news:
            case Streamed() | EngineMoved():
                self.call_later(self.draw)
            case SessionChanged():
                self.draw_settings()
            case _:
                super().hear(news)

    def _begin(self) -> None:
        """Once the workspace is open, go on with what was being written."""
        if not self.restored and self.desk is not None:
            self.chosen = None
            self.restore()

    async def paint(self) -> None:
        exchange = self.workbench.conversation.current
        grid = self.query_one(AnswerGrid)
        await grid.show(cards(exchange, self.ratings, self.workbench.engine.speed))
        if exchange is not self.painted:
            self.painted = exchange
            grid.begin()
            self.call_after_refresh(self.refresh_bindings)  # by then it is known whether the prompt is cut
        self._draw_asked(exchange)
        self.draw_settings()
        self._draw_said()
        self.refresh_bindings()

    def _draw_asked(self, exchange: Exchange | None) -> None:
        asked, empty = self.query_one("#asked", Static), self.query_one("#empty", Static)
        present(empty, exchange is None)
        present(asked, exchange is not None)
        present(self.query_one(AnswerGrid), exchange is not None)
        before = self._turns_of(exchange.ask.prompt) if exchange is not None else []
        self.query_one(Turns).show(before, self.ratings)
        if exchange is None:
            empty.update(welcome(self.workbench.keys))
        else:
            asked.update(words.asked(exchange, len(before)))

    def _turns_of(self, prompt: Prompt) -> Sequence[Turn]:
        """The turns before a prompt: as they are stored, once that is known."""
        key, known = self.turns
        if key == prompt.id:
            return known
        if prompt.earlier:
            self.look_again()
        return turns.spoken(prompt)

    def draw_settings(self) -> None:
        session, draft = self.workbench.session, self.workbench.draft
        chosen = (session.language, session.system)
        if self.chosen not in (None, chosen):  # it holds for what is being written too, wherever that came from
            place = replace(self.place, language=session.language, system=session.system)
            draft.of, draft.place = None, place if place.earlier or draft.text else None
        self.chosen = chosen
        place = self.place
        self.editor.border_title = words.where(place, draft.place is None and self.workbench.conversation.is_awaited)
        self.editor.border_subtitle = words.how(session, place)

    def _draw_said(self) -> None:
        app = self.workbench
        line = words.kept(app.conversation, app.engine, app.keys, self.said)
        self.query_one("#said", Static).update(line)
        present(self.query_one("#said"), bool(line.plain))

    def say(self, line: Content) -> None:
        self.said = line
        self._draw_said()

    # Rating

    @property
    def answers(self) -> list[Sample]:
        """The stored answers that are judged; empty while they are being written."""
        return list(self.stored.values())

    @property
    def stored(self) -> dict[int, Sample]:
        """The same by their letters: of one that the engine did not live to finish there is none. Of an earlier turn,
        where one is in focus."""
        if (turn := self.query_one(Turns).turn) is not None:
            return dict(enumerate(turn.answers))
        exchange = self.workbench.conversation.current
        return exchange.samples if exchange is not None else {}

    @property
    def sample(self) -> Sample | None:
        """The answer in focus."""
        if (turn := self.query_one(Turns).turn) is not None:
            return turn.sample
        return self.stored.get(self.query_one(AnswerGrid).current)

    async def action_prefer(self, letter: str) -> None:
        """Prefer an answer; to what is on screen, one goes on from it."""
        shown, place = self.answers, LETTERS.index(letter)
        best = self.stored[place]
        if self.query_one(Turns).turn is None:
            self.choose(place)
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
        self.query_one(AnswerGrid).step(0 if self.query_one(Turns).has_focus else 1)

    def action_turns(self) -> None:
        self.query_one(Turns).focus()

    def action_unfold(self) -> None:
        self.query_one(Turns).unfold(self.query_one(Turns).highlighted)

    def on_turns_left(self) -> None:
        self.action_leave_input()

    def action_prompt(self) -> None:
        if (prompt := self.prompt) is not None:
            self.app.push_screen(PromptSheet(prompt))

    def action_write(self) -> None:
        self.editor.focus()

    def in_footer(self, action: Action) -> bool:
        match action.id:
            case "prompt.stop":
                return self.workbench.conversation.is_writing
            case "prompt.rewrite":
                return self.query_one(Turns).turn is not None
        return True

    def takes_key(self, action: Action, key: str) -> bool:
        """Whether a key of an action means that now: Enter in a prompt of several lines is one more line."""
        return not (action.id == "prompt.send" and key == "enter" and "\n" in self.editor.text)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys mean something now: it depends on the focus, and on how many answers are finished."""
        if (decided := self.in_sheet(action)) is not None:
            return decided
        writing, answers = self.editor.has_focus, len(self.answers)
        conversation, turn = self.workbench.conversation, self.query_one(Turns).turn
        chooses = not writing or not self.editor.text.strip()
        match action:
            case "stop":
                leaves = writing or turn is not None
                return conversation.is_writing or (leaves and bool(self.query_one(AnswerGrid).cards))
            case "drop":
                return bool(conversation.waiting or conversation.aside)
            case "send":
                return writing and not self.check_action("choose", ())
            case "choose":
                now = conversation.current
                if turn is not None:
                    return False
                at = self.query_one(AnswerGrid).current
                return chooses and now is not None and at in now.answers and not now.is_under_way and now.chosen != at
            case "unfold":
                return turn is not None
            case "fork":
                return turn is not None and turn.prompt is not None and turn.sample is not None
            case "turns":
                return bool(self.query_one(Turns).turns) and turn is None
            case "new":
                return conversation.current is not None or bool(self.workbench.draft.place)
            case "rewrite":
                return not writing and conversation.current is not None
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
                return not writing and self.prompt is not None and (answers >= 1 or turn is not None)
            case "score":
                return self.sample is not None and self.scores(*parameters)
            case "good" | "bad" | "edit" | "tell" | "tags" | "copy":
                return self.sample is not None
            case "previous" | "next":
                return not writing and len(self.query_one(AnswerGrid).cards) > 1
        return True
