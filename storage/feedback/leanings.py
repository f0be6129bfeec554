"""What is said in each language, by whom: how often that an answer is good, that the one at the left is better, or the
longer one. People, simulated raters, judge models and imported ratings each stand by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from storage.feedback.agreement import value_of
from storage.feedback.habits import Share, left_preferred, longer_preferred, unbiased
from storage.feedback.kinds import RatingKind

GOOD, ABOVE, LEFT, LONGER = "labelled good", "scored above the middle", "left preferred", "longer preferred"


class Leaning(msgspec.Struct, frozen=True):
    """How often something was said in a language (None is all).

    Attributes:
        what: one of :data:`GOOD`, :data:`ABOVE` (of the scale), :data:`LEFT`, :data:`LONGER`.
        ratings: how many of that kind there are; `share` is of those that tell, such as decided pairs.
        of: "random", where enough came from the random slice of the queue, else "everything".
    """

    language: str | None
    kind: str
    source: str
    what: str
    share: Share
    ratings: int
    of: str


def leanings(rows: Iterable[dict[str, Any]]) -> list[Leaning]:
    """Of ratings as `habits.newest` reads them, by language, kind and source; those of all languages stand first."""
    groups: dict[tuple[str | None, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        for language in (None, row["language"]):
            groups.setdefault((language, row["kind"], row["source"]), []).append(row)
    found = []
    for (language, kind, source), own in sorted(groups.items(), key=lambda one: (one[0][0] or "", *one[0][1:])):
        told, of = unbiased(own)
        found += [Leaning(language, kind, source, what, share, len(own), of) for what, share in _shares(kind, told)]
    return found


def _shares(kind: str, rows: list[dict[str, Any]]) -> list[tuple[str, Share]]:
    match kind:
        case RatingKind.LABEL:
            return [(GOOD, Share.of(sum(value_of(row) > 0.5 for row in rows), len(rows)))]
        case RatingKind.SCORE:
            return [(ABOVE, Share.of(sum(value_of(row) > 0.5 for row in rows), len(rows)))]
        case RatingKind.PAIR:
            return [(LEFT, left_preferred(rows)), (LONGER, longer_preferred(rows))]
        case _:
            return []
