"""The desk benchmark in small: its workspace says what the program would say of it, and a missed goal is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from terminal import ROOT

from benchmarks.desk import Figure, figure
from benchmarks.desk_data import JOB_STEPS, SHARES, make
from storage.database import open_database
from storage.feedback import census, log
from storage.workspace import Workspace

RATINGS, ANSWERS = 4000, 3000


def test_the_large_workspace_is_one_that_the_program_could_have_made(workspace: Workspace) -> None:
    make(workspace.database, RATINGS, ANSWERS)
    with open_database(workspace) as database:  # and migrates it
        assert database.rows("PRAGMA foreign_key_check") == []
        assert log.effects_differ(database) == 0
        found = census.summary(database)
        kinds = {row["kind"]: row["n"] for row in database.rows("SELECT kind, count(*) AS n FROM ratings GROUP BY 1")}
        replaced = database.scalar("SELECT count(*) FROM ratings WHERE supersedes NOT NULL AND kind = 'score'")
        steps = database.scalar("SELECT count(DISTINCT step) FROM metrics")
    assert sum(kinds.values()) == RATINGS
    assert kinds.keys() >= {"score", "pair", "label", "edit", "tags", "note", "skip", "undo", "redo"}
    assert replaced > 10
    assert 0 < found.ratings < RATINGS - kinds["undo"] - replaced
    assert set(found.sources) == {"simulated"}
    assert set(found.languages) == set(SHARES)
    assert steps == JOB_STEPS


def test_a_goal_is_held_against_the_median_and_a_second_one_against_the_slowest() -> None:
    seconds = [0.010] * 19 + [0.040]
    assert figure("fast", (30, 50), seconds).met
    assert figure("median", (9,), seconds).met is False
    assert figure("slowest", (30, 35), [*seconds, 0.040]).met is False
    assert figure("cut off", (90_000,), [0.01, float("inf")]).met is False
    assert Figure("memory", "MB", (64,), 64.5, None, 1).met is False


def test_the_command_measures_and_exits_by_its_goals(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.desk", "--ratings", "2000", "--answers", "2500", "--only",
               "queue,census", "--work", str(tmp_path), "--json"]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    figures = json.loads(run.stdout)["figures"]
    assert {"queue, 40 items", "count: stats"} <= {one["name"] for one in figures}
    assert all(one["p50"] > 0 for one in figures)
    assert run.returncode == (not all(one["met"] for one in figures))
