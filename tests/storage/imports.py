"""What the tests of imports share: what was stored, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from storage.database import Database
from storage.errors import UsageError
from storage.exchange.importing import import_file
from storage.feedback import census, log
from storage.records import Rating

Write = Callable[..., str]
EVERY_KIND: list[dict[str, Any]] = [
    {"prompt": "What is a river?", "language": "en", "task": "dialogue", "split": "held-out"},
    {"prompt": "Qu'est-ce qu'un glacier ?", "response": "De la glace.", "score": 4, "language": "fr", "rater": "ana"},
    {"prompt": "¿Qué es un faro?", "response": "Una torre.", "score": 0.25, "scale": [0, 1], "language": "es"},
    {"prompt": "Was ist ein Fjord?", "completion": "Ein Meeresarm.", "label": True, "language": "de"},
    {"prompt": "什么是冰川？", "chosen": "缓慢移动的冰。", "rejected": "不知道。", "language": "zh"},
    {"prompt": "हिमनद क्या है?", "completion": "बर्फ़ की नदी।", "language": "hi"},
    {"prompt": "ما هو النهر؟", "response": "ماء", "tags": {"bias": "none", "severity": 0}, "language": "ar"},
]


def refusal(database: Database, file: str, **more: Any) -> str:
    """The message of the refused import, after a check that nothing was stored."""
    with pytest.raises(UsageError) as caught:
        import_file(database, file, **more)
    assert census.summary(database).prompts == 0
    return str(caught.value)


def one(database: Database) -> Rating:
    (rating,) = log.effective(database)
    return rating


def texts(database: Database, rating: Rating) -> tuple[str | None, ...]:
    return tuple(
        database.scalar("SELECT text FROM samples WHERE id = ?", (key,))
        for key in (rating.sample_id, rating.other_sample_id)
    )
