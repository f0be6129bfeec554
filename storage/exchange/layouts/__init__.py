"""Layouts of records: what the fields of a row mean.

`entries` reads our own. A module of this folder with a `LAYOUT` reads a public one: nothing lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from storage.exchange.layout import Fields, Layout
from storage.exchange.rows import BadFieldError


@cache
def every() -> dict[str, Layout]:
    """All foreign layouts by name, in the order of their modules' names."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.LAYOUT.name: module.LAYOUT for module in modules if hasattr(module, "LAYOUT")}


def of(fields: Fields) -> Layout | None:
    """The foreign layout of a record; None where none knows it. Raises BadFieldError where several do."""
    found = [layout for layout in every().values() if layout.recognises(fields)]
    if len(found) > 1:
        names = " and ".join(layout.name for layout in found)
        raise BadFieldError("", f"could be of the layouts {names}: name one with --as")
    return found[0] if found else None
