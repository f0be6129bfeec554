"""Review: one answer or one blind pair at a time, judged by a key."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from workbench.shell.screen import WorkbenchScreen, present
from workbench.text import one_line, safe_text
from workbench.training.curves import bar
from workbench.widgets.answers import AnswerGrid, CardFacts
from workbench.widgets.judging import Rater, use_of

if TYPE_CHECKING:
    from storage.feedback.queue import ReviewItem
    from storage.records import Rating, Sample
    from workbench.desk import Store

AHEAD = 40  # items read at a time
LOW = 5  # read more when fewer are left
_WORDS = {"a": "left is better", "b": "right is better", "tie": "tie", "both-bad": "both bad"}


class ReviewScreen(Rater, WorkbenchScreen):
    """The item in focus; everything else is quiet."""

    CSS_PATH = "style.tcss"
    KEY = "review"
    AUTO_FOCUS = "AnswerCard"

    def body(self) -> ComposeResult:
        yield Static(id="item", markup=False)
        yield Static(id="asked", markup=False)
        yield Static(id="empty", markup=False)
        yield AnswerGrid(id="answers")
        yield Static(id="said", markup=False)

    def on_mount(self) -> None:
        self.items: deque[ReviewItem] = deque()
        self.done: list[ReviewItem] = []
        self.began: int | None = None  # the log's position when the first items were asked for
        self.shown_at = time.monotonic()
        self.pace: deque[float] = deque(maxlen=10)
        self.said = Content("")

    # Drawing

    async def reload(self) -> None:
        """Refill the queue when it runs low, and draw the item in front."""
        if self.store is not None and len(self.items) < LOW:
            self.refill(self.store)
        await self.draw()

    def refill(self, store: Store) -> None:
        """Read what is next; the item on screen stays in front."""
        front = self.items[0] if self.items else None
        if self.began is None:
            self.began = store.position()
        fresh = store.next_items(AHEAD, self.began)
        if front is not None:
            fresh = [front, *(item for item in fresh if _ids(item) != _ids(front))]
        else:
            self.shown_at = time.monotonic()
        self.items = deque(fresh)

    async def draw(self) -> None:
        item = self.item
        present(self.query_one("#empty"), item is None)
        for name in ("#item", "#asked", "#answers"):
            present(self.query_one(name), item is not None)
        grid = self.query_one(AnswerGrid)
        if item is None:
            self.query_one("#empty", Static).update(self._nothing())
            await grid.show([])
        else:
            self._draw_head(item)
            await grid.show(_cards(item))
            if not any(card.has_focus for card in grid.cards) and not self.app.screen.is_modal:
                grid.select(0)
        self._draw_said()
        self.refresh_bindings()

    def _nothing(self) -> Content:
        first = "Nothing waits for review." if self.store is not None else "Opening the workspace."
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
            (f"{use_of(item.prompt)}{blind} · why: {one_line(item.why)}", "$text-muted"),
        )  # fmt: skip
        pace = f"pace {sum(self.pace) / len(self.pace):.1f} s" if self.pace else ""
        line = self.query_one("#item", Static)
        gap = line.size.width - left.cell_length - len(pace)
        line.update(left if gap < 2 else Content.assemble(left, " " * gap, (pace, "$text-muted")))
        self.query_one("#asked", Static).update(Content.styled(safe_text(item.prompt.text), "bold"))

    def _draw_said(self) -> None:
        counts = self.store.rated_by_language() if self.store is not None else []
        most = max((n for _, n in counts), default=0)
        parts = [
            Content.assemble((f"{one_line(language, 8)} ", "$text-muted"), (bar(n, most, 5), "$primary"),
                             (f" {n}", "$text-muted"))
            for language, n in counts
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
        return {"duration_ms": round(1000 * (time.monotonic() - self.shown_at))}

    def saved(self, words: str) -> None:
        """Committed: on to the next item, unless it was only a note."""
        if words not in ("noted",) and not words.endswith((" taken back", " brought back")):
            self.pace.append(time.monotonic() - self.shown_at)
            self.done.append(self.items.popleft())
            self.shown_at = time.monotonic()
        super().saved(words)

    def action_choose(self, choice: str) -> None:
        """`a` and `b` are the left and the right answer as shown; stored by what they are."""
        item = self.item
        if item is None:
            return
        swapped = item.shown_order == "ba" and choice in ("a", "b")
        meant = {"a": "b", "b": "a"}[choice] if swapped else choice
        a, b = item.samples
        more = {"shown_order": item.shown_order, "blind": True, **self.circumstances()}
        self.record(lambda store: store.pair(a, b, meant, **more), _WORDS[choice])  # type: ignore[arg-type]

    def action_label(self, good: bool) -> None:
        if good:
            self.action_good()
        else:
            self.action_bad()

    def action_skip(self) -> None:
        self._pass_over(False, "skipped")

    def action_cannot_judge(self) -> None:
        self._pass_over(True, "not yours to judge")

    def _pass_over(self, cannot_judge: bool, words: str) -> None:
        item = self.item
        if item is None:
            return
        first, *rest = item.samples
        more = {"other_sample_id": rest[0].id, "shown_order": item.shown_order} if rest else {}
        self.record(lambda store: store.skip(first, cannot_judge=cannot_judge, **more, **self.circumstances()), words)

    def _turn(self, change: Any, done: str, nothing: str) -> None:
        """Undo and redo: the judged item comes back to the front, or leaves it again."""
        turned: list[Rating] = []

        def noted(store: Store) -> Rating | None:
            rating = change(store)
            if rating is not None:
                turned.append(rating)
            return rating

        super()._turn(noted, done, nothing)
        if not turned:
            return
        about = {turned[0].sample_id, turned[0].other_sample_id} - {None}
        if done == "taken back" and self.done and set(_ids(self.done[-1])) == about:
            self.items.appendleft(self.done.pop())
        elif done == "brought back" and self.items and set(_ids(self.items[0])) == about:
            self.done.append(self.items.popleft())
        self.shown_at = time.monotonic()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "choose":
                return self.item is not None and self.item.kind == "pair"
            case "score" | "label" | "edit":
                return self.item is not None and self.item.kind == "single"
            case "skip" | "cannot_judge" | "note":
                return self.item is not None
        return True


def _cards(item: ReviewItem) -> list[CardFacts]:
    names = ("left", "right") if item.kind == "pair" else ("answer",)
    return [
        CardFacts(name, sample.text, _footnote(sample, item.prompt.language))
        for name, sample in zip(names, item.shown, strict=True)
    ]


def _footnote(sample: Sample, language: str) -> str:
    """Length and language; never the version, since the judgement is blind."""
    return f"{len(sample.token_ids)} tokens · {language}" if sample.token_ids is not None else language


def _ids(item: ReviewItem) -> tuple[str, ...]:
    return tuple(sample.id for sample in item.samples)
