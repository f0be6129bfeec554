"""The slices of the review queue: shares, what each brings, for whom, and of which part of the workspace."""

from __future__ import annotations

import itertools
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import conversations, raters, samples, versions
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.feedback import log, mix, queue, selection, streams
from storage.feedback.mix import SLICES, Mix
from storage.feedback.queue import next_items
from storage.feedback.selection import Selection
from storage.records import Choice, Sample
from storage.workspace import Workspace


def ask(database: Database, count: int, language: str = "en", **more: str) -> list[Sample]:
    """Two answers of the base version to each of some prompts."""
    base = versions.ensure_base(database, "smollm2", "d" * 64).name
    made = []
    for number in range(count):
        prompt = conversations.add(database, f"{language} {number}?", language=language, **more)
        made += [samples.new(prompt.id, f"{place} {number}", version=base, finish_reason="eos") for place in "ab"]
    samples.add(database, made)
    return made


only = {name: Mix.of({name: 1}) for name in SLICES}


@given(st.dictionaries(st.sampled_from(list(SLICES)), st.integers(0, 9), min_size=1), st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_every_slice_has_its_share_wherever_one_begins(shares: dict[str, int], start: int) -> None:
    if not sum(shares.values()):
        with pytest.raises(UsageError, match="not all of them 0"):
            Mix.of(shares)
        return
    found = Counter(islice(Mix.of(shares).turns(start), 100))
    for name in SLICES:
        assert abs(found[name] - 100 * shares.get(name, 0) / sum(shares.values())) <= 1


def test_a_mix_is_written_as_it_is_read() -> None:
    assert Mix.read("random=1, acquisition=2.5").written == "acquisition=2.5,random=1"
    with pytest.raises(UsageError, match="no slice 'luck'"):
        Mix.read("luck=1")
    with pytest.raises(UsageError, match="'random' is no share"):
        Mix.read("random")


def test_a_rater_is_asked_in_the_languages_that_they_read(database: Database) -> None:
    for language in ("en", "sw", "es-AR", "es"):
        ask(database, 3, language)
    raters.put(database, "amina", languages=["sw", "es"])
    assert {item.prompt.language for item in next_items(database, "amina", 40)} == {"sw", "es", "es-AR"}
    assert len({item.prompt.language for item in next_items(database, "ana", 40)}) == 4
    raters.put(database, "amina", languages=["es-AR"])
    assert {item.prompt.language for item in next_items(database, "amina", 40)} == {"es-AR"}


def test_what_is_drawn_comes_in_no_other_slice_and_is_a_tenth(database: Database) -> None:
    made = ask(database, 150)
    drawn = {one.id for one in made if one.id[-8:] < streams.DRAWN}
    assert 8 < len(drawn) < 60
    items = next_items(database, "ana", 1000, shares=Mix.of({"acquisition": 1, "random": 1}))
    asked = {name: {key for one in items if one.slice == name for key in map(_id, one.samples)} for name in SLICES}
    singles = {
        name: {item.samples[0].id for item in items if item.slice == name and item.kind == "single"} for name in SLICES
    }
    assert singles["random"] == drawn
    assert not asked["acquisition"] & drawn
    assert all(drawn & set(map(_id, item.samples)) for item in items if item.slice == "random")


def _id(sample: Sample) -> str:
    return sample.id


def test_nothing_is_drawn_from_a_handful(database: Database) -> None:
    ask(database, 4)
    assert {item.slice for item in next_items(database, "ana", 40)} == {"acquisition"}


def test_overlap_and_gold_are_what_others_judged_and_the_rater_is_not_told_which(database: Database) -> None:
    made = ask(database, 3)
    log.append(database, log.score(made[0].id, 4, "bela"))
    log.append(database, log.pair(made[2].id, made[3].id, Choice.A, "master"))
    raters.put(database, "master", gold=True)
    overlap = next_items(database, "ana", shares=only["overlap"])
    gold = next_items(database, "ana", shares=only["gold"])
    assert [(item.samples[0].id, item.slice) for item in overlap] == [(made[0].id, "overlap")]
    assert [(item.kind, *map(_id, item.samples)) for item in gold] == [("pair", made[2].id, made[3].id)]
    assert overlap[0].reason == gold[0].reason == queue.BLIND_REASON
    assert "judged by others" in overlap[0].why
    log.append(database, log.score(made[0].id, 2, "ana", slice="overlap"))
    assert next_items(database, "ana", shares=only["overlap"]) == []
    assert next_items(database, "bela", shares=only["overlap"]) == [], "what bela judged is no news to bela"


def test_a_rating_is_asked_for_once_more_after_a_while(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REPEAT_AFTER", 3)
    made = ask(database, 5)
    for sample in made[:4]:
        log.append(database, log.score(sample.id, 3, "ana"))
    again = next_items(database, "ana", shares=only["repeat"])
    assert [item.samples[0].id for item in again] == [made[0].id]
    log.append(database, log.score(made[0].id, 4, "ana", slice="repeat"))
    assert [item.samples[0].id for item in next_items(database, "ana", shares=only["repeat"])] == [made[1].id]
    log.append(database, log.skip(made[1].id, "ana"))
    assert made[1].id not in [one.samples[0].id for one in next_items(database, "ana", shares=only["repeat"])]


def test_repeats_do_not_keep_a_queue_from_ending(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REPEAT_AFTER", 1)
    for sample in ask(database, 2):
        log.append(database, log.label(sample.id, True, "ana"))
    slices = Counter(item.slice for item in next_items(database, "ana", 40))
    assert slices["acquisition"] == 2, "two pairs"
    log.append_all(
        database,
        [
            log.pair(*map(_id, one.samples), Choice.A, "ana")
            for one in next_items(database, "ana")
            if one.kind == "pair"
        ],
    )
    assert next_items(database, "ana", 40) == []


def test_pairs_that_tell_most_lead_until_somebody_compared_them(database: Database) -> None:
    made = ask(database, 4)
    places = [database.scalar("SELECT sequence FROM samples WHERE id = ?", (one.id,)) for one in made]
    for place, (a, b) in enumerate(((0, 1), (4, 5))):
        database.insert(
            "telling_pairs",
            {"language": "en", "place": place, "sample": places[a], "other": places[b], "nats": 0.5 - place / 10},
        )
    pairs = [tuple(map(_id, one.samples)) for one in next_items(database, "ana", 20) if one.kind == "pair"]
    assert pairs[:2] == [(made[0].id, made[1].id), (made[4].id, made[5].id)]
    assert len(pairs) == len(set(pairs)) == 4
    log.append(database, log.pair(made[0].id, made[1].id, Choice.B, "bela"))
    pairs = [tuple(map(_id, one.samples)) for one in next_items(database, "ana", 20, shares=only["acquisition"])
             if one.kind == "pair"]  # fmt: skip
    assert pairs[0] == (made[4].id, made[5].id)
    assert len(pairs) == 4, "it comes all the same, later"


def test_a_selection_leaves_out_the_rest_in_every_slice(database: Database) -> None:
    ask(database, 2, "en", task="medicine")
    ask(database, 2, "fr", task="poetry")
    ask(database, 2, "pt", task="medicine")
    tagged = ask(database, 3, "sw")
    log.append(database, log.tags(tagged[0].id, {"harm": "medical"}, "bela"))
    log.append(database, log.score(tagged[2].id, 2, "bela"))

    def languages(**wanted: object) -> Counter[str]:
        found = next_items(database, "ana", 60, selection=Selection(**wanted))  # type: ignore[arg-type]
        return Counter(item.prompt.language for item in found)

    assert set(languages(task="medicine")) == {"en", "pt"}
    assert set(languages(languages=("fr", "sw"))) == {"fr", "sw"}
    assert languages(text="SW 1?")["sw"] == 3
    assert languages(tag="harm")["sw"] == languages(tag="medical")["sw"] == 3
    assert languages(version="v0") == languages()
    assert languages(version="v9") == languages(tag="bias") == languages(text="nowhere") == Counter()


def test_a_working_set_is_a_query_under_a_name(database: Database) -> None:
    wanted = Selection(languages=("sw",), task="medicine")
    selection.save(database, "clinic", wanted)
    assert selection.named(database, "clinic") == wanted
    selection.activate(database, wanted)
    assert selection.active(database).words == "language sw · task medicine"
    selection.forget(database, "clinic")
    with pytest.raises(UsageError, match="no working set 'clinic'"):
        selection.named(database, "clinic")


def test_a_mix_that_makes_no_sense_any_more_is_the_usual_one(database: Database) -> None:
    from storage import settings as stored

    stored.put(database, "queue_mix", {"luck": 3})
    assert mix.load(database) == Mix()


def test_lots_of_answers_stored_in_one_moment_are_apart(database: Database) -> None:
    """Keys that are made in the same millisecond count up: what is random of them comes after that."""
    base = versions.ensure_base(database, "smollm2", "d" * 64).name
    prompt = conversations.add(database, "Barafu ni nini?", language="sw")
    made = [samples.new(prompt.id, f"answer {number}", version=base, finish_reason="eos") for number in range(400)]
    samples.add(database, made)
    lots = [int(row["lot"], 16) / 2**32 for row in database.rows("SELECT lot FROM answers ORDER BY sample")]
    steps = [abs(after - before) for before, after in itertools.pairwise(lots)]
    assert 0.25 < sum(steps) / len(steps) < 0.42, "a third, as of independent numbers between 0 and 1"


# Old against new


def versions_of(database: Database, names: str) -> None:
    """v0 and versions that were trained one from the other, the first letter of each: candidate, rejected, served."""
    base = versions.ensure_base(database, "smollm2", "d" * 64)
    for number, state in enumerate(names, 1):
        made = versions.add_candidate(database, base=base, parent=f"v{number - 1}", file=f"v{number}", sha256="e" * 64)
        if state == "r":
            versions.reject(database, made.name, "did not pass")
        elif state == "s":
            versions.serve(database, made.name)


def asked_of(database: Database, rater: str = "ana", **more: Any) -> list[tuple[str, str]]:
    """The texts of the pairs of the versions slice, in the order in which a rater is asked."""
    items = next_items(database, rater, 1000, shares=only["versions"], **more)
    return [tuple(one.text for one in item.samples) for item in items]  # type: ignore[misc]


def fill(database: Database, prompts: int, said: dict[str, int], language: str = "en") -> None:
    """So many answers of each version to each of some prompts."""
    made = []
    for number in range(prompts):
        prompt = conversations.add(database, f"{language} {number}?", language=language)
        made += [
            samples.new(prompt.id, f"{name} {number} {place}", version=name, finish_reason="eos")
            for name, count in said.items()
            for place in range(count)
        ]
    samples.add(database, made)


def test_what_is_served_or_may_be_is_compared_first_with_what_was_served_before_it(database: Database) -> None:
    versions_of(database, "sscr")
    versions.serve(database, "v1")  # once more, after v2
    fill(database, 2, {f"v{number}": 1 for number in range(5)})
    kinds = [(new.split()[0], old.split()[0]) for old, new in asked_of(database)]
    assert kinds[::2] == kinds[1::2]
    assert kinds[::2] == [
        ("v3", "v2"), ("v3", "v1"), ("v3", "v0"), ("v2", "v1"), ("v2", "v0"), ("v1", "v0"),
        ("v4", "v3"), ("v4", "v2"), ("v4", "v1"), ("v4", "v0"),
    ]  # fmt: skip


@given(old=st.integers(0, 4), new=st.integers(0, 4), later=st.integers(0, 3), judged=st.integers(0, 19))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_answer_is_in_one_pair_and_nothing_that_was_judged_beside_moves_a_pair(
    tmp_path_factory: pytest.TempPathFactory, old: int, new: int, later: int, judged: int
) -> None:
    with open_database(Workspace(tmp_path_factory.mktemp("drawn")).prepare()) as database:
        versions_of(database, "c")
        fill(database, 7, {"v0": old, "v1": new})
        first = asked_of(database)
        assert len(first) == 7 * min(old, new)
        assert len({text for pair in first for text in pair}) == 2 * len(first)
        singles = next_items(database, "ana", judged, shares=only["acquisition"])
        log.append_all(
            database, [log.score(key, 1, "ana") for key in dict.fromkeys(one.samples[0].id for one in singles)]
        )
        for key in {one.samples[0].id for one in singles[::2]}:
            samples.expect(database, key, 9.0, 1.0)
        assert asked_of(database) == first
        for _ in range(later):  # what is asked later joins in, and leaves pairs as they are
            fill(database, 7, {"v0": 1})
        assert set(first) <= set(asked_of(database))
        assert len(asked_of(database)) == 7 * min(old + later, new)


def test_a_pair_that_was_judged_skipped_or_is_in_the_same_words_is_not_asked(database: Database) -> None:
    versions_of(database, "c")
    fill(database, 3, {"v0": 1, "v1": 1})
    prompt = conversations.add(database, "the same", language="en")
    samples.add(database, [samples.new(prompt.id, "Yes.", version=v, finish_reason="eos") for v in ("v0", "v1")])
    assert len(asked_of(database)) == 3
    first, second, third = next_items(database, "ana", shares=only["versions"])
    log.append(database, log.pair(*map(_id, first.samples), Choice.A, "ana"))
    log.append_all(database, log.pass_over([one.id for one in second.samples], "ana"))
    assert asked_of(database) == [tuple(one.text for one in item.samples) for item in (third, second)]
    assert asked_of(database, session_start=0) == [tuple(one.text for one in third.samples)]
    assert len(asked_of(database, "amina")) == 3


def test_a_working_set_narrows_the_pairs_of_versions(database: Database) -> None:
    versions_of(database, "ss")
    fill(database, 2, {"v0": 1, "v1": 1, "v2": 1})
    assert {new.split()[0] for _, new in asked_of(database, selection=Selection(version="v1"))} == {"v1"}
    assert all(" 1 " in old for old, _ in asked_of(database, selection=Selection(text="en 1")))
