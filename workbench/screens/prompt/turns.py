"""The turns of a conversation above what is asked now: folded to a line each, scrolling, each with its rating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from storage.languages import UNKNOWN
from workbench.shell.screen import present
from workbench.text import content, one_line
from workbench.widgets.judging import verdict

if TYPE_CHECKING:
    from storage.records import Rating
    from storage.turns import Turn

LETTERS = "abcd"
Ratings = Mapping[str, Sequence["Rating"]]


class Turns(OptionList, inherit_bindings=False):
    """Hidden where nothing was said before. What can be done with the turn in focus is the screen's."""

    class Left(Message):
        """The last turn is behind: on to what is asked now."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("up,k", "cursor_up", "up"), ("down,j", "cursor_down", "down"), ("pageup", "page_up", "page up"),
        ("pagedown", "page_down", "page down"), ("home", "first", "first"), ("end", "last", "last"),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__(id="earlier", markup=False, compact=True)
        self.turns: Sequence[Turn] = ()
        self.ratings: Ratings = {}
        self.unfolded: set[int] = set()
        self.drawn: list[Content] = []

    @property
    def turn(self) -> Turn | None:
        """The one in focus."""
        at = self.highlighted
        return self.turns[at] if self.has_focus and at is not None and at < len(self.turns) else None

    def show(self, turns: Sequence[Turn], ratings: Ratings) -> None:
        """Show these turns; `ratings` by the keys of answers."""
        if [turn.said for turn in turns[: len(self.turns)]] != [turn.said for turn in self.turns[: len(turns)]]:
            self.unfolded.clear()
        self.turns, self.ratings = turns, ratings
        present(self, bool(turns))
        self._draw()

    def _draw(self) -> None:
        width = self.size.width - 3
        lines = [
            told(n, turn, self.ratings) if n in self.unfolded else line(n, turn, self.ratings, width)
            for n, turn in enumerate(self.turns)
        ]
        if [str(one) for one in lines] == [str(one) for one in self.drawn]:
            return
        at = self.highlighted
        self.drawn = lines
        self.set_options(Option(one) for one in lines)
        self.highlighted = min(at, len(lines) - 1) if at is not None and self.has_focus and lines else None
        if not self.has_focus:
            self.call_after_refresh(self.scroll_end, animate=False)

    def on_resize(self) -> None:
        self._draw()

    def on_focus(self) -> None:
        if self.highlighted is None and self.turns:
            self.highlighted = len(self.turns) - 1

    def on_blur(self) -> None:
        self.highlighted = None
        self.scroll_end(animate=False)

    def _lines_below(self) -> int:
        """How many lines of the turn in focus are below what is in sight: an unfolded one may be longer than that."""
        if self.highlighted is None:
            return 0
        first = self._index_to_line[self.highlighted]
        return first + self._heights[self.highlighted] - round(self.scroll_y) - self.scrollable_content_region.height

    def action_cursor_down(self) -> None:
        if self._lines_below() > 0:
            self.scroll_relative(y=min(self._lines_below(), 3), animate=False)
        elif self.highlighted == len(self.turns) - 1:
            self.post_message(self.Left())
        else:
            super().action_cursor_down()

    def action_cursor_up(self) -> None:
        hidden = round(self.scroll_y) - self._index_to_line.get(self.highlighted or 0, 0)
        if self.highlighted is not None and hidden > 0:
            self.scroll_relative(y=-min(hidden, 3), animate=False)
        elif self.highlighted != 0:
            super().action_cursor_up()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A click."""
        event.stop()
        self.unfold(event.option_index)

    def unfold(self, place: int | None) -> None:
        """Show a turn in full, or in a line again."""
        if place is not None:
            self.unfolded ^= {place}
            self._draw()


def line(number: int, turn: Turn, ratings: Ratings, width: int) -> Content:
    """A turn in `width` cells: `1 en ▸ Plan a weekend in Porto.       b 4/5 · v4 ▸`."""
    left = Content.assemble(_head(number, turn), (one_line(turn.asked, max(20, width)), ""))
    right = Content.assemble("  ", judged(turn, ratings), (" ▸", "$text-muted"))
    room = width - right.cell_length
    if room < 12:
        return left.truncate(max(1, width), ellipsis=True)
    return Content.assemble(left.truncate(room, ellipsis=True, pad=True), right)


def told(number: int, turn: Turn, ratings: Ratings) -> Content:
    """A turn in full: what was asked, and below it what was said."""
    said = content(turn.said) if turn.said else Content.styled("(an empty answer)", "$text-muted italic")
    return Content.assemble(
        _head(number, turn), content(turn.asked), "\n", judged(turn, ratings), (" ▾ ", "$text-muted"), said
    )


def _head(number: int, turn: Turn) -> Content:
    language = turn.prompt.language if turn.prompt is not None else UNKNOWN
    return Content.assemble(
        (f"{number + 1} ", "$text-muted"), (one_line(language, 12), "bold $accent"), (" ▸ ", "$text-muted")
    )


def judged(turn: Turn, ratings: Ratings) -> Content:
    """Which answer one went on from, what the rater says of it, and which version said it."""
    sample = turn.sample
    if sample is None:
        return Content.styled("said elsewhere", "$text-muted")
    words = one_line(verdict(list(ratings.get(sample.id, ())), sample), 30)
    letter = f"{LETTERS[turn.place]} " if len(turn.answers) > 1 else ""
    return Content.assemble(
        (letter, "bold"), (f"{words} " if words else "", "$text-success"),
        (f"· {one_line(sample.version or sample.origin, 16)}", "$text-muted"),
    )  # fmt: skip
