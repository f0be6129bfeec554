"""Where the items of each slice of the review queue come from: for one rater and one language, in the order in which
they are asked. Every read is of an index and ends after a bounded number of rows, however much was stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from storage.database import Database
from storage.feedback.agreement import COMPARED
from storage.feedback.kinds import SETTLING, RatingKind, sql_list
from storage.feedback.selection import Selection

# Every tenth answer of a model is drawn for the random slice, by its lot: the last 32 bits of its key, in hexadecimal
# digits (what comes before counts up within a millisecond). No slice that chooses asks for it: what was chosen must not
# decide what is left to be drawn.
DRAWN = "1999999a"
ALL, ABOVE = 1 << 32, "g"  # how many lots there are; what is above them
FEWEST_TO_DRAW_FROM = 40  # answers in a language: a tenth of fewer says nothing
REPEAT_AFTER = 50  # ratings in that language, before one is asked again
MOST_BESIDE = 20  # ratings before and after a moment that are looked at for what to ask again
MOST_OTHERS = 3  # raters with whom an overlap is looked for
FIRST_COMPARISONS = 8  # of versions, that are looked at before all are
FIRST_PAIRS = 20  # of each comparison and language, that are looked at before all are
EVERYTHING = 1 << 60

# The versions that answered in a language, each found by one look into an index.
_PRESENT = """
    WITH RECURSIVE present(version) AS (
        SELECT max(version) FROM answers WHERE language = :language
        UNION ALL SELECT (SELECT max(answers.version) FROM answers
                          WHERE language = :language AND answers.version < present.version)
                  FROM present WHERE present.version NOT NULL)
    SELECT version FROM present WHERE version > 0"""
# A condition on answers `a` (and `b`, of a pair): whether the rater has settled it, before or in this session.
_SETTLED = f"""
    EXISTS (SELECT 1 FROM counted WHERE counted.sample = {{sample}} AND counted.rater = :rater
            AND counted.other = {{other}} AND counted.kind IN {sql_list(SETTLING)}
            AND counted.attribute = 'overall' {{more}})"""
_SKIPPED_BEFORE = f"AND counted.kind = '{RatingKind.SKIP}' AND counted.sequence <= :session_start"
_ANYTHING_ELSE = f"AND NOT (counted.kind = '{RatingKind.SKIP}' AND counted.sequence <= :session_start)"
_PASSED_OVER = f"AND counted.kind IN {sql_list((RatingKind.SKIP, RatingKind.CANNOT_JUDGE))}"


class Candidate(msgspec.Struct, frozen=True):
    """Answers to ask about, by sequence: one, or an older and a newer one."""

    answers: tuple[int, ...]
    slice: str
    skipped: bool = False


class Streams:
    """The items of the slices; each slice is a method that gives its items in a language.

    Args:
        others: raters with whom an overlap is looked for. gold: those whose word is right.
        compared: versions, a newer and an older one, by sequence, as their pairs are asked one comparison after the
            other (:func:`storage.feedback.winning.comparisons`).
        skipped: whether to look for what was skipped before this session, or for what was never settled.
        most: how many topics of each language to look at, and how many answers to draw from.
        seed: moves where drawing begins, so that what was judged is not passed over each time.
    """

    def __init__(
        self,
        database: Database,
        rater: str,
        session_start: int,
        selection: Selection,
        others: list[str],
        gold: list[str],
        compared: list[tuple[int, int]],
        *,
        skipped: bool,
        most: int,
        drawn: frozenset[str],
        seed: int,
    ) -> None:
        self.database, self.rater, self.selection = database, rater, selection
        self.others, self.gold_raters, self.compared = others, gold, compared
        self.skipped, self.most, self.drawn, self.seed = skipped, most, drawn, seed
        self.parameters = {
            "rater": rater, "session_start": session_start, "most": most, **selection.parameters
        }  # fmt: skip

    def of(self, slice_: str, language: str) -> Iterator[Candidate]:
        """The items of a slice in a language; what was skipped before comes back where it was new."""
        fresh = {"acquisition": self._acquisition, "random": self._random, "versions": self._versions}
        beside = {} if self.skipped else {"overlap": self._overlap, "gold": self._gold, "repeat": self._repeat}
        stream = (fresh | beside).get(slice_)
        return stream(language) if stream else iter(())

    # What teaches most

    def _acquisition(self, language: str) -> Iterator[Candidate]:
        """A single answer and a pair of one version in turn, for as long as there are any."""
        pairs = self._told_of_first(language)
        return _in_turn(self._singles(language), pairs)

    def _singles(self, language: str) -> Iterator[Candidate]:
        """Topic by topic: of each the answer that most is hoped for first, else the one that was given last."""
        open_ = f"{self._open('answers.sample', '0')} AND answers.lot >= :first_lot"
        for prompt, version in self._topics(
            f"""SELECT 1 FROM answers WHERE answers.prompt = topics.prompt AND answers.version = topics.version
                AND {open_}""",
            language,
        ):
            for (sample,) in self._rows(
                f"""SELECT sample FROM answers CROSS JOIN samples ON samples.sequence = sample
                    LEFT JOIN expectations ON sample_id = samples.id
                    WHERE answers.prompt = :prompt AND answers.version = :version AND {open_}
                    ORDER BY reward + deviation DESC, sample DESC""",
                language,
                prompt=prompt,
                version=version,
            ):
                yield Candidate((sample,), "acquisition", self.skipped)

    def _told_of_first(self, language: str) -> Iterator[Candidate]:
        """The pairs of whose outcome the reward model knows least and that nobody has compared, then all others."""
        for old, new in self._rows(
            f"""SELECT telling_pairs.sample, telling_pairs.other FROM telling_pairs
                CROSS JOIN answers AS a ON a.sample = telling_pairs.other
                CROSS JOIN answers AS b ON b.sample = telling_pairs.sample
                WHERE telling_pairs.language = :language AND a.lot >= :first_lot AND b.lot >= :first_lot
                  AND {self._open("telling_pairs.sample", "telling_pairs.other")}
                  AND NOT EXISTS (SELECT 1 FROM counted WHERE counted.sample = telling_pairs.sample
                                  AND counted.other = telling_pairs.other AND counted.rater != :rater
                                  AND counted.source != 'ai')
                  {self.selection.conditions("a.prompt", "a.version")}
                ORDER BY place LIMIT :most""",
            language,
        ):
            yield Candidate((old, new), "acquisition", self.skipped)
        yield from self._pairs(language)

    def _pairs(self, language: str) -> Iterator[Candidate]:
        """Prompt by prompt, each answer in one pair at a time: two answers of one version."""
        open_ = self._open("min(a.sample, b.sample)", "max(a.sample, b.sample)")
        open_ += " AND a.lot >= :first_lot AND b.lot >= :first_lot"
        for prompt, version in self._topics(
            f"""SELECT 1 FROM answers AS b CROSS JOIN answers AS a ON b.prompt = a.prompt AND b.words != a.words
                WHERE b.prompt = topics.prompt AND b.version = topics.version AND a.version = topics.version
                AND {open_}""",
            language,
        ):
            taken: set[int] = set()
            for new, old in self._rows(
                f"""SELECT a.sample, b.sample FROM answers AS a
                    CROSS JOIN answers AS b ON b.prompt = a.prompt AND b.words != a.words
                    WHERE a.prompt = :prompt AND a.version = :version AND b.version = :version
                    AND b.sample < a.sample AND {open_}
                    ORDER BY a.sample DESC, b.sample DESC""",
                language,
                prompt=prompt,
                version=version,
            ):
                if not taken & {new, old}:
                    taken |= {new, old}
                    yield Candidate((old, new), "acquisition", self.skipped)

    # What is drawn

    def _random(self, language: str) -> Iterator[Candidate]:
        """A drawn answer and a pair with one in turn."""
        if language not in self.drawn:
            return iter(())
        return _in_turn(self._drawn(language, self._drawn_single), self._drawn(language, self._drawn_pair))

    def _drawn(self, language: str, item: str) -> Iterator[Candidate]:
        """The items of drawn answers in the order of their lots, from somewhere on and around."""
        start = self._somewhere(language, int(DRAWN, 16))
        for low, high in ((start, DRAWN), ("", start)):
            for found in self._rows(
                f"""{item} {self.selection.conditions("a.prompt", "a.version")} ORDER BY a.lot LIMIT :most""",
                language,
                low=low,
                high=high,
            ):
                yield Candidate(tuple(found), "random", self.skipped)

    @property
    def _drawn_single(self) -> str:
        return f"""SELECT a.sample FROM answers AS a WHERE a.language = :language AND a.lot >= :low AND a.lot < :high
                   AND {self._open("a.sample", "0")}"""

    @property
    def _drawn_pair(self) -> str:
        """Each drawn answer beside the first in other words that the rater has not compared it with."""
        return f"""SELECT min(a.sample, b.sample), max(a.sample, b.sample) FROM answers AS a
                   CROSS JOIN answers AS b ON b.sample = (
                       SELECT other.sample FROM answers AS other
                       WHERE other.prompt = a.prompt AND other.version = a.version AND other.words != a.words
                         AND (other.lot > a.lot OR other.lot >= :first_lot)
                         AND {self._open("min(a.sample, other.sample)", "max(a.sample, other.sample)")}
                       ORDER BY other.lot LIMIT 1)
                   WHERE a.language = :language AND a.lot >= :low AND a.lot < :high"""

    def _versions(self, language: str) -> Iterator[Candidate]:
        """Pairs of an older and a newer version, the comparison that matters now first.

        What is said of them is a win rate, and nothing but chance may choose them: neither what the reward model hopes,
        nor what an answer says, nor what the rater has judged beside. Of each version the first answer to a prompt, the
        second and so on are a pair, so that no answer is in two; the lots of the newer ones order them.
        """
        present = {version for (version,) in self._rows(_PRESENT, language)}
        compared = [both for both in self.compared if present.issuperset(both)]
        for new, old in compared if self.most == EVERYTHING else compared[:FIRST_COMPARISONS]:
            start, left = self._somewhere(language, ALL), EVERYTHING if self.most == EVERYTHING else FIRST_PAIRS
            for low, high in ((start, ABOVE), ("", start)):
                # All are read, each with whether it is asked: see `_topics`.
                for older, newer, asked in self._rows(
                    f"""SELECT b.sample, a.sample, b.words != a.words AND
                               {self._open("min(a.sample, b.sample)", "max(a.sample, b.sample)")}
                               {self.selection.conditions("a.prompt", "a.version")}
                        FROM (SELECT * FROM answers WHERE language = :language AND version = :new
                              AND lot >= :low AND lot < :high ORDER BY lot LIMIT :left) AS a
                        LEFT JOIN answers AS b ON b.prompt = a.prompt AND b.version = :old AND b.ordinal = a.ordinal
                        ORDER BY a.lot""",
                    language,
                    new=new,
                    old=old,
                    low=low,
                    high=high,
                    left=left,
                ):
                    left -= 1
                    if asked:
                        yield Candidate((older, newer), "versions", self.skipped)

    def _somewhere(self, language: str, lots: int) -> str:
        """One of the first lots."""
        return f"{int(lots * self._chance(self.rater, language)):08x}"

    def _chance(self, *about: str) -> float:
        """From 0 to below 1, another for every seed."""
        digest = hashlib.sha256("\0".join((self.rater, *about, str(self.seed))).encode()).digest()
        return int.from_bytes(digest[:6]) / (1 << 48)

    # What was judged before

    def _overlap(self, language: str) -> Iterator[Candidate]:
        """What others judged in person, not in a file, and this rater has not."""
        return self._judged_by(self.others, language, "overlap", "judged.source != 'imported'")

    def _gold(self, language: str) -> Iterator[Candidate]:
        """What those have judged whose word is right."""
        return self._judged_by(self.gold_raters, language, "gold", "1")

    def _judged_by(self, raters: list[str], language: str, slice_: str, wanted: str) -> Iterator[Candidate]:
        open_ = f"{wanted} AND {self._open('judged.sample', 'judged.other')}"
        return (found for rater in raters for found in self._judged(rater, language, slice_, open_, 0))

    def _repeat(self, language: str) -> Iterator[Candidate]:
        """What this rater judged a while ago, once more; what they passed over since is not asked again."""
        passed_over = _SETTLED.format(
            sample="judged.sample", other="judged.other", more=f"{_PASSED_OVER} AND counted.sequence > judged.sequence"
        )
        new = f"judged.source != 'imported' AND NOT {passed_over} AND ratings.slice IS NOT 'repeat'"
        return self._judged(self.rater, language, "repeat", new, REPEAT_AFTER)

    def _judged(self, judge: str, language: str, slice_: str, wanted: str, after: int) -> Iterator[Candidate]:
        """What one rater judged around some moment, drawn anew as the one who is asked goes on.

        Args:
            wanted: what must hold of the rating `judged`, which is also in `ratings`.
            after: so many of the rater's newest ratings are left out.
        """
        span = """(SELECT sequence FROM counted WHERE rater = :judge AND language = :language
                    ORDER BY sequence {order} LIMIT 1 OFFSET {offset})"""
        first, last = self._span(
            span.format(order="", offset=0), span.format(order="DESC", offset=after), language, judge
        )
        if last is None or first is None or last < first:
            return
        moment = first + int((last - first + 1) * self._chance(judge, language))
        for side, order in ((">= :moment", ""), ("< :moment", "DESC")):
            for sample, other in self._rows(
                f"""SELECT DISTINCT judged.sample, judged.other FROM (
                        SELECT * FROM counted WHERE rater = :judge AND language = :language
                            AND sequence {side} AND sequence <= :last ORDER BY sequence {order} LIMIT {MOST_BESIDE}
                    ) AS judged JOIN ratings ON ratings.sequence = judged.sequence
                    WHERE judged.kind IN {sql_list(COMPARED)} AND judged.attribute = 'overall'
                      AND {wanted} {self._judged_conditions}""",
                language,
                judge=judge,
                moment=moment,
                last=last,
            ):
                yield Candidate((sample, other) if other else (sample,), slice_)

    def _span(self, first: str, last: str, language: str, judge: str) -> tuple[int | None, int | None]:
        """The sequences of a rater's first rating in a language, and of the last that is looked at."""
        (found,) = self._rows(f"SELECT {first}, {last}", language, judge=judge)
        return found[0], found[1]

    @property
    def _judged_conditions(self) -> str:
        version = "(SELECT version FROM answers WHERE answers.sample = judged.sample)"
        return self.selection.conditions("judged.prompt", version)

    # How they are read

    def _open(self, sample: str, other: str) -> str:
        """The condition that the rater is to be asked about an answer (`other` is 0), or about a pair."""
        if not self.skipped:
            return "NOT " + _SETTLED.format(sample=sample, other=other, more="")
        before = _SETTLED.format(sample=sample, other=other, more=_SKIPPED_BEFORE)
        return before + " AND NOT " + _SETTLED.format(sample=sample, other=other, more=_ANYTHING_ELSE)

    def _topics(self, something: str, language: str) -> Iterator[tuple[int, int]]:
        """The topics (prompt, version) of a language of which there is something, in the order of the index
        `topics_in_order`.

        All topics are read, each with its answer: SQLite's cursors in Python look one row ahead, and where the next
        topic with something is far away, that would be a long way to look.
        """
        topics = f"""(SELECT prompt, version FROM topics WHERE language = :language
                      {self.selection.conditions("topics.prompt", "topics.version")}
                      ORDER BY version DESC, answers < 2, hope DESC, newest DESC LIMIT :most) AS topics"""
        sql = f"SELECT prompt, version, ({something} LIMIT 1) FROM {topics}"
        return ((prompt, version) for prompt, version, found in self._rows(sql, language) if found)

    def _rows(self, sql: str, language: str, **parameters: object) -> Iterator[tuple[int, ...]]:
        """The rows of a query, read as they are asked for."""
        first_lot = DRAWN if language in self.drawn else ""
        cursor = self.database.cursor(
            sql, {**self.parameters, "language": language, "first_lot": first_lot, **parameters}
        )
        try:
            yield from cursor
        finally:
            cursor.close()


def _in_turn(*streams: Iterator[Candidate]) -> Iterator[Candidate]:
    """One of each in turn; of those that are left, when some have ended."""
    left = list(streams)
    while left:
        for stream in list(left):
            found = next(stream, None)
            if found is None:
                left.remove(stream)
            else:
                yield found
