"""What the review queue is mixed of: its slices, each with a share of what a rater is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from storage import settings
from storage.database import Database
from storage.errors import UsageError

# Slice: what an item of it is for. The order settles which comes first where shares are alike.
SLICES = {
    "acquisition": "teaches the reward model most",
    "random": "drawn at random: what unbiased figures are of",
    "versions": "measures an older version against a newer one",
    "overlap": "judged by others: measures how far raters agree",
    "gold": "its right judgement is known: measures the rater",
    "repeat": "judged by you before: measures how far you agree with yourself",
}
USUAL: dict[str, float] = {"acquisition": 50, "random": 10, "versions": 20, "overlap": 10, "gold": 5, "repeat": 5}
_KEY = "queue_mix"
_CYCLE = 100  # items after which the mix begins anew


class Mix(msgspec.Struct, frozen=True):
    """Shares of the slices, in any unit; a slice that has nothing to ask leaves its share to the others."""

    shares: dict[str, float] = msgspec.field(default_factory=lambda: dict(USUAL))

    @classmethod
    def read(cls, text: str) -> Mix:
        """A mix as it is typed: `acquisition=5,random=1`. What is not named has no share.

        Raises:
            UsageError: there is no such slice, a share is no number of 0 or more, or all are 0.
        """
        shares: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, share = (piece.strip() for piece in part.partition("="))
            try:
                shares[name] = float(share)
            except ValueError:
                raise UsageError(f"{part!r} is no share of a slice", "write it as random=10") from None
        return cls.of(shares)

    @classmethod
    def of(cls, shares: Mapping[str, float]) -> Mix:
        """A mix of these shares. Raises UsageError as :meth:`read`."""
        if unknown := [name for name in shares if name not in SLICES]:
            raise UsageError(f"the queue has no slice {unknown[0]!r}", f"the slices are: {', '.join(SLICES)}")
        if not all(0 <= share < float("inf") for share in shares.values()) or not sum(shares.values()):
            raise UsageError(
                "shares are numbers of 0 or more, not all of them 0", "for example: acquisition=5,random=1"
            )
        return cls({name: shares.get(name, 0.0) for name in SLICES})

    @property
    def written(self) -> str:
        """As it is typed."""
        return ",".join(f"{name}={share:g}" for name, share in self.shares.items() if share)

    def turns(self, start: int) -> Iterator[str]:
        """The slice of each item, for ever, after `start` items: each comes as evenly as its share allows. Whether
        training helped is asked first."""
        whole = sum(self.shares.values())
        cycle: list[str] = []
        given = dict.fromkeys(self.shares, 0)
        for place in range(_CYCLE):
            due = {name: share / whole * (place + 1) - given[name] for name, share in self.shares.items() if share}
            name = max(due, key=due.__getitem__)
            given[name] += 1
            cycle.append(name)
        place = (start + (cycle.index("versions") if "versions" in cycle else 0)) % _CYCLE
        while True:
            yield cycle[place]
            place = (place + 1) % _CYCLE


def load(database: Database) -> Mix:
    """The mix of this workspace."""
    try:
        return Mix.of(settings.get(database, _KEY, USUAL))
    except (UsageError, TypeError, AttributeError):
        return Mix()


def save(database: Database, mix: Mix) -> None:
    """Let this be the mix of the workspace."""
    settings.put(database, _KEY, mix.shares)
