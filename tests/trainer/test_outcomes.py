"""How ratings of every kind become one outcome for each answer."""

from __future__ import annotations

import pytest

from storage import conversations, jobs, samples, versions
from storage.errors import UsageError
from storage.feedback import log
from storage.records import Choice, Prompt, Rating, RatingKind, Split
from trainer.examples import Examples, Labelled, Pair, Response, Scored, collect
from trainer.outcomes import Outcome, check_enough, languages, outcomes, text_outcomes

DIGEST = "digest of the model that learns"
ASKED = Prompt("p", "Wann kommt der Bus?", "de", "")


def said(text: str) -> Response:
    return Response(ASKED, text, None, None)


def values(examples: Examples) -> dict[str, tuple[float, int]]:
    return {outcome.response.text: (pytest.approx(outcome.value), outcome.count) for outcome in outcomes(examples)}


@pytest.fixture
def answered(database):
    """A function that stores a prompt with some answers and returns their keys."""

    def store(text: str, *answers: str, split: Split = Split.TRAIN, **more: object) -> list[str]:
        prompt = conversations.add(database, text, language="sw", split=split)
        made = [samples.new(prompt.id, answer, **more) for answer in answers]
        samples.add(database, made)
        return [sample.id for sample in made]

    return store


def told(sample_id: str, text: str, rater: str = "amina") -> Rating:
    made = log.note(sample_id, text, rater)
    return Rating(**{**{name: getattr(made, name) for name in made.__struct_fields__}, "kind": RatingKind.OUTCOME})


def test_a_score_counts_as_it_is_and_several_are_averaged():
    found = values(
        Examples(scores=[Scored(said("a"), 1.5, "x"), Scored(said("a"), -0.5, "y"), Scored(said("b"), 2, "x")])
    )
    assert found == {"a": (0.5, 2), "b": (2, 1)}


def test_a_label_counts_one_deviation_up_or_down_times_its_weight():
    labels = [Labelled(said("a"), True), Labelled(said("b"), False), Labelled(said("c"), False, 1 / 3)]
    assert values(Examples(labels=labels)) == {"a": (1, 1), "b": (-1, 1), "c": (-1 / 3, 1)}


def test_a_pair_counts_for_the_winner_against_the_loser_and_not_when_tied():
    pairs = [Pair(said("a"), said("b"), 1.0), Pair(said("c"), said("d"), 0.0), Pair(said("e"), said("f"), 0.5)]
    assert values(Examples(pairs=pairs)) == {
        "a": (1, 1), "b": (-1, 1), "c": (-1, 1), "d": (1, 1), "e": (0, 1), "f": (0, 1),
    }  # fmt: skip


def test_all_pairs_of_an_answer_together_count_as_one_rating():
    pairs = [Pair(said("a"), said(other), 1.0) for other in "bcd"] + [Pair(said("e"), said("a"), 1.0)]
    examples = Examples(scores=[Scored(said("a"), -1.5, "x")], pairs=pairs)
    assert values(examples)["a"] == ((-1.5 + (3 - 1) / 4) / 2, 5)


def test_scores_labels_and_pairs_are_joined():
    examples = Examples(
        scores=[Scored(said("a"), 0.4, "x")],
        labels=[Labelled(said("a"), True)],
        pairs=[Pair(said("b"), said("a"), 1.0)],
    )
    assert values(examples) == {"a": ((0.4 + 1 - 1) / 3, 3), "b": (1, 1)}


def test_ratings_of_another_attribute_say_nothing_about_the_outcome():
    examples = Examples(
        scores=[Scored(said("a"), 2.0, "x", "politeness"), Scored(said("b"), 1.0, "x")],
        labels=[Labelled(said("b"), False, 1.0, "x", "politeness")],
        pairs=[Pair(said("a"), said("b"), 1.0, "x", None, "politeness")],
    )
    assert values(examples) == {"b": (1, 1)}


def test_the_same_words_to_another_prompt_are_another_answer():
    other = Response(Prompt("q", "¿Cuándo viene?", "es", ""), "a", None, None)
    found = outcomes(Examples(scores=[Scored(said("a"), 1.0, "x"), Scored(other, -1.0, "x")]))
    assert [outcome.value for outcome in found] == [1, -1]
    assert languages(found) == {"de": 1, "es": 1}


def test_ratings_in_the_workspace_become_outcomes(database, answered):
    base = versions.ensure_base(database, "tiny", DIGEST)
    one, other, edited = answered("Basi linakuja lini?", "a", "b", "c", version=base.name, token_ids=[5, 6])
    log.append_all(database, [
        log.label(one, True, "amina"),
        log.pair(one, other, Choice.A, "juma"),
        log.pair(one, other, Choice.BOTH_BAD, "wei"),
        log.edit(edited, "c, bora", "amina"),
    ])  # fmt: skip
    found = {outcome.response.text: outcome for outcome in outcomes(collect(database, DIGEST))}
    assert {text: (outcome.value, outcome.count) for text, outcome in found.items()} == {
        "a": (pytest.approx((1 - 0.5 + 1) / 3), 3), "b": (pytest.approx((-0.5 - 1) / 2), 2),
        "c": (-1, 1), "c, bora": (1, 1),
    }  # fmt: skip
    assert found["a"].response.token_ids == (5, 6)
    assert found["c, bora"].response.token_ids is None


@pytest.mark.parametrize("split", [Split.HELD_OUT, Split.ETHICS])
def test_outcomes_of_held_out_and_ethics_prompts_never_come_in(database, answered, split):
    a, b = answered("siri", "x", "y", split=split)
    log.append_all(database, [
        log.score(a, 5, "amina"), log.label(b, False, "amina"), log.pair(a, b, Choice.A, "amina"),
        log.edit(a, "z", "amina"), log.tags(a, {"harm": "medical"}, "amina"), told(a, "the rater left"),
    ])  # fmt: skip
    assert outcomes(collect(database, DIGEST)) == []
    assert text_outcomes(database, DIGEST) == []


def test_outcomes_in_words_are_read_with_their_answers(database, answered):
    one, other = answered("Basi linakuja lini?", "saa tano", "sijui")
    first = log.append(database, told(one, " abiria alifika kwa wakati "))
    begun = jobs.now(database)
    log.append_all(database, [told(other, "bado"), told(other, "abiria alikasirika"), log.note(one, "hm", "amina")])
    found = text_outcomes(database, DIGEST)
    assert [(one.response.text, one.text) for one in found] == [
        ("saa tano", "abiria alifika kwa wakati"), ("sijui", "abiria alikasirika"),
    ]  # fmt: skip
    assert found[0].rating_id == first.id
    assert text_outcomes(database, DIGEST, begun) == found[:1]
    log.undo(database, "amina")
    log.undo(database, "amina")
    log.undo(database, "amina")
    assert text_outcomes(database, DIGEST) == found[:1]


def test_too_few_or_equal_outcomes_are_refused_with_numbers():
    found = [Outcome(said(text), -0.25, 1) for text in "abcd"]
    with pytest.raises(UsageError, match="4 rated answers; 5 are needed") as caught:
        check_enough(found, 5)
    assert "rate 1 more answer," in caught.value.hint
    with pytest.raises(UsageError, match=r"all 4 rated answers have the same outcome \(-0.25\)"):
        check_enough(found, 4)
    check_enough([*found, Outcome(said("e"), 1.0, 1)], 4)
