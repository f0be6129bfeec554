"""Values of foreign fields, which stand as numbers and truth values in JSON and as text in tables."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from storage.exchange.rows import BadFieldError, number, shown

Shape = TypeVar("Shape")
_TRUTH = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}


def parsed(value: Any) -> Any:
    """What JSON text holds, as cells of tables do; anything else is itself."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def shaped(field: str, value: Any, shape: type[Shape]) -> Shape:
    """A value, or JSON text of one, as what its layout says it is; a number may stand as text.

    Raises:
        BadFieldError: it is something else; the field names the place inside.
    """
    try:
        return msgspec.convert(parsed(value), shape, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        reason, _, place = str(error).partition(" - at `$")
        raise BadFieldError(field + place.rstrip("`"), reason[:1].lower() + reason[1:]) from None


def figure(field: str, value: Any) -> float:
    """A number, or text of one. Raises BadFieldError for anything else."""
    if isinstance(value, str):
        try:
            return number(field, float(value))
        except ValueError:
            pass
    return number(field, value)


def truth(field: str, value: Any) -> bool:
    """A truth value, 0, 1, or text of one. Raises BadFieldError for anything else."""
    found = _TRUTH.get(str(value).strip().lower())
    if found is None:
        raise BadFieldError(field, f"must be true or false, not {shown(value)}")
    return found


def one_of(field: str, value: Any, options: dict[str, str]) -> str:
    """What one of some words stands for. Raises BadFieldError for another word."""
    found = options.get(str(value).strip().lower())
    if found is None:
        raise BadFieldError(field, f"must be one of {', '.join(options)}, not {shown(value)}")
    return found
