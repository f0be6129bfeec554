"""Parsers for the fields of a form: each takes what was typed, and raises ValueError with what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"want a whole number, not {text or 'nothing'}") from None
        if not low <= value <= high:
            raise ValueError(f"want {low} to {high}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """A number within bounds."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"want a number, not {text or 'nothing'}") from None
        if not low <= value <= high:
            raise ValueError(f"want {low:g} to {high:g}")
        return value

    return parse


def one_of(*names: str) -> Callable[[str], str]:
    """One of these words, in any case."""

    def parse(text: str) -> str:
        if text.strip().lower() not in names:
            raise ValueError(f"want one of {', '.join(names)}")
        return text.strip().lower()

    return parse
