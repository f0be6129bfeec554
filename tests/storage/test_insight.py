"""Figures of a workspace: each tells what was planted in it."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from storage import clock, conversations, evaluations, reward_models, samples, versions
from storage.database import Database
from storage.feedback import log
from storage.insight import FIGURES, proxy
from storage.insight.figure import Found, Placed, Point
from storage.records import Choice, Evaluation, Sample


def read(database: Database, name: str) -> Found:
    (figure,) = [one for one in FIGURES if one.name == name]
    return figure.read(database)


def dots(found: Found, series: str) -> dict[str, Point]:
    assert found.plot is not None
    (chosen,) = [one for one in found.plot.series if one.name == series]
    return {point.label: point for point in chosen.points}


def version(database: Database, parent: str = "v0", state: str = "published", **metrics: Any) -> str:
    """A version with what its gate measured."""
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    made = versions.add_candidate(database, base=base, parent=parent, file="x.safetensors", sha256="0", metrics=metrics)
    database.execute("UPDATE versions SET state = ? WHERE name = ?", (state, made.name))
    return made.name


def answers(database: Database, count: int, language: str = "sw", version: str | None = None) -> list[Sample]:
    """One answer to a prompt of its own each, the later the longer."""
    made = []
    for number in range(count):
        prompt = conversations.add(database, f"{version} {number}?", language=language)
        made.append(samples.new(prompt.id, f"{number} " * (number + 1), version=version))
    samples.add(database, made)
    return made


def gained(mean: float, half: float, n: int = 12) -> dict[str, Any]:
    return {"reward_gain": mean, "reward_gain_interval": [mean - half, mean + half], "held_out_prompts": n}


def test_the_frontier_adds_up_the_steps_from_the_reference(database: Database) -> None:
    version(database, kl=2.0, **gained(0.5, 0.3))
    version(database, "v1", kl=5.0, **gained(0.25, 0.4, 8))
    version(database, "v1", "rejected", kl=9.0, **gained(-1.0, 0.4))
    version(database, kl=1.0, control="shuffled", **gained(0.1, 0.1))
    version(database, kl=1.0)
    found = read(database, "frontier")
    own = dots(found, "published")
    assert (own["v1"].x, own["v1"].y, own["v1"].n) == (2.0, 0.5, 12)
    assert (own["v2"].x, own["v2"].y, own["v2"].n) == (5.0, 0.75, 8)
    assert (own["v2"].low, own["v2"].high) == (pytest.approx(0.25), pytest.approx(1.25))  # 0.3 and 0.4 make 0.5
    assert dots(found, "rejected")["v3"].y == -0.5
    assert dots(found, "control")["v4"].y == 0.1
    assert list(dots(found, "most for its KL")) == ["", "v1", "v2"], "controls and what was rejected are no frontier"
    (lacking,) = [row for row in found.table.rows if row[0] == "v5"]
    assert lacking[-1] == "no gate measured its reward"
    assert any("v4" in note for note in found.notes)


def scored(database: Database, version: str, values: list[float], source: str = "human") -> None:
    answers(database, 7)  # which nobody rates
    for sample, value in zip(answers(database, len(values), version=version), values, strict=True):
        log.append(database, log.score(sample.id, value, "ana", source=source))


def compared(
    database: Database, one: str, other: str, choice: Choice, language: str = "sw",
    versions: tuple[str | None, str | None] = (None, None), source: str = "human",
) -> None:  # fmt: skip
    """Two answers to a prompt of their own, seen blind with the first at the left."""
    prompt = conversations.add(database, clock.new_id(), language=language)
    pair = [samples.new(prompt.id, text, version=name) for text, name in zip((one, other), versions, strict=True)]
    samples.add(database, pair)
    log.append(database, log.pair(pair[0].id, pair[1].id, choice, "ana", blind=True, shown_order="ab", source=source))


def judged_blind(database: Database, new: str, old: str, won: int, lost: int, source: str = "human") -> None:
    for number in range(won + lost):
        compared(database, "one", "two", Choice.A if number < won else Choice.B, "sw", (new, old), source)


def test_a_version_whose_reward_rises_and_whose_raters_like_it_less_is_named(database: Database) -> None:
    version(database, **gained(0.4, 0.2))
    version(database, "v1", **gained(0.6, 0.2))
    scored(database, "v0", [2, 3] * 10)
    scored(database, "v1", [3, 4] * 10)
    scored(database, "v2", [1, 2] * 10)
    scored(database, "v1", [1] * 5, source="ai")
    judged_blind(database, "v2", "v1", won=1, lost=29)
    judged_blind(database, "v2", "v1", won=9, lost=0, source="simulated")
    found = read(database, "proxy")
    scores = dots(found, "mean score, human")
    assert (scores["v1"].x, scores["v1"].y, scores["v1"].n) == (0.4, pytest.approx(0.25), 20)
    assert (scores["v2"].x, scores["v2"].y) == (0.6, pytest.approx(-0.5))
    assert dots(found, "blind win rate less one half, human")["v2"].y == pytest.approx(1 / 30 - 0.5)
    assert dots(found, "blind win rate less one half, simulated")["v2"].y == 0.5
    named = [note for note in found.notes if "over-optimised" in note]
    assert len(named) == 2
    assert all(note.startswith("v2 is over-optimised: reward +0.60 [+0.40, +0.80] over 12 prompts") for note in named)


def test_the_difference_of_means_is_welchs(database: Database) -> None:
    new, old = [0.1, 0.4, 0.35, 0.8, 0.65], [0.2, 0.25, 0.9]
    found = proxy.difference(new, old)
    theirs = stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
    assert found.interval is not None
    # Degrees of freedom are whole numbers here, rounded down: the interval is a little wider.
    assert found.interval[0] <= theirs.low < theirs.high <= found.interval[1]
    assert found.interval == (pytest.approx(theirs.low, abs=0.15), pytest.approx(theirs.high, abs=0.15))
    assert proxy.difference([0.5], old).interval is None


def test_gains_by_language_are_those_of_the_gate_of_the_newest_published_version(database: Database) -> None:
    by_language = {
        "sw": {"mean": -0.4, "low": -0.7, "high": -0.1, "n": 6},
        "en": {"mean": 0.1, "low": None, "high": 0.4},
    }
    version(database, reward_gain_by_language=by_language)
    version(database, "v1", "rejected", reward_gain_by_language={"sw": {"mean": 9.0, "low": 8.0, "high": 10.0, "n": 6}})
    found = read(database, "languages")
    own = dots(found, "reward, by the gate's judge")
    assert (own["sw"].y, own["sw"].low, own["sw"].high, own["sw"].n) == (-0.4, -0.7, -0.1, 6)
    assert (own["en"].y, own["en"].low, own["en"].high, own["en"].n) == (0.1, None, None, None)
    assert found.notes[0] == "Surely worse in sw."
    assert ("v2", "v1", "reward, by the gate's judge", "sw", 9.0, 8.0, 10.0, 6) in found.table.rows


def measured(
    database: Database, version: str, metric: str, value: float, language: str | None = None,
    against: str | None = None, bounds: tuple[float, float] | None = None,
) -> Evaluation:  # fmt: skip
    low, high = bounds or (None, None)
    return Evaluation(
        clock.new_id(), version, "bias", metric, value, 24, clock.now(), language, low, high, None, against
    )


def test_an_evaluation_stands_beside_what_was_measured_with_it_and_not_what_came_later(database: Database) -> None:
    version(database)
    for now, then, gain in ((0.5, 0.4, 0.1), (0.7, 0.3, 0.4)):
        rows = [("v1", now, None), ("v0", then, None), ("v1", gain, "v0")]
        evaluations.add(database, [
            measured(database, name, "ambiguous/bias" + (evaluations.GAIN if against else ""), value, language, against,
                     (value - 0.05, value + 0.05))
            for name, value, against in rows for language in (None, "sw")
        ])  # fmt: skip
    evaluations.add(database, [measured(database, name, "ambiguous/cut", 0.0) for name in ("v1", "v0")])
    evaluations.add(database, [measured(database, "v0", "ambiguous/bias", 0.99)])
    found = read(database, "evaluation")
    gain = dots(found, "what a gate with suites asks")["bias ambiguous/bias"]
    assert (gain.y, gain.low, gain.high, gain.n) == (0.4, pytest.approx(0.35), pytest.approx(0.45), 24)
    assert [row[4:] for row in found.table.rows] == [
        (
            language,
            0.7,
            pytest.approx(0.65),
            pytest.approx(0.75),
            24,
            0.3,
            0.4,
            pytest.approx(0.35),
            pytest.approx(0.45),
        )
        for language in ("all", "sw")
    ]
    assert found.notes[0] == "Surely better, each by itself: bias ambiguous/bias in sw."
    by_language = read(database, "languages")
    assert dots(by_language, "bias ambiguous/bias")["sw"].y == 0.4


def test_balance_is_by_language_kind_and_source_and_names_a_side_that_is_preferred(database: Database) -> None:
    for place, sample in enumerate(answers(database, 20, "sw")):
        log.append(database, log.label(sample.id, place < 15, "ana"))
        log.append(database, log.label(sample.id, False, "bot", source="simulated"))
        log.append(database, log.score(sample.id, 1 + place % 5, "ana"))
    for place in range(30):
        compared(database, "short", "somewhat longer", Choice.A if place < 27 else Choice.B, "fr")
    found = read(database, "balance")
    assert (dots(found, "labelled good, human")["sw"].y, dots(found, "labelled good, human")["sw"].n) == (0.75, 20)
    assert dots(found, "labelled good, simulated")["sw"].y == 0.0
    assert dots(found, "scored above the middle, human")["all"].y == 0.4
    assert dots(found, "left preferred, human")["fr"].y == 0.9
    assert found.plot is not None
    assert found.plot.places == ("all", "fr", "sw"), "in their order, whichever series they are of"
    assert [note for note in found.notes if note.startswith("What stands at the left is preferred in fr (human)")]
    assert not [note for note in found.notes if "sw" in note]


def test_agreement_and_self_consistency_stand_in_one_table(database: Database) -> None:
    for place, sample in enumerate(answers(database, 20)):
        log.append(database, log.label(sample.id, place % 2 == 0, "ana"))
        log.append(database, log.label(sample.id, place % 2 == 0, "bela"))
        if place < 10:
            log.append(database, log.label(sample.id, place != 0 and place % 2 == 0, "ana", slice="repeat"))
    found = read(database, "agreement")
    assert dots(found, "label")["sw"].n == 20
    (own,) = [row for row in found.table.rows if row[0] == "same again"]
    assert own[1:5] == ("ana", "overall", "", 0.9)
    assert own[7] == 10


def test_length_is_of_people_pairs_and_the_reward_model(database: Database) -> None:
    made = answers(database, 30)
    for place, sample in enumerate(made):
        log.append(database, log.score(sample.id, 1 + place // 6, "ana"))
    for _ in range(20):
        compared(database, "short", "somewhat longer", Choice.A)
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    reward_models.add(
        database, base=base, file="f", sha256="e", data_digest="d", job_id=None,
        metrics={"length_correlation": 0.5, "length_n": 40, "gamma": -0.2},
    )  # fmt: skip
    found = read(database, "length")
    assert dots(found, "scores, human")["sw"].y > 0.95
    assert (dots(found, "pairs, human")["sw"].y, dots(found, "pairs, human")["sw"].n) == (-1.0, 20)
    model = dots(found, "reward model rm1")["all"]
    assert model.low is not None
    assert model.high is not None
    assert 0.2 < model.low < 0.5 < model.high < 0.75
    assert ("all", "logit of a pair for each log ratio of lengths", "reward model rm1", -0.2) in [
        row[:4] for row in found.table.rows
    ]


def test_win_rates_of_people_and_simulated_raters_stand_apart(database: Database) -> None:
    version(database)
    judged_blind(database, "v1", "v0", won=3, lost=1)
    judged_blind(database, "v1", "v0", won=0, lost=2, source="simulated")
    found = read(database, "win-rates")
    assert (dots(found, "human, all prompts")["v1 over v0"].y, dots(found, "human, all prompts")["v1 over v0"].n) == (
        0.75,
        4,
    )
    assert dots(found, "simulated, all prompts")["v1 over v0"].y == 0.0
    assert found.notes[0].startswith("v1 (human): undecided: won 75%")


def test_an_empty_workspace_says_of_each_figure_what_to_do(database: Database) -> None:
    for figure in FIGURES:
        found = figure.read(database)
        assert found.plot is None
        assert found.missing
        assert found.table.rows == ()


def test_places_with_names_stand_in_their_order_whichever_series_came_first() -> None:
    placed = Placed(by_name=True)
    for series, place in (("labels", "all"), ("labels", "sw"), ("scores", "all"), ("scores", "ar"), ("scores", "de")):
        placed.add(series, place, 0.5)
    assert placed.places == ("all", "ar", "de", "sw")
