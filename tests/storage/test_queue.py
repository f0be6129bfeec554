"""The review queue: what comes next, for whom, and in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from storage import clock, conversations, samples, versions
from storage.database import Database
from storage.feedback import log, queue
from storage.feedback.mix import Mix
from storage.feedback.queue import next_items
from storage.records import Choice, Sample, Split


@pytest.fixture
def base(database: Database) -> str:
    """The name of the base version."""
    return versions.ensure_base(database, "smollm2", "d" * 64).name


@pytest.fixture
def trained(database: Database, base: str) -> str:
    """The name of a version trained from the base."""
    origin = versions.get(database, base)
    return versions.add_candidate(database, base=origin, parent=base, file="v1.safetensors", sha256="e" * 64).name


def answers(
    database: Database, language: str, *said: tuple[str, str | None], split: Split = Split.TRAIN, prompt: str = "?"
) -> list[Sample]:
    """Answers to one prompt: `(text, version)` each."""
    asked = conversations.add(database, f"{prompt} {language}", language=language, split=split)
    made = [samples.new(asked.id, text, version=version, finish_reason="eos") for text, version in said]
    samples.add(database, made)
    return made


def test_an_empty_workspace_has_nothing_to_review(database: Database) -> None:
    assert next_items(database, "ana") == []


def test_an_answer_that_the_rater_has_not_judged_is_offered_with_its_reason(database: Database, base: str) -> None:
    (sample,) = answers(database, "fr", ("De la glace.", base))
    (item,) = next_items(database, "ana")
    assert (item.kind, item.samples, item.shown, item.shown_order) == ("single", (sample,), (sample,), None)
    assert item.why == "not rated yet; fr has 0 ratings by ana"


@pytest.mark.parametrize("kind", ["score", "label", "cannot-judge"])
def test_what_was_judged_is_not_offered_again_to_that_rater_only(database: Database, base: str, kind: str) -> None:
    (sample,) = answers(database, "fr", ("De la glace.", base))
    rating = {
        "score": log.score(sample.id, 3, "ana"),
        "label": log.label(sample.id, True, "ana"),
        "cannot-judge": log.skip(sample.id, "ana", cannot_judge=True),
    }[kind]
    log.append(database, rating)
    assert next_items(database, "ana") == []
    assert len(next_items(database, "amina")) == 1
    log.undo(database, "ana")
    assert len(next_items(database, "ana")) == 1


def test_only_finished_answers_of_models_are_offered(database: Database, base: str) -> None:
    prompt = conversations.add(database, "?", language="en")
    samples.add(
        database,
        [
            samples.new(prompt.id, "imported", origin="imported"),
            samples.new(prompt.id, "shown", origin="demonstration"),
            samples.new(prompt.id, "cut o", version=base, finish_reason="cancelled"),
            samples.new(prompt.id, "cut by length", version=base, finish_reason="length"),
        ],
    )
    assert [item.samples[0].text for item in next_items(database, "ana")] == ["cut by length"]


def test_answers_to_one_prompt_are_compared(database: Database, base: str) -> None:
    said = answers(database, "en", ("a", base), ("b", base), ("c", base), ("d", base))
    pairs = [item for item in next_items(database, "ana", 20) if item.kind == "pair"]
    assert len(pairs) == 2
    assert Counter(sample.id for item in pairs for sample in item.samples) == Counter(one.id for one in said)
    assert not any(item.old_against_new for item in pairs)


def test_every_pair_gets_its_turn_in_the_end(database: Database, base: str) -> None:
    said = answers(database, "en", ("a", base), ("b", base), ("c", base))
    compared = []
    while pairs := [item for item in next_items(database, "ana", 20) if item.kind == "pair"]:
        a, b = pairs[0].samples
        compared.append({a.id, b.id})
        log.append(database, log.pair(a.id, b.id, Choice.TIE, "ana"))
    assert len(compared) == 3
    assert {frozenset(pair) for pair in compared} == {
        frozenset((one.id, other.id)) for one in said for other in said if one.id < other.id
    }


def test_a_comparison_made_the_other_way_round_counts(database: Database, base: str) -> None:
    a, b = answers(database, "en", ("a", base), ("b", base))
    for order in ((a.id, b.id), (b.id, a.id)):
        log.append(database, log.pair(*order, Choice.A, "ana"))
        assert [item.kind for item in next_items(database, "ana")] == ["single", "single"]
        log.undo(database, "ana")


def test_the_same_words_twice_are_no_pair(database: Database, base: str) -> None:
    answers(database, "en", ("same", base), ("same", base))
    assert [item.kind for item in next_items(database, "ana")] == ["single", "single"]


def test_answers_to_one_prompt_come_one_after_the_other(database: Database, base: str) -> None:
    for prompt in ("first", "second", "third"):
        answers(database, "en", *((f"{prompt} {place}", base) for place in range(3)), prompt=prompt)
    singles = [item.prompt.text for item in next_items(database, "ana", 40) if item.kind == "single"]
    assert singles == ["third en"] * 3 + ["second en"] * 3 + ["first en"] * 3


def test_it_leads_with_answers_of_the_newest_version_that_may_be_the_best(
    database: Database, base: str, trained: str
) -> None:
    hopes = {"sure": (0.9, 0.1), "unsure": (0.4, 0.9), "bad": (-1.0, 0.3)}
    answers(database, "en", ("old 0", base), ("old 1", base), prompt="before")
    for prompt, expected in hopes.items():
        low, high = answers(database, "en", (f"{prompt} low", trained), (f"{prompt} high", trained), prompt=prompt)
        samples.expect(database, low.id, expected[0] - 2, expected[1])
        samples.expect(database, high.id, *expected)
    answers(database, "en", ("asked by hand", trained), prompt="by hand")
    singles = [item.samples[0].text for item in next_items(database, "ana", 40) if item.kind == "single"]
    assert singles == [
        "unsure high", "unsure low", "sure high", "sure low", "bad high", "bad low", "asked by hand", "old 1", "old 0",
    ]  # fmt: skip
    assert not any("expect" in item.why for item in next_items(database, "ana", 40)), "raters are not told what to find"


def test_old_against_new_comes_first_and_says_so(database: Database, base: str, trained: str) -> None:
    new, _, old = answers(database, "en", ("better", trained), ("also new", trained), ("worse", base))
    first = next_items(database, "ana")[0]
    assert (first.kind, first.old_against_new) == ("pair", True)
    assert first.samples[0] == old  # a is the older version
    assert first.samples[1].version == trained
    assert "older version against a newer one" in first.why
    assert new.version == trained


def test_slices_and_kinds_take_turns(database: Database, base: str, trained: str) -> None:
    for n in range(6):
        answers(database, "en", (f"old {n}", base), (f"new {n}", trained), prompt=f"versions {n}")
        answers(database, "en", (f"a {n}", base), (f"b {n}", base), prompt=f"same {n}")
    items = next_items(database, "ana", 9, shares=Mix.of({"acquisition": 2, "versions": 1}))
    kinds = [(item.slice, item.kind, item.old_against_new) for item in items]
    assert Counter(kinds) == {
        ("versions", "pair", True): 3, ("acquisition", "single", False): 3, ("acquisition", "pair", False): 3
    }  # fmt: skip
    assert {name for name, *_ in kinds[:3]} == {"acquisition", "versions"}, "no slice waits for another to end"


def test_the_order_of_a_pair_is_shuffled_and_stays(database: Database) -> None:
    keys = [(clock.new_id(), clock.new_id()) for _ in range(400)]
    orders = [queue.shown_order("ana", a, b) for a, b in keys]
    assert orders == [queue.shown_order("ana", a, b) for a, b in keys]
    assert 140 < orders.count("ab") < 260
    assert orders != [queue.shown_order("amina", a, b) for a, b in keys]
    # The same answer stands left, whichever of the two is called a.
    assert all(queue.shown_order("ana", a, b) != queue.shown_order("ana", b, a) for a, b in keys)


def test_shown_follows_the_order(database: Database, base: str) -> None:
    for n in range(12):
        answers(database, "en", (f"a {n}", base), (f"b {n}", base), prompt=f"{n}")
    pairs = [item for item in next_items(database, "ana", 50) if item.kind == "pair"]
    assert {item.shown_order for item in pairs} == {"ab", "ba"}
    for item in pairs:
        assert item.shown == (item.samples if item.shown_order == "ab" else item.samples[::-1])


def test_the_language_with_the_fewest_ratings_comes_first(database: Database, base: str) -> None:
    for language, rated in (("en", 4), ("sw", 1), ("ja", 0)):
        for n in range(6):
            (sample,) = answers(database, language, (f"{n}", base), prompt=f"{n}")
            if n < rated:
                log.append(database, log.score(sample.id, 3, "ana"))
    languages = [item.prompt.language for item in next_items(database, "ana", 7)]
    assert languages[0] == "ja"
    assert Counter(languages) == {"ja": 4, "sw": 3}  # with those rated before: four of each
    assert Counter(item.prompt.language for item in next_items(database, "ana", 50)) == {"ja": 6, "sw": 5, "en": 2}


def test_skipped_items_come_last(database: Database, base: str) -> None:
    first, second = (answers(database, "en", (text, base), prompt=text)[0] for text in ("one", "two"))
    log.append(database, log.skip(second.id, "ana"))
    items = next_items(database, "ana")
    assert [item.samples[0] for item in items] == [first, second]
    assert items[1].why.startswith("skipped before; ")


def test_what_was_skipped_in_this_session_does_not_come_again(database: Database, base: str) -> None:
    before, now = (answers(database, "en", (text, base), prompt=text)[0] for text in ("one", "two"))
    log.append(database, log.skip(before.id, "ana"))
    session_start = log.position(database)
    log.append(database, log.skip(now.id, "ana"))
    items = next_items(database, "ana", session_start=session_start)
    assert [item.samples[0] for item in items] == [before]


def test_skipping_a_pair_leaves_its_answers_and_other_pairs_alone(database: Database, base: str) -> None:
    a, b, c = answers(database, "en", ("a", base), ("b", base), ("c", base))
    session_start = log.position(database)
    log.append(database, log.skip(a.id, "ana", other_sample_id=b.id))
    items = next_items(database, "ana", 20, session_start=session_start)
    assert Counter(item.kind for item in items) == {"single": 3, "pair": 1}
    assert all({sample.id for sample in item.samples} != {a.id, b.id} for item in items)
    assert c.id in {sample.id for item in items if item.kind == "pair" for sample in item.samples}


@pytest.mark.parametrize("split", [Split.HELD_OUT, Split.ETHICS])
def test_held_out_and_ethics_prompts_are_reviewed_too(database: Database, base: str, split: Split) -> None:
    answers(database, "hi", ("हाँ", base), split=split)
    assert [item.prompt.split for item in next_items(database, "ana")] == [split]


def test_the_limit_holds(database: Database, base: str) -> None:
    for n in range(8):
        answers(database, "en", (f"{n}", base), prompt=f"{n}")
    assert len(next_items(database, "ana", 5)) == 5


def test_answers_to_one_prompt_come_together_and_those_that_stand_alone_last(
    database: Database, base: str, trained: str
) -> None:
    """A reward model learns from how answers to one prompt differ."""
    for text in ("a1", "b1", "a2", "alone", "b2"):
        answers(database, "en", (text, base), prompt=text[0] if text != "alone" else "alone")
    answers(database, "en", ("new", trained), prompt="new")
    singles = [item.samples[0].text for item in next_items(database, "ana") if item.kind == "single"]
    assert singles == ["new", "b2", "b1", "a2", "a1", "alone"], "the newest version first, whatever stands alone"


def test_what_lies_further_back_is_found_when_all_else_is_judged(
    database: Database, base: str, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue looks at the first topics first; nothing is left out in the end."""
    monkeypatch.setattr(queue, "FIRST_TOPICS", 2)
    for n in range(5):
        answers(database, "en", (f"old {n}", base), (f"a {n}", trained), (f"b {n}", trained), prompt=f"{n}")
    offered = []
    while items := next_items(database, "ana", 4):
        for item in items:
            offered.append(tuple(sample.text for sample in item.samples))
            a, *b = item.samples
            log.append(database, log.pair(a.id, b[0].id, Choice.TIE, "ana") if b else log.label(a.id, True, "ana"))
    assert len(offered) == len(set(offered)) == 5 * (3 + 2), "three answers to each prompt, and a pair of each kind"
