"""What counts today: the one definition, of events alone, in any order and whatever a clock said.

An *act* is what a person did with one key: a single rating, or the ratings of one gesture.

1. An undo takes back the whole act of the event that it names, until the undo is redone.
2. A rating that is not taken back replaces the event that it supersedes, the one which that superseded, and so on down
   the line, taken back or not.
3. A rating of a gesture replaces whole every gesture that it meets down its line.
4. What is neither taken back nor replaced counts.

The table `counted` holds the result; storage/feedback/log.py keeps it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from storage.feedback.kinds import TURNS, RatingKind


class Link(NamedTuple):
    """What counting needs to know of an event."""

    id: str
    kind: str
    supersedes: str | None = None
    gesture: str | None = None


def counted(events: Iterable[Link]) -> set[str]:
    """The keys of the ratings that count, of all the events (or of a family of them, see the log)."""
    by_id = {event.id: event for event in events}
    members: dict[str, list[str]] = defaultdict(list)
    for event in by_id.values():
        if event.gesture is not None:
            members[event.gesture].append(event.id)

    def act(key: str) -> list[str]:
        event = by_id.get(key)
        return [key] if event is None or event.gesture is None else members[event.gesture]

    ratings = [event for event in by_id.values() if event.kind not in TURNS]
    redone = {event.supersedes for event in by_id.values() if event.kind == RatingKind.REDO}
    taken_back = {
        key
        for event in by_id.values()
        if event.kind == RatingKind.UNDO and event.id not in redone and event.supersedes is not None
        for key in act(event.supersedes)
    }
    standing = [event for event in ratings if event.id not in taken_back]
    replaced = _replaced((event for event in standing if event.gesture is not None), by_id, act)
    replaced |= _replaced((event for event in standing if event.gesture is None), by_id, lambda key: [key])
    return {event.id for event in standing} - replaced


def _replaced(standing: Iterable[Link], by_id: dict[str, Link], reach: Callable[[str], list[str]]) -> set[str]:
    """What these replace down their lines, where to meet an event is to replace all that `reach` tells of it."""
    met: set[str] = set()
    replaced: set[str] = set()
    for event in standing:
        earlier = event.supersedes
        while earlier is not None and earlier not in met:
            met.add(earlier)
            replaced.update(reach(earlier))
            earlier = by_id[earlier].supersedes if earlier in by_id else None
    return replaced
