"""Answers side by side: one scrolling card and one Static for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from storage.wording import counted
from workbench.shell.actions import spoken
from workbench.text import content, one_line

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp
    from workbench.widgets.marked_up import MarkedUp

NARROWEST = 34  # columns an answer needs beside another


@dataclass(frozen=True)
class CardFacts:
    """What a card shows. `text` is raw; `verdict` is the rating in words, empty when there is none."""

    title: str
    text: str
    footnote: str = ""
    verdict: str = ""
    writing: bool = False
    tokens: int | None = None
    markdown: bool = False  # shown as what it marks up, not as plain text


def card_of(
    title: str,
    text: str,
    language: str,
    *,
    tokens: int | None = None,
    said_by: str = "",
    ended: str = "",
    speed: float | None = None,
    verdict: str = "",
    writing: bool = False,
    markdown: bool = False,
) -> CardFacts:
    """What any screen shows of an answer. Leave out `said_by`, its version, where one judges blind.

    `ended` is the finish reason, told where it is not the usual one; `speed` is in tokens a second.
    """
    parts = [counted(tokens, "token")] if tokens is not None else []
    parts += [language, said_by, "" if ended == "eos" else ended]
    parts += [f"{speed:.0f} tok/s"] if speed is not None else []
    return CardFacts(title, text, " · ".join(filter(None, parts)), verdict, writing, tokens, markdown)


def _marked_up(text: str) -> MarkedUp:
    from workbench.widgets.marked_up import MarkedUp  # Rich's parser is imported where somebody wants it

    return MarkedUp(text)


class AnswerCard(VerticalScroll, can_focus=True):
    """One answer. It follows its own end while it is being written, until the reader scrolls up."""

    def __init__(self) -> None:
        super().__init__(classes="answer")
        self.facts: CardFacts | None = None
        self.words = Static(markup=False)

    def compose(self) -> ComposeResult:
        yield self.words

    def show(self, facts: CardFacts) -> None:
        """Draw what changed."""
        if facts == self.facts:
            return
        follow = self.is_vertical_scroll_end
        shown = content(facts.text)
        if facts.writing:
            shown = Content.assemble(shown, ("▍", "$policy"))
        elif not facts.text:
            shown = Content.styled("(an empty answer)", "$text-muted italic")
        self.words.update(_marked_up(facts.text) if facts.markdown and facts.text.strip() else shown)
        self.border_title = Content.assemble(
            (f"{one_line(facts.title)}", "bold"), *([(f" {one_line(facts.verdict)}", "$text-success")] if facts.verdict
                                                    else [])
        )  # fmt: skip
        self.border_subtitle = Content.styled(one_line(facts.footnote), "$text-muted")
        self.facts = facts
        if facts.writing and follow:
            self.scroll_end(animate=False)


class AnswerGrid(Grid):
    """Up to a handful of cards. Where there is room for one only, that is the current one, under a line of them all."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.current = 0
        self.facts: list[CardFacts] = []
        self.line = Static(classes="line", markup=False)

    def compose(self) -> ComposeResult:
        yield self.line

    @property
    def cards(self) -> list[AnswerCard]:
        return list(self.query(AnswerCard))

    async def show(self, facts: list[CardFacts]) -> None:
        """Draw the cards, reusing the ones that are there."""
        cards = self.cards
        if len(cards) > len(facts):
            await self.remove_children(cards[len(facts) :])
        elif len(cards) < len(facts):
            await self.mount_all(AnswerCard() for _ in facts[len(cards) :])
        if len(cards) != len(facts):
            self.current = min(self.current, max(0, len(facts) - 1))
            self._arrange_cards()
        self.update(facts)

    def update(self, facts: list[CardFacts]) -> None:
        """Draw into the cards that are there; use :meth:`show` when their number may differ."""
        self.facts = facts
        for card, shown in zip(self.cards, facts, strict=False):
            card.show(shown)
        self._draw_line()

    def begin(self) -> None:
        """Other answers are shown from now on: go to the first one, and to the top of each."""
        for card in self.cards:
            card.scroll_home(animate=False)
        self.select(0, focus=any(card.has_focus for card in self.cards))

    def select(self, index: int, *, focus: bool = True) -> None:
        """Make a card the current one."""
        cards = self.cards
        if not cards:
            return
        self.current = index % len(cards)
        self._arrange_cards()
        if focus:
            cards[self.current].focus()

    def step(self, by: int) -> None:
        """Go on by some cards, round the end."""
        self.select(self.current + by)

    def on_descendant_focus(self) -> None:
        for n, card in enumerate(self.cards):
            if card.has_focus:
                self.current = n
        self._arrange_cards()

    def on_resize(self) -> None:
        self._arrange_cards()

    def _arrange_cards(self) -> None:
        """Choose columns by width and height; a terminal with room for one card shows the current one."""
        cards = self.cards
        columns = max(1, min(len(cards), self.size.width // NARROWEST))
        if columns < len(cards) == 4:
            columns = min(columns, 2)
        rows_fit = max(1, self.size.height // 5)
        alone = bool(cards) and -(-len(cards) // columns) > rows_fit
        for n, card in enumerate(cards):
            card.set_class(n == self.current, "current")
            card.display = not alone or n == self.current
        self.styles.grid_size_columns = 1 if alone else columns
        self.set_class(alone, "-alone")
        self._draw_line()

    def _draw_line(self) -> None:
        """Where one answer is shown at a time: which one, how long each is, and the key that shows the next."""
        if self.has_class("-alone") and self.current < len(self.facts):
            keys = cast("WorkbenchApp", self.app).keys[f"{getattr(self.screen, 'KEY', 'prompt')}.next"]
            self.line.update(line_of(self.facts, self.current, spoken(keys[0]), self.size.width - 2))


def line_of(facts: list[CardFacts], current: int, key: str, width: int) -> Content:
    """`▸ left 19    right 14 tokens  tab other`: all answers with their lengths, the one that is shown marked.

    Lengths are in tokens where they are known of all answers, else in characters. What does not fit in `width` cells is
    left out: first words beside the key, then the unit, then verdicts.
    """
    in_tokens = all(one.tokens is not None for one in facts)
    parts, verdicts = [], []
    for n, one in enumerate(facts):
        length = one.tokens if in_tokens else len(one.text)
        mark, style = ("▸ ", "bold $accent") if n == current else ("  ", "")
        parts.append(Content.assemble((mark, style), (one_line(one.title), style or "bold"), f" {length}"))
        verdicts.append(Content.styled(f" {one_line(one.verdict)}" if one.verdict else "", "$text-success"))
    unit = Content.styled(" tokens" if in_tokens else " characters", "$text-muted")
    told = Content("  ").join(Content.assemble(*both) for both in zip(parts, verdicts, strict=True))
    if told.cell_length > width:
        told = Content("  ").join(parts)
    hint = Content.assemble("  ", (key, "bold $accent"))
    for more in (Content.assemble(unit, hint, (" other", "$text-muted")), Content.assemble(unit, hint), hint):
        if told.cell_length + more.cell_length <= width:
            return Content.assemble(told, more)
    return told
