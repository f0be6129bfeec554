"""What a setting may be, and what it means: the bounds that most settings have."""

from __future__ import annotations

from msgspec import Meta


def positive(description: str) -> Meta:
    """A number above 0."""
    return Meta(gt=0, description=description)


def at_least(low: float, description: str) -> Meta:
    """A number of `low` or more."""
    return Meta(ge=low, description=description)
