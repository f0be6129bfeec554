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
from collections.abc import Iterator

import msgspec

from storage import conversations
from storage.database import Database
from storage.feedback import census
from storage.feedback.kinds import SETTLING, RatingKind, sql_list
from storage.records import Prompt, Sample

# So many of the first topics (what a version answered to a prompt) of all languages together are looked at before all
# of them are: the first ones are of the weights that matter now.
FIRST_TOPICS = 2000
EVERYTHING = 1 << 60

# A condition on answers `a` (and `b`, of a pair): whether the rater has settled it, before or in this session.
_SETTLED = f"""
    EXISTS (SELECT 1 FROM counted WHERE counted.sample = {{sample}} AND counted.rater = :rater
            AND counted.other = {{other}} AND counted.kind IN {sql_list(SETTLING)}
            AND counted.attribute = 'overall' {{more}})"""
_SKIPPED_BEFORE = f"AND counted.kind = '{RatingKind.SKIP}' AND counted.sequence <= :session_start"
_ANYTHING_ELSE = f"AND NOT (counted.kind = '{RatingKind.SKIP}' AND counted.sequence <= :session_start)"
# The topics of a language in the order of the index `topics_in_order`.
_TOPICS = """(SELECT prompt, version FROM topics WHERE language = :language
              ORDER BY version DESC, answers < 2, hope DESC, newest DESC LIMIT :most) AS topics"""


