"""The chaos run in small, and that it would see a loss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import ROOT

from benchmarks.chaos import Chaos
from benchmarks.chaos_app import ANY, Rated
from benchmarks.chaos_faults import BROKEN, FULL, Faults

WRITER = """if True:
    import os, sys, time
    with open(sys.argv[1], "wb", buffering=0) as file:
        for attempt in range(4):
            try:
                file.write(b"word")
                os.fsync(file.fileno())
                print("written")
            except OSError as error:
                print(error.errno)
    print(int(time.time()))
"""


def test_nothing_is_lost_among_kills_locks_and_broken_disks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--kills", "4", "--longest-lock", "2", "--seed", "3",
               "--targets", "app,second app,import,backup", "--work", str(tmp_path), "--json"]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = tmp_path / "findings.jsonl"
    assert run.returncode == 0, run.stderr + (found.read_text(encoding="utf-8") if found.exists() else "")
    result = json.loads(run.stdout)
    assert sum(result["kills"].values()) == 4
    assert result["acknowledged_ratings"] > 0
    assert not any(result["found"].values())


def test_a_lost_rating_is_seen(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, 0, 1.0, ["import"])
    chaos.check(deep=True)
    assert not chaos.state.found
    lost = [Rated("000001", "score", "5"), Rated(ANY, "label", "1")]
    chaos.ledger.write_text("".join(json.dumps(one) + "\n" for one in lost), encoding="utf-8")
    chaos.check(deep=False)
    assert chaos.state.found == {"lost rating": 2}


def test_the_shim_fails_the_writes_that_it_is_told_to(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    faults = Faults(tmp_path, root)
    if faults.missing:
        pytest.skip(faults.missing)

    def written(file: Path) -> list[str]:
        line = [sys.executable, "-c", WRITER, str(file)]
        said = subprocess.run(line, env=faults.environment("command"), capture_output=True, text=True, check=True)
        return said.stdout.split()

    faults.fail("command", FULL, after=1, times=2)
    assert written(root / "a")[:4] == ["written", str(FULL), str(FULL), "written"]
    faults.fail("command", BROKEN, after=1, times=1)
    assert written(tmp_path / "elsewhere")[:4] == ["written"] * 4
    assert written(root / "b")[:4] == [str(BROKEN), "written", "written", "written"]  # its first fsync
    assert faults.heal() == 3
    before = int(written(root / "c")[4])
    faults.set_clock(-7200)
    assert -7260 < int(written(root / "c")[4]) - before < -7140
