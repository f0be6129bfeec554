"""The items before a rater: those that wait, those that were judged, those that are looked at again. It knows no screen
and no workspace; what is stored is told to it afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from storage.feedback import kinds
from storage.feedback.guidelines import Guideline
from storage.feedback.revisiting import Ahead, is_done
from workbench.screens.review.ranking import Order

if TYPE_CHECKING:
    from storage.feedback.queue import ReviewItem
    from storage.feedback.revisiting import Revisited
    from storage.records import Rating

KEPT = 10  # items that are there again after a restart, in their order

Ids = frozenset[str]


def ids(item: ReviewItem) -> Ids:
    """What tells an item from others: its answers."""
    return frozenset(item.keys)


class Pile:
    """What one rater has in front. `row` is the attribute that is asked next, `order` a ranking that is being typed."""

    def __init__(self, guideline: Guideline) -> None:
        self.guideline = guideline
        self.items: deque[ReviewItem] = deque()
        self.done: list[ReviewItem] = []
        self.visits: list[Revisited] = []  # the one on screen last
        self.told: dict[Ids, list[Rating]] = {}  # what the rater says of an item
        self.row = 0
        self.order = Order()

    @property
    def item(self) -> ReviewItem | None:
        """The one in front."""
        if self.visits:
            return self.visits[-1].item
        return self.items[0] if self.items else None

    @property
    def said(self) -> Sequence[Rating]:
        """What the rater has said of the item in front."""
        return self.told.get(ids(self.item), ()) if self.item is not None else ()

    @property
    def attribute(self) -> str:
        """The name of the attribute that is asked next."""
        return self.guideline.attributes[self.row].name

    @property
    def kept(self) -> tuple[Ahead, ...]:
        """The items to begin with after a restart."""
        return tuple(Ahead(item.keys, item.reason, item.slice) for item in islice(self.items, KEPT))

    def begin(self) -> None:
        """Another item is in front: go to the first required attribute of which nothing is said yet."""
        self.order = Order()
        rows = enumerate(self.guideline.attributes)
        open_ = (n for n, one in rows if one.required and not is_done(self.said, [one.name]))
        self.row = 0 if self.visits else next(open_, 0)

    def asks(self, guideline: Guideline) -> None:
        """Something else is asked from now on."""
        if guideline != self.guideline:
            self.guideline = guideline
            self.begin()

    def resume(self, found: Iterable[Revisited]) -> None:
        """Begin with what waited when the app closed."""
        for one in found:
            self.items.append(one.item)
            self.told[ids(one.item)] = list(one.said)
        self.begin()

    def refill(
        self, fresh: Iterable[ReviewItem], judged: Sequence[ReviewItem], said: Mapping[Ids, list[Rating]]
    ) -> bool:
        """Take in what is next; what waits stays in front, and what was `judged` meanwhile does not come. Returns
        whether another item is in front now."""
        known = {ids(item) for item in (*judged, *self.items)}
        before = self.item
        self.items.extend(item for item in fresh if ids(item) not in known)
        self.told = {**said, **self.told}
        if before is None:
            self.begin()
        return self.item is not before

    def tell(self, item: ReviewItem, ratings: Sequence[Rating]) -> bool:
        """Take in what was stored of an item, in place of what that replaces. Returns whether the item is done."""
        names = {kinds.name_of(rating) for rating in ratings} - {None}
        kept = [one for one in self.told.get(ids(item), []) if kinds.name_of(one) not in names]
        self.told[ids(item)] = told = [*kept, *ratings]
        return is_done(told, self.guideline.required)

    def leave(self, item: ReviewItem) -> bool:
        """The item is done: the next one comes to the front. Returns whether it was among those that wait."""
        if item not in self.items:
            return False
        self.items.remove(item)
        self.done.append(item)
        self.begin()
        return True

    def turn(self, found: Revisited) -> None:
        """Something of an item was taken back or brought back: it comes to the front, or leaves it."""
        self.visits.clear()
        known = (one for one in (*self.done, *self.items) if ids(one) == ids(found.item))
        item = next(known, found.item)
        for place in (self.items, self.done):
            if item in place:
                place.remove(item)
        self.told[ids(item)] = list(found.said)
        if is_done(found.said, self.guideline.required):
            self.done.append(item)
        else:
            self.items.appendleft(item)
        self.begin()

    def visit(self, found: Revisited) -> None:
        """Look at a judged item again."""
        self.visits.append(found)
        self.told[ids(found.item)] = list(found.said)
        self.begin()

    def return_(self) -> None:
        """Go from the item that is looked at again to the one after it, and at last to the one that waits."""
        self.visits.pop()
        self.begin()
