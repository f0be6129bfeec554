"""The review queue: which answers a rater should see next, and why.

Two kinds of item: a single answer that the rater has not judged yet, and a blind pair of answers to one prompt that the
rater has not compared yet. They come in slices, each with its share (:mod:`storage.feedback.mix`): what teaches most,
what was drawn at random, an older version against a newer one, and what was judged before, by others, by those whose
word is right, or by the rater. Within a slice items are drawn from the language with the fewest ratings, of those that
the rater reads. Where the items of a slice come from is :mod:`storage.feedback.streams`.

Single answers of the newest version lead, those to one prompt one after the other, since what is learned is which
answer to a prompt is the better one; where a trained version left answers to be asked about, the prompt comes first
whose answer may be the best, by what its reward model expects and how unsure it is, and the pairs of whose outcome it
knows least. Held-out and ethics prompts are reviewed like any other (their ratings never train).
"""

from __future__ import annotations

import hashlib

import msgspec

from storage import conversations, raters
from storage.database import Database
from storage.feedback import census, mix, winning
from storage.feedback.mix import Mix
from storage.feedback.selection import Selection
from storage.feedback.streams import EVERYTHING, FEWEST_TO_DRAW_FROM, MOST_OTHERS, Candidate, Streams
from storage.records import Prompt, Sample
from storage.wording import counted

# So many of the first topics (what a version answered to a prompt) of all languages together are looked at before all
# of them are: the first ones are of the weights that matter now.
FIRST_TOPICS = 2000
DRAWN_ANEW_AFTER = 20  # ratings
# What a rater is told of overlap, gold and repeats while they judge: to know which of them it is would change what they
# say.
BLIND_REASON = "measures how far ratings agree"


