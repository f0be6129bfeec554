"""What methods declare, as plain values: their settings, read from the classes that hold them, and documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from msgspec import inspect

from trainer.config import build
from trainer.methods.method import Method


@dataclass(frozen=True)
class Setting:
    """One thing that can be configured.

    Attributes:
        path: where it is kept, such as `ppo.steps`.
        type: int, float, bool, str or tuple (of str). default: a plain value; None where nothing is set.
        description: what it is, with its unit.
        bounds: what it must be, in words; empty where anything goes.
        choices: what it can be, where that is a fixed set.
    """

    path: str
    type: str
    default: Any
    description: str
    bounds: str = ""
    choices: tuple[str, ...] = ()


def settings_of(kind: type[msgspec.Struct], defaults: Mapping[str, Any]) -> dict[str, Setting]:
    """All settings of a configuration by path, nested sections included; `defaults` go over those of the class."""
    standard = msgspec.to_builtins(build(kind, dict(defaults)))
    found = {}
    for path, field in fields(kind):
        of, description = plain(field)
        value = standard
        for part in path:
            value = value[part]
        choices = tuple(str(one) for one in of.cls) if isinstance(of, inspect.EnumType) else ()
        name = ".".join(path)
        found[name] = Setting(name, _type(of, value), value, description, _bounds(of), choices)
    return found


def _bounds(of: inspect.Type) -> str:
    """`2 to 10`, `more than 0`: what a number must be."""
    if not isinstance(of, inspect.IntType | inspect.FloatType):
        return ""
    if of.ge is not None and of.le is not None:
        return f"{of.ge:g} to {of.le:g}"
    words = {"more than": of.gt, "at least": of.ge, "less than": of.lt, "at most": of.le}
    return " and ".join(f"{word} {bound:g}" for word, bound in words.items() if bound is not None)


def document(method: Method) -> dict[str, Any]:
    """What a method declares of itself, as plain values."""
    return {
        "name": method.name,
        "summary": method.summary,
        "makes_version": method.learn is not None,
        "recipes": [
            {
                "key": recipe.key, "name": recipe.name, "purpose": recipe.purpose, "fixed": dict(recipe.fixed),
                "needs": {str(supply): count for supply, count in recipe.needs},
            }
            for recipe in method.recipes
        ],
        "settings": [asdict(setting) for setting in settings_of(method.settings, method.defaults).values()],
    }  # fmt: skip


def plain(field: inspect.Field) -> tuple[inspect.Type, str]:
    """The type of a setting, of one that may also be nothing that of its values; and what is said of it."""
    of, description = field.type, ""
    if isinstance(field.type, inspect.Metadata):
        of, description = field.type.type, (field.type.extra_json_schema or {}).get("description", "")
    if isinstance(of, inspect.UnionType):
        of = next(one for one in of.types if not isinstance(one, inspect.NoneType))
    return of, description


def _type(of: inspect.Type, value: Any) -> str:
    """The name of a setting's type; of one that may be nothing that of its values."""
    return {inspect.IntType: "int", inspect.FloatType: "float"}.get(type(of), type(value).__name__)


def fields(kind: type[msgspec.Struct], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], inspect.Field]]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    found = []
    for field in described.fields:
        inner = field.type
        if isinstance(inner, inspect.StructType):
            found += fields(inner.cls, (*path, field.name))
        else:
            found.append(((*path, field.name), field))
    return found
