"""`workbench agreement`, to be read and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import conversations, samples
from storage.database import open_database
from storage.feedback import log
from storage.workspace import Workspace
from workbench.cli import cli, run_command


def test_agreement_is_told_as_tables_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--workspace", str(tmp_path / "workspace")]
    with open_database(Workspace(tmp_path / "workspace").prepare()) as database:
        prompt = conversations.add(database, "Barafu ni nini?", language="sw")
        made = [samples.new(prompt.id, f"jibu {number}", origin="imported") for number in range(12)]
        samples.add(database, made)
        for number, sample in enumerate(made):
            log.append(database, log.score(sample.id, 1 + number % 5, "ana"))
            log.append(database, log.score(sample.id, 1 + number % 5 if number else 5, "[/bela]"))
            log.append(database, log.score(sample.id, 5 - number % 5, "ai:contrary", source="ai"))
            if number < 3:
                log.append_all(
                    database, [log.score(sample.id, 2, name, attribute="fluent") for name in ("ana", "[/bela]")]
                )
    assert run_command(cli, ["agreement", "--json", *place]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["overall"]["alpha"] < 1
    assert found["overall"]["interval"][0] < found["overall"]["alpha"]
    assert (found["overall"]["units"], found["overall"]["raters"]) == (12, 2)
    by_attribute = {(one["language"], one["attribute"]): one for one in found["agreement"]}
    assert by_attribute["sw", "overall"]["alpha"] == found["overall"]["alpha"]
    assert by_attribute["sw", "fluent"]["alpha"] is None
    assert "too little overlap: 3 units" in by_attribute["sw", "fluent"]["why"]
    assert {one["rater"]: one["kind"] for one in found["raters"]} == {
        "ana": "human", "[/bela]": "human", "ai:contrary": "ai"
    }  # fmt: skip
    (judge,) = found["judges"]
    assert (judge["rater"], judge["weight"], judge["ratings"]) == ("ai:contrary", 0.0, 12)
    assert [one["language"] for one in judge["agreement"]] == [None, "sw"]
    assert -1 <= judge["agreement"][0]["low"] < judge["agreement"][0]["value"] < -0.8
    assert judge["agreement"][0]["n"] == 12
    assert run_command(cli, ["agreement", *place]) == 0
    said = capsys.readouterr().out
    assert "too little overlap" in said
    assert "[/bela]" in said
    assert "judge model" in said
