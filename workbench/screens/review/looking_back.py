"""What Review does with what was judged: take it back, bring it back, look at it again and change it, sum it up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual.content import Content

from storage.errors import WorkbenchError
from storage.feedback import progress, revisiting
from storage.feedback.revisiting import Revisited
from workbench.screens.review.pile import Pile, ids
from workbench.shell.screen import WorkbenchScreen
from workbench.shell.session import shares_of
from workbench.widgets.judging import Rater

if TYPE_CHECKING:
    from storage.records import Rating
    from workbench.desk import Desk

NEWEST = 2**62  # no event of the log has a higher sequence


class LooksBack(Rater, WorkbenchScreen):
    """A screen with a pile of items, of which those that were judged can be seen again."""

    pile: Pile
    began: int | None
    turning: Revisited | None = None

    def begin_item(self) -> None:
        """Another item is in front."""
        raise NotImplementedError

    def begin_session(self, began: int | None = None) -> None:
        """Nothing was judged yet."""
        raise NotImplementedError

    async def _turn(self, change: Callable[[Desk], Awaitable[Rating | None]], done: str, nothing: str) -> None:
        async def whole(desk: Desk) -> Rating | None:
            rating = await change(desk)
            self.turning = None
            if rating is not None:
                try:
                    self.turning = await desk.read(revisiting.again, desk.rater, rating)
                except WorkbenchError as error:  # what was taken back is; its item cannot be read now
                    self.workbench.report(error)
            return rating

        await super()._turn(whole, done, nothing)

    def turned(self, rating: Rating, words: str) -> None:
        """The item of what was taken back comes to the front; one that is judged again leaves it."""
        if self.turning is not None:
            self.pile.turn(self.turning)
            self.begin_item()
        super().turned(rating, words)
        self.call_later(self.draw)

    async def action_back(self) -> None:
        """Show the item that was judged before the one on screen, with what was said of it."""
        pile = self.pile
        seen = {ids(one.item) for one in pile.visits}
        last = pile.visits[-1].sequence if pile.visits else NEWEST
        found = await self.attempt(lambda desk: desk.read(revisiting.before, desk.rater, last, seen))
        if found is None:
            self.say(Content.styled("nothing was judged before", "$text-muted"))
            return
        pile.visit(found)
        self.begin_item()
        self.say(Content(""))
        await self.draw()

    async def action_forward(self) -> None:
        """Go back towards the item that waits."""
        self.pile.return_()
        self.begin_item()
        self.say(Content(""))
        await self.draw()

    async def action_session(self) -> None:
        """Sum up the session, and end it where that is wanted."""
        from workbench.screens.review.summary import SessionSheet

        began = self.began
        if began is None:
            return
        found = await self.attempt(lambda desk: desk.read(progress.since, desk.rater, began))

        def closed(anew: bool | None) -> None:
            if anew:
                self.begin_session()
                self.say(Content(""))
                self.look_again()

        if found is not None:
            session = self.workbench.session
            self.app.push_screen(SessionSheet(found, session.goal, shares_of(session.shares)), closed)
