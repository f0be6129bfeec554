"""Win rates of versions: which pairs count, whose they are, and going back to what was served before."""

from __future__ import annotations

from typing import Any

import pytest

from storage import conversations, samples, versions
from storage.database import Database
from storage.errors import UsageError
from storage.feedback import log, winning
from storage.records import Choice, Split, Version


@pytest.fixture
def three(database: Database) -> list[Version]:
    """v0, and v1 and v2 that were trained one from the other."""
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    made = [base]
    for name in ("v1", "v2"):
        parent = made[-1].name
        made.append(versions.add_candidate(database, base=base, parent=parent, file=f"{name}.safetensors", sha256="0"))
    return made


def compare(
    database: Database, old: str, new: str, worths: list[float], language: str = "fr", order: str = "ab", **more: Any
) -> None:
    """Blind pairs of answers to prompts of their own, judged so that the newer one's worth is as said."""
    start = database.scalar("SELECT count(*) FROM prompts")
    for number, worth in enumerate(worths, start):
        prompt = conversations.add(database, f"question {number}", language=language)
        made = [samples.new(prompt.id, f"{name} {number}", version=name, finish_reason="eos") for name in (old, new)]
        samples.add(database, made)
        a, b = made if order == "ab" else made[::-1]
        better = {0.5: Choice.TIE, 1.0: "new", 0.0: "old"}[worth]
        if better != Choice.TIE:
            better = Choice.A if (better == "old") == (order == "ab") else Choice.B
        log.append(database, log.pair(a.id, b.id, better, "rater", **{"blind": True, "shown_order": "ab", **more}))


def all_of(database: Database, version: str) -> winning.WinRate:
    (found,) = [one for one in winning.win_rates(database) if (one.version, one.part) == (version, "all")]
    return found


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_win_is_the_newer_ones_whichever_way_the_pair_is_stored(database: Database, three: list[Version], order: str):
    compare(database, "v0", "v1", [1.0, 1.0, 1.0, 0.5, 0.0], order=order)
    found = all_of(database, "v1")
    assert (found.against, found.n, found.wins, found.ties, found.losses) == ("v0", 5, 3, 1, 1)
    assert found.rate == 0.7
    assert found.low < 0.5 < found.high
    assert found.verdict == "undecided"
    assert winning.headline(winning.win_rates(database), three[1]) == found


def test_what_was_not_blind_or_not_judged_here_or_was_taken_back_does_not_count(
    database: Database, three: list[Version]
):
    compare(database, "v0", "v1", [1.0], blind=False)
    compare(database, "v0", "v1", [1.0], source="imported")
    compare(database, "v0", "v1", [1.0], source="ai")
    compare(database, "v0", "v1", [1.0], attribute="fluent")
    compare(database, "v1", "v1", [1.0])
    assert winning.win_rates(database) == []
    compare(database, "v0", "v1", [1.0])
    assert all_of(database, "v1").n == 1
    log.undo(database, "rater")
    assert winning.win_rates(database) == []
    log.redo(database, "rater")
    assert all_of(database, "v1").n == 1


def test_only_pairs_that_were_drawn_count_and_each_once(database: Database, three: list[Version]):
    for chosen in ("overlap", "gold", "acquisition", "random"):
        compare(database, "v0", "v1", [1.0], slice=chosen)
    assert winning.win_rates(database) == []
    compare(database, "v0", "v1", [1.0], slice="versions")
    first = log.effective(database)[-1]
    log.append(database, log.pair(first.sample_id, first.other_sample_id, Choice.A, "li", blind=True))
    assert (all_of(database, "v1").n, all_of(database, "v1").wins) == (1, 1), "the first word on a pair counts"
    again = log.pair(first.sample_id, first.other_sample_id, Choice.TIE, "rater", blind=True, slice="repeat")
    log.append(database, again)
    assert (all_of(database, "v1").n, all_of(database, "v1").wins) == (1, 1)
    (gold,) = (one for one in log.effective(database) if one.slice == "gold")
    log.append(
        database, log.pair(gold.sample_id, gold.other_sample_id, gold.choice, "rater", blind=True, slice="repeat")
    )
    assert all_of(database, "v1").n == 1, "what was not drawn is not drawn when it is asked again"


