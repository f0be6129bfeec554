"""What the app remembers between sessions: one small record in the workspace's settings."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import msgspec

from storage.records import Sampling

if TYPE_CHECKING:
    from storage.database import Database

KEY = "session"
DEFAULT_THEME = "workbench"


class Session(msgspec.Struct, frozen=True):
    """The researcher's choices. `seed` None draws a fresh one for each prompt."""

    model: str = "smollm2"
    screen: str = "prompt"
    language: str = "en"
    candidates: int = 2
    sampling: Sampling = Sampling()
    seed: int | None = None
    system: str = ""
    rater: str = ""
    draft: str = ""
    theme: str = DEFAULT_THEME
    follow: bool = True


def load(database: Database) -> Session:
    """The last session's choices; the defaults where there are none or they do not make sense any more."""
    from storage import settings

    try:
        found = msgspec.convert(settings.get(database, KEY, {}), Session)
    except msgspec.ValidationError:
        found = Session()
    return found if found.rater else msgspec.structs.replace(found, rater=default_rater())


def save(database: Database, session: Session) -> None:
    from storage import settings

    settings.put(database, KEY, msgspec.to_builtins(session))


def default_rater() -> str:
    """The name ratings are kept under until another is chosen: the account's."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "rater"
