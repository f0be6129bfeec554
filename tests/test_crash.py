"""The crash benchmark in small, and that it would see a loss."""

from __future__ import annotations

import json
import subprocess
import sys

from terminal import ROOT

from storage.database import Database
from storage.workspace import Workspace


def test_nothing_is_lost_when_app_engine_and_trainer_are_killed() -> None:
    command = [sys.executable, "-m", "benchmarks.crash", "--kills", "3", "--seed", "5", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["kills"] == {"app": 1, "engine": 1, "trainer": 1}
    assert found["acknowledged_ratings"] > 0
    assert found["failures"] == []
    held = {(check["killed"], check["check"]): check["passed"] == check["of"] for check in found["checks"]}
    assert len(held) > 20
    assert all(held.values())


def test_a_lost_rating_is_seen(workspace: Workspace, database: Database) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        from benchmarks.crash import Crashes
        from benchmarks.crash_app import Rated
        from storage.workspace import Workspace
        crashes = Crashes(Workspace(Path(sys.argv[1])), Path("no model"), 0)
        crashes.check_database()
        assert not crashes.ledger.failures
        crashes.acknowledged.append(Rated("¿Por qué?", "score", "5"))
        crashes.check_database()
        print(*crashes.ledger.failures)
    """
    run = subprocess.run(
        [sys.executable, "-c", program, str(workspace.root)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "acknowledged ratings kept does not hold" in run.stdout
