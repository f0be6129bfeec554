"""Counts in words, as every sentence that holds one says them."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts: `1 rating was`, `2 ratings were` (`counted(n, "rating was", "ratings were")`).

    Args:
        many: what stands after any other number than 1; by default, `one` with an s.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
