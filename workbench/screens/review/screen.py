"""Review: one answer or one blind pair at a time, judged by a key."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.records import Choice
from workbench.shell.messages import AnswersChanged, RatingsChanged, VersionsChanged
from workbench.shell.screen import WorkbenchScreen, present
from workbench.text import one_line, safe_text
from workbench.training.curves import bar
from workbench.widgets.answers import AnswerGrid, CardFacts, card_of
from workbench.widgets.judging import Rater, use_of
from workbench.widgets.reading import PromptSheet, is_cut
from workbench.widgets.turns import TurnsBefore

if TYPE_CHECKING:
    from storage.feedback.queue import ReviewItem
    from storage.records import Rating, Sample
    from workbench.desk import Desk

AHEAD = 40  # items read at a time
LOW = 5  # read more when fewer are left
_WORDS = {"a": "left is better", "b": "right is better", "tie": "tie", "both-bad": "both bad"}


class Spread(Static):
    """A line that reaches from edge to edge: it is drawn anew when it has another width."""

    def on_resize(self) -> None:
        screen = self.screen
        if isinstance(screen, ReviewScreen):
            screen.call_later(screen.draw)


class ReviewScreen(Rater, WorkbenchScreen):
    """The item in focus; everything else is quiet."""

    CSS_PATH = "style.tcss"
    KEY = "review"
    AUTO_FOCUS = "AnswerCard"
    NEWS = (AnswersChanged, RatingsChanged, VersionsChanged)

    def body(self) -> ComposeResult:
        yield Spread(id="item", markup=False)
        yield TurnsBefore()
        yield Static(id="asked", markup=False)
        yield Static(id="empty", markup=False)
        yield AnswerGrid(id="answers")
        yield Spread(id="said", markup=False)

    def on_mount(self) -> None:
        self.items: deque[ReviewItem] = deque()
        self.done: list[ReviewItem] = []
        self.painted: ReviewItem | None = None
        self.counts: list[tuple[str, int]] = []
        self.began: int | None = None  # where the log ended when the first items were asked for
        self.shown_at = time.monotonic()
        self.pace: deque[float] = deque(maxlen=10)
        self.said = Content("")

    # Drawing

    async def reload(self) -> None:
        """Refill the queue when it runs low, draw the item in front, and then count."""
        if self.desk is not None and len(self.items) < LOW:
            known = len(self.done)
            fresh, self.began = await self.desk.next_items(AHEAD, self.began)
            self.refill(fresh, self.done[known:])
            await self.draw()
        if self.desk is not None:
            self.counts = await self.desk.rated_by_language()
        await self.draw()

    def refill(self, fresh: list[ReviewItem], judged: list[ReviewItem]) -> None:
        """Take in what is next; the item on screen stays in front, and what was `judged` meanwhile does not come."""
        front = list(islice(self.items, 1))
        known = {_ids(item) for item in (*judged, *front)}
        if not front:
            self.shown_at = time.monotonic()
        self.items = deque([*front, *(item for item in fresh if _ids(item) not in known)])

    async def paint(self) -> None:
        item = self.item
        present(self.query_one("#empty"), item is None)
        for name in ("#item", "#asked", "#answers"):
            present(self.query_one(name), item is not None)
        self.query_one(TurnsBefore).show(item.prompt if item is not None else None)
        grid = self.query_one(AnswerGrid)
        if item is None:
            self.query_one("#empty", Static).update(self._nothing())
            await grid.show([])
        else:
            self._draw_head(item)
            await grid.show(_cards(item))
            if item is not self.painted:
                grid.begin()
                self.call_after_refresh(self.refresh_bindings)  # by then it is known whether the prompt is cut
            if not any(card.has_focus for card in grid.cards) and not self.app.screen.is_modal:
                grid.select(0)
        self.painted = item
        self._draw_said()
        self.refresh_bindings()

    def _nothing(self) -> Content:
        first = "Nothing waits for review." if self.desk is not None else "Opening the workspace."
        second = "New answers appear here as they are sampled on Prompt or by training."
        return Content("\n").join([Content.styled(first, "bold"), Content.styled(second, "$text-muted")])

    def _draw_head(self, item: ReviewItem) -> None:
        many = len(self.done) + len(self.items)
        more = "+" if len(self.items) >= AHEAD else ""
        blind = (
            "" if item.kind == "single" else " · old against new, blind" if item.old_against_new else " · blind pair"
        )
        language = one_line(item.prompt.language, 12)
        left = Content.assemble(
            (f"{len(self.done) + 1} of {many}{more}", "bold"), " · ", (language, "bold $accent"),
            (f"{use_of(item.prompt)}{blind} · why: {one_line(item.reason)}", "$text-muted"),
        )  # fmt: skip
        pace = f"pace {sum(self.pace) / len(self.pace):.1f} s" if self.pace else ""
        line = self.query_one("#item", Static)
        gap = line.size.width - left.cell_length - len(pace)
        line.update(left if gap < 2 else Content.assemble(left, " " * gap, (pace, "$text-muted")))
        self.query_one("#asked", Static).update(Content.styled(safe_text(item.prompt.text), "bold"))

    def _draw_said(self) -> None:
        most = max((n for _, n in self.counts), default=0)
        parts = [
            Content.assemble((f"{one_line(language, 8)} ", "$text-muted"), (bar(n, most, 5), "$primary"),
                             (f" {n}", "$text-muted"))
            for language, n in self.counts
        ]  # fmt: skip
        room = self.query_one("#said").size.width - self.said.cell_length - 3
        shown: list[Content] = []
        for part in parts:
            room -= part.cell_length + 2
            if room < 0:
                break
            shown.append(part)
        bars = Content("  ").join(shown)
        gap = self.query_one("#said").size.width - self.said.cell_length - bars.cell_length
        self.query_one("#said", Static).update(Content.assemble(self.said, " " * max(2, gap), bars))

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def say(self, line: Content) -> None:
        self.said = line
        self._draw_said()

    # Judging

    @property
    def item(self) -> ReviewItem | None:
        return self.items[0] if self.items else None

    @property
    def sample(self) -> Sample | None:
        """The answer that a score, a label, an edit or a note is about: the one shown, or the pair's one in focus."""
        if self.item is None:
            return None
        current = self.query_one(AnswerGrid).current
        return self.item.shown[min(current, len(self.item.shown) - 1)]

    def circumstances(self) -> dict[str, Any]:
        took: dict[str, Any] = {"duration_ms": round(1000 * (time.monotonic() - self.shown_at))}
        return took if self.item is None else took | {"slice": self.item.slice}

    async def judge(
        self,
        write: Callable[[Desk], Awaitable[object]],
        words: str,
        failed: Callable[[WorkbenchError], None] | None = None,
    ) -> None:
        """Write what is said of the item in front; the next one comes when it is stored, and not before."""
        item = self.item
        if item is None:
            return

        def stored(_: object) -> None:
            if item in self.items:
                self.pace.append(time.monotonic() - self.shown_at)
                self.items.remove(item)
                self.done.append(item)
                self.shown_at = time.monotonic()
            self.saved(words)
            self.call_later(self.draw)

        await self.record(write, words, stored, failed)

    async def action_label(self, good: bool) -> None:
        await (self.action_good() if good else self.action_bad())

    async def action_choose(self, choice: str) -> None:
        """`a` and `b` are the left and the right answer as shown; stored by what they are."""
        item = self.item
        if item is None:
            return
        swapped = item.shown_order == "ba" and choice in ("a", "b")
        meant = Choice({"a": "b", "b": "a"}[choice] if swapped else choice)
        a, b = item.samples
        more = {"shown_order": item.shown_order, "blind": True, **self.circumstances()}
        await self.judge(lambda desk: desk.pair(a, b, meant, **more), _WORDS[choice])

    def action_next(self) -> None:
        self.query_one(AnswerGrid).step(1)

    def action_previous(self) -> None:
        self.query_one(AnswerGrid).step(-1)

    def action_prompt(self) -> None:
        if self.item is not None:
            self.app.push_screen(PromptSheet(self.item.prompt))

    async def action_skip(self) -> None:
        await self._pass_over(False, "skipped")

    async def action_cannot_judge(self) -> None:
        await self._pass_over(True, "not yours to judge")

    async def _pass_over(self, cannot_judge: bool, words: str) -> None:
        item = self.item
        if item is None:
            return
        first, *rest = item.samples
        more: dict[str, Any] = dict(self.circumstances())
        if rest:
            more |= {"other_sample_id": rest[0].id, "shown_order": item.shown_order}
        await self.judge(lambda desk: desk.skip(first, cannot_judge=cannot_judge, **more), words)

    def turned(self, rating: Rating, words: str) -> None:
        """The judged item comes back to the front, or leaves it again."""
        about = {rating.sample_id, rating.other_sample_id} - {None}
        if words.endswith("taken back") and self.done and set(_ids(self.done[-1])) == about:
            self.items.appendleft(self.done.pop())
        elif words.endswith("brought back") and self.items and set(_ids(self.items[0])) == about:
            self.done.append(self.items.popleft())
        self.shown_at = time.monotonic()
        super().turned(rating, words)
        self.call_later(self.draw)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "choose" | "next" | "previous":
                return self.item is not None and self.item.kind == "pair"
            case "score" | "label" | "edit":
                return self.item is not None and self.item.kind == "single"
            case "prompt":
                return self.item is not None and is_cut(self.query_one("#asked", Static))
            case "skip" | "cannot_judge" | "tell":
                return self.item is not None
        return True


def _cards(item: ReviewItem) -> list[CardFacts]:
    names = ("left", "right") if item.kind == "pair" else ("answer",)
    return [
        card_of(name, sample.text, item.prompt.language, tokens=None if sample.token_ids is None else
                len(sample.token_ids))
        for name, sample in zip(names, item.shown, strict=True)
    ]  # fmt: skip


def _ids(item: ReviewItem) -> tuple[str, ...]:
    return tuple(sample.id for sample in item.samples)
