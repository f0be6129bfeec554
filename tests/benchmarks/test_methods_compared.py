"""The table of methods with made-up halves of the loop: what is compared, how it adds up, and that it goes on."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import methods, rows
from storage import conversations
from storage.database import open_database
from storage.records import Split
from storage.workspace import Workspace
from trainer.methods import METHODS
from workbench.demo.figures import Judged, Measured

GAIN = {"real": 1.0, "shuffled": 0.25, "constant": 0.0}
PROMPTS = 8


def worth(keys: list[str], gain: float) -> Measured:
    """Two answers a prompt, of which one ended."""
    return Measured("v1", [Judged(key, 2.0 + ord(key[-1]) % 3 + gain, bool(half)) for key in keys for half in range(2)])


@pytest.fixture
def loop(monkeypatch):
    """The halves of the loop without a model; returns what was done."""
    done: list[str] = []

    def begin(workspace: Workspace, seed, scale, say, model):
        assert scale.max_new_tokens == methods.TOKENS
        done.append(f"begin {seed}")
        with open_database(workspace) as database:
            texts = [f"Question {number}?" for number in range(PROMPTS)]
            # In another order in each workspace, as keys are.
            order = texts if seed % 2 else texts[::-1]
            keys = {text: conversations.add(database, text, language="en", split=Split.HELD_OUT).id for text in order}
        return worth([keys[text] for text in order], 0.0)

    def train(workspace, arguments, control="real", earlier=0):
        if arguments[0] == "reward":
            done.append("reward")
            return {"result": {}}
        assert earlier == 1
        kind = arguments[arguments.index("--control") + 1] if "--control" in arguments else "real"
        if f"interrupt {arguments[0]} {kind}" in done:
            done.remove(f"interrupt {arguments[0]} {kind}")
            raise KeyboardInterrupt
        done.append(f"train {arguments[0]} {kind}")
        state = "published" if kind == "real" else "rejected"
        learning = {"seconds": 60.0, "processor_seconds": 100.0}
        return {"result": {"state": state, "version": "v1", "kl": 3.0, "gates": [], "learning": learning}}

    def measure(workspace: Workspace, version, scale, say, model):
        assert version == "v1"
        done.append("measure")
        with open_database(workspace) as database:
            keys = [prompt.id for prompt in conversations.by_split(database, Split.HELD_OUT)]
        seed = int(workspace.root.parents[2].name.removeprefix("seed-"))
        return worth(keys, GAIN[workspace.root.parent.name] * (1 + seed))

    monkeypatch.setattr(methods, "begin", begin)
    monkeypatch.setattr(methods, "measure", measure)
    monkeypatch.setattr(rows, "train", train)
    return done


def start(tmp_path, monkeypatch, *more: str) -> int:
    places = ["--work", str(tmp_path / "work"), "--workspace", str(tmp_path / "base")]
    monkeypatch.setattr(sys, "argv", ["methods", "--only", "rloo,dpo", "--seeds", "0,1", *places, *more])
    with pytest.raises(SystemExit) as ending:
        rows.interruptible(methods.main)
    return ending.value.code


def test_all_methods_learn_from_the_same_ratings_and_are_compared_over_seeds(loop, tmp_path, monkeypatch, capsys):
    assert start(tmp_path, monkeypatch, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [loop.count(one) for one in ("begin 0", "begin 1", "reward")] == [1, 1, 2]
    gains = {(row["method"], row["seed"], row["ratings"]): row["gold"][0]["gain"] for row in found["rows"]}
    kinds = [("dpo", "real"), ("dpo", "shuffled"), ("rloo", "real"), ("rloo", "shuffled"), ("rloo", "constant")]
    assert gains == {(method, seed, kind): GAIN[kind] * (1 + seed) for method, kind in kinds for seed in (0, 1)}
    assert found["left_out"] == {"dpo": methods.NO_CONSTANT}
    over = {(one["method"], one["ratings"]): one for one in found["means"]}
    assert over["dpo", "real"]["gold"]["mean"] == 1.5
    assert (over["dpo", "real"]["published"], over["dpo", "real"]["seconds_of_learning"]) == (2, 60.0)
    less = over["rloo", methods.LESS]
    assert (less["seeds"], less["gold"]["mean"], less["gold_matched"]["mean"]) == (2, 1.125, 1.125)
    # Seeds alone differ here: Student's interval of 0.75 and 1.5.
    assert less["gold"]["high"] == pytest.approx(1.125 + 12.706 * 0.375, abs=1e-3)
    assert ("dpo", "constant") not in over


def test_the_tables_say_what_is_left_out_and_why(loop, tmp_path, monkeypatch, capsys):
    assert start(tmp_path, monkeypatch) == 0
    out = capsys.readouterr().out
    assert out.count("left out: it learns from differences") == 1
    assert out.count(methods.LESS) == 2


def test_it_goes_on_where_it_was_interrupted(loop, tmp_path, monkeypatch, capsys):
    loop.append("interrupt dpo shuffled")
    assert start(tmp_path, monkeypatch) == 130
    assert loop == ["begin 0", "reward", "train dpo real", "measure"]
    assert start(tmp_path, monkeypatch) == 0
    assert loop[4:6] == ["train dpo shuffled", "measure"]
    assert loop.count("train dpo real") == 2  # one a seed
    before = len(loop)
    assert start(tmp_path, monkeypatch) == 0
    assert len(loop) == before


def test_rows_of_another_scale_share_no_table(loop, tmp_path, monkeypatch):
    assert start(tmp_path, monkeypatch) == 0
    assert "rows of other settings" in start(tmp_path, monkeypatch, "--scale", "0.5")


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf"])
def test_a_scale_must_be_above_nothing(loop, tmp_path, monkeypatch, scale):
    assert start(tmp_path, monkeypatch, "--scale", scale) == 2


def test_all_methods_take_about_the_same_time():
    for name, way in methods.METHODS.items():
        assert way.seconds() == pytest.approx(methods.SECONDS, rel=0.1), name


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_row_is_a_command_that_the_trainer_understands(name):
    """And a constant control is left out where the method's own manual does not offer it."""
    from click import Context

    from trainer.cli import cli

    assert ("shuffled or constant" in METHODS[name].manual) == methods.METHODS[name].constant
    given = methods.training(name, 3, "shuffled", 0.5, "smollm2")
    command = cli.commands[given[0]]
    chosen = command.make_context(name, given[1:], parent=Context(cli)).params
    assert (chosen["seed"], chosen["control"], chosen["gate__answers"], chosen["ask"]) == (3, "shuffled", 2, 0)
    amount = round(methods.METHODS[name].amount / 2)
    assert amount in chosen.values()
