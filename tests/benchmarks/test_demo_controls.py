"""The demo beside its controls, with made-up halves of the loop: what is compared, and that it goes on."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import demo_controls, rows
from storage import conversations
from storage.database import open_database
from storage.records import Split
from storage.workspace import Workspace
from workbench.demo.figures import Judged, Measured

GAIN = {"v0": 0.0, "real": 1.0, "shuffled": 0.25, "constant": 0.0}


def worth(keys: list[str], kind: str) -> Measured:
    """Two answers a prompt, of which one ended; gold as the kind of the ratings has it."""
    return Measured(
        "v0" if kind == "v0" else "v1",
        [Judged(key, 2.0 + place % 3 + GAIN[kind], bool(half)) for place, key in enumerate(keys) for half in range(2)],
    )


@pytest.fixture
def loop(monkeypatch):
    """The halves of the loop without a model; returns what was done."""
    done: list[str] = []
    keys: list[str] = []

    def begin(workspace: Workspace, seed, scale, say, model):
        done.append(f"begin {seed}")
        with open_database(workspace) as database:
            texts = [f"Question {number}?" for number in range(6)]
            keys[:] = [conversations.add(database, text, language="en", split=Split.HELD_OUT).id for text in texts]
        return worth(keys, "v0")

    def train(workspace, arguments):
        kind = arguments[arguments.index("--control") + 1] if "--control" in arguments else "real"
        if f"interrupt {kind}" in done:
            done.remove(f"interrupt {kind}")
            raise KeyboardInterrupt
        done.append(f"train {kind}")
        state = "published" if kind == "real" else "rejected"
        return {"result": {"state": state, "version": "v1", "kl": 3.0, "gates": []}}

    def measure(workspace: Workspace, version, scale, say, model):
        assert version == "v1"
        done.append("measure")
        return worth(keys, workspace.root.parent.name)

    monkeypatch.setattr(demo_controls, "begin", begin)
    monkeypatch.setattr(demo_controls, "measure", measure)
    monkeypatch.setattr(rows, "train", train)
    return done


def start(tmp_path, monkeypatch, *more: str) -> int:
    places = ["--work", str(tmp_path / "work"), "--workspace", str(tmp_path / "base")]
    monkeypatch.setattr(sys, "argv", ["demo_controls", "--seeds", "4", *places, *more])
    with pytest.raises(SystemExit) as ending:
        rows.interruptible(demo_controls.main)
    return ending.value.code


def test_the_real_run_is_compared_with_controls_of_the_same_answers(loop, tmp_path, monkeypatch, capsys):
    assert start(tmp_path, monkeypatch, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert loop.count("begin 4") == 1
    gains = {row["ratings"]: (row["gold"][0]["gain"], row["state"]) for row in found["rows"]}
    assert gains == {"real": (1.0, "published"), "shuffled": (0.25, "rejected"), "constant": (0.0, "rejected")}
    assert {one["control"]: (one["gold"]["mean"], one["gold_matched"]["mean"]) for one in found["differences"]} == {
        "shuffled": (0.75, 0.75), "constant": (1.0, 1.0),
    }  # fmt: skip
    assert found["means"]["real"] == {"seeds": 1, "gold_gain": 1.0, "published": 1}


def test_it_goes_on_where_it_was_interrupted(loop, tmp_path, monkeypatch, capsys):
    loop.append("interrupt shuffled")
    assert start(tmp_path, monkeypatch) == 130
    assert loop == ["begin 4", "train real", "measure"]
    assert start(tmp_path, monkeypatch) == 0
    assert loop[3:] == ["train shuffled", "measure", "train constant", "measure"]
    assert start(tmp_path, monkeypatch) == 0
    assert len(loop) == 7
    assert "real less" in capsys.readouterr().out
