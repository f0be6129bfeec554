"""From ratings to training examples: what each kind of feedback teaches, and whether there is enough of it.

A rating of another attribute than `overall` (politeness, say) is never mixed with the overall ones: it keeps its
attribute, is standardised by itself, and has a habit of its own when the reward model is fitted.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from storage import conversations as prompt_store
from storage import versions
from storage.database import Database
from storage.errors import UsageError
from storage.feedback import calibration
from storage.feedback import log as rating_store
from storage.feedback.kinds import harm
from storage.records import Begun, Choice, Prompt, Rating, RatingKind, Sample, Source, Split
from storage.wording import counted
from trainer.leaks import learnable

OVERALL = "overall"
# What a mistake weighs beside a bad label: an answer with one may be good otherwise, as may one of two that are bad.
MISTAKEN = 0.5
# Mean and deviation taken for a rater of whom too little is known, on a scale from 0 to 1.
MIDDLE = (0.5, 0.25)


@dataclass(frozen=True)
class Response:
    """An answer to a prompt. `token_ids` are those that were sampled; None for a text from outside."""

    prompt: Prompt
    text: str
    token_ids: tuple[int, ...] | None
    version: str | None


class Habit(NamedTuple):
    """Whose way of rating it is: a rater's, of one attribute."""

    rater: str
    attribute: str = OVERALL

    def __str__(self) -> str:
        return self.rater if self.attribute == OVERALL else f"{self.rater} ({self.attribute})"


@dataclass(frozen=True)
class Scored:
    """A score, standardised per rater and attribute (mean 0, deviation 1 over all training answers that it scored).

    `by_judge` tells, of every kind of example, that no person said it but a judge model, whose word has a `weight` by
    its agreement with people; `rating` is the key of the rating that says so.
    """

    response: Response
    value: float
    rater: str
    attribute: str = OVERALL
    weight: float = 1.0
    by_judge: bool = False
    rating: str | None = field(default=None, compare=False)

    @property
    def habit(self) -> Habit | None:
        return Habit(self.rater, self.attribute)

    @property
    def prompt(self) -> Prompt:
        return self.response.prompt

    @property
    def responses(self) -> tuple[Response, ...]:
        """The answers that it is about."""
        return (self.response,)


@dataclass(frozen=True)
class Labelled:
    """A good or bad label; where it is implied by something else, `weight` may be below 1 and `rater` is None."""

    response: Response
    good: bool
    weight: float = 1.0
    rater: str | None = None
    attribute: str = OVERALL
    by_judge: bool = False
    rating: str | None = field(default=None, compare=False)

    @property
    def habit(self) -> Habit | None:
        return None if self.rater is None else Habit(self.rater, self.attribute)

    @property
    def prompt(self) -> Prompt:
        return self.response.prompt

    @property
    def responses(self) -> tuple[Response, ...]:
        """The answers that it is about."""
        return (self.response,)


@dataclass(frozen=True)
class Pair:
    """A preference: `first_wins` is 1, 0, or 0.5 for a tie, and of a judge the probability; `first_left` tells where it
    stood, None if not known."""

    first: Response
    second: Response
    first_wins: float
    rater: str | None = None
    first_left: bool | None = None
    attribute: str = OVERALL
    weight: float = 1.0
    by_judge: bool = False
    rating: str | None = field(default=None, compare=False)

    @property
    def habit(self) -> Habit | None:
        return None if self.rater is None else Habit(self.rater, self.attribute)

    @property
    def prompt(self) -> Prompt:
        return self.first.prompt

    @property
    def responses(self) -> tuple[Response, ...]:
        """The answers that it is about."""
        return (self.first, self.second)


Example = Scored | Labelled | Pair


