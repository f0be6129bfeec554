"""Formats of files, one a module. A module of this folder with a `FORMAT` is read and written: nothing lists them."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import PurePath

from storage.exchange.format import Format

COMPRESSED = ".gz"
_USUAL = ".csv"  # what a file is read as that no format recognises


@cache
def every() -> tuple[Format, ...]:
    """All formats, in the order of their modules' names."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return tuple(module.FORMAT for module in modules)


def by_name(file: str) -> Format | None:
    """The format that the ending of a file's name tells, `.gz` aside; None where it tells none."""
    path = PurePath(file.lower())
    ending = PurePath(path.stem).suffix if path.suffix == COMPRESSED else path.suffix
    return next((one for one in every() if ending and ending in one.endings), None)


def by_content(line: bytes) -> Format:
    """The format that the first line of a file shows; CSV where none knows it."""
    found = next((one for one in every() if one.recognises(line)), None)
    return found or next(one for one in every() if _USUAL in one.endings)


def endings() -> list[str]:
    """The ending that each format is known by."""
    return [one.endings[0] for one in every()]
