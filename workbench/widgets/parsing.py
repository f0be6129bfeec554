"""Parsers for the fields of a form: each takes what was typed, and raises ValueError with what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds."""
    return _within(int, "a whole number", low, high, f"want {low} to {high}")


def number(low: float, high: float) -> Callable[[str], float]:
    """A number within bounds."""
    return _within(float, "a number", low, high, f"want {low:g} to {high:g}")


def _within(
    read: Callable[[str], Number], what: str, low: Number, high: Number, wanted: str
) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            value = read(text)
        except ValueError:
            raise ValueError(f"want {what}, not {text or 'nothing'}") from None
        if not low <= value <= high:
            raise ValueError(wanted)
        return value

    return parse


def one_of(*names: str) -> Callable[[str], str]:
    """One of these words, in any case."""

    def parse(text: str) -> str:
        if text.strip().lower() not in names:
            raise ValueError(f"want one of {', '.join(names)}")
        return text.strip().lower()

    return parse