@dataclass
class Examples:
    """All that the reward model can learn from, and the ratings it came from."""

    scores: list[Scored] = field(default_factory=list)
    labels: list[Labelled] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    rating_ids: list[str] = field(default_factory=list)

    def every(self) -> list[Example]:
        """Scores, labels and pairs in one list."""
        return [*self.scores, *self.labels, *self.pairs]

    def count(self) -> int:
        return len(self.scores) + len(self.labels) + len(self.pairs)

    def heard(self) -> Examples:
        """Without what judge models say of answers of which people have said something themselves."""
        settled = {answer for one in self.every() if not one.by_judge for answer in one.responses}
        kept = [one for one in self.every() if not one.by_judge or settled.isdisjoint(one.responses)]
        return Examples(
            [one for one in kept if isinstance(one, Scored)],
            [one for one in kept if isinstance(one, Labelled)],
            [one for one in kept if isinstance(one, Pair)],
            self.rating_ids,
        )

    def judges(self) -> dict[str, dict[str, tuple[int, float]]]:
        """Of each judge model, by language, how many examples it gave, and what such a one weighs at most."""
        found: dict[str, dict[str, tuple[int, float]]] = {}
        for one in self.every():
            if one.by_judge and one.rater is not None:
                own = found.setdefault(one.rater, {})
                count, weight = own.get(one.prompt.language, (0, 0.0))
                own[one.prompt.language] = count + 1, max(weight, one.weight)
        return found

    def languages(self) -> dict[str, int]:
        """Examples by language, the most frequent first."""
        return dict(Counter(example.prompt.language for example in self.every()).most_common())

    def digest(self) -> str:
        """A fingerprint of the ratings learned from."""
        return hashlib.sha256("\n".join(sorted(self.rating_ids)).encode()).hexdigest()


def collect(
    database: Database,
    base_digest: str,
    begun: Begun | None = None,
    *,
    split: Split = Split.TRAIN,
    sources: Collection[Source] = tuple(Source),
) -> Examples:
    """The examples that the effective ratings of *training* prompts teach.

    A both-bad pair teaches two bad labels, an edit a pair that the edited text wins, a harm tag or a
    mistake a bad label.

    Args:
        base_digest: of the model that will learn; only its own versions' token ids are taken over.
        begun: where the workspace stood when a job began: the ratings that counted then; by default those of now.
        split: of the prompts. Any other than `train` is for measuring alone.
        sources: whose ratings to take.
    """
    examples = Examples()
    everything = counting_ratings(database, begun)
    responses = stored_responses(database, base_digest, split)
    learned = responses if split is Split.TRAIN else stored_responses(database, base_digest, Split.TRAIN)
    spread = _spread_by_rater([rating for rating in everything if rating.sample_id in learned])
    trust = calibration.worths(database, everything)
    for rating in everything:
        response = responses.get(rating.sample_id or "")
        if response is None or rating.source not in sources:
            continue
        rater, attribute, own = rating.rater, rating.attribute, rating.id
        by_judge = rating.source == Source.AI
        weight = trust.get(rater, calibration.Worth()).of(response.prompt.language) if by_judge else 1.0
        # Implied labels are all bad: a habit fitted to them would explain them away.
        implied = None if attribute == OVERALL else rater
        match rating.kind:
            case RatingKind.SCORE:
                mean, deviation = spread.get((rater, attribute), MIDDLE)
                value = (_unit(rating) - mean) / deviation
                examples.scores.append(Scored(response, value, rater, attribute, weight, by_judge, own))
            case RatingKind.LABEL:
                examples.labels.append(Labelled(response, bool(rating.value), weight, rater, attribute, by_judge, own))
            case RatingKind.PAIR:
                other = responses.get(rating.other_sample_id or "")
                if other is None:
                    continue
                if rating.choice == Choice.BOTH_BAD:
                    for answer in (response, other):
                        examples.labels.append(Labelled(answer, False, 0.5 * weight, implied, attribute, by_judge, own))
                else:
                    wins = {Choice.A: 1.0, Choice.B: 0.0}.get(rating.choice or Choice.TIE, 0.5)
                    wins = wins if rating.value is None else rating.value
                    left = None if rating.shown_order is None else rating.shown_order == "ab"
                    examples.pairs.append(Pair(response, other, wins, rater, left, attribute, weight, by_judge, own))
            case RatingKind.EDIT:
                better = Response(response.prompt, rating.text or "", None, None)
                examples.pairs.append(Pair(better, response, 1.0, rater, None, attribute, weight, by_judge, own))
            case RatingKind.MISTAKE:
                examples.labels.append(Labelled(response, False, MISTAKEN * weight, implied, attribute, by_judge, own))
            case RatingKind.TAGS:
                harmful = harm(rating.tags or {})
                if not harmful:
                    continue
                examples.labels.append(Labelled(response, False, harmful * weight, implied, attribute, by_judge, own))
            case _:
                continue
        examples.rating_ids.append(rating.id)
    return examples


