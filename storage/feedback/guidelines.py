"""What raters are asked of an answer: on which scale, of which attributes, by which rules. Each such question is a
*guideline* with a version, which every rating given under it names; what each version asked can be read for ever.

The question that a workspace begins with (1 to 5, overall) has no version: its ratings name none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from storage import clock

if TYPE_CHECKING:
    from storage.database import Database

OVERALL = "overall"
MOST_LEVELS = 10  # each has a digit of its own
_KEPT = "guidelines"
_SCALE = re.compile(r"\s*(-?\d+)\s*(?:-|\.\.|–|to)\s*(-?\d+)\s*(?::(.*))?", re.DOTALL)


class Scale(msgspec.Struct, frozen=True):
    """Whole numbers from `low`, the worst, to `high`, the best; `anchors` says what each means, from the lowest on."""

    low: int = 1
    high: int = 5
    anchors: tuple[str, ...] = ()

    @property
    def levels(self) -> range:
        """All values, the lowest first."""
        return range(self.low, self.high + 1)

    def key_of(self, value: int) -> int:
        """The digit that gives a value: itself where all are digits, 0 for a 10 that is the highest, else its place."""
        if self.low >= 0 and self.high <= 9:
            return value
        return (value - self.low + 1) % 10

    def value_of(self, digit: int) -> int | None:
        """The value that a digit gives; None where it gives none."""
        return next((value for value in self.levels if self.key_of(value) == digit), None)

    def anchor(self, value: int) -> str:
        """What a value means; empty where that is not said."""
        place = value - self.low
        return self.anchors[place] if 0 <= place < len(self.anchors) else ""

    @property
    def written(self) -> str:
        """The scale as it is typed."""
        ends = f"{self.low}-{self.high}" if self.low >= 0 else f"{self.low}..{self.high}"
        return f"{ends}: {', '.join(self.anchors)}" if self.anchors else ends


class Attribute(msgspec.Struct, frozen=True):
    """One thing that an answer is judged by; an item is done when all `required` ones are said."""

    name: str = OVERALL
    required: bool = True


class Guideline(msgspec.Struct, frozen=True):
    """What is asked of each item: of every attribute on the scale, by the rules in `text`."""

    scale: Scale = Scale()
    attributes: tuple[Attribute, ...] = (Attribute(),)
    text: str = ""

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the attributes without which an item is not done."""
        return tuple(one.name for one in self.attributes if one.required)


class Version(msgspec.Struct, frozen=True):
    """A guideline as it was asked from a moment on."""

    name: str
    guideline: Guideline
    since: str


def scale(text: str) -> Scale:
    """A scale as it is typed: `1-5`, `0-3: useless, weak, good, perfect`, `-2..2`. Raises ValueError."""
    found = _SCALE.fullmatch(text)
    if found is None:
        raise ValueError("want two whole numbers, such as 1-5 or -2..2, and words after a colon")
    low, high = int(found[1]), int(found[2])
    if not 1 <= high - low < MOST_LEVELS:
        raise ValueError(f"want 2 to {MOST_LEVELS} values, one for each digit")
    words = tuple(word.strip() for word in (found[3] or "").split(",")) if found[3] else ()
    if words and (len(words) != high - low + 1 or not all(words)):
        raise ValueError(f"want a word for each of the {high - low + 1} values, or none at all")
    return Scale(low, high, words)


def attributes(text: str) -> tuple[Attribute, ...]:
    """Attributes as they are typed: `helpful, harmless, fluent?`; `?` marks what may be left out. Raises ValueError.

    `overall` is always among them, at the end where it is not named: it is what is trained on first.
    """
    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name = " ".join(word.removesuffix("?").split()).lower()
        if not name or not all(letter.isalnum() or letter in " -_" for letter in name):
            raise ValueError(f"want names of letters, such as helpful or culturally fitting, not {word!r}")
        found.append(Attribute(name, not word.endswith("?")))
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise ValueError("each may be named once")
    if Attribute(OVERALL, required=False) in found:
        raise ValueError("overall cannot be left out: the others are measured against it")
    return tuple(found) if OVERALL in names else (*found, Attribute())


def written(asked: tuple[Attribute, ...]) -> str:
    """Attributes as they are typed."""
    return ", ".join(one.name + "?" * (not one.required) for one in asked)


def versions(database: Database) -> list[Version]:
    """All guidelines that ratings may name, oldest first."""
    from storage import settings

    return msgspec.convert(settings.get(database, _KEPT, []), list[Version])


def version_of(database: Database, guideline: Guideline) -> str:
    """The version of a guideline: a new one where it was never asked before; empty for the one of the beginning."""
    from storage import settings

    if guideline == Guideline():
        return ""
    with database.transaction():
        known = versions(database)
        found = next((one.name for one in known if one.guideline == guideline), None)
        if found is None:
            found = f"g{len(known) + 1}"
            settings.put(database, _KEPT, msgspec.to_builtins([*known, Version(found, guideline, clock.now())]))
        return found
