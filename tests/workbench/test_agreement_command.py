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
    assert {one["rater"] for one in found["raters"]} == {"ana", "[/bela]"}
    assert run_command(cli, ["agreement", *place]) == 0
    said = capsys.readouterr().out
    assert "too little overlap" in said
    assert "[/bela]" in said
