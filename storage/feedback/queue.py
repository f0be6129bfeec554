"""The review queue: which answers a rater should see next, and why.

Two kinds of item: a single answer that the rater has not judged yet, and a blind pair of answers to one prompt that
the rater has not compared yet. Pairs of an older version against a newer one, which measure whether training helped,
take turns with single answers and with pairs of one version. Items are drawn from the language with the fewest
ratings. Single answers of the newest version lead, those to one prompt one after the other, since what is learned is
which answer to a prompt is the better one; where a trained version left answers to be asked about, the prompt comes
first whose answer may be the best, by what its reward model expects and how unsure it is. Held-out and ethics prompts
are reviewed like any other (their ratings never train).
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import zip_longest

import msgspec

from storage import conversations, samples
from storage.database import Database
from storage.feedback import census
from storage.records import Prompt, Sample

# Only this many of the newest answers are looked at: they come from the weights that matter now.
NEWEST_ANSWERS = 5000


class ReviewItem(msgspec.Struct, frozen=True):
    """One thing to judge.

    `samples` holds one answer, or `(a, b)` of a pair, where a is the older version when they differ. `shown_order`
    is `ab` when a stands left. A rating or skip of a pair names a as its `sample_id` and b as its `other_sample_id`.
    """

    kind: str  # single or pair
    prompt: Prompt
    samples: tuple[Sample, ...]
    why: str
    shown_order: str | None = None
    old_against_new: bool = False

    @property
    def shown(self) -> tuple[Sample, ...]:
        """The answers from left to right."""
        return self.samples[::-1] if self.shown_order == "ba" else self.samples


class _Answer(msgspec.Struct, frozen=True):
    """What choosing needs to know of an answer."""

    id: str
    prompt_id: str
    language: str
    age: int  # 0 for the newest version, counting up; -1 when the version is not known
    text_hash: bytes
    hope: float  # the expected reward and its deviation together; minus infinity where nothing is expected


class _Candidate(msgspec.Struct, frozen=True):
    ids: tuple[str, ...]
    language: str
    old_against_new: bool = False


def next_items(
    database: Database, rater: str, limit: int = 10, *, session_start: int | None = None
) -> list[ReviewItem]:
    """The next items for a rater, best first.

    What the rater skipped comes last; what was skipped after `session_start` (a :func:`storage.feedback.log.position`)
    does not come again, nor does anything the rater said they cannot judge.
    """
    judged, skipped = _judged(database, rater, session_start)
    answers = _answers(database)
    by_language: dict[str, list[_Candidate]] = defaultdict(list)
    waiting: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in _interleaved(_pairs(answers, judged), _singles(answers, judged)):
        (waiting if _key(candidate.ids) in skipped else by_language)[candidate.language].append(candidate)
    counts = census.ratings_by_language(database, rater)
    chosen = list(_balanced(by_language, counts, limit))
    chosen += _balanced(waiting, counts, limit - len(chosen))
    return [_item(database, rater, candidate, counts, skipped) for candidate in chosen]


def shown_order(rater: str, a: str, b: str) -> str:
    """`ab` or `ba`, at random but the same each time this rater meets this pair."""
    digest = hashlib.sha256("\0".join((rater, *sorted((a, b)))).encode()).digest()
    return "ab" if (digest[0] % 2 == 0) == (a < b) else "ba"


def _answers(database: Database) -> list[_Answer]:
    """The newest answers of models, those of the newest version first."""
    age = {
        row["name"]: age for age, row in enumerate(database.rows("SELECT name FROM versions ORDER BY sequence DESC"))
    }
    rows = database.rows(
        """SELECT samples.id, prompt_id, language, version, samples.text, reward + deviation AS hope FROM samples
           JOIN prompts ON prompts.id = prompt_id LEFT JOIN expectations ON sample_id = samples.id
           WHERE samples.origin = 'model' AND finish_reason != 'cancelled' ORDER BY samples.sequence DESC LIMIT ?""",
        (NEWEST_ANSWERS,),
    )
    found = [
        _Answer(
            row["id"], row["prompt_id"], row["language"], age.get(row["version"], -1),
            hashlib.blake2b(row["text"].encode(), digest_size=8).digest(),
            -math.inf if row["hope"] is None else row["hope"],
        )
        for row in rows
    ]  # fmt: skip
    return sorted(found, key=lambda answer: answer.age if answer.age >= 0 else len(age))


def _judged(
    database: Database, rater: str, session_start: int | None
) -> tuple[set[frozenset[str]], set[frozenset[str]]]:
    """What not to ask again, and what to ask last: each a set of samples or pairs of them."""
    done: set[frozenset[str]] = set()
    skipped: set[frozenset[str]] = set()
    for row in database.rows(
        """SELECT kind, sample_id, other_sample_id, sequence FROM effective_ratings
           WHERE rater = ? AND kind NOT IN ('note', 'outcome')""",
        (rater,),
    ):
        key = _key((row["sample_id"], row["other_sample_id"]))
        again = row["kind"] == "skip" and (session_start is None or row["sequence"] <= session_start)
        (skipped if again else done).add(key)
    return done, skipped - done


def _singles(answers: list[_Answer], judged: set[frozenset[str]]) -> list[_Candidate]:
    """Version by version, and of each prompt by prompt: the most hoped for first, else the one answered last. Prompts
    with one answer come last: a reward model learns from how answers to one prompt differ."""
    together: dict[tuple[int, str], list[_Answer]] = defaultdict(list)
    for one in answers:
        together[one.age, one.prompt_id].append(one)
    places = {age: place for place, age in enumerate(dict.fromkeys(one.age for one in answers))}

    def order(group: tuple[tuple[int, str], list[_Answer]]) -> tuple[int, bool, float]:
        (age, _), said = group
        return places[age], len(said) < 2, -max(one.hope for one in said)

    return [
        _Candidate((one.id,), one.language)
        for _, group in sorted(together.items(), key=order)
        for one in sorted(group, key=lambda one: -one.hope)
        if _key((one.id,)) not in judged
    ]


def _pairs(answers: list[_Answer], judged: set[frozenset[str]]) -> list[_Candidate]:
    """Pairs within each prompt, each answer in one pair at a time; old against new before same against same."""
    of_prompt: dict[str, list[_Answer]] = defaultdict(list)
    for answer in answers:
        of_prompt[answer.prompt_id].append(answer)
    found = []
    for together in of_prompt.values():
        taken: set[str] = set()
        for versions_differ in (True, False):
            for new in together:
                old = None if new.id in taken else _partner(new, together, taken, judged, versions_differ)
                if old is not None:
                    taken |= {new.id, old.id}
                    found.append(_Candidate((old.id, new.id), new.language, versions_differ))
    return found


def _partner(
    new: _Answer, together: list[_Answer], taken: set[str], judged: set[frozenset[str]], versions_differ: bool
) -> _Answer | None:
    """The first free answer to compare with `new`: of an older version, or of the same; never the same words."""
    for old in together:
        fits = old.age > new.age >= 0 if versions_differ else old.age == new.age and old.id < new.id
        if fits and old.id not in taken and old.text_hash != new.text_hash and _key((old.id, new.id)) not in judged:
            return old
    return None


def _interleaved(pairs: list[_Candidate], singles: list[_Candidate]) -> Iterator[_Candidate]:
    """In turn: a pair of old against new, a single answer, a pair of one version; each for as long as there are any."""
    old_against_new = [pair for pair in pairs if pair.old_against_new]
    for turn in zip_longest(old_against_new, singles, [pair for pair in pairs if not pair.old_against_new]):
        yield from (candidate for candidate in turn if candidate is not None)


def _balanced(by_language: dict[str, list[_Candidate]], counts: dict[str, int], limit: int) -> Iterator[_Candidate]:
    """Up to `limit` candidates, each from the language that has the fewest ratings so far, in their order there."""
    heads = {language: iter(candidates) for language, candidates in by_language.items()}
    so_far = {language: counts.get(language, 0) for language in heads}
    while limit > 0 and heads:
        language = min(heads, key=lambda name: (so_far[name], name))
        candidate = next(heads[language], None)
        if candidate is None:
            del heads[language]
            continue
        yield candidate
        so_far[language] += 1
        limit -= 1


def _item(
    database: Database, rater: str, candidate: _Candidate, counts: dict[str, int], skipped: set[frozenset[str]]
) -> ReviewItem:
    found = tuple(samples.get(database, key) for key in candidate.ids)
    prompt = conversations.get(database, found[0].prompt_id)
    many = counts.get(prompt.language, 0)
    have = f"{prompt.language} has {many} rating{'' if many == 1 else 's'}"
    if candidate.old_against_new:
        why = "measures an older version against a newer one"
    elif len(found) == 2:
        why = f"two answers not compared yet; {have}"
    else:
        why = f"not rated yet; {have}"
    if _key(candidate.ids) in skipped:
        why = f"skipped before; {why}"
    if len(found) == 1:
        return ReviewItem("single", prompt, found, why)
    order = shown_order(rater, found[0].id, found[1].id)
    return ReviewItem("pair", prompt, found, why, order, candidate.old_against_new)


def _key(ids: tuple[str | None, ...]) -> frozenset[str]:
    return frozenset(name for name in ids if name is not None)
