"""What a reader of a file format hands on: the fields of each record with its line, or what is wrong with that line."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec


class Row(msgspec.Struct, frozen=True):
    """The fields of one record and the line (from 1) on which it begins; absent and null fields are left out.

    Where they are cells of a table, and so text (storage/exchange/cells.py), `columns` names them all, empty ones too,
    and `decimal_comma` says that numbers among them are written with one.
    """

    line: int
    fields: dict[str, Any]
    columns: tuple[str, ...] | None = None
    decimal_comma: bool = False


class Problem(msgspec.Struct, frozen=True):
    """Why one record cannot be imported; `field` is empty when the whole line is at fault."""

    line: int
    field: str
    reason: str


class BadFieldError(ValueError):
    """A field that does not hold what its record needs."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


def number(field: str, value: Any) -> float:
    """A finite number. Raises BadFieldError for anything else (a truth value is no number)."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadFieldError(field, f"must be a number, not {shown(value)}")
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise BadFieldError(field, "must be a finite number")
    return converted


def text(field: str, value: Any, *, empty: bool = False) -> str:
    """Text that UTF-8 can hold, not blank unless `empty`. Raises BadFieldError for anything else."""
    if not isinstance(value, str):
        raise BadFieldError(field, f"must be text, not {shown(value)}")
    if not empty and not value.strip():
        raise BadFieldError(field, "must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadFieldError(field, "holds half of a surrogate pair, which is no Unicode text") from None
    return value


def shown(value: Any) -> str:
    """A value as an error message shows it: short, on one line."""
    written = ascii(value) if not isinstance(value, str) else repr(value)
    return written if len(written) <= 60 else written[:57] + "..."
