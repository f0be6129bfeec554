"""How far raters agree: published values, planted habits, and no number where there is too little."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import clock, conversations, raters, reward_models, samples, versions
from storage.database import Database
from storage.feedback import agreement, habits, log
from storage.feedback.habits import Share
from storage.records import Choice, Sample

# Krippendorff's example, "Computing Krippendorff's Alpha-Reliability" (2011): four observers of twelve units.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)


def answers(database: Database, count: int, language: str = "en") -> list[Sample]:
    base = versions.ensure_base(database, "smollm2", "d" * 64).name
    prompt = conversations.add(database, f"{language} {clock.new_id()}?", language=language)
    made = [samples.new(prompt.id, "word " * (place + 1), version=base) for place in range(count)]
    samples.add(database, made)
    return made


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level: str, published: float) -> None:
    units = [
        {str(observer): float(value) for observer, value in enumerate(said) if value is not None}
        for said in zip(*OBSERVERS, strict=True)
    ]
    assert agreement.alpha(units, level) == pytest.approx(published, abs=5e-4)


def test_the_published_example_from_a_workspace(database: Database) -> None:
    made = answers(database, 12)
    for observer, said in enumerate(OBSERVERS):
        for sample, value in zip(made, said, strict=True):
            if value is not None:
                log.append(database, log.score(sample.id, value, f"observer {observer}"))
    found = agreement.measure(database)
    assert found.overall.alpha == pytest.approx(0.815, abs=5e-4)
    assert (found.overall.units, found.overall.raters) == (11, 4), "what one observer alone saw tells nothing"
    assert found.overall.interval is not None
    low, high = found.overall.interval
    assert low < 0.815 < high <= 1
    assert [(one.language, one.attribute, one.kind) for one in found.agreement] == [
        (None, "overall", "score"), ("en", "overall", "score")
    ]  # fmt: skip
    assert {(one.rater, one.other): one.units for one in found.matrix}["observer 0", "observer 1"] == 9


def test_too_little_overlap_is_a_reason_and_no_number(database: Database) -> None:
    assert agreement.measure(database).overall.why.startswith("too little overlap: 0 units")
    for sample in answers(database, 20)[:9]:
        log.append_all(database, [log.label(sample.id, True, name) for name in ("ana", "bela")])
    found = agreement.measure(database).overall
    assert (found.alpha, found.interval, found.units, found.raters) == (None, None, 9, 2)
    assert found.why == "too little overlap: 9 units of two raters, 10 are needed"


def test_raters_who_say_the_same_of_all_tell_nothing_of_chance(database: Database) -> None:
    for sample in answers(database, 12):
        log.append_all(database, [log.label(sample.id, True, name) for name in ("ana", "bela")])
    found = agreement.measure(database).overall
    assert (found.alpha, found.why) == (None, "all raters said the same of all")


def test_a_pair_is_the_same_pair_whichever_answer_is_named_first(database: Database) -> None:
    for place in range(12):
        a, b = answers(database, 2)
        best, other = (a, b) if place % 2 else (b, a)
        log.append(database, log.pair(best.id, other.id, Choice.A, "ana"))
        log.append(database, log.pair(other.id, best.id, Choice.B, "bela"))
    (shared,) = agreement.measure(database).matrix
    assert (shared.units, shared.same, shared.alpha) == (12, 1.0, 1.0)


@given(st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_guessing_raters_agree_as_chance_would(seed: int) -> None:
    chance = random.Random(seed)
    units = [{name: float(chance.randint(1, 5)) for name in "ab"} for _ in range(600)]
    assert abs(agreement.alpha(units) or 0) < 0.15


def test_planted_habits_are_found(database: Database) -> None:
    made = answers(database, 40)
    raters.put(database, "master", gold=True)
    for place, sample in enumerate(made):
        log.append(database, log.score(sample.id, 1 + place // 8, "ana", duration_ms=2000, slice="random"))
    for sample in made[:10]:
        first = log.append(database, log.label(sample.id, True, "bela"))
        again = log.append(database, log.label(sample.id, sample != made[0], "bela", slice="repeat"))
        assert again.supersedes == first.id
        log.append(database, log.label(sample.id, True, "master"))
    for place in range(10):
        a, b = made[2 * place], made[2 * place + 1]
        choice = Choice.A if place < 9 else Choice.B
        log.append(database, log.pair(a.id, b.id, choice, "chidi", shown_order="ab", blind=True))
    found, lengths, model = habits.measure(database)
    by_name = {one.rater: one for one in found}
    assert model is None
    assert by_name["ana"].seconds == 2.0
    assert by_name["ana"].of == "random"
    assert by_name["ana"].balance == {"score": {f"{n}/5": 8 for n in range(1, 6)}}
    assert by_name["bela"].again == Share.of(9, 10)
    assert by_name["bela"].right == Share.of(9, 10), "what is said last counts"
    assert by_name["chidi"].left == Share.of(9, 10)
    (length,) = lengths
    assert length.correlation is not None
    assert length.correlation > 0.95
    assert length.low is not None
    assert length.low > 0.8


def test_what_the_reward_model_made_of_raters_stands_beside(database: Database) -> None:
    (sample,) = answers(database, 1)
    log.append(database, log.label(sample.id, True, "ana"))
    base = versions.ensure_base(database, "smollm2", "d" * 64)
    told = {"ana": {"offset": None, "gain": 1.0, "leniency": 0.4, "side": None, "learned": 1, "agreement": {}}}
    reward_models.add(
        database, base=base, file="f", sha256="e" * 64, data_digest="d", job_id=None, metrics={"raters": told}
    )
    (ana,), _, model = habits.measure(database)
    assert model == "rm1"
    assert ana.effects == {"offset": None, "gain": 1.0, "leniency": 0.4, "side": None}


def test_wilsons_interval() -> None:
    """Of 8 in 10 it is 0.490 to 0.943 (Newcombe 1998 gives such tables)."""
    found = Share.of(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
