"""What an action is, and the groups of them that several screens share."""

from __future__ import annotations

from dataclasses import dataclass

from storage.feedback.kinds import KINDS
from storage.feedback.tag_sheet import FLAWS, HARMS, SEVERITIES

UNDO = "Take back your latest rating in this app, then those from before it was opened"
REDO = "Bring back the rating that the latest undo took away"


@dataclass(frozen=True)
class Action:
    """Something a person can do. `keys` are Textual key names; the first is the one shown.

    The order of the registry is that of importance: a narrow footer drops the last ones first.
    `when` names the situation in which the keys mean this (two actions may share a key in different situations);
    `sheet` is the name of a sheet of choices: while it is open, its actions are all that the screen does.
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
    sheet: str = ""

    @property
    def method(self) -> str:
        return self.call or self.id.split(".", 1)[1].replace("-", "_")


def on(screen: str, name: str, keys: str, label: str, help: str, **more: object) -> Action:  # noqa: A002
    """An action of a screen; `keys` are separated by spaces."""
    return Action(f"{screen}.{name}", tuple(keys.split()), label, help, screen, **more)  # type: ignore[arg-type]


def scores(screen: str, when: str) -> tuple[Action, ...]:
    """Digits score the answer, those that the scale has."""
    words = "Score the answer on the scale that is set"
    return tuple(on(screen, f"score-{n}", str(n), "score", words, when=when, call=f"score({n})") for n in range(10))


def tags(screen: str, when: str) -> tuple[Action, ...]:
    """The sheet of tags: opened by a key, each tag by one, its severity by a digit."""

    def tag(key: str, name: str, kind: str) -> Action:
        words = f"Tag the answer with {kind} ({name}), or take that off again"
        return on(screen, f"tag-{name.replace(' ', '-')}", key, name, words, when="tags", sheet="tags",
                  call=f"tag('{key}')")  # fmt: skip

    return (
        on(screen, "tags", "t", "tags", "Open the tags of the answer, each on a key; digits say how severe", when=when),
        *(
            on(screen, f"severity-{n}", str(n), "severity", "How severe the tag put on last is: 1 slight, 2 serious, "
               "3 grave", when="tags", sheet="tags", call=f"severity({n})")
            for n in SEVERITIES
        ),
        *(tag(key, name, "a harm") for key, name in HARMS.items()),
        *(tag(key, name, "a flaw") for key, name in FLAWS.items()),
        on(screen, "store-tags", "enter ctrl+j t", "store", "Store the tags, and go back to the answer", when="tags",
           sheet="tags", stays=True),
        on(screen, "close-tags", "escape", "close", "Close the tags, and change nothing", when="tags", sheet="tags",
           call="close_sheet", stays=True),
    )  # fmt: skip


def in_words(screen: str, when: str) -> tuple[Action, ...]:
    """What can be said of an answer in words beside all else, by the registry of rating kinds."""
    return tuple(
        on(screen, kind, said.key, said.label, said.help, when=when, call=f"tell('{kind}')")
        for kind, said in ((kind, entry.asked) for kind, entry in KINDS.items())
        if said is not None
    )
