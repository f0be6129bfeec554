"""The registry of rating kinds: one entry each, from which all the rest follows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.database import Database
from storage.errors import WorkbenchError
from storage.exchange.rows import BadFieldError
from storage.feedback import census, kinds, log, outcome
from storage.feedback.kinds import JUDGING, KINDS, SETTLING, TURNS, RatingKind
from storage.feedback.outcome import Outcome
from storage.records import Choice, Rating, Sample

A = "01a21784-371b-7694-a0a5-748a96bb73f5"
B = "01a21784-371b-7694-a0a5-748a96bb73f6"
RATINGS = {
    RatingKind.SCORE: log.score(A, 4, "ana", (0, 10)),
    RatingKind.LABEL: log.label(A, False, "ana"),
    RatingKind.PAIR: log.pair(A, B, Choice.B, "ana", value=0.2),
    RatingKind.EDIT: log.edit(A, "better", "ana"),
    RatingKind.TAGS: log.tags(A, {"harm": "insult", "severity": 2}, "ana"),
    RatingKind.OUTCOME: log.outcome(A, "it rose", "ana", worked=True, score=4, scale=(0, 10)),
    RatingKind.MISTAKE: log.in_words(RatingKind.MISTAKE, A, "bread does not freeze", "ana"),
    RatingKind.NOTE: log.note(A, "hm", "ana"),
    RatingKind.SKIP: log.skip(A, "ana"),
    RatingKind.CANNOT_JUDGE: log.skip(A, "ana", cannot_judge=True),
}


def test_every_kind_has_its_entry() -> None:
    assert set(KINDS) == set(RatingKind) == {*RATINGS, *TURNS}


@pytest.mark.parametrize("kind", RATINGS)
def test_what_a_rating_says_is_in_the_fields_of_its_kind_and_passes_its_check(kind: RatingKind) -> None:
    rating = RATINGS[kind]
    kinds.check(rating)
    blank = Rating(rating.id, rating.created_at, "ana", kind, sample_id=A)
    said = {name for name in Rating.__struct_fields__ if getattr(rating, name) != getattr(blank, name)}
    assert said == set(KINDS[kind].says)


@pytest.mark.parametrize("kind", [kind for kind in RATINGS if KINDS[kind].says])
def test_a_rating_that_says_nothing_does_not_pass(kind: RatingKind) -> None:
    with pytest.raises(BadFieldError):
        kinds.check(Rating(A, "", "ana", kind, sample_id=A))


@pytest.mark.parametrize("kind", [kind for kind in RATINGS if KINDS[kind].record and kind != RatingKind.PAIR])
def test_a_record_tells_what_the_rating_told(kind: RatingKind) -> None:
    rating, entry = RATINGS[kind], KINDS[kind]
    fields = entry.write(rating)
    assert entry.record[1] in fields
    assert set(fields) <= set(entry.record)
    read = entry.read(fields)
    assert {name: getattr(rating, name) for name in entry.says} == read


def test_what_a_card_says_of_each_kind() -> None:
    said = {str(kind): kinds.words(rating, A) for kind, rating in RATINGS.items()}
    assert said == {
        "score": "4/10", "label": "bad", "pair": "", "edit": "edited", "tags": "tagged insult 2",
        "outcome": "worked 4/10", "mistake": "mistake", "note": "noted", "skip": "skipped",
        "cannot-judge": "cannot be judged",
    }  # fmt: skip
    assert kinds.words(RATINGS[RatingKind.PAIR], B) == "preferred"
    for choice, words in ((Choice.TIE, "tie"), (Choice.BOTH_BAD, "both bad")):
        assert kinds.words(log.pair(A, B, choice, "ana"), A) == words


def test_skips_and_notes_judge_nothing_and_what_is_said_in_words_settles_nothing() -> None:
    assert set(RATINGS) - set(JUDGING) == {RatingKind.NOTE, RatingKind.SKIP, RatingKind.CANNOT_JUDGE}
    assert set(RATINGS) - set(SETTLING) == {RatingKind.NOTE, RatingKind.OUTCOME, RatingKind.MISTAKE, RatingKind.TAGS}


@pytest.mark.parametrize("text", ["", " \n\t"])
@pytest.mark.parametrize("kind", [RatingKind.OUTCOME, RatingKind.MISTAKE])
def test_an_outcome_or_a_mistake_of_blanks_is_refused(
    database: Database, answer: Sample, kind: RatingKind, text: str
) -> None:
    with pytest.raises(WorkbenchError, match="must say"):
        log.append(database, log.in_words(kind, answer.id, text, "ana"))


def test_an_outcome_told_again_replaces_the_earlier_one_and_counts_as_a_rating(
    database: Database, answer: Sample
) -> None:
    log.append(database, log.outcome(answer.id, "it rose", "ana"))
    log.append(database, log.outcome(answer.id, "it rose, then fell", "ana"))
    assert [one.text for one in log.effective(database)] == ["it rose, then fell"]
    assert census.summary(database).kinds == {"outcome": 1}


def test_what_a_new_rating_replaces_is_named_once_for_the_log_and_for_imports() -> None:
    named = {kind: kinds.name_of(rating) for kind, rating in RATINGS.items()}
    assert {kind for kind, name in named.items() if name is None} == {
        RatingKind.NOTE, RatingKind.SKIP, RatingKind.CANNOT_JUDGE,
    }  # fmt: skip
    assert kinds.name_of(log.pair(B, A, Choice.A, "ana")) == named[RatingKind.PAIR], "whichever stands first"
    assert kinds.name_of(log.edit(A, "other", "ana", attribute="tone")) == named[RatingKind.EDIT]
    toned = log.score(A, 4, "ana", attribute="tone")
    for other in (log.score(A, 4, "bo"), log.score(B, 4, "ana"), log.label(A, True, "ana"), toned):
        assert kinds.name_of(other) != named[RatingKind.SCORE]


WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
OUTCOMES = st.builds(
    lambda worked, reason, score: Outcome(worked, reason, score, (0.0, 10.0) if score is not None else (1.0, 5.0)),
    st.sampled_from([True, False, None]),
    WORDS | st.sampled_from(["worked", "Failed ", "unclear", "it rose"]),
    st.none() | st.integers(0, 10).map(float),
)


@given(OUTCOMES)
def test_an_outcome_is_told_by_a_rating_and_by_a_record_without_loss(told: Outcome) -> None:
    rating = log.outcome(A, told.reason, "ana", worked=told.worked, score=told.score, scale=told.scale)
    if told.worked is None and told.score is None and not told.reason.strip():
        with pytest.raises(BadFieldError):
            kinds.check(rating)
        return
    kinds.check(rating)
    assert outcome.of(rating) == told
    assert outcome.read(outcome.write(rating)) == told.fields


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"outcome": "the bread rose"}, Outcome(reason="the bread rose")),
        ({"outcome": " Worked"}, Outcome(True)),
        ({"outcome": False, "outcome_reason": "no yeast"}, Outcome(False, "no yeast")),
        ({"outcome": "unclear", "outcome_score": 3}, Outcome(score=3.0)),
        ({"outcome": "unclear"}, Outcome(reason="unclear")),
    ],
)
def test_what_the_fields_of_an_outcome_mean(fields: dict[str, object], told: Outcome) -> None:
    assert outcome.read(fields) == told.fields


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"outcome": 3}, "outcome"),
        ({"outcome": "it rose", "outcome_reason": "yeast"}, "outcome"),
        ({"outcome": "worked", "outcome_score": 9}, "outcome_score"),
        ({"outcome": "worked", "outcome_score": "high"}, "outcome_score"),
        ({"outcome": "worked", "outcome_score": 1, "outcome_scale": [5, 1]}, "outcome_score"),
    ],
)
def test_an_outcome_that_cannot_be_says_which_field_is_wrong(fields: dict[str, object], place: str) -> None:
    with pytest.raises(BadFieldError) as refused:
        outcome.read(fields)
    assert refused.value.field == place
