"""The benchmark of controls: its figures, its model and rater, and that it goes on after an interruption."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import controls, rows, small_model
from storage.database import open_database
from storage.errors import WorkbenchError

pytestmark = pytest.mark.usefixtures("threads_restored")


@pytest.mark.parametrize(
    ("passed", "runs", "low", "high"), [(0, 40, 0, 0.0881), (2, 40, 0.0061, 0.1692), (40, 40, 0.9119, 1)]
)
def test_shares_have_exact_intervals(passed, runs, low, high):
    found = controls.share(passed, runs)
    assert (found["share"], found["low"], found["high"]) == pytest.approx((passed / runs, low, high), abs=1e-4)


def test_no_prompt_has_two_uses_and_every_seed_its_own():
    uses = controls.questions(3)
    everything = [text for part in uses.values() for _, text in part]
    assert [len(part) for part in uses.values()] == [48, 16, 32]
    assert len(set(everything)) == 96
    assert not set(everything) & {text for part in controls.questions(4).values() for _, text in part}


def test_the_rater_likes_vowels_and_not_the_shortness_of_a_text():
    assert controls.taste("") == controls.taste("rhythm 123") == 1
    assert 1 < controls.taste("strict rhythms and a few") < controls.taste("a naïve idea of one area") <= 5
    assert controls.taste("a") < controls.taste("a aeon area") < 5


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small model after two steps of fitting: quick, and good for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_model, "STEPS", 2)
        folder = small_model.made(tmp_path_factory.mktemp("models") / "small")
    return controls.Small(folder)


def test_the_small_model_is_made_once(small, monkeypatch):
    monkeypatch.setattr(small_model, "_fitted", None)
    assert small_model.made(small.folder) == small.folder


def test_runs_of_a_seed_share_their_ratings(small, tmp_path):
    first, second = (controls.run(tmp_path, small, 0, "real", 2) for _ in range(2))
    for name in ("seconds", "result"):
        del first[name], second[name]
    assert first == second
    assert first["passed"] == (first["failed_gates"] == [])
    with open_database(controls.Workspace(tmp_path / "rated-0")) as database:
        assert database.scalar("SELECT count(*) FROM ratings WHERE source = 'simulated'") == 192
        assert database.scalar("SELECT count(*) FROM prompts WHERE split = 'held-out'") == 16
        assert database.scalar("SELECT count(*) FROM jobs") == 0


def test_a_run_without_a_candidate_has_not_passed(small, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise WorkbenchError("the KL ran away", "lower the rate")

    monkeypatch.setattr(controls, "trainer", refuse)
    row = controls.run(tmp_path, small, 0, "shuffled", 2)
    assert (row["passed"], row["state"]) == (False, "failed")
    assert len(controls.table_row(row)) == len(controls.HEAD)
    assert controls.shares([row])["shuffled"]["passed"] == 0


def test_a_real_run_is_held_against_the_controls_of_its_own_seed():
    def row(kind: str, seed: int, tasted: list[float]) -> dict:
        return {"ratings": kind, "seed": seed, "tasted": tasted}

    found = controls.differences(
        [
            row("shuffled", 0, [1.0, 2.0, 3.0]),
            row("shuffled", 1, [1.0, 1.0, 1.0]),
            row("real", 0, [2.0, 3.0, 4.5]),
            row("constant", 0, [2.0, 3.5, 4.0]),
            {"ratings": "constant", "seed": 1, "state": "failed"},
        ]
    )
    assert [(one["seed"], one["control"], one["n"]) for one in found] == [(0, "shuffled", 3), (0, "constant", 3)]
    assert [one["mean"] for one in found] == pytest.approx([3.5 / 3, 0.0])
    assert found[0]["low"] > 0 > found[1]["low"]


def test_arguments_that_the_trainer_does_not_know_are_no_outcome():
    with pytest.raises(rows.CommandFailed, match="--nonsense"):
        controls.trainer("run", "--nonsense")


def test_it_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    done: list[tuple[str, int]] = []

    def run(folder, small, seed, kind, steps):
        if len(done) == 3 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        done.append((kind, seed))
        gain = {"mean": 0.1, "low": -0.1, "high": 0.3, "n": 32}
        return {
            "ratings": kind, "seed": seed, "passed": kind == "real", "state": "rejected", "failed_gates": [],
            "gate_gain": 0.1, "gate_interval": [0, 0.2], "taste_gain": gain, "ended_before": 0.2, "ended_after": 0.3,
            "kl": 1.0, "seconds": 5.0,
        }  # fmt: skip

    interrupted: list[bool] = []
    monkeypatch.setattr(controls, "run", run)
    monkeypatch.setattr(controls, "Small", lambda folder: None)
    monkeypatch.setattr(small_model, "made", lambda folder: folder)
    places = ["--work", str(tmp_path / "work"), "--workspace", str(tmp_path / "base")]
    monkeypatch.setattr(
        sys, "argv", ["controls", "--seeds", "0-2", "--real", "0", "--constant", "1", "--json", *places]
    )
    with pytest.raises(SystemExit) as ending:
        rows.interruptible(controls.main)
    assert ending.value.code == 130
    with pytest.raises(SystemExit) as ending:
        rows.interruptible(controls.main)
    assert ending.value.code == 0
    assert done == [("shuffled", 0), ("shuffled", 1), ("shuffled", 2), ("real", 0), ("constant", 1)]
    found = json.loads(capsys.readouterr().out)["shares"]
    assert {kind: (one["passed"], one["runs"]) for kind, one in found.items()} == {
        "real": (1, 1), "shuffled": (0, 3), "constant": (0, 1),
    }  # fmt: skip
