"""The commands without a screen: what they print, where, and how they exit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from commanding import Run

from storage import conversations, samples, versions
from storage.database import Database, DatabaseError, open_database
from storage.feedback import kinds, log
from storage.workspace import Workspace
from workbench.cli import COMMANDS, cli, run_command

ROOT = Path(__file__).parents[2]


# The command line itself


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_manual_with_an_example_and_takes_a_workspace(name: str, run: Run) -> None:
    told = run(name, "--help")
    assert told.code == 0
    assert f"workbench {name}" in told.out
    assert "--workspace" in told.out
    if name != "export":
        assert "--json" in told.out
    if name != "generate":
        assert "Example" in told.out


def test_the_list_of_commands_is_shown_without_importing_any() -> None:
    code = (
        "import sys; from workbench.cli import cli, run_command; run_command(cli, ['--help']);"
        "heavy = {'sqlite_utils', 'textual', 'torch', 'transformers', 'trainer', 'numpy', 'workbench.commands.stats'};"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert all(name in done.stdout for name in COMMANDS)
    assert done.stderr.strip() == "set()"


def test_nothing_waits_for_sqlite_utils_but_the_doctor(run: Run, workspace: Workspace, feedback: Path) -> None:
    run("import", str(feedback))
    code = (
        "import sys; from workbench.cli import cli, run_command\n"
        "for command in ('stats', 'queue', 'versions', 'keys'):\n"
        f"    run_command(cli, ['--workspace', {str(workspace.root)!r}, command])\n"
        "import workbench.desk\n"
        "assert 'sqlite_utils' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert "ok    contents" in run("doctor").out


@pytest.mark.parametrize(
    "name", ["stats", "import", "doctor", "keys", "queue", "raters", "agreement", "insight", "merge"]
)
def test_no_command_imports_torch_or_the_trainer(name: str) -> None:
    module = COMMANDS[name][0].partition(":")[0]
    heavy = {"torch", "transformers", "trainer"} | ({"textual"} if name != "keys" else set())  # keys knows their names
    code = f"import sys, {module}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["stats", "--nonsense"], ["export", "everything", "f"], ["import"]]
)
def test_wrong_usage_exits_with_two(run: Run, arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Error: " in outcome.err


def test_the_app_without_a_terminal_says_so(run: Run) -> None:
    outcome = run()
    assert outcome.code == 2
    assert outcome.err.startswith("error: the app needs a terminal\nhint: ")


def test_the_workspace_may_stand_after_the_command_and_comes_from_the_environment_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_WORKSPACE", str(tmp_path / "environment"))
    share = ["settings", "held-out-share", "0.2"]
    run_command(cli, ["--workspace", str(tmp_path / "before"), *share, "--workspace", str(tmp_path / "after")])
    assert [path.name for path in tmp_path.iterdir()] == ["after"]
    run_command(cli, ["--workspace", str(tmp_path / "before"), *share])
    run_command(cli, share)
    assert {path.name for path in tmp_path.iterdir()} == {"after", "before", "environment"}


def test_an_interrupt_exits_with_130(workspace: Workspace) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "workbench", "import", "-"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "WORKBENCH_WORKSPACE": str(workspace.root)},
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not workspace.database.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # now it reads standard input
    child.send_signal(signal.SIGINT)
    _, told = child.communicate()
    assert child.returncode == 130
    assert b"Traceback" not in told


def test_errors_are_cleaned_before_they_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hostile.jsonl").write_text(json.dumps({"prompt": "a", "split": "\x1b]52;c;aGk=\x07"}))
    outcome = run("import", str(tmp_path / "hostile.jsonl"))
    assert outcome.code == 2
    assert "\x1b" not in outcome.err
    outcome = run("import", "\x1b[2Jnowhere.jsonl")
    assert "\x1b" not in outcome.err


# Feedback in and out


def test_import_then_stats_then_export(run: Run, feedback: Path, tmp_path: Path) -> None:
    imported = run("import", str(feedback), "--json")
    assert (imported.code, imported.document["prompts"], imported.document["ratings"]) == (0, 3, 2)
    assert "imported 3 records (1 pair, 1 prompt, 1 score)" in imported.err
    stats = run("stats", "--json").document
    assert (stats["prompts"], stats["samples"], stats["ratings"]) == (3, 3, 2)
    assert stats["languages"] == {
        "fr": {"prompts": 1, "samples": 1, "ratings": 1},
        "sw": {"prompts": 1, "samples": 0, "ratings": 0},
        "zh": {"prompts": 1, "samples": 2, "ratings": 1},
    }
    exported = run("export", "preference", "-")
    assert (exported.code, exported.err) == (0, "wrote 1 record to standard output\n")
    assert exported.document["chosen"] == "冰。"
    assert run("export", "scores", str(tmp_path / "scores.csv")).out == ""
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").startswith("id,prompt,")
    told = run("export", "scores", str(tmp_path / "scores.csv"), "--manifest").err
    manifest = json.loads((tmp_path / "scores.csv.manifest.json").read_text(encoding="utf-8"))
    assert f"sha256 {manifest['sha256']}" in told
    assert (manifest["records"], manifest["languages"]) == (1, {"fr": 1})


def test_stats_for_the_eye(run: Run, feedback: Path) -> None:
    run("import", str(feedback))
    lines = run("stats").out.split("\n")
    assert lines[0].split() == ["language", "prompts", "samples", "ratings"]
    assert ["all", "3", "3", "2"] in [line.split() for line in lines]


def test_a_dry_run_stores_nothing(run: Run, feedback: Path) -> None:
    assert "would import 3 records" in run("import", "--dry-run", str(feedback)).err
    assert run("stats", "--json").document["prompts"] == 0


def test_a_bad_file_exits_with_two_and_names_the_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("prompt,response,score\na,b,9\n")
    outcome = run("import", str(tmp_path / "bad.csv"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "bad.csv:2: score: 9 lies outside the scale [1, 5]" in outcome.err
    assert "hint: nothing was imported" in outcome.err


def test_defaults_for_records_that_do_not_say(run: Run, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text('{"Mto ni nini?": {"Maji.": 0.5}}')
    run("import", str(tmp_path / "table.json"), "--language", "sw", "--rater", "amina", "--scale", "0", "1")
    record = run("export", "scores", "-").document
    assert (record["language"], record["rater"], record["scale"]) == ("sw", "amina", [0, 1])


@pytest.mark.parametrize("options", [("--language", "?!"), ("--scale", "5", "1")])
def test_wrong_defaults_are_refused(run: Run, feedback: Path, options: tuple[str, ...]) -> None:
    assert run("import", str(feedback), *options).code == 2


def test_the_queue_hides_which_version_spoke(run: Run, database: Database, two_versions: list[str]) -> None:
    prompt = conversations.add(database, "Was ist ein Fjord?", language="de")
    samples.add(database, [samples.new(prompt.id, f"said by {n}", version=name) for n, name in enumerate(two_versions)])
    items = run("queue", "--json").document
    assert (items[0]["kind"], items[0]["old_against_new"], len(items[0]["texts"])) == ("pair", True, 2)
    assert "version" not in items[0]
    assert "Was ist ein Fjord?" in run("queue").out


# Versions


def test_versions_are_listed_newest_first(run: Run, two_versions: list[str]) -> None:
    newest, base = run("versions", "--json").document
    assert {name: newest[name] for name in ("version", "parent", "state", "job", "step", "metrics")} == {
        "version": "v1", "parent": "v0", "state": "candidate", "job": None, "step": 80, "metrics": {"kl": 3.1},
    }  # fmt: skip
    assert (base["version"], base["parent"], base["served"]) == ("v0", None, True)
    assert "created_at" in newest


def test_the_table_of_versions_stays_short_and_json_carries_the_answers(
    run: Run, database: Database, two_versions: list[str]
) -> None:
    answers = [{"prompt": "Was ist Eis?", "language": "de", "before": "Eis.", "after": "Wasser.", "reward_after": None}]
    found = {"reward_gain": 0.4, "reward_gain_matched": None, "control": "shuffled", "answers": answers}
    versions.record_gates(database, "v1", [], found)
    newest = run("versions", "--json").document[0]
    assert newest["metrics"] == {"kl": 3.1, **found}
    assert newest["state"] == "candidate"
    table = run("versions").out
    assert "Wasser" not in table
    assert table.splitlines()[1].split()[:3] == ["v1", "v0", "control"]


def test_publish_and_rollback(run: Run, database: Database, two_versions: list[str]) -> None:
    published = run("publish", "v1", "--json")
    assert (published.code, published.document["state"], published.err) == (0, "published", "v1 is served now\n")
    assert run("rollback").err == "v0 is served now\n"
    assert versions.get(database, "v1").state == "rolled-back"
    again = run("rollback")
    assert again.code == 2
    assert "nothing to roll back" in again.err


def test_a_damaged_file_is_not_published(run: Run, workspace: Workspace, two_versions: list[str]) -> None:
    (workspace.versions / "v1.safetensors").write_bytes(b"weigh")
    outcome = run("publish", "v1")
    assert outcome.code == 1
    assert "its digest differs" in outcome.err
    assert [version["version"] for version in run("versions", "--json").document if version["served"]] == ["v0"]


def test_an_unknown_version_is_wrong_usage(run: Run, two_versions: list[str]) -> None:
    outcome = run("publish", "v9")
    assert outcome.code == 2
    assert "versions in this workspace: v1, v0" in outcome.err


# Care


def test_backup(run: Run, feedback: Path, tmp_path: Path) -> None:
    run("import", str(feedback))
    made = run("backup", str(tmp_path / "copies" / "one.db"), "--json")
    assert made.code == 0
    copy = Workspace(tmp_path / "restored").prepare()
    copy.database.write_bytes(Path(made.document["file"]).read_bytes())
    with open_database(copy) as database:
        assert len(log.effective(database)) == 2
    assert run("backup", str(tmp_path / "copies" / "one.db")).code == 1


def test_an_outcome_is_told_by_command(run: Run, database: Database, feedback: Path) -> None:
    run("import", str(feedback))
    key = database.scalar("SELECT id FROM samples ORDER BY sequence DESC")
    for told in ("the bread rose", "it fell again"):
        assert run("outcome", key, told, "--rater", "ana", "--json").document["outcome"] == told
    assert [one.text for one in log.effective(database, rater="ana")] == ["it fell again"]
    told = run("outcome", key, "--failed", "--score", "2", "--rater", "ana", "--json").document
    assert (told["worked"], told["score"], told["scale"], told["outcome"]) == (False, 2.0, [1.0, 5.0], "")
    assert [kinds.words(one, key) for one in log.effective(database, rater="ana")] == ["failed 2/5"]
    beyond = run("outcome", key, "--score", "7")
    assert (beyond.code, "outside the scale" in beyond.err) == (2, True)
    for beginning, text, code in (("0", "which one?", 2), ("ffff", "which one?", 2), (key, "  ", 2)):
        assert run("outcome", beginning, text).code == code


def test_keys_come_from_the_registry(run: Run) -> None:
    from workbench.shell.actions import ACTIONS

    listed = run("keys", "--json").document
    assert [one["id"] for one in listed] == [action.id for action in ACTIONS]
    assert all(one["keys"] and one["help"] for one in listed)
    assert ACTIONS[0].help in run("keys").out


def test_a_disk_that_fails_is_told_in_a_sentence(capsys):
    @click.command()
    def failing():
        raise DatabaseError("disk I/O error")

    assert run_command(failing, []) == 1
    assert "error: the disk does not answer as it should: disk I/O error" in capsys.readouterr().err
