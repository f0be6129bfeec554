"""The screens: a folder each, with its widgets, its keys and its style sheet. Here they are listed, one line a screen.

A folder NAME holds `screen.py` with a class NameScreen, `actions.py` with its ACTIONS, and `style.tcss`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """A numbered screen: its folder, its title, the number of its key, and what one does there. Imported when it is
    first shown."""

    name: str
    title: str
    number: int
    purpose: str

    def open(self, chosen_keys: dict[str, tuple[str, ...]]) -> Any:
        """The screen itself, with the keys that a person has chosen."""
        return getattr(self._module("screen"), f"{self.name.title()}Screen")(chosen_keys)

    def actions(self) -> tuple[Any, ...]:
        """What can be done on it; without Textual."""
        return self._module("actions").ACTIONS

    def _module(self, part: str) -> Any:
        return importlib.import_module(f"workbench.screens.{self.name}.{part}")


PLACES = (
    Place("prompt", "Prompt", 1, "ask; the answers appear side by side"),
    Place("review", "Review", 2, "rate them, one or a blind pair at a time"),
    Place("train", "Train", 3, "learn from the ratings, in the background"),
    Place("insight", "Insight", 4, "read what it all comes to: gains, agreement, balance"),
    Place("library", "Library", 5, "look through it all; import, export, prompt packs"),
    Place("versions", "Versions", 6, "publish, compare, go back"),
)
"""In the order of their numbers. The first is where a person begins."""
