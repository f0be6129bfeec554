"""Review: one answer, one blind pair or one ranking at a time, judged by a key."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.feedback import progress, revisiting
from storage.feedback.progress import Progress
from storage.feedback.tag_sheet import REASONS
from storage.records import Choice
from workbench.screens.review import drawing
from workbench.screens.review.ahead import ENOUGH, Ahead
from workbench.screens.review.choosing import ChoosesWork
from workbench.screens.review.looking_back import LooksBack
from workbench.screens.review.pile import Pile, ids
from workbench.screens.review.ranking import Order, Ranks
from workbench.shell.actions import spoken
from workbench.shell.left import Reviewing
from workbench.shell.messages import AnswersChanged, EngineMoved, News, RatingsChanged, SessionChanged, VersionsChanged
from workbench.shell.screen import present, put
from workbench.shell.session import shares_of
from workbench.text import safe_text
from workbench.widgets.answers import AnswerGrid
from workbench.widgets.reading import PromptSheet, is_cut
from workbench.widgets.sheets import Sheet
from workbench.widgets.turns import TurnsBefore

if TYPE_CHECKING:
    from storage.feedback.queue import ReviewItem
    from storage.records import Rating, Sample
    from workbench.desk import Desk

AHEAD = 40  # items read at a time
LOW = 5  # read more when fewer are left; `ENOUGH` where the queue had no more, as the engine may have answered since
_WORDS = {"a": "left is better", "b": "right is better", "tie": "tie", "both-bad": "both bad"}


class Spread(Static):
    """A line that reaches from edge to edge: it is drawn anew when it has another width."""

    def on_resize(self) -> None:
        screen = self.screen
        if isinstance(screen, ReviewScreen):
            screen.call_later(screen.draw)


class ReviewScreen(ChoosesWork, Ranks, LooksBack):
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
        yield Static(id="fields", classes="absent", markup=False)
        yield Sheet()
        yield Spread(id="said", markup=False)

    def on_mount(self) -> None:
        self.painted: ReviewItem | None = None
        self.counts: list[tuple[str, int]] = []
        self.markdown = False
        self.said = Content("")
        self.rater = ""
        self.left_at: float | None = None
        self.ahead = Ahead(self.workbench)
        self.begin_session()

    def begin_session(self, began: int | None = None) -> None:
        self.pile = Pile(self.asked)
        self.settled_before = 0  # items of this session, before this app was opened
        self.progress = Progress()
        self.more = True  # whether the queue may hold more than was read of it
        self.began = began  # where the log ended when the session began; None until items are asked for
        self.begin_item()

    def begin_item(self) -> None:
        self.shown_at = time.monotonic()

    @property
    def items(self) -> deque[ReviewItem]:
        """Those that wait, the one in front first."""
        return self.pile.items

    @property
    def done(self) -> list[ReviewItem]:
        """Those that were judged since the app was opened."""
        return self.pile.done

    @property
    def item(self) -> ReviewItem | None:
        return self.pile.item

    # Reading

    async def reload(self) -> None:
        """Refill the pile when it runs low, draw the item in front, and then count."""
        desk = self.desk
        if desk is None:
            return
        if self.rater != desk.rater:
            self.rater = desk.rater
            await self._resume(desk)
        if len(self.items) < (LOW if self.more else ENOUGH):
            pile, known = self.pile, len(self.done)
            fresh, self.began = await desk.next_items(AHEAD, self.began, self.workbench.session.rankings)
            self.more = len(fresh) >= AHEAD
            said = {}
            if len(self.asked.attributes) > 1:
                found = await desk.read(revisiting.with_said, desk.rater, fresh)
                said = {ids(one.item): list(one.said) for one in found if one.said}
            if pile.refill(fresh, pile.done[known:], said):
                self.begin_item()
            await self.draw()
        self.counts = await desk.rated_by_language()
        if self.began is not None:
            before, self.progress = self.progress, await desk.read(progress.since, desk.rater, self.began)
            if before.items < self.workbench.session.goal <= self.progress.items:
                self.said = Content.assemble(self.said, f"  the goal is reached: {self._key('session')} sums up")
        await self.ahead.look(ENOUGH if self.more else len(self.items))
        await self.draw()

    def on_screen_suspend(self) -> None:
        if self.workbench.base_screen is not self:  # not a dialog over it: the person is elsewhere
            self.left_at = time.monotonic()
            self.ahead.give_way()

    def on_screen_resume(self) -> None:
        if self.left_at is not None:  # what was done elsewhere is no time of judging
            self.shown_at += time.monotonic() - self.left_at
            self.left_at = None

    async def _resume(self, desk: Desk) -> None:
        """Go on with the session that this rater left, at the item that was in front."""
        left = self.workbench.reviewing
        self.begin_session(left.began if left is not None and left.rater == desk.rater else None)
        if left is None or self.began is None:
            return
        self.settled_before = (await desk.read(progress.since, desk.rater, self.began)).settled
        self.pile.resume(await desk.read(revisiting.reopened, desk.rater, left.ahead, self.asked.required))

    def hear(self, news: News) -> None:
        super().hear(news)
        if isinstance(news, EngineMoved | SessionChanged):
            self.look_again()

    # Drawing

    async def paint(self) -> None:
        self.pile.asks(self.asked)
        item = self.item
        if self.rater:  # what is there again after a restart
            self.workbench.reviewing = Reviewing(self.rater, self.began, self.pile.kept)
        present(self.query_one("#empty"), item is None)
        for name in ("#item", "#asked", "#answers"):
            present(self.query_one(name), item is not None)
        self.query_one(TurnsBefore).show(item.prompt if item is not None else None)
        grid = self.query_one(AnswerGrid)
        if item is None:
            self.query_one("#empty", Static).update(self._nothing)
            await grid.show([])
        else:
            self._draw_head(item)
            said = self.pile.said if self.pile.visits else None
            await grid.show(drawing.cards(item, said=said, markdown=self.markdown))
            if item is not self.painted:
                grid.begin()
                self.call_after_refresh(self.refresh_bindings)  # by then it is known whether the prompt is cut
            if not any(card.has_focus for card in grid.cards) and not self.app.screen.is_modal:
                grid.select(0)
        self.painted = item
        self._draw_fields()
        self._draw_said()
        self.refresh_bindings()

    @property
    def _nothing(self) -> Content:
        keys = (self._key("session"), self._key("back")) if self.progress.settled else None
        return drawing.nothing(self.ahead.words("0", False) if self.rater else "", keys)

    def _key(self, name: str) -> str:
        return spoken(self.workbench.keys[f"review.{name}"][0])

    def _draw_head(self, item: ReviewItem) -> None:
        if self.pile.visits:
            left = drawing.revisited(item, len(self.pile.visits), (self._key("back"), self._key("forward")))
        else:
            place = self.settled_before + len(self.done) + 1
            left = drawing.head(item, f"{place} of {place - 1 + len(self.items)}{'+' * self.more}")
        wait = self.ahead.words(f"{len(self.items) - 1}{'+' * self.more}", self.more)
        line = self.query_one("#item", Static)
        put(
            line,
            drawing.beside(left, [wait, *drawing.session(self.progress, self.workbench.session.goal)], line.size.width),
            layout=False,
        )
        put(self.query_one("#asked", Static), Content.styled(safe_text(item.prompt.text), "bold"))

    def _draw_fields(self) -> None:
        item, fields = self.item, self.query_one("#fields", Static)
        drawn = None
        if item is not None:
            width, short = max(20, self.size.width - 4), self.has_class("-short")
            drawn = drawing.asked(self.pile, item, width, short)
        present(fields, drawn is not None)
        put(fields, drawn or Content(""))

    def _draw_said(self) -> None:
        line = self.query_one("#said", Static)
        room = line.size.width - self.said.cell_length - 3
        shares = shares_of(self.workbench.session.shares)
        bars = drawing.standing(self.counts, shares, self.progress, room)
        gap = line.size.width - self.said.cell_length - bars.cell_length
        put(line, Content.assemble(self.said, " " * max(2, gap), bars), layout=False)

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def say(self, line: Content) -> None:
        self.said = line
        self._draw_said()

    @property
    def sample(self) -> Sample | None:
        """The answer that a score, a label, an edit or a note is about: the one shown, or the one in focus."""
        if self.item is None:
            return None
        current = self.query_one(AnswerGrid).current
        return self.item.shown[min(current, len(self.item.shown) - 1)]

    def circumstances(self) -> dict[str, Any]:
        took = round(1000 * (time.monotonic() - self.shown_at))
        more = {"duration_ms": took, "attribute": self.pile.attribute, "blind": not self.pile.visits}
        slice_ = self.item.slice if self.item is not None else ""
        # What is looked at again and changed is no repeat.
        return more | {"slice": slice_} if slice_ and not (self.pile.visits and slice_ == "repeat") else more

    async def judge(
        self,
        write: Callable[[Desk], Awaitable[object]],
        words: str,
        failed: Callable[[WorkbenchError], None] | None = None,
    ) -> None:
        """Write what is said of the item in front; the next one comes when all that is asked of this one is stored, and
        not before."""
        item = self.item
        if item is None:
            return

        def stored(result: Any) -> None:
            pile, ratings = self.pile, result if isinstance(result, list) else [result]
            done = pile.tell(item, ratings)
            self.begin_item()
            if pile.visits:
                pile.order = Order()
                self.saved(f"changed: {words}")
            elif done and pile.leave(item):
                told = drawing.versions_of(item) if drawing.is_told(ratings) else ""
                self.saved(" · ".join(filter(None, (words, told))))
            else:
                pile.begin()
                self.saved(words)
            self.call_later(self.draw)

        await self.record(write, words, stored, failed)

    def action_attribute(self, step: int) -> None:
        self.pile.row = (self.pile.row + step) % len(self.asked.attributes)
        self._draw_fields()

    async def action_choose(self, choice: str) -> None:
        """`a` and `b` are the left and the right answer as shown; stored by what they are."""
        item = self.item
        if item is None:
            return
        swapped = item.shown_order == "ba" and choice in ("a", "b")
        meant = Choice({"a": "b", "b": "a"}[choice] if swapped else choice)
        a, b = item.samples
        more = {"shown_order": item.shown_order, **self.circumstances()}
        await self.judge(lambda desk: desk.pair(a, b, meant, **more), _WORDS[choice])

    def action_next(self) -> None:
        self.query_one(AnswerGrid).step(1)

    def action_previous(self) -> None:
        self.query_one(AnswerGrid).step(-1)

    def action_prompt(self) -> None:
        if self.item is not None:
            self.app.push_screen(PromptSheet(self.item.prompt))

    def action_markdown(self) -> None:
        self.markdown = not self.markdown
        self.call_later(self.draw)

    async def action_skip(self) -> None:
        await self._pass_over("skipped")

    def action_cannot_judge(self, answers: int) -> None:
        self.open_sheet("reasons")

    async def action_reason(self, key: str) -> None:
        self.open_sheet("")
        reason = REASONS[key]
        if reason != "other":
            await self._pass_over(f"not yours to judge: {reason}", cannot_judge=True, text=reason)
        else:
            self._ask_reason()

    def _ask_reason(self) -> None:
        from workbench.widgets.dialogs import TextDialog

        item, half = self.item, self.workbench.half_written
        if item is None:
            return
        key = f"reason {' '.join(item.keys)}"

        def changed(now: str) -> None:
            half[key] = now
            if not now:
                del half[key]

        async def told(text: str | None) -> None:
            if text is None:
                half.pop(key, None)
            else:
                await self._pass_over("not yours to judge", key, cannot_judge=True, text=text)

        self.app.push_screen(TextDialog("Why it cannot be judged", half.get(key, ""), changed=changed), told)

    async def _pass_over(self, words: str, half_written: str = "", **more: Any) -> None:
        """Pass over the item in front; what was half written about it is done with once that is stored."""
        item = self.item
        if item is None:
            return
        more |= {"duration_ms": self.circumstances()["duration_ms"], "shown_order": item.shown_order}

        async def skip(desk: Desk) -> list[Rating]:
            stored = await desk.skip(item, **more)
            self.workbench.half_written.pop(half_written, None)
            return stored

        await self.judge(skip, words)

    def said_more(self, rating: Rating) -> None:
        if self.item is not None and self.item.kind == "single":
            self.pile.tell(self.item, [rating])
        super().said_more(rating)
        self.call_later(self.draw)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys mean something now: it depends on the item in front."""
        if (decided := self.in_sheet(action)) is not None:
            return decided
        kind = self.item.kind if self.item is not None else ""
        match action:
            case "choose":
                return kind == "pair"
            case "rank":
                return kind == "ranking" and self.item is not None and parameters[0] in drawing.names_of(self.item)
            case "rank_equal" | "none_good":
                return kind == "ranking"
            case "unrank":
                return kind == "ranking" and bool(self.pile.order.tiers)
            case "next" | "previous":
                return kind in ("pair", "ranking")
            case "score":
                return kind == "single" and self.scores(*parameters)
            case "good" | "bad" | "edit":
                return kind == "single"
            case "attribute":
                return bool(kind) and len(self.asked.attributes) > 1
            case "cannot_judge":
                return bool(kind) and (kind == "ranking") == (parameters == (4,))
            case "prompt":
                return bool(kind) and is_cut(self.query_one("#asked", Static))
            case "skip" | "tell" | "tags" | "markdown":
                return bool(kind)
            case "back":
                return self.desk is not None
            case "forward":
                return bool(self.pile.visits)
        return True
