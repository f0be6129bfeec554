"""What `benchmarks.desk` measures, under one name in each release: those of before `counted` (schema 3) and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.desk_data import RATER
from storage import clock
from storage.database import Database
from storage.feedback import census, log, queue
from storage.feedback.stock import take_stock
from storage.workspace import Workspace
from workbench import desk
from workbench.training import view

IS_NEW = hasattr(census, "ratings_by_language_and_kind")


def next_items(database: Database) -> Callable[[], object]:
    """The review queue of a session that begins now."""
    began: Any = log.position(database) if hasattr(log, "position") else clock.now()
    return lambda: queue.next_items(database, RATER, 40, session_start=began)


def counts(database: Database) -> dict[str, Callable[[], object]]:
    """Every count that a screen or `stats` shows, by where it stands."""
    by_language = census.ratings_by_language
    found: dict[str, Callable[[], object]] = {
        "ratings in all (header)": lambda: sum(by_language(database).values()),
        "ratings by language (Review)": lambda: by_language(database, RATER),
        "what there is to train on (Train)": lambda: take_stock(database, "0" * 64),
        "stats": lambda: census.summary(database),
    }
    if IS_NEW:
        found["ratings in all (header)"] = lambda: census.rated(database)
        found["ratings by language and kind (Train)"] = lambda: census.ratings_by_language_and_kind(database)
    else:
        found["ratings by language and kind (Train)"] = lambda: _store(database).counts()
    return found


def train_view(database: Database, workspace: Workspace, width: int) -> Any:
    """What the Train screen draws."""
    if hasattr(view, "train_view"):
        return view.train_view(database, workspace, width)
    return _store(database, workspace).train_view(width)


def redraw(screen: Any) -> None:
    """Let the Train screen read and draw, however lately it did."""
    screen.drawn_at = 0.0
    if hasattr(screen, "look_again"):
        screen.look_again()
    else:
        screen.call_later(screen.read)


def is_open(app: Any) -> bool:
    """Whether the app has opened its workspace."""
    return (app.desk if hasattr(app, "desk") else app.store) is not None


def _store(database: Database, workspace: Any = None) -> Any:
    return desk.Store(workspace, database, RATER)  # type: ignore[attr-defined]
