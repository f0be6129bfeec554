"""How far a judge (a rater whose ratings have `source = ai`) agrees with people on the same answers, and what its word
is therefore worth beside theirs.

People are those who rate here, and those whose ratings came in a file, unless they are known not to be human
(`workbench raters`). Of answers that both scored or labelled, agreement is Spearman's rank correlation of what each
said less their means in the language (between languages anything agrees that differs by language); of pairs on which
people decided, the share in which the judge preferred the same answer, where half a point is a tie.

Both are evidence of one correlation (of a share a it is 2a - 1), which is pooled on Fisher's scale with what is
believed of a judge before anything is known: that it agrees a little, as if :data:`PRIOR_ITEMS` items had shown
:data:`PRIOR_AGREEMENT`. The weight is that correlation squared, the part of the variance of people's ratings that
the judge tells: about 0 for one that guesses or contradicts, and close to 1 only for one that was often right.

A judge may be good in one language and guess in another. In a language in which both judged :data:`FEWEST` items or
more of one kind its weight is told by these, and what is believed beforehand is what the *other* languages showed, as
if as many items had shown it (so that no item counts twice), though never more than :data:`MOST_ELSEWHERE`. In any
other language the weight over all of them holds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import msgspec

from storage.database import Database
from storage.feedback.agreement import COMPARED, OVERALL, value_of
from storage.feedback.habits import Share, spearman
from storage.feedback.kinds import RatingKind, sql_list
from storage.records import Rating, Source

PRIOR_AGREEMENT, PRIOR_ITEMS = 0.3, 10
MOST_ELSEWHERE = 0.9  # correlation that other languages make believed: a perfect judge of one may guess in the next
FEWEST = 10  # items that both judged: with fewer nothing is told
_Z = 1.959964
_MOST = 0.995  # no finite number of items shows a correlation of 1


class Calibration(msgspec.Struct, frozen=True):
    """Agreement of one judge with people in one way of judging, in one language (None is all).

    Attributes:
        kind: "score" (with scores and labels of people) or "pair".
        measure: "rank correlation" or "accuracy".
        value, low, high: with the 95% interval; None where `why` says why not.
        n: answers or decided pairs that both judged.
    """

    language: str | None
    kind: str
    measure: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    why: str = ""


class Worth(msgspec.Struct, frozen=True):
    """What the ratings of a judge weigh, from 0 to 1: over all languages, and in those that tell it by themselves."""

    weight: float = 0.0
    languages: dict[str, float] = {}

    def of(self, language: str | None) -> float:
        """What they weigh in a language; None is over all."""
        return self.weight if language is None else self.languages.get(language, self.weight)


class Judge(Worth, frozen=True, kw_only=True):
    """One judge: what its ratings weigh in a reward model (a person's weigh 1), how many count, and its agreement."""

    rater: str
    ratings: int
    agreement: list[Calibration]


Item = tuple[str, ...]  # the keys of one answer, or of two in their order


class _Both(NamedTuple):
    """What a judge and what people said of one item in a language, each from 0 to 1."""

    language: str
    judge: float
    people: float


def measure(database: Database) -> list[Judge]:
    """All judges of a workspace, those that said most first."""
    rows = database.records(
        Rating,
        f"""WITH judged AS (SELECT DISTINCT sample, other FROM counted
                            WHERE source = '{Source.AI}' AND attribute = '{OVERALL}' AND kind IN {sql_list(COMPARED)})
            SELECT ratings.* FROM judged CROSS JOIN counted USING (sample, other)
            JOIN ratings ON ratings.sequence = counted.sequence
            WHERE counted.attribute = '{OVERALL}' AND counted.kind IN {sql_list(COMPARED)} ORDER BY counted.sequence""",
    )
    judges = _judges(database, rows)
    found = [
        Judge(rater=rater, ratings=count, agreement=_told(both), **msgspec.structs.asdict(_worth(both)))
        for rater, (count, both) in judges.items()
    ]
    return sorted(found, key=lambda judge: (-judge.ratings, judge.rater))


def worths(database: Database, ratings: Iterable[Rating]) -> dict[str, Worth]:
    """What the ratings of each judge weigh, by some ratings that count."""
    return {rater: _worth(by_kind) for rater, (_, by_kind) in _judges(database, ratings).items()}


def _judges(database: Database, ratings: Iterable[Rating]) -> dict[str, tuple[int, dict[str, list[_Both]]]]:
    """Of each judge how many ratings it gave, and of what it and people both said something, by kind."""
    not_people = {row["name"] for row in database.rows("SELECT name FROM raters WHERE kind != 'human'")}
    people: dict[str, dict[Item, list[float]]] = defaultdict(lambda: defaultdict(list))
    judges: dict[str, dict[str, dict[Item, float]]] = defaultdict(lambda: defaultdict(dict))
    counts: dict[str, int] = defaultdict(int)
    for rating in ratings:
        if rating.kind not in COMPARED or rating.attribute != OVERALL or rating.sample_id is None:
            continue
        kind = "pair" if rating.kind == RatingKind.PAIR else "score"
        item, value = _said(rating)
        if rating.source == Source.AI:
            judges[rating.rater][kind][item] = value
            counts[rating.rater] += 1
        elif rating.source in (Source.HUMAN, Source.IMPORTED) and rating.rater not in not_people:
            people[kind][item].append(value)
    languages = _languages(database, {item[0] for said in judges.values() for own in said.values() for item in own})
    found: dict[str, tuple[int, dict[str, list[_Both]]]] = {}
    for rater, said in judges.items():
        by_kind = {
            kind: [
                _Both(languages[item[0]], value, fmean(people[kind][item]))
                for item, value in own.items()
                if item in people[kind]
            ]
            for kind, own in said.items()
        }
        if "pair" in by_kind:  # where people were undecided, neither answer is the right one
            by_kind["pair"] = [both for both in by_kind["pair"] if both.people != 0.5]
        found[rater] = counts[rater], by_kind
    return found


def _languages(database: Database, samples: set[str]) -> dict[str, str]:
    """The languages of the prompts that some samples answer, by the samples' keys."""
    rows = database.rows(
        """SELECT samples.id, language FROM samples JOIN prompts ON prompts.id = prompt_id
           WHERE samples.id IN (SELECT value FROM json_each(?))""",
        (msgspec.json.encode(sorted(samples)).decode(),),
    )
    return {row["id"]: row["language"] for row in rows}


def _said(rating: Rating) -> tuple[Item, float]:
    """Of what, and what from 0 to 1: of a pair how surely the answer with the lower key is the better one."""
    assert rating.sample_id is not None
    if rating.kind != RatingKind.PAIR:
        return (rating.sample_id,), value_of(msgspec.structs.asdict(rating))
    assert rating.other_sample_id is not None
    first = rating.value if rating.value is not None else {"a": 1.0, "b": 0.0}.get(str(rating.choice), 0.5)
    ahead, behind = sorted((rating.sample_id, rating.other_sample_id))
    return (ahead, behind), first if ahead == rating.sample_id else 1 - first


def _worth(by_kind: Mapping[str, list[_Both]]) -> Worth:
    """The weight over all languages, and in each that tells enough by itself."""
    believed = math.atanh(PRIOR_AGREEMENT)
    own = {}
    for language in sorted({one.language for both in by_kind.values() for one in both}):
        here = _evidence({kind: [one for one in both if one.language == language] for kind, both in by_kind.items()})
        others = {kind: [one for one in both if one.language != language] for kind, both in by_kind.items()}
        if here.items:
            elsewhere = min(_evidence(others).with_prior(believed), math.atanh(MOST_ELSEWHERE))
            own[language] = _weight(here.with_prior(elsewhere))
    return Worth(_weight(_evidence(by_kind).with_prior(believed)), own)


class _Evidence(NamedTuple):
    """Of a correlation: its sum over items on Fisher's scale, and of how many items (one over the mean's variance)."""

    turned: float
    items: float

    def with_prior(self, believed: float) -> float:
        """Pooled with what is believed beforehand, as if :data:`PRIOR_ITEMS` items had shown it."""
        return (PRIOR_ITEMS * believed + self.turned) / (PRIOR_ITEMS + self.items)


def _evidence(by_kind: Mapping[str, list[_Both]]) -> _Evidence:
    """What some items tell of a judge's agreement; fewer than enough of a kind tell nothing."""
    turned = known = 0.0
    for kind, both in by_kind.items():
        if len(both) < FEWEST:
            continue
        if kind == "pair":
            found, n = 2 * _right(both) / len(both) - 1, len(both)
        else:  # 0 of a judge that says the same of all; each language has a mean of its own
            found, n = spearman(*_columns(both)) or 0.0, _free(both)
        weight = max(0, n - 3)  # one over the variance of Fisher's scale
        turned += weight * math.atanh(max(-_MOST, min(_MOST, found)))
        known += weight
    return _Evidence(turned, known)


def _weight(turned: float) -> float:
    """What a correlation on Fisher's scale weighs."""
    return math.tanh(max(0.0, turned)) ** 2


def _free(both: Sequence[_Both]) -> int:
    """How many items there are, less one for each mean of a language but one."""
    return len(both) - len({one.language for one in both}) + 1


def _columns(both: Sequence[_Both]) -> tuple[list[float], list[float]]:
    """What the judge and what people said, less the means of the language."""
    groups: dict[str, list[_Both]] = defaultdict(list)
    for one in both:
        groups[one.language].append(one)
    means = {name: (fmean(one.judge for one in own), fmean(one.people for one in own)) for name, own in groups.items()}
    # Rounded, so that equal differences are equal ranks.
    own = [round(one.judge - means[one.language][0], 9) for one in both]
    return own, [round(one.people - means[one.language][1], 9) for one in both]


def _right(both: Sequence[_Both]) -> float:
    """How many pairs the judge decided as people did; a tie counts half."""
    return sum(0.5 if one.judge == 0.5 else float((one.judge > 0.5) == (one.people > 0.5)) for one in both)


def _told(by_kind: Mapping[str, list[_Both]]) -> list[Calibration]:
    """Agreement by kind, over all languages and in each."""
    found = []
    for kind, both in sorted(by_kind.items()):
        found.append(_figure(None, kind, both))
        for language in sorted({one.language for one in both}):
            found.append(_figure(language, kind, [one for one in both if one.language == language]))
    return found


def _figure(language: str | None, kind: str, both: Sequence[_Both]) -> Calibration:
    measured, n = "accuracy" if kind == "pair" else "rank correlation", len(both)
    if n < FEWEST:
        why = f"too few: {n} that people judged too, {FEWEST} are needed"
        return Calibration(language, kind, measured, None, None, None, n, why)
    if kind == "pair":
        share = Share.of(_right(both), n)
        return Calibration(language, kind, measured, share.share, share.low, share.high, n)
    rank = spearman(*_columns(both)) if _free(both) > 3 else None
    if rank is None:
        return Calibration(language, kind, measured, None, None, None, n, "one of both says the same of all")
    # Fisher's transformation, with the variance of ranks (Bonett and Wright 2000).
    wide = _Z * math.sqrt((1 + rank**2 / 2) / (_free(both) - 3))
    turned = math.atanh(max(-_MOST, min(_MOST, rank)))
    return Calibration(language, kind, measured, rank, math.tanh(turned - wide), math.tanh(turned + wide), n)