class ReviewItem(msgspec.Struct, frozen=True):
    """One thing to judge.

    `samples` holds one answer, or `(a, b)` of a pair, where a is the older version when they differ. `shown_order`
    is `ab` when a stands left. A rating or skip of a pair names a as its `sample_id` and b as its `other_sample_id`.
    `slice` is one of :data:`storage.feedback.mix.SLICES`, and goes into the rating. `why` holds counts of the moment in
    which it was chosen; `reason` is the same without them, and without what a rater must not know while they judge.
    """

    kind: str  # single or pair; or ranking, of three or four answers as they stand (storage/feedback/rankings.py)
    prompt: Prompt
    samples: tuple[Sample, ...]
    why: str
    reason: str
    shown_order: str | None = None
    old_against_new: bool = False
    slice: str = "acquisition"

    @property
    def shown(self) -> tuple[Sample, ...]:
        """The answers from left to right."""
        return self.samples[::-1] if self.shown_order == "ba" else self.samples

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the answers."""
        return tuple(sample.id for sample in self.samples)


def next_items(
    database: Database,
    rater: str,
    limit: int = 10,
    *,
    session_start: int | None = None,
    selection: Selection | None = None,
    shares: Mix | None = None,
) -> list[ReviewItem]:
    """The next items for a rater, best first.

    What the rater skipped comes last; what was skipped after `session_start` (a :func:`storage.feedback.log.position`)
    does not come again, nor does anything the rater said they cannot judge.

    Args:
        selection: which part of the workspace to ask about; all of it by default.
        shares: of the slices; those of the workspace by default.
    """
    selection, shares = selection or Selection(), shares or mix.load(database)
    counts = census.ratings_by_language(database, rater)
    who, said = raters.find(database, rater), _said(database, rater)
    answers = {
        row["language"]: row["n"] or 0
        for row in database.rows(
            "SELECT language, sum(samples) FILTER (WHERE origin = 'model') AS n FROM tally_of_samples GROUP BY 1"
        )
    }
    languages = [name for name in answers if who.reads(name) and selection.has(name)]
    draws = frozenset(
        name for name in languages if shares.shares.get("random") and answers[name] >= FEWEST_TO_DRAW_FROM
    )
    gold = [name for name in raters.of_gold(database) if name != rater]
    others = _others(database, rater, gold)
    compared = winning.comparisons(database) if shares.shares.get("versions") else []
    found: list[Candidate] = []
    skips = database.scalar("SELECT 1 FROM tally_of_raters WHERE rater = ? AND kind = 'skip' AND ratings > 0", (rater,))
    for skipped in (False, True) if skips else (False,):
        for most in (FIRST_TOPICS // max(1, len(languages)), EVERYTHING):
            if len(found) < limit:
                streams = Streams(
                    database, rater, EVERYTHING if session_start is None else session_start, selection, others, gold,
                    compared, skipped=skipped, most=most, drawn=draws, seed=said // DRAWN_ANEW_AFTER,
                )  # fmt: skip
                _mixed(streams, shares, languages, counts, said + len(found), limit, found)
    if len(found) < limit and shares.written.count("=") > 1:
        # Repeats are no end in themselves: where nothing else is left, they do not come either.
        while found and found[-1].slice == "repeat":
            found.pop()
    return [_item(database, rater, candidate, counts) for candidate in found]


def shown_order(rater: str, a: str, b: str) -> str:
    """`ab` or `ba`, at random but the same each time this rater meets this pair."""
    digest = hashlib.sha256("\0".join((rater, *sorted((a, b)))).encode()).digest()
    return "ab" if (digest[0] % 2 == 0) == (a < b) else "ba"


def _mixed(
    streams: Streams,
    shares: Mix,
    languages: list[str],
    counts: dict[str, int],
    start: int,
    limit: int,
    found: list[Candidate],
) -> None:
    """Add to `found` what the slices have, up to `limit`: each item of the slice whose turn it is, from the language
    that has the fewest ratings so far."""
    heads = {
        name: {language: streams.of(name, language) for language in languages}
        for name, share in shares.shares.items()
        if share
    }
    so_far = {language: counts.get(language, 0) for language in languages}
    known = {candidate.answers for candidate in found}
    turns = shares.turns(start)
    while len(found) < limit:
        heads = {name: left for name, left in heads.items() if left}
        if not heads:
            return
        name = next(name for name in turns if name in heads)
        left = heads[name]
        while left:
            language = min(left, key=lambda one: (so_far[one], one))
            candidate = next((one for one in left[language] if one.answers not in known), None)
            if candidate is not None:
                found.append(candidate)
                known.add(candidate.answers)
                so_far[language] += 1
                break
            del left[language]


def _said(database: Database, rater: str) -> int:
    """How much a rater has said: where they are in the mix."""
    return database.scalar("SELECT ifnull(sum(ratings), 0) FROM tally_of_raters WHERE rater = ?", (rater,))


def _others(database: Database, rater: str, gold: list[str]) -> list[str]:
    """The other raters who said most; no judge models, of which a person's rating tells something wherever it is."""
    rows = database.rows(
        f"""SELECT rater, sum(ratings) AS n FROM tally_of_raters
            WHERE rater != ? AND rater NOT LIKE '{raters.JUDGE}%'
              AND rater NOT IN (SELECT name FROM raters WHERE kind = 'ai')
            GROUP BY 1 HAVING n > 0 ORDER BY n DESC""",
        (rater,),
    )
    return [row["rater"] for row in rows if row["rater"] not in gold][:MOST_OTHERS]


def _item(database: Database, rater: str, candidate: Candidate, counts: dict[str, int]) -> ReviewItem:
    found = tuple(
        one
        for sequence in candidate.answers
        for one in database.records(Sample, "SELECT * FROM samples WHERE sequence = ?", (sequence,))
    )
    prompt = conversations.get(database, found[0].prompt_id)
    many = counts.get(prompt.language, 0)
    have = f"{prompt.language} has {counted(many, 'rating')} by {rater}"
    match candidate.slice:
        case "versions":
            why = reason = "measures an older version against a newer one"
        case "random":
            why, reason = f"drawn at random; {have}", "drawn at random"
        case "acquisition":
            reason = "two answers not compared yet" if len(found) == 2 else "not rated yet"
            why = f"{reason}; {have}"
        case judged:
            why, reason = mix.SLICES[judged], BLIND_REASON
    if candidate.skipped:
        why, reason = f"skipped before; {why}", f"skipped before; {reason}"
    if len(found) == 1:
        return ReviewItem("single", prompt, found, why, reason, slice=candidate.slice)
    order = shown_order(rater, found[0].id, found[1].id)
    a, b = found
    differ = None not in (a.version, b.version) and a.version != b.version
    return ReviewItem("pair", prompt, found, why, reason, order, differ, candidate.slice)
