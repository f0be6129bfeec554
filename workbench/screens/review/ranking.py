"""A ranking while it is being typed: letters in their order, the best first, `=` between equals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from storage.errors import WorkbenchError

if TYPE_CHECKING:
    from storage.feedback.queue import ReviewItem
    from workbench.desk import Desk
    from workbench.screens.review.pile import Pile

LETTERS = "abcd"


class Order(msgspec.Struct, frozen=True):
    """Tiers of letters, the best first; `equal` has the next letter join the last tier."""

    tiers: tuple[str, ...] = ()
    equal: bool = False

    @property
    def placed(self) -> str:
        return "".join(self.tiers)

    def put(self, letter: str) -> Order:
        """With another letter; one that is placed already stays where it is."""
        if letter in self.placed:
            return self
        if self.equal:
            return Order((*self.tiers[:-1], self.tiers[-1] + letter))
        return Order((*self.tiers, letter))

    def level(self) -> Order:
        """The next letter is as good as the last one."""
        return Order(self.tiers, bool(self.tiers))

    def without_last(self) -> Order:
        """Without the sign that was typed last."""
        if self.equal or not self.tiers:
            return Order(self.tiers)
        *before, last = self.tiers
        return Order((*before, last[:-1]), True) if len(last) > 1 else Order(tuple(before))

    @property
    def words(self) -> str:
        """As it was typed: `b > a = c`."""
        return " > ".join(" = ".join(tier) for tier in self.tiers) + (" =" if self.equal else "")


class Ranks:
    """A screen on which the answers of an item are ranked."""

    pile: Pile

    if TYPE_CHECKING:

        @property
        def item(self) -> ReviewItem | None: ...
        def circumstances(self) -> dict[str, Any]: ...
        def _draw_fields(self) -> None: ...
        async def judge(
            self,
            write: Callable[[Desk], Awaitable[object]],
            words: str,
            failed: Callable[[WorkbenchError], None] | None = None,
        ) -> None: ...

    async def action_rank(self, letter: str) -> None:
        """Put an answer behind those that were typed; the last one completes the ranking."""
        item = self.item
        if item is None:
            return
        self.pile.order = order = self.pile.order.put(letter)
        if len(order.placed) < len(item.samples):
            self._draw_fields()
            return
        keys = [sample.id for sample in item.shown]
        tiers = [[keys[LETTERS.index(one)] for one in tier] for tier in order.tiers]
        more = self.circumstances()
        await self.judge(lambda desk: desk.rank(tiers, keys, **more), order.words, lambda _: self.action_unrank())

    def action_rank_equal(self) -> None:
        self.pile.order = self.pile.order.level()
        self._draw_fields()

    def action_unrank(self) -> None:
        self.pile.order = self.pile.order.without_last()
        self._draw_fields()

    async def action_none_good(self) -> None:
        if (item := self.item) is not None:
            more = self.circumstances()
            await self.judge(lambda desk: desk.reject([one.id for one in item.shown], **more), "none acceptable")
