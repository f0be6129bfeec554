"""The tags that the app offers, each on a key; `{"harm": "medical", "severity": 2, "bias": 1}` is how they are stored.

A harm has a severity beside it; a flaw is stored with its own. Files may name any other tags, which are kept as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

HARMS = {
    "v": "violence", "h": "hate", "k": "sexual", "f": "self-harm", "m": "medical", "l": "illegal", "p": "privacy",
    "d": "misinformation",
}  # fmt: skip
"""Harms by key; an answer has one at most."""

FLAWS = {
    "b": "bias", "c": "cultural misfit", "w": "wrong language", "r": "refusal", "o": "over-refusal", "i": "incoherent",
}  # fmt: skip
"""What else may be wrong, by key."""

SEVERITIES = {1: "slight", 2: "serious", 3: "grave"}

REASONS = {"l": "language", "d": "domain", "b": "both unclear", "o": "other"}
"""Why something cannot be judged, by key; it is stored as the rating's text."""


class Tags(msgspec.Struct, frozen=True):
    """Tags as the sheet holds them; `beside` is what it does not know, and keeps."""

    harm: str = ""
    severity: int = 1
    flaws: dict[str, int] = {}
    beside: dict[str, Any] = {}
    last: str = ""  # what a digit is the severity of

    @property
    def stored(self) -> dict[str, Any]:
        """As a rating holds them."""
        return self.beside | ({"harm": self.harm, "severity": self.severity} if self.harm else {}) | self.flaws

    @property
    def degrees(self) -> dict[str, int]:
        """The harm and the flaws with their severities."""
        return ({self.harm: self.severity} if self.harm else {}) | self.flaws

    def pressed(self, key: str) -> Tags:
        """With a tag put on, or taken off again."""
        replace = msgspec.structs.replace
        if key in HARMS:
            off = self.harm == HARMS[key]
            return replace(self, harm="" if off else HARMS[key], severity=1, last="" if off else HARMS[key])
        flaw = FLAWS[key]
        if flaw in self.flaws:
            return replace(self, flaws={name: n for name, n in self.flaws.items() if name != flaw}, last="")
        return replace(self, flaws=self.flaws | {flaw: 1}, last=flaw)

    def graded(self, severity: int) -> Tags:
        """With another severity of the tag that was put on last."""
        if self.last in self.flaws:
            return msgspec.structs.replace(self, flaws=self.flaws | {self.last: severity})
        return msgspec.structs.replace(self, severity=severity) if self.last == self.harm != "" else self


def read(stored: Mapping[str, Any]) -> Tags:
    """Stored tags as the sheet holds them."""
    harm = stored.get("harm")
    named = {"harm", "severity"} if isinstance(harm, str) and harm else set()
    flaws = {name: _degree(stored[name]) for name in FLAWS.values() if stored.get(name)}
    beside = {name: value for name, value in stored.items() if name not in named and name not in flaws}
    return Tags(str(harm) if named else "", _degree(stored.get("severity")), flaws, beside)


def words(stored: Mapping[str, Any]) -> str:
    """Tags in a few words."""
    tags = read(stored)
    named = [f"{name} {degree}" for name, degree in tags.degrees.items()]
    named += [name for name in tags.beside if name != "severity"]
    return f"tagged {', '.join(named)}" if named else "no tags"


def _degree(value: object) -> int:
    known = isinstance(value, int | float) and not isinstance(value, bool) and value in SEVERITIES
    return int(value) if known else 1  # type: ignore[call-overload]  # it is a number then
