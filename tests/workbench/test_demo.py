"""The demo's table: gold before and after, as it is and with finishing taken out."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from storage.records import Prompt
from workbench.demo.figures import Judged, Measured, figures, measured
from workbench.demo.walk import Scale, training

PROMPTS = [Prompt(f"p{number}", f"Question {number}?", "en" if number % 2 else "sw", "") for number in range(20)]


def answers(version: str, finished: int, shift: float = 0.0) -> Measured:
    """Four answers a prompt, of which so many ended; an end is worth 2."""
    judged = [Judged(one.id, 2.0 + shift + 2.0 * (place < finished), place < finished)
              for one in PROMPTS for place in range(4)]  # fmt: skip
    return Measured(version, judged)


def test_a_policy_that_only_finishes_more_gains_nothing_once_finishing_is_taken_out():
    found = figures(answers("v0", 1), answers("v1", 3), PROMPTS, seed=0)
    assert [row["language"] for row in found["gold"]] == [None, "sw", "en"]
    assert found["gold"][0]["gain"] == pytest.approx(1.0)
    assert found["gold_matched"]["mean"] == pytest.approx(0.0)
    assert (found["finished_before"], found["finished_after"]) == (0.25, 0.75)


def test_a_gain_in_the_answers_themselves_stays():
    found = figures(answers("v0", 1), answers("v1", 3, shift=0.5), PROMPTS, seed=0)
    assert found["gold"][0]["gain"] == pytest.approx(1.5)
    assert found["gold_matched"]["mean"] == pytest.approx(0.5)


def test_answers_that_all_end_are_compared_with_those_that_ended_before():
    found = figures(answers("v0", 1), answers("v1", 4, shift=0.5), PROMPTS, seed=0)
    assert found["gold_matched"]["mean"] == pytest.approx(0.5)
    assert "only answers that ended are compared" in found["gold_matched"]["reason"]


def test_what_was_measured_goes_through_a_file():
    assert measured(asdict(answers("v0", 2))) == answers("v0", 2)


def test_a_control_is_an_option_of_the_trainer():
    assert training(3, Scale(steps=5), "smollm2", None) == ["run", "--model", "smollm2", "--seed", "3", "--steps", "5"]
    assert training(3, Scale(), "smollm2", "constant")[-2:] == ["--control", "constant"]