def counting_ratings(database: Database, begun: Begun | None) -> list[Rating]:
    """The ratings that count now, or counted when a job began; oldest first."""
    return rating_store.effective(database) if begun is None else rating_store.effective_at(database, begun.ratings)


def check_enough(examples: Examples, minimum: int) -> None:
    """Refuse to learn from too little, or from feedback that says the same of everything.

    Raises:
        UsageError: saying how many of what are missing.
    """
    counts = (
        f"{counted(len(examples.scores), 'score')}, {counted(len(examples.labels), 'label')}, "
        f"{counted(len(examples.pairs), 'pair')}"
    )
    if examples.count() < minimum:
        missing = minimum - examples.count()
        raise UsageError(
            f"too few ratings of training prompts to learn from: {counts}; {minimum} are needed in all",
            f"rate {counted(missing, 'more answer')}, or import ratings with `workbench import FILE`",
        )
    distinct = len({round(score.value, 6) for score in examples.scores})
    good = sum(label.good for label in examples.labels)
    decided = sum(pair.first_wins != 0.5 for pair in examples.pairs)
    if distinct < 2 and not 0 < good < len(examples.labels) and not decided:
        lacks = []
        if examples.scores:
            lacks.append(
                f"all {counted(len(examples.scores), 'score is', 'scores are')} equal: "
                "score at least one answer higher or lower"
            )
        if examples.labels:
            kind = "good" if good else "bad"
            lacks.append(
                f"all {counted(len(examples.labels), 'label is', 'labels are')} {kind}: "
                f"label at least one {'bad' if good else 'good'}"
            )
        if examples.pairs:
            lacks.append(
                f"all {counted(len(examples.pairs), 'pair is', 'pairs are')} ties: "
                "prefer one answer of at least one pair"
            )
        raise UsageError(f"the ratings are one-sided, so nothing can be learned from them ({counts})", "; ".join(lacks))


def fingerprint(text: str) -> str:
    """A fixed pseudo-random order for splits: the same on every machine and run."""
    return hashlib.sha256(text.encode()).hexdigest()


def stored_responses(database: Database, base_digest: str, split: Split) -> dict[str, Response]:
    """All samples of the prompts of a split, by key; of those for training, where they may be learned from."""
    own = {version.name for version in versions.every(database) if version.base_digest == base_digest}
    those = learnable(database)[0] if split is Split.TRAIN else prompt_store.by_split(database, split)
    prompts = {prompt.id: prompt for prompt in those}
    samples = database.records(
        Sample, "SELECT samples.* FROM samples JOIN prompts ON prompts.id = prompt_id WHERE split = ?", (split,)
    )
    return {
        sample.id: Response(
            prompts[sample.prompt_id],
            sample.text,
            tuple(sample.token_ids) if sample.token_ids and sample.version in own else None,
            sample.version,
        )
        for sample in samples
        if sample.prompt_id in prompts
    }


def _unit(rating: Rating) -> float:
    """A score moved to [0, 1] by its stated scale."""
    assert rating.value is not None, "a score has a value"
    assert rating.scale_low is not None, "a score has a scale"
    assert rating.scale_high is not None, "a score has a scale"
    return (rating.value - rating.scale_low) / (rating.scale_high - rating.scale_low)


def _spread_by_rater(ratings: Sequence[Rating]) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean and standard deviation of each rater's scores of each attribute on [0, 1].

    Over everything a rater scored of training prompts (what is held out has no say, and is put on the same scale), and
    never per version: that would erase progress. A rater with few or equal scores is taken at the middle of the scale.
    """
    by_rater: dict[tuple[str, str], list[float]] = {}
    for rating in ratings:
        if rating.kind == RatingKind.SCORE:
            by_rater.setdefault((rating.rater, rating.attribute), []).append(_unit(rating))
    spread = {}
    for habit, values in by_rater.items():
        deviation = statistics.pstdev(values)
        spread[habit] = (statistics.fmean(values), deviation) if len(values) >= 5 and deviation > 0.01 else MIDDLE
    return spread
