"""Modules that are imported when they are first used, so that what a method declares is read without torch.

    if TYPE_CHECKING:
        import torch
    else:
        torch = lazily("torch")

What such a module offers can be used inside functions as ever; a base class, a decorator or a default value would
import it at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"lazily({self._name!r})"


def lazily(name: str) -> Any:
    """The module of this name, imported with the first thing that is asked of it."""
    return _Later(name)
