"""`workbench raters` and what `workbench queue` does with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import conversations, samples, versions
from storage.database import open_database
from storage.feedback import log, selection
from storage.feedback.selection import Selection
from storage.workspace import Workspace
from workbench.cli import cli, run_command


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Answers in two languages, one of them judged by bela."""
    root = tmp_path / "workspace"
    with open_database(Workspace(root).prepare()) as database:
        base = versions.ensure_base(database, "smollm2", "d" * 64).name
        for language in ("sw", "fr"):
            prompt = conversations.add(database, f"{language}?", language=language, task="medicine")
            made = [samples.new(prompt.id, text, version=base) for text in "ab"]
            samples.add(database, made)
            log.append(database, log.score(made[0].id, 4, "bela", source="ai"))
    return root


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    assert run_command(cli, [*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_raters_are_introduced_changed_and_listed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--workspace", str(workspace))
    said(capsys, "raters", "add", "amina", "--languages", "SW, es_AR", *place)
    found = said(capsys, "raters", "add", "amina", "--gold", *place)
    assert found == [
        {"rater": "bela", "kind": "ai", "languages": [], "gold": False, "ratings": 2},
        {"rater": "amina", "kind": "human", "languages": ["sw", "es-AR"], "gold": True, "ratings": 0},
    ]
    assert run_command(cli, ["raters", "--languages", "sw", *place]) == 2
    assert run_command(cli, ["raters", "add", "amina", "--languages", "swahili!", *place]) == 2
    assert said(capsys, "raters", "add", "amina", "--languages", "all", *place)[1]["languages"] == []  # type: ignore[index]


@pytest.mark.parametrize(
    "arguments", [("raters", "add", "ai:zoe"), ("settings", "rater", "ai:zoe"), ("outcome", "{}", "--rater", "ai:zoe")]
)
def test_no_person_rates_by_the_name_of_a_judge_model(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with open_database(Workspace(workspace)) as database:
        key, before = database.scalar("SELECT id FROM samples"), log.position(database)
        words = [one.format(key) for one in arguments]
        assert run_command(cli, [*words, "--workspace", str(workspace)]) == 2
        assert "is the name of a judge model" in capsys.readouterr().err
        assert log.position(database) == before
    assert run_command(cli, ["raters", "add", "ai:zoe", "--kind", "ai", "--workspace", str(workspace)]) == 0


def test_commands_are_of_the_rater_that_is_set(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--workspace", str(workspace))
    said(capsys, "raters", "add", "amina", "--languages", "sw", *place)
    said(capsys, "settings", "rater", "amina", *place)
    items = said(capsys, "queue", *place)
    assert isinstance(items, list)
    assert {item["language"] for item in items} == {"sw"}
    said(capsys, "outcome", items[0]["samples"][0], "it was read aloud", *place)
    with open_database(Workspace(workspace)) as database:
        assert [one.text for one in log.effective(database, rater="amina")] == ["it was read aloud"]


def test_a_queue_is_for_a_rater_of_a_working_set_and_says_its_slices(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--workspace", str(workspace))
    said(capsys, "raters", "add", "amina", "--languages", "sw", *place)
    items = said(capsys, "queue", "--for", "amina", "--mix", "overlap=1,acquisition=1", *place)
    assert isinstance(items, list)
    assert {item["language"] for item in items} == {"sw"}
    assert {item["slice"] for item in items} == {"overlap", "acquisition"}
    assert {"kind", "prompt", "samples", "why", "slice"} <= items[0].keys()
    assert not any("4" in json.dumps(item["why"]) or "score" in item for item in items), "what bela said stays hidden"
    said(capsys, "queue", "--language", "fr", "--task", "medicine", "--save", "french", *place)
    assert {item["language"] for item in said(capsys, "queue", "--set", "french", *place)} == {"fr"}  # type: ignore[union-attr]
    assert said(capsys, "queue", "--set", "french", "--task", "poetry", *place) == []
    said(capsys, "queue", "--mix", "versions=1", "--keep-mix", *place)
    assert said(capsys, "queue", *place) == [], "there are no two versions"


def test_the_queue_is_of_what_was_chosen_on_review_and_says_so(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--workspace", str(workspace))

    def queue(*options: str) -> tuple[set[str], str]:
        assert run_command(cli, ["queue", *options, "--limit", "100", "--json", *place]) == 0
        found = capsys.readouterr()
        return {item["language"] for item in json.loads(found.out)}, found.err

    every, told = queue()
    assert len(every) > 1
    assert "chosen" not in told
    with open_database(Workspace(workspace)) as database:
        selection.activate(database, Selection(languages=("sw",)))  # what `f` on Review stores
    for options, languages, words in (
        ((), {"sw"}, "of language sw, as chosen on Review"),
        (("--everything",), every, ""),
        (("--language", "fr"), {"fr"}, ""),
        (("--language", "fr", "--choose"), {"fr"}, "Review asks about language fr"),
        ((), {"fr"}, "of language fr, as chosen on Review"),
        (("--everything", "--choose"), every, "Review asks about everything"),
        ((), every, ""),
    ):
        found, told = queue(*options)
        assert found == languages, options
        assert words in told, options
        assert "chosen on Review" in words or "chosen" not in told, options
    assert run_command(cli, ["queue", "--everything", "--language", "fr", *place]) == 2


def test_every_field_that_review_asks_for_is_an_option_of_the_queue() -> None:
    names = {option for one in cli.get_command(None, "queue").params for option in one.opts}  # type: ignore[arg-type, union-attr]
    for field in Selection.__struct_fields__:
        assert f"--{field.removesuffix('s')}" in names, field
