"""What each kind of rating teaches, what never teaches, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest

from storage import conversations, jobs, samples, versions
from storage.errors import UsageError
from storage.feedback import log
from storage.records import Choice, Rating, RatingKind, Source, Split
from trainer.config import FEWEST_SCORED
from trainer.examples import Examples, check_enough, collect
from trainer.prompt_split import split_prompts, table_split

DIGEST = "digest of the model that learns"


@pytest.fixture
def answered(database):
    """A function that stores a prompt with some answers and returns their keys."""

    def store(
        text: str = "天空为什么是蓝色的？", *answers: str, split: Split | None = Split.TRAIN, **more: object
    ) -> list[str]:
        prompt = conversations.add(database, text, language="zh", split=split)
        made = [samples.new(prompt.id, answer, **more) for answer in answers or ("因为散射。",)]
        samples.add(database, made)
        return [sample.id for sample in made]

    return store


def rate(database, *events: Rating) -> None:
    log.append_all(database, events)


def test_scores_are_standardised_by_rater_whatever_their_scale(database, answered):
    keys = answered("Warum?", "a", "b", "c", "d", "e")
    for value, key in zip((1, 2, 3, 4, 5), keys, strict=True):
        rate(database, log.score(key, value, "amina"), log.score(key, 20 * value, "jürgen", scale=(0, 100)))
    found = collect(database, DIGEST).scores
    assert len(found) == 10
    for rater in ("amina", "jürgen"):
        values = [score.value for score in found if score.rater == rater]
        assert values == pytest.approx([-(2**0.5), -(0.5**0.5), 0, 0.5**0.5, 2**0.5])


def test_a_rater_with_few_or_equal_scores_is_taken_at_the_middle_of_the_scale(database, answered):
    keys = answered("Why?", *"abcdef")
    rate(database, *(log.score(key, 5, "always five") for key in keys), log.score(keys[0], 2, "rarely"))
    values = {(score.rater, score.value) for score in collect(database, DIGEST).scores}
    assert values == {("always five", 2.0), ("rarely", -1.0)}


def test_labels_teach_good_and_bad(database, answered):
    good, bad = answered("¿Por qué?", "sí", "no")
    rate(database, log.label(good, True, "amina"), log.label(bad, False, "amina"))
    assert [(label.response.text, label.good, label.weight) for label in collect(database, DIGEST).labels] == [
        ("sí", True, 1.0), ("no", False, 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("choice", "wins"), [(Choice.A, 1.0), (Choice.B, 0.0), (Choice.TIE, 0.5)])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_pairs_teach_who_wins_wherever_each_stood(database, answered, choice, wins, order):
    a, b = answered("Pourquoi ?", "un", "deux")
    rate(database, log.pair(a, b, choice, "amina", shown_order=order))
    (pair,) = collect(database, DIGEST).pairs
    assert (pair.first.text, pair.second.text, pair.first_wins) == ("un", "deux", wins)


@pytest.mark.parametrize(("order", "left"), [("ab", True), ("ba", False), (None, None)])
def test_pairs_tell_who_judged_and_which_stood_left(database, answered, order, left):
    a, b = answered("Pourquoi ?", "un", "deux")
    rate(database, log.pair(a, b, Choice.B, "juma", shown_order=order))
    (pair,) = collect(database, DIGEST).pairs
    assert (pair.rater, pair.first_left, str(pair.habit)) == ("juma", left, "juma")


def test_other_attributes_are_standardised_by_themselves_and_keep_their_name(database, answered):
    keys = answered("Warum?", "a", "b", "c", "d", "e")
    for value, key in zip((1, 2, 3, 4, 5), keys, strict=True):
        rate(database, log.score(key, value, "amina"))
        rate(database, log.score(key, 5 if key == keys[0] else 4, "amina", attribute="polite"))
    rate(database, log.label(keys[0], True, "amina", attribute="safe"))
    rate(database, log.pair(keys[0], keys[1], Choice.A, "amina", attribute="polite"))
    found = collect(database, DIGEST)
    by_habit = {}
    for score in found.scores:
        by_habit.setdefault(str(score.habit), []).append(score.value)
    assert by_habit["amina"] == pytest.approx([-(2**0.5), -(0.5**0.5), 0, 0.5**0.5, 2**0.5])
    assert by_habit["amina (polite)"] == pytest.approx([2, -0.5, -0.5, -0.5, -0.5])
    assert [str(example.habit) for example in (*found.labels, *found.pairs)] == ["amina (safe)", "amina (polite)"]


def test_implied_labels_are_nobodys_habit_unless_of_another_attribute(database, answered):
    a, b = answered("Kwa nini?", "x", "y")
    rate(database, log.tags(a, {"harm": "medical"}, "amina"), log.pair(a, b, Choice.BOTH_BAD, "juma"))
    assert [label.habit for label in collect(database, DIGEST).labels] == [None] * 3
    rate(database, log.pair(a, b, Choice.BOTH_BAD, "juma", attribute="polite"))
    assert [str(label.habit) for label in collect(database, DIGEST).labels[3:]] == ["juma (polite)"] * 2


def test_other_splits_and_chosen_sources_are_there_to_measure_with(database, answered):
    (kept,) = answered("secreto", "x", split=Split.HELD_OUT)
    (open_one,) = answered("abierto", "y")
    for key in (kept, open_one):
        rate(database, log.label(key, True, "amina"), log.label(key, False, "judge", source=Source.AI))
    found = collect(database, DIGEST, split=Split.HELD_OUT, sources=[Source.HUMAN])
    assert [(label.prompt.text, label.rater) for label in found.labels] == [("secreto", "amina")]
    assert len(found.rating_ids) == 1
    assert collect(database, DIGEST).languages() == {"zh": 2}


def test_a_pair_of_two_bad_answers_teaches_two_bad_labels_of_half_weight(database, answered):
    rate(database, log.pair(*answered("Kwa nini?", "x", "y"), Choice.BOTH_BAD, "amina"))
    found = collect(database, DIGEST)
    assert not found.pairs
    assert [(label.good, label.weight) for label in found.labels] == [(False, 0.5)] * 2


def test_an_edit_wins_against_what_it_corrects(database, answered):
    (key,) = answered("Por quê?", "poruqe")
    rate(database, log.edit(key, "porque", "amina"))
    (pair,) = collect(database, DIGEST).pairs
    assert (pair.first.text, pair.second.text, pair.first_wins) == ("porque", "poruqe", 1.0)


@pytest.mark.parametrize(
    ("tags", "weight"),
    [
        ({"harm": "medical"}, 1 / 3),
        ({"harm": "medical", "severity": 2}, 2 / 3),
        ({"harm": "medical", "severity": 9}, 1.0),
        ({"harm": True, "severity": "high"}, 1 / 3),
        ({"severity": 3}, 1.0),
        ({"harm": "medical", "severity": 0}, None),
        ({"harm": False}, None),
        ({"polite": True, "register": "formal"}, None),
    ],
)
def test_a_harm_tag_teaches_a_bad_label_and_other_tags_teach_nothing(database, answered, tags, weight):
    (key,) = answered()
    rate(database, log.tags(key, tags, "amina"))
    found = collect(database, DIGEST)
    assert [label.weight for label in found.labels] == ([] if weight is None else [pytest.approx(weight)])
    assert not any(label.good for label in found.labels)
    assert len(found.rating_ids) == len(found.labels)


def test_a_mistake_teaches_a_bad_label_of_half_weight(database, answered):
    (key,) = answered()
    rate(database, log.in_words(RatingKind.MISTAKE, key, "面包不会结冰", "amina"))
    (label,) = collect(database, DIGEST).labels
    assert (label.good, label.weight, label.rater, label.response.text) == (False, 0.5, None, "因为散射。")


def test_notes_and_skips_teach_nothing(database, answered):
    (key,) = answered()
    rate(
        database,
        log.note(key, "いいですね", "amina"),
        log.skip(key, "amina"),
        log.skip(key, "juma", cannot_judge=True),
    )
    found = collect(database, DIGEST)
    assert (found.count(), found.rating_ids) == (0, [])


def test_what_was_undone_or_replaced_teaches_nothing(database, answered):
    one, other = answered("آسمان؟", "أ", "ب")
    rate(database, log.label(one, True, "amina"))
    rate(database, log.label(one, False, "amina"))
    rate(database, log.label(other, True, "amina"))
    assert log.undo(database, "amina")
    assert [(label.response.text, label.good) for label in collect(database, DIGEST).labels] == [("أ", False)]


def test_what_counted_at_a_moment_is_learned_whatever_came_later(database, answered):
    one, other = answered("¿Y el hielo?", "x", "y")
    rate(database, log.label(one, True, "amina"), log.label(other, False, "amina"))
    then, before = jobs.now(database), collect(database, DIGEST)
    assert log.undo(database, "amina")
    rate(database, log.label(one, False, "amina"), log.pair(one, other, Choice.A, "amina"))
    assert collect(database, DIGEST) != before
    assert collect(database, DIGEST, then) == before


@pytest.mark.parametrize("split", [Split.HELD_OUT, Split.ETHICS])
def test_held_out_and_ethics_prompts_never_train(database, answered, split):
    a, b = answered("secret", "x", "y", split=split)
    rate(
        database,
        log.score(a, 5, "amina"),
        log.label(a, True, "amina"),
        log.pair(a, b, Choice.A, "amina"),
        log.pair(b, a, Choice.BOTH_BAD, "juma"),
        log.edit(a, "z", "amina"),
        log.tags(a, {"harm": "medical"}, "amina"),
    )
    for number in range(12):
        answered(f"open {number}")
    found = collect(database, DIGEST)
    assert (found.count(), found.rating_ids) == (0, [])
    practice = {prompt.text for prompt in split_prompts(database).practice}
    assert practice
    assert "secret" not in practice


def test_what_is_said_of_held_out_answers_changes_nothing_of_what_is_learned(database, answered):
    keys = answered("Warum?", *"abcdef")
    rate(database, *(log.score(key, value, "amina") for key, value in zip(keys, (1, 2, 2, 3, 4, 5), strict=True)))
    before = collect(database, DIGEST)
    apart = answered("secret", *"uvwxyz", split=Split.HELD_OUT)
    rate(database, *(log.score(key, 5, "amina") for key in apart))
    assert collect(database, DIGEST) == before, "not even the rater's mean"
    measured = {score.value for score in collect(database, DIGEST, split=Split.HELD_OUT).scores}
    assert measured == {max(score.value for score in before.scores)}, "and it is measured on the same scale"


def test_a_prompt_that_becomes_held_out_takes_its_ratings_with_it(database, answered):
    (key,) = answered("Warum?")
    rate(database, log.label(key, True, "amina"))
    assert collect(database, DIGEST).count() == 1
    conversations.add(database, "Warum?", language="zh", split=Split.HELD_OUT)
    assert collect(database, DIGEST).count() == 0


def test_only_token_ids_of_the_learning_model_are_taken_over(database, answered):
    own = versions.ensure_base(database, "tiny", DIGEST)
    other = versions.ensure_base(database, "other", "another digest")
    for base, ids in ((own, [5, 6]), (other, [7]), (own, [])):
        (key,) = answered(f"{base.name} {ids}", version=base.name, token_ids=ids)
        rate(database, log.label(key, True, "amina"))
    found = collect(database, DIGEST).labels
    assert [label.response.token_ids for label in found] == [(5, 6), None, None]


def test_the_digest_names_the_ratings_and_nothing_else(database, answered):
    a, b = answered("Why?", "x", "y")
    rate(database, log.label(a, True, "amina"))
    before = collect(database, DIGEST).digest()
    assert collect(database, DIGEST).digest() == before
    rate(database, log.label(b, True, "amina"))
    assert collect(database, DIGEST).digest() != before
    log.undo(database, "amina")
    assert collect(database, DIGEST).digest() == before


# --- refusals --------------------------------------------------------------------------------------------------------


def test_too_few_ratings_are_refused_with_numbers(database, answered):
    keys = answered("Why?", "x", "y", "z")
    rate(database, log.score(keys[0], 1, "amina"), log.label(keys[1], True, "amina"))
    rate(database, log.pair(keys[0], keys[1], Choice.A, "amina"))
    with pytest.raises(UsageError) as caught:
        check_enough(collect(database, DIGEST), 20)
    assert "1 score, 1 label, 1 pair; 20 are needed" in caught.value.message
    assert "rate 17 more answers" in caught.value.hint
    check_enough(collect(database, DIGEST), 3)


@pytest.mark.parametrize(
    ("kind", "lacks"),
    [
        ("scores", "all 6 scores are equal"),
        ("good", "all 6 labels are good: label at least one bad"),
        ("bad", "all 6 labels are bad: label at least one good"),
        ("ties", "all 5 pairs are ties"),
    ],
)
def test_one_sided_ratings_are_refused_saying_what_is_missing(database, answered, kind, lacks):
    keys = answered("Why?", *"abcdef")
    make = {
        "scores": lambda: [log.score(key, 4, "amina") for key in keys],
        "good": lambda: [log.label(key, True, "amina") for key in keys],
        "bad": lambda: [log.label(key, False, "amina") for key in keys],
        "ties": lambda: [log.pair(a, b, Choice.TIE, "amina") for a, b in pairwise(keys)],
    }  # fmt: skip
    rate(database, *make[kind]())
    with pytest.raises(UsageError) as caught:
        check_enough(collect(database, DIGEST), 5)
    assert "one-sided" in caught.value.message
    assert lacks in caught.value.hint
    rate(database, log.edit(keys[0], "better", "amina"))  # one decided pair is a side to learn from
    check_enough(collect(database, DIGEST), 5)


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_prompts_are_divided_as_they_were_stored_and_never_by_rank(database, answered):
    for number in range(30):
        answered(f"open {number}", split=Split.HELD_OUT if number % 10 == 0 else Split.TRAIN)
    answered("harm", split=Split.ETHICS)
    found = split_prompts(database)
    assert [prompt.text for prompt in found.held_out] == ["open 0", "open 10", "open 20"]
    assert [prompt.text for prompt in found.practice] == [f"open {number}" for number in range(30) if number % 10]
    then = jobs.now(database)
    for number in range(30, 60):
        answered(f"open {number}", split=None)
    assert split_prompts(database, then) == found
    later = split_prompts(database)
    assert later.practice[:27] == found.practice
    assert later.held_out[:3] == found.held_out
    assert len(later.held_out) > 3


def test_few_held_out_prompts_or_none_are_no_reason_to_refuse(database, answered):
    answered("open")
    assert [prompt.text for prompt in split_prompts(database).practice] == ["open"]
    assert split_prompts(database).held_out == []


def test_without_training_prompts_nothing_can_be_learned(database, answered):
    answered("kept", split=Split.HELD_OUT)
    with pytest.raises(UsageError, match=r"no training prompts to learn from \(1 are held out\)") as caught:
        split_prompts(database)
    assert "ask more prompts" in caught.value.hint


def test_a_table_is_practised_and_measured_on_prompts_with_overall_scores(database, answered):
    for number in range(24):
        (key,) = answered(f"q {number}", split=Split.HELD_OUT if number % 4 == 3 else Split.TRAIN)
        if number < 12:
            rate(database, log.score(key, 1 + number % 5, "amina"))
        elif number < 16:
            rate(database, log.score(key, 4, "amina", attribute="polite"), log.label(key, True, "amina"))
    examples, apart = collect(database, DIGEST), collect(database, DIGEST, split=Split.HELD_OUT)
    found = table_split(split_prompts(database), examples, apart)
    assert [prompt.text for prompt in found.practice] == [f"q {number}" for number in range(12) if number % 4 != 3]
    assert [prompt.text for prompt in found.held_out] == ["q 3", "q 7", "q 11"]
    none = table_split(split_prompts(database), examples, Examples())
    assert (none.practice, none.held_out) == (found.practice, [])


def test_a_table_of_too_few_training_prompts_is_refused_with_numbers(database, answered):
    for number in range(FEWEST_SCORED + 4):
        (key,) = answered(f"q {number}", split=Split.TRAIN if number < FEWEST_SCORED - 1 else Split.HELD_OUT)
        rate(database, log.score(key, 1 + number % 5, "amina"))
    examples, apart = collect(database, DIGEST), collect(database, DIGEST, split=Split.HELD_OUT)
    with pytest.raises(UsageError, match="only 3 training prompts have scored answers") as caught:
        table_split(split_prompts(database), examples, apart)
    assert "at least 4 different training prompts" in caught.value.hint
