"""Judging item by item: what was judged in a batch is stored and synced before the next one is asked about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from storage.database import Database
from storage.errors import WorkbenchError
from storage.feedback import log
from storage.feedback.unjudged import Item
from storage.records import Rating
from trainer.judge.rubric import Rubric
from trainer.judge.spending import SpentError
from trainer.judge.verdicts import Judge, Verdict, rating

BATCH = 8  # items
UNREADABLE_AT_FIRST = 16  # items without any verdict from the first one on: then the judge is none


@dataclass
class Done:
    """What came of it.

    Attributes:
        judged: ratings stored, by kind. unreadable: items on which the judge gave no verdict.
        stopped: why not all was judged; empty where all was.
    """

    judged: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    stopped: str = ""


def work(
    database: Database, judge: Judge, rubric: Rubric, items: Sequence[Item], rater: str,
    on_batch: Callable[[int], None] = lambda items: None,
) -> Done:  # fmt: skip
    """Have a judge rate items, and store its ratings.

    Args:
        on_batch: told how many items a batch had, after it is stored.

    Raises:
        WorkbenchError: the judge failed, or gives no verdicts; what was judged before is stored.
    """
    done = Done()
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        ratings, failure = _judged(judge, rubric, batch, rater, done)
        log.append_all(database, ratings)
        done.judged.update(str(one.kind) for one in ratings)
        on_batch(len(batch))
        if isinstance(failure, SpentError):
            done.stopped = failure.message
            break
        if failure is not None:
            raise failure
        if done.unreadable >= UNREADABLE_AT_FIRST and not done.judged:
            raise WorkbenchError(
                f"the judge gave no verdict on any of {done.unreadable} items",
                "it must answer with a digit from 1 to 5, or with A or B alone: try another model or rubric",
            )
    return done


def _judged(
    judge: Judge, rubric: Rubric, batch: Sequence[Item], rater: str, done: Done
) -> tuple[list[Rating], Exception | None]:
    """The ratings of a batch, as far as there are any, and what failed."""
    questions = [rubric.questions(item) for item in batch]
    answers = iter(judge.ask([question for own in questions for question in own]))
    found: list[Rating] = []
    failure: Exception | None = None
    for item, own in zip(batch, questions, strict=True):
        said = [next(answers) for _ in own]
        failed = next((one for one in said if isinstance(one, Exception)), None)
        verdicts = [one for one in said if isinstance(one, Verdict)]
        if failed is not None:
            failure = failure or failed
        elif len(verdicts) < len(own):
            done.unreadable += 1
        else:
            found.append(rating(item, verdicts, rater, rubric.name))
    return found, failure