def test_the_served_version_is_measured_against_what_was_served_before_it(database: Database, three: list[Version]):
    versions.serve(database, "v2")
    compare(database, "v1", "v2", [1.0] * 30)
    compare(database, "v0", "v2", [0.0] * 20)
    served, before = versions.served(database), versions.served_before(database)
    assert before is not None
    assert before.name == "v0", "v1 was never served"
    assert winning.headline(winning.win_rates(database), three[2]).against == "v0"
    assert winning.lost(winning.win_rates(database), served, before).losses == 20
    assert winning.lost(winning.win_rates(database), before, None) is None
    winning.require(database, versions.get(database, "v2"), 0.5)  # its parent is v1
    versions.serve(database, "v1")
    assert winning.headline(winning.win_rates(database), three[2]).against == "v1"


def test_people_and_simulated_raters_are_never_mixed_and_people_lead(database: Database, three: list[Version]):
    compare(database, "v0", "v1", [1.0] * 3, source="simulated")
    compare(database, "v0", "v1", [0.0] * 2)
    by_source = {one.source: one for one in winning.win_rates(database) if one.part == "all"}
    assert {name: (one.rate, one.n) for name, one in by_source.items()} == {"human": (0.0, 2), "simulated": (1.0, 3)}
    assert winning.headline(winning.win_rates(database), three[1]) == by_source["human"]


def test_each_language_and_the_held_out_prompts_have_figures_of_their_own(database: Database, three: list[Version]):
    compare(database, "v0", "v1", [1.0] * 40, language="fr")
    compare(database, "v0", "v1", [0.0] * 40, language="sw")
    for row in database.rows("SELECT id FROM prompts WHERE language = 'sw'"):
        conversations.put_to_use(database, row["id"], Split.HELD_OUT, "")
    found = {(one.part, one.language): one for one in winning.win_rates(database)}
    assert found["all", None].n == 80
    held_out = database.scalar("SELECT count(*) FROM prompts WHERE split = 'held-out'")  # the hash chose some as well
    assert (found["held-out", None].n, found["held-out", None].losses) == (held_out, 40)
    assert found["language", "fr"].verdict == "better"
    assert found["language", "sw"].verdict == "worse"


def test_many_ties_are_no_difference_that_matters(database: Database, three: list[Version]):
    compare(database, "v0", "v1", [0.5] * 60)
    found = all_of(database, "v1")
    assert found.verdict == "equivalent"
    assert 0.4 < found.low < found.high < 0.6


def test_publishing_if_won_asks_for_the_lower_end_against_the_parent(database: Database, three: list[Version]):
    waiting = {"gate": "win rate", "passed": False, "value": None, "bound": 0.5, "detail": "nobody"}
    versions.record_gates(database, "v2", [{"gate": "finite", "passed": True}, waiting], {})
    compare(database, "v0", "v2", [1.0] * 30)
    with pytest.raises(UsageError, match="no blind pair of v2 against v1 is judged yet"):
        winning.require(database, versions.get(database, "v2"), 0.5)
    compare(database, "v1", "v2", [1.0, 0.0] * 3)
    with pytest.raises(UsageError, match="not surely above 50%"):
        winning.require(database, versions.get(database, "v2"), 0.5)
    compare(database, "v1", "v2", [1.0] * 40)
    winning.require(database, versions.get(database, "v2"), 0.5)
    gates = {gate["gate"]: gate for gate in versions.get(database, "v2").gates}
    assert gates["finite"]["passed"]
    assert gates["win rate"]["passed"]
    assert "46 blind pairs against v1" in gates["win rate"]["detail"]


def test_going_back_goes_to_what_was_served_before_step_by_step(database: Database, three: list[Version]):
    for name in ("v1", "v2"):
        versions.serve(database, name)
    versions.serve(database, "v0")  # the person tries the base model again: v2 was served before it
    assert versions.served_before(database).name == "v2"
    assert versions.serve_before(database).name == "v2"
    assert versions.serve_before(database).name == "v1"
    assert versions.serve_before(database).name == "v0"
    with pytest.raises(UsageError, match="nothing to roll back"):
        versions.serve_before(database)
    versions.serve(database, "v2")
    assert versions.served_before(database).name == "v0"


def test_going_back_never_changes_the_base_model(database: Database, three: list[Version]):
    versions.serve(database, "v1")
    other = versions.ensure_base(database, "gemma", "1" * 64)
    versions.serve(database, other.name)
    with pytest.raises(UsageError, match="nothing to roll back"):
        versions.serve_before(database)


def test_reading_win_rates_does_not_read_what_else_was_said(database: Database, three: list[Version]):
    plan = database.rows(
        "EXPLAIN QUERY PLAN SELECT * FROM counted WHERE kind = 'pair' AND source IN ('human', 'simulated') "
        "ORDER BY sequence"
    )
    assert any("counted_pairs" in row["detail"] for row in plan)