class ReviewItem(msgspec.Struct, frozen=True):
    """One thing to judge.

    `samples` holds one answer, or `(a, b)` of a pair, where a is the older version when they differ. `shown_order`
    is `ab` when a stands left. A rating or skip of a pair names a as its `sample_id` and b as its `other_sample_id`.
    `why` holds counts of the moment in which it was chosen; `reason` is the same without them, for what is shown later.
    """

    kind: str  # single or pair; or ranking, of three or four answers as they stand (storage/feedback/rankings.py)
    prompt: Prompt
    samples: tuple[Sample, ...]
    why: str
    reason: str
    shown_order: str | None = None
    old_against_new: bool = False

    @property
    def shown(self) -> tuple[Sample, ...]:
        """The answers from left to right."""
        return self.samples[::-1] if self.shown_order == "ba" else self.samples

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the answers."""
        return tuple(sample.id for sample in self.samples)


class _Candidate(msgspec.Struct, frozen=True):
    """Answers to ask about, by sequence: one, or an older and a newer one."""

    answers: tuple[int, ...]
    skipped: bool
    old_against_new: bool = False


def next_items(
    database: Database, rater: str, limit: int = 10, *, session_start: int | None = None
) -> list[ReviewItem]:
    """The next items for a rater, best first.

    What the rater skipped comes last; what was skipped after `session_start` (a :func:`storage.feedback.log.position`)
    does not come again, nor does anything the rater said they cannot judge.
    """
    counts = census.ratings_by_language(database, rater)
    languages = [row["language"] for row in database.rows("SELECT DISTINCT language FROM tally_of_samples")]
    found: list[_Candidate] = []
    skips = database.scalar("SELECT 1 FROM tally_of_raters WHERE rater = ? AND kind = 'skip' AND ratings > 0", (rater,))
    for skipped in (False, True) if skips else (False,):
        for most in (FIRST_TOPICS // max(1, len(languages)), EVERYTHING):
            if len(found) < limit:
                asker = _Asker(database, rater, EVERYTHING if session_start is None else session_start, skipped, most)
                fresh = asker.candidates(languages, counts, limit)
                found += [one for one in fresh if one not in found][: limit - len(found)]
    return [_item(database, rater, candidate, counts) for candidate in found]


def shown_order(rater: str, a: str, b: str) -> str:
    """`ab` or `ba`, at random but the same each time this rater meets this pair."""
    digest = hashlib.sha256("\0".join((rater, *sorted((a, b)))).encode()).digest()
    return "ab" if (digest[0] % 2 == 0) == (a < b) else "ba"


class _Asker:
    """Finds what one rater can be asked, in the order in which it is asked; reads no further than it is drawn from.

    Args:
        skipped: whether to look for what was skipped before this session, or for what was never settled.
        most: how many topics of each language to look at.
    """

    def __init__(self, database: Database, rater: str, session_start: int, skipped: bool, most: int) -> None:
        self.database = database
        self.skipped = skipped
        self.parameters = {"rater": rater, "session_start": session_start, "most": most}

    def candidates(self, languages: list[str], counts: dict[str, int], limit: int) -> list[_Candidate]:
        """Up to `limit`, each from the language that has the fewest ratings so far, in their order there."""
        heads = {language: self._in_turn(language) for language in languages}
        so_far = {language: counts.get(language, 0) for language in heads}
        found: list[_Candidate] = []
        while len(found) < limit and heads:
            language = min(heads, key=lambda name: (so_far[name], name))
            candidate = next(heads[language], None)
            if candidate is None:
                del heads[language]
                continue
            found.append(candidate)
            so_far[language] += 1
        return found

    def _in_turn(self, language: str) -> Iterator[_Candidate]:
        """A pair of old against new, a single answer, a pair of one version; each for as long as there are any."""
        streams = [self._pairs(language, True), self._singles(language), self._pairs(language, False)]
        while streams:
            for stream in list(streams):
                candidate = next(stream, None)
                if candidate is None:
                    streams.remove(stream)
                else:
                    yield candidate

    def _singles(self, language: str) -> Iterator[_Candidate]:
        """Topic by topic: of each the answer that most is hoped for first, else the one that was given last."""
        open_ = self._open("answers.sample", "0")
        for prompt, version in self._topics(
            f"""SELECT 1 FROM answers WHERE answers.prompt = topics.prompt AND answers.version = topics.version
                AND {open_}""",
            language,
        ):
            yield from (
                _Candidate((sample,), self.skipped)
                for (sample,) in self._rows(
                    f"""SELECT sample FROM answers CROSS JOIN samples ON samples.sequence = sample
                        LEFT JOIN expectations ON sample_id = samples.id
                        WHERE answers.prompt = :prompt AND answers.version = :version AND {open_}
                        ORDER BY reward + deviation DESC, sample DESC""",
                    prompt=prompt,
                    version=version,
                )
            )

    def _pairs(self, language: str, old_against_new: bool) -> Iterator[_Candidate]:
        """Prompt by prompt, each answer in one pair of this stream at a time."""
        compared = "BETWEEN 1 AND topics.version - 1" if old_against_new else "= topics.version"
        open_ = self._open("min(a.sample, b.sample)", "max(a.sample, b.sample)")
        for prompt, version in self._topics(
            f"""SELECT 1 FROM answers AS b CROSS JOIN answers AS a ON b.prompt = a.prompt AND b.words != a.words
                WHERE b.prompt = topics.prompt AND b.version {compared} AND a.version = topics.version
                AND {open_}""",
            language,
        ):
            taken: set[int] = set()
            for new, old in self._rows(
                f"""SELECT a.sample, b.sample FROM answers AS a
                    CROSS JOIN answers AS b ON b.prompt = a.prompt AND b.words != a.words
                    WHERE a.prompt = :prompt AND a.version = :version
                    AND {"b.version BETWEEN 1 AND :version - 1" if old_against_new else "b.version = :version"}
                    AND (b.version < a.version OR b.sample < a.sample) AND {open_}
                    ORDER BY a.sample DESC, b.version DESC, b.sample DESC""",
                prompt=prompt,
                version=version,
            ):
                if not taken & {new, old}:
                    taken |= {new, old}
                    yield _Candidate((old, new), self.skipped, old_against_new)

    def _open(self, sample: str, other: str) -> str:
        """The condition that the rater is to be asked about an answer (`other` is 0), or about a pair."""
        if not self.skipped:
            return "NOT " + _SETTLED.format(sample=sample, other=other, more="")
        before = _SETTLED.format(sample=sample, other=other, more=_SKIPPED_BEFORE)
        return before + " AND NOT " + _SETTLED.format(sample=sample, other=other, more=_ANYTHING_ELSE)

    def _topics(self, something: str, language: str) -> Iterator[tuple[int, int]]:
        """The topics (prompt, version) of a language of which there is something.

        All topics are read, each with its answer: SQLite's cursors in Python look one row ahead, and where the next
        topic with something is far away, that would be a long way to look.
        """
        sql = f"SELECT prompt, version, ({something} LIMIT 1) FROM {_TOPICS}"
        return ((prompt, version) for prompt, version, found in self._rows(sql, language=language) if found)

    def _rows(self, sql: str, **parameters: object) -> Iterator[tuple[int, ...]]:
        """The rows of a query, read as they are asked for."""
        cursor = self.database.connection.execute(sql, {**self.parameters, **parameters})
        try:
            yield from cursor
        finally:
            cursor.close()


def _item(database: Database, rater: str, candidate: _Candidate, counts: dict[str, int]) -> ReviewItem:
    found = tuple(
        one
        for sequence in candidate.answers
        for one in database.records(Sample, "SELECT * FROM samples WHERE sequence = ?", (sequence,))
    )
    prompt = conversations.get(database, found[0].prompt_id)
    many = counts.get(prompt.language, 0)
    have = f"{prompt.language} has {many} rating{'' if many == 1 else 's'}"
    if candidate.old_against_new:
        reason, counted = "measures an older version against a newer one", ""
    else:
        reason, counted = ("two answers not compared yet" if len(found) == 2 else "not rated yet"), f"; {have}"
    if candidate.skipped:
        reason = f"skipped before; {reason}"
    if len(found) == 1:
        return ReviewItem("single", prompt, found, reason + counted, reason)
    order = shown_order(rater, found[0].id, found[1].id)
    return ReviewItem("pair", prompt, found, reason + counted, reason, order, candidate.old_against_new)
