"""A ranking while it is being typed: letters in their order, the best first, `=` between equals."""

from __future__ import annotations

import msgspec

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
