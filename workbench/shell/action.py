"""What an action is, and the groups of them that several screens share."""

from __future__ import annotations

from dataclasses import dataclass

from storage.feedback.kinds import KINDS

UNDO = "Take back your latest rating in this app, then those from before it was opened"
REDO = "Bring back the rating that the latest undo took away"


@dataclass(frozen=True)
class Action:
    """Something a person can do. `keys` are Textual key names; the first is the one shown.

    The order of the registry is that of importance: a narrow footer drops the last ones first.
    `when` names the situation in which the keys mean this (two actions may share a key in different situations);
    `call` is the Textual action, by default the part of `id` after the dot.
    """

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    screen: str
    when: str = ""
    call: str = ""
    short: str = ""  # the label where there is little room
    shown: bool = True  # in the footer
    stays: bool = False  # in the footer, at its end, however narrow it is
    priority: bool = False  # before the widget in focus sees the key

    @property
    def method(self) -> str:
        return self.call or self.id.split(".", 1)[1].replace("-", "_")


def on(screen: str, name: str, keys: str, label: str, help: str, **more: object) -> Action:  # noqa: A002
    """An action of a screen; `keys` are separated by spaces."""
    return Action(f"{screen}.{name}", tuple(keys.split()), label, help, screen, **more)  # type: ignore[arg-type]


def scores(screen: str, when: str) -> tuple[Action, ...]:
    """1 to 5 score the answer."""
    words = "Score the answer, 1 worst and 5 best"
    return tuple(on(screen, f"score-{n}", str(n), "score", words, when=when, call=f"score({n})") for n in range(1, 6))


def in_words(screen: str, when: str) -> tuple[Action, ...]:
    """What can be said of an answer in words beside all else, by the registry of rating kinds."""
    return tuple(
        on(screen, kind, said.key, said.label, said.help, when=when, call=f"tell('{kind}')")
        for kind, said in ((kind, entry.asked) for kind, entry in KINDS.items())
        if said is not None
    )
