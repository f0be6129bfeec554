"""Time and identity: UTC timestamps that sort as text, and keys that two workspaces never share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import uuid_utils


def now() -> str:
    """The present moment as `2026-01-31T12:00:00.000000Z`; such strings compare in time order."""
    return timestamp(datetime.now(UTC))


def after(seconds: float) -> str:
    """The moment `seconds` from now, in the form of :func:`now`."""
    return timestamp(datetime.now(UTC) + timedelta(seconds=seconds))


def timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_id() -> str:
    """A UUIDv7: globally unique, and ordered by creation time."""
    return str(uuid_utils.uuid7())
