"""Judging item by item: what was judged in a batch is stored and synced, with its figures, before the next is asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from storage import jobs, metrics
from storage.errors import WorkbenchError
from storage.feedback import log
from storage.feedback.kinds import RatingKind
from storage.feedback.unjudged import Item
from storage.records import Rating
from trainer.job import HeldJob
from trainer.judge.rubric import Rubric
from trainer.judge.spending import Purse, SpentError
from trainer.judge.verdicts import Judge, Verdict, rating

STAGE = "judging"
BATCH = 8  # items
UNREADABLE_AT_FIRST = 16  # items without any verdict from the first one on: then the judge is none
Figures = dict[tuple[str, str | None], float]


@dataclass
class Done:
    """What came of a job so far.

    Attributes:
        judged: ratings stored, by kind. unreadable: items on which the judge gave no verdict.
        fresh: items gone through that nobody had rated. left: items that were not come to.
        stopped: why not all was judged; empty where all was.
    """

    judged: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    fresh: int = 0
    left: int = 0
    stopped: str = ""

    @classmethod
    def recorded(cls, figures: Mapping[str, float]) -> Done:
        """What earlier attempts at a job recorded."""
        judged = Counter({kind: int(figures.get(f"judge/{kind}s", 0)) for kind in ("score", "pair")})
        return cls(+judged, int(figures.get("judge/unreadable", 0)), int(figures.get("judge/fresh", 0)))

    @property
    def items(self) -> int:
        """Items gone through."""
        return self.judged.total() + self.unreadable

    @property
    def figures(self) -> Figures:
        counts = {"items": self.items, "unreadable": self.unreadable, "fresh": self.fresh,
                  "scores": self.judged["score"], "pairs": self.judged["pair"]}  # fmt: skip
        return {(f"judge/{name}", None): count for name, count in counts.items()}


@dataclass
class _Batch:
    """What came of a batch: its ratings, and of pairs how probably each question was answered with what stood first."""

    ratings: list[Rating] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    firsts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failure: Exception | None = None

    @property
    def figures(self) -> Figures:
        found: Figures = {}
        for name, by_language in (("judge/score", self.scores), ("judge/first", self.firsts)):
            for language, values in by_language.items():
                found[name, language] = fmean(values)
            if by_language:
                found[name, None] = fmean(value for values in by_language.values() for value in values)
        return found


def work(
    held: HeldJob, judge: Judge, rubric: Rubric, items: Sequence[Item], rater: str, done: Done, purse: Purse
) -> None:
    """Have a judge rate items, and store its ratings; what comes of it goes into `done`.

    Raises:
        CancelledError: the job is to stop. WorkbenchError: the judge failed, or gives no verdicts. What was judged
            before is stored.
    """
    first, steps = done.items, done.items + len(items)
    for start in range(0, len(items), BATCH):
        done.left = len(items) - start
        held.check()
        batch = _judged(judge, rubric, items[start : start + BATCH], rater, done)
        _store(held, batch, done, purse)
        done.left = steps - done.items
        held.progress(STAGE, done.items, steps, True)  # an endpoint may take minutes for the next ones
        if isinstance(batch.failure, SpentError):
            done.stopped = batch.failure.message
            break
        if batch.failure is not None:
            raise batch.failure
        if done.unreadable >= UNREADABLE_AT_FIRST and not done.judged:
            raise WorkbenchError(
                f"the judge gave no verdict on any of {done.items - first} items",
                "it must answer with a digit from 1 to 5, or with A or B alone: try another model or rubric",
            )


def _judged(judge: Judge, rubric: Rubric, items: Sequence[Item], rater: str, done: Done) -> _Batch:
    """The ratings of a batch, as far as there are any, and what failed."""
    questions = [rubric.questions(item) for item in items]
    answers = iter(judge.ask([question for own in questions for question in own]))
    batch = _Batch()
    for item, own in zip(items, questions, strict=True):
        said = [next(answers) for _ in own]
        failed = next((one for one in said if isinstance(one, Exception)), None)
        verdicts = [one for one in said if isinstance(one, Verdict)]
        if failed is not None:
            batch.failure = batch.failure or failed
            continue
        done.fresh += not item.calibrates
        if len(verdicts) < len(own):
            done.unreadable += 1
            continue
        found = rating(item, verdicts, rater, rubric.name)
        batch.ratings.append(found)
        done.judged[str(found.kind)] += 1
        if found.kind == RatingKind.SCORE:
            assert found.value is not None, "a score has one"
            batch.scores[item.prompt.language].append(found.value)
        else:
            batch.firsts[item.prompt.language] += [verdict.probabilities(2)[0] for verdict in verdicts]
    return batch


def _store(held: HeldJob, batch: _Batch, done: Done, purse: Purse) -> None:
    """Ratings and figures, both or neither. Raises LeaseLostError, storing nothing, when another worker took over."""
    with held.database.transaction():
        jobs.check(held.database, held.job)
        log.append_all(held.database, batch.ratings)
        metrics.record(held.database, held.job.id, done.items, batch.figures | done.figures | purse.figures)
