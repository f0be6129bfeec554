"""`workbench doctor`: it finds what is wrong with a workspace, and calls nothing wrong that is not."""

from __future__ import annotations

from pathlib import Path

from commanding import Run

from storage import conversations, jobs
from storage.database import Database
from storage.feedback import log
from storage.workspace import Workspace


def doctor(run: Run) -> tuple[int, dict[str, list[str]]]:
    outcome = run("doctor", "--json")
    found: dict[str, list[str]] = {}
    for finding in outcome.document:
        found.setdefault(finding["check"], []).append(finding["status"])
        assert finding["status"] == "ok" or finding["hint"]
    return outcome.code, found


def test_a_sound_workspace_passes_every_check(run: Run, database: Database, two_versions: list[str]) -> None:
    code, found = doctor(run)
    assert code == 0
    assert {status for name, all_of in found.items() for status in all_of if name not in ("model", "disk")} == {"ok"}
    assert "ok    integrity" in run("doctor").out


def test_the_doctor_makes_no_workspace(run: Run, workspace: Workspace) -> None:
    code, found = doctor(run)
    assert (code, found["workspace"]) == (0, ["warn"])
    assert not workspace.database.exists()


def test_the_doctor_sees_damage_to_the_database(run: Run, workspace: Workspace, database: Database) -> None:
    for n in range(200):
        conversations.add(database, f"question {n} " + "x" * 500, language="en")
    database.close()
    with workspace.database.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 8 * 4096)
    code, found = doctor(run)
    assert code == 1
    assert "fail" in found.get("integrity", []) + found["database"]


def test_the_doctor_sees_an_effects_table_that_lies(run: Run, database: Database, feedback: Path) -> None:
    run("import", str(feedback))
    database.execute("DELETE FROM main.counted")
    assert doctor(run)[1]["ratings"] == ["fail"]


def test_the_doctor_tells_where_the_clock_was_set_back(run: Run, database: Database, feedback: Path) -> None:
    run("import", str(feedback))
    assert doctor(run)[1]["clock"] == ["ok"]
    sample = database.scalar("SELECT id FROM samples")
    for moment in ("2026-03-01", "2026-02-01", "2026-04-01"):
        log.append(database, log.note(sample, "hm", "ana", created_at=moment))
    code, found = doctor(run)
    assert (code, found["clock"], found["ratings"]) == (0, ["warn"], ["ok"])


def test_the_doctor_sees_missing_weights(
    run: Run, workspace: Workspace, database: Database, two_versions: list[str]
) -> None:
    (workspace.versions / "v1.safetensors").unlink()
    code, found = doctor(run)
    assert (code, found["versions"]) == (0, ["warn"])


def test_the_doctor_sees_weights_that_are_served_and_damaged(
    run: Run, workspace: Workspace, two_versions: list[str]
) -> None:
    run("publish", "v1")
    (workspace.versions / "v1.safetensors").write_bytes(b"")
    code, found = doctor(run)
    assert (code, found["versions"]) == (1, ["fail"])


def test_the_doctor_sees_a_silent_job(run: Run, database: Database) -> None:
    jobs.enqueue(database, "ppo", {})
    jobs.claim(database, "gone", lease=-1)
    code, found = doctor(run)
    assert (code, found["jobs"]) == (0, ["warn"])


def test_the_doctor_sees_what_others_may_read(run: Run, workspace: Workspace, database: Database) -> None:
    workspace.root.chmod(0o755)
    workspace.database.chmod(0o644)
    assert doctor(run)[1]["permissions"] == ["warn", "warn"]
