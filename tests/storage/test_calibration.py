"""What a judge model is worth: by its agreement with people, and by nothing else."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from test_agreement import answers

from storage import library, raters
from storage.database import Database, open_database
from storage.exchange.exporting import export_file
from storage.exchange.importing import import_file
from storage.feedback import agreement, calibration, census, habits, log, progress, queue, winning
from storage.records import Choice
from storage.workspace import Workspace

AI = {"source": "ai"}


def judged(database: Database, noise: float, count: int = 60, seed: int = 0) -> calibration.Judge:
    """A person scores answers and compares pairs; a judge says the same with noise."""
    chance = random.Random(seed)
    for sample in answers(database, count):
        score = chance.randint(1, 5)
        own = min(5.0, max(1.0, chance.uniform(1, 5) if noise >= 1 else score + chance.gauss(0, 2 * noise)))
        log.append_all(database, [log.score(sample.id, score, "ana"), log.score(sample.id, own, "ai:j", **AI)])
    for _ in range(count):
        a, b = answers(database, 2)
        better = chance.choice([Choice.A, Choice.B])
        right = chance.random() >= noise / 2
        first = 0.8 if (better == Choice.A) == right else 0.2
        choice = Choice.A if first > 0.5 else Choice.B
        # The judge names the answers in the other order.
        turned = Choice.B if choice == Choice.A else Choice.A
        log.append(database, log.pair(a.id, b.id, better, "ana"))
        log.append(database, log.pair(b.id, a.id, turned, "ai:j", value=1 - first, **AI))
    (found,) = calibration.measure(database)
    return found


def test_a_judge_that_is_right_weighs_nearly_as_much_as_a_person(database: Database) -> None:
    found = judged(database, 0.0)
    overall = {one.kind: one for one in found.agreement if one.language is None}
    assert overall["score"].value == pytest.approx(1)
    assert (overall["pair"].value, overall["pair"].n) == (1, 60)
    assert found.weight > 0.9
    assert found.ratings == 120


@pytest.mark.parametrize("seed", range(5))
def test_a_judge_that_is_noise_weighs_nearly_nothing(database: Database, seed: int) -> None:
    assert judged(database, 1.0, seed=seed).weight < 0.05


def test_a_judge_that_says_the_same_of_all_weighs_less_than_one_of_whom_nothing_is_known(database: Database) -> None:
    (alone,) = answers(database, 1)
    log.append(database, log.score(alone.id, 3, "ai:new", **AI))
    for place, sample in enumerate(answers(database, 40)):
        log.append_all(database, [log.score(sample.id, 1 + place % 5, "ana"), log.score(sample.id, 3, "ai:flat", **AI)])
    flat, new = calibration.measure(database)
    assert (flat.rater, new.rater) == ("ai:flat", "ai:new")
    assert new.weight == pytest.approx(calibration.PRIOR_AGREEMENT**2)
    assert flat.weight < 0.01
    assert {one.why for one in flat.agreement} == {"one of both says the same of all"}
    assert new.agreement[0].why == "too few: 0 that people judged too, 10 are needed"


def test_more_evidence_of_the_same_agreement_weighs_more(database: Database) -> None:
    weights = []
    for _ in range(3):
        for place, sample in enumerate(answers(database, 20)):
            own = [log.score(sample.id, 1 + place % 5, name, **more) for name, more in (("ana", {}), ("ai:j", AI))]
            log.append_all(database, own)
        weights.append(calibration.measure(database)[0].weight)
    assert weights == sorted(weights)
    assert 0.5 < weights[0] < weights[-1] < 1
    (worth,) = calibration.worths(database, log.effective(database)).values()
    assert (worth.weight, worth.of("en")) == (pytest.approx(weights[-1]), pytest.approx(weights[-1]))


def test_judges_are_no_part_of_what_people_agree_on_and_are_counted_apart(database: Database) -> None:
    for place, sample in enumerate(answers(database, 12)):
        said = 1 + place % 5
        log.append_all(database, [log.score(sample.id, said, "ana"), log.score(sample.id, said, "bela")])
    before = agreement.measure(database)
    for sample in answers(database, 3):
        log.append(database, log.score(sample.id, 5, "ai:j", **AI))
    for sample_id in {rating.sample_id for rating in log.effective(database, rater="ana")}:
        log.append(database, log.score(sample_id, 1, "ai:j", **AI))
    assert agreement.measure(database) == before
    assert census.summary(database).sources == {"ai": 15, "human": 24}


def test_a_judge_is_not_measured_by_ratings_of_what_is_known_to_be_no_person(database: Database) -> None:
    raters.put(database, "gpt", kind="ai")
    for place, sample in enumerate(answers(database, 12)):
        said = 1 + place % 5
        log.append_all(
            database, [log.score(sample.id, said, "gpt", source="imported"), log.score(sample.id, said, "ai:j", **AI)]
        )
    (found,) = calibration.measure(database)
    assert found.weight == pytest.approx(calibration.PRIOR_AGREEMENT**2)


def test_a_judge_stays_one_through_a_file(database: Database, tmp_path: Path) -> None:
    for _ in range(3):
        a, b = answers(database, 2)
        log.append(database, log.pair(b.id, a.id, Choice.B, "ai:j", value=0.2, **AI))
    before = log.effective(database)
    file = tmp_path / "pairs.jsonl"
    export_file(database, "preference", str(file))
    assert import_file(database, str(file)).already == 3, "its soft preferences stand as they were"
    assert log.effective(database) == before
    with open_database(Workspace(tmp_path / "other").prepare()) as other:
        import_file(other, str(file))
        assert census.summary(other).sources == {"ai": 3}


def test_what_a_judge_rated_is_asked_of_people_as_if_it_had_not(database: Database) -> None:
    made = answers(database, 30)
    before = [(item.kind, item.keys, item.slice) for item in queue.next_items(database, "ana", 10)]
    log.append_all(database, [log.score(sample.id, 4, "ai:j", **AI) for sample in made])
    assert [(item.kind, item.keys, item.slice) for item in queue.next_items(database, "ana", 10)] == before
    assert not any(item.slice == "overlap" for item in queue.next_items(database, "ana", 30))


def test_a_judge_that_knows_languages_alone_agrees_on_nothing(database: Database) -> None:
    """People rate one language higher, as the judge does; within each it guesses."""
    chance = random.Random(3)
    for language, level in (("en", 4), ("sw", 1)):
        for sample in answers(database, 60, language):
            said = [level + chance.choice((0, 1)) for _ in range(2)]
            log.append_all(
                database, [log.score(sample.id, said[0], "ana"), log.score(sample.id, said[1], "ai:j", **AI)]
            )
    (found,) = calibration.measure(database)
    assert [(one.language, one.n) for one in found.agreement] == [(None, 120), ("en", 60), ("sw", 60)]
    assert abs(found.agreement[0].value or 0) < 0.2
    assert found.weight < 0.03


def in_two_languages(database: Database, rows: int, few: int, seed: int) -> calibration.Judge:
    """A person scores answers in two languages; a judge says nearly the same in English and guesses in Swahili."""
    chance = random.Random(seed)
    for language, count in (("en", rows), ("sw", few)):
        for sample in answers(database, count, language):
            score = chance.randint(1, 5)
            own = min(5.0, max(1.0, score + chance.gauss(0, 0.3))) if language == "en" else chance.uniform(1, 5)
            log.append_all(database, [log.score(sample.id, score, "ana"), log.score(sample.id, own, "ai:j", **AI)])
    (found,) = calibration.measure(database)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_judge_that_is_good_in_one_language_and_guesses_in_another_is_heard_in_the_one(
    database: Database, seed: int
) -> None:
    found = in_two_languages(database, 150, 150, seed)
    assert found.of("en") > 0.9
    assert found.of("sw") < 0.1
    assert found.of("sw") < found.weight < found.of("en")
    assert found.of("fr") == found.weight, "of a language in which nothing is known, what holds over all"


def test_a_judge_that_is_never_wrong_elsewhere_is_not_believed_for_long(database: Database) -> None:
    """One that says the same of all 25 answers in Swahili: nothing it says there tells anything."""
    for language, count in (("en", 200), ("sw", 25)):
        for place, sample in enumerate(answers(database, count, language)):
            score = 1 + place % 5
            own = score if language == "en" else 3
            log.append_all(database, [log.score(sample.id, score, "ana"), log.score(sample.id, own, "ai:j", **AI)])
    (found,) = calibration.measure(database)
    assert found.of("en") > 0.98
    assert found.of("sw") == pytest.approx(math.tanh(10 * math.atanh(0.9) / (10 + 22)) ** 2)


def test_few_rows_of_a_language_leave_it_near_the_weight_over_all(database: Database) -> None:
    found = in_two_languages(database, 80, calibration.FEWEST - 1, 0)
    assert set(found.languages) == {"en"}
    assert found.of("sw") == found.weight > 0.6


def test_a_judge_of_one_language_weighs_in_it_what_it_weighs_over_all(database: Database) -> None:
    """No item counts twice, as evidence and as what was believed beforehand."""
    found = in_two_languages(database, 40, 0, 1)
    assert found.of("en") == pytest.approx(found.weight)


def numbers_of_people(database: Database) -> dict[str, object]:
    """Every number that is told of what people said."""
    rates = habits.measure(database)
    return {
        "header": census.rated(database),
        "train": census.ratings_by_language_and_kind(database),
        "stats": census.summary(database).by_source["human"],
        "library": [(one.id, one.ratings) for one in library.page(database)],
        "alpha": agreement.measure(database),
        "habits": [one for one in rates[0] if one.kind != "ai"],
        "length": rates[1],
        "win rates": winning.win_rates(database),
        "session": progress.since(database, "ana", 0),
        "by language": census.ratings_by_language(database, "ana"),
        "asked next": [(item.keys, item.why, item.slice) for item in queue.next_items(database, "bela", 20)],
    }


def test_no_number_of_people_moves_when_a_judge_has_rated(database: Database) -> None:
    for place, sample in enumerate(answers(database, 24)):
        log.append(database, log.score(sample.id, 1 + place % 5, "ana"))
        if place % 2:
            log.append(database, log.score(sample.id, 1 + place % 4, "bela"))
    for place in range(12):
        a, b = answers(database, 2)
        log.append(database, log.pair(a.id, b.id, Choice.A if place % 3 else Choice.B, "ana", blind=True))
        if place < 6:
            log.append(database, log.pair(a.id, b.id, Choice.B, "bela", blind=True))
    before = numbers_of_people(database)
    said = log.effective(database)
    for one in said:
        assert one.sample_id
        if one.other_sample_id:
            own = log.pair(one.sample_id, one.other_sample_id, Choice.B, "ai:j", value=0.1, blind=True, **AI)
        else:
            own = log.score(one.sample_id, 1.5, "ai:j", **AI)
        log.append(database, own)
    given = census.judged(database)
    assert given == len(log.effective(database, rater="ai:j")) > 0
    assert numbers_of_people(database) == before
    found = census.summary(database)
    assert found.ratings == census.rated(database) + given, "`ratings` is of all sources, as it was"
    assert found.by_source["ai"].ratings == found.sources["ai"] == given
    assert found.by_source["ai"].kinds.keys() == {"score", "pair"}
    assert sum(one.judged for one in library.page(database)) == given
