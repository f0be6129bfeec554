"""A version appears complete or not at all, whatever happens between its files and its row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from storage import conversations, jobs, samples, versions
from storage.database import open_database
from storage.errors import LeaseLostError
from storage.feedback import log, winning
from storage.records import Source
from trainer import publishing
from trainer.evaluation.gate import GateReport
from trainer.evaluation.seen import Side
from trainer.job import HeldJob
from trainer.policy import probe
from trainer.policy.adapters import CONFIG_NAME, FILE_NAME, Adapter, read_adapter
from trainer.policy_config import PpoConfig
from trainer.publishing import PARTIAL, finish, sweep
from trainer.setting import Setting
from workbench.cli import cli, run_command

ROOT = Path(__file__).parents[2]
PASSED = {"gate": "finite", "passed": True, "value": 1.0, "bound": 1.0, "detail": "all is finite"}
FAILED = {"gate": "KL bound", "passed": False, "value": 20.0, "bound": 15.0, "detail": "too far"}
NAMES = (FILE_NAME, CONFIG_NAME, probe.FILE_NAME)


@pytest.fixture
def adapter(backbone):
    made = backbone.new_adapter(PpoConfig(rank=4), seed=1, upper=False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


@pytest.fixture
def publish(database, workspace, job, adapter, backbone):
    """Finish a job with a candidate that passed its gate."""
    base = versions.ensure_base(database, "tiny", "digest")
    setting = Setting(backbone, base, base, None, None, None, None, None, 8)

    def make(of=job, candidate=None, gate=PASSED, publish=True, win_rate=0.0):
        held = HeldJob(workspace, database, of, quiet=True)
        candidate = candidate or adapter.snapshot()
        answer = probe.take(backbone.decoder(candidate), backbone.tokenizer)
        return finish(
            held,
            candidate,
            GateReport([gate], 0.5, Side([], None), Side([], None), 2),
            setting,
            3,
            answer,
            lambda *_: None,
            publish=publish,
            win_rate=win_rate,
        )

    return make


class SlowAdapter(Adapter):
    """One whose files take as long to write as somebody likes."""

    def write(self, folder, base):
        self.begun.set()
        assert self.go_on.wait(20)
        return super().write(folder, base)


class Stop(BaseException):
    """What no handler of errors catches, as when the process is ended."""


def stop(*arguments, **more):
    raise Stop


def files(workspace) -> set[str]:
    return {str(path.relative_to(workspace.versions)) for path in workspace.versions.rglob("*") if path.is_file()}


def test_a_candidate_is_whole_and_not_served(publish, adapter, database, workspace):
    version = publish(publish=False)
    assert (version.name, version.state, version.parent, version.step) == ("v1", "candidate", "v0", 3)
    assert version.gates == [PASSED]
    versions.verify(workspace, version)
    assert files(workspace) == {f"v1/{name}" for name in NAMES}
    read = read_adapter(workspace.root / version.file)
    for name, pair in adapter.snapshot().pairs.items():
        assert all(torch.equal(one, other) for one, other in zip(pair, read.pairs[name], strict=True))
    assert read.scale == adapter.scale
    assert json.loads((workspace.versions / "v1" / CONFIG_NAME).read_text())["lora_alpha"] == adapter.alpha
    assert versions.served(database).name == "v0"


def test_one_that_passed_is_served_and_one_that_failed_is_kept_as_rejected(publish, database, workspace):
    assert publish().state == "published"
    assert publish(gate=FAILED).state == "rejected"
    assert versions.served(database).name == "v1"
    events = database.rows("SELECT version, action, reason FROM version_events ORDER BY id")[1:]
    assert [tuple(event.values()) for event in events] == [
        ("v1", "publish", "passed the gate"),
        ("v2", "reject", "did not pass: KL bound"),
    ]
    assert files(workspace) == {f"{version}/{name}" for version in ("v1", "v2") for name in NAMES}


def test_one_that_must_win_first_waits_for_blind_pairs_and_is_published_once_it_has(publish, database, workspace):
    """`--gate-win-rate`: what passed all else stays a candidate until raters surely prefer it."""
    made = publish(win_rate=0.5)
    assert (made.state, versions.served(database).name) == ("candidate", "v0")
    waiting = made.gates[-1]
    assert (waiting["gate"], waiting["passed"], waiting["bound"]) == (winning.GATE, False, 0.5)
    assert "workbench publish v1 --if-won 0.5" in waiting["detail"]
    assert publish(gate=FAILED, win_rate=0.5).state == "rejected", "it is asked for on top of the gate"

    def judged(rater: str, worths: str) -> int:
        """Blind pairs of v0 against v1 by a simulated rater, and the exit code of publishing then."""
        for number, better in enumerate(worths):
            prompt = conversations.add(database, f"{rater} {number}?", language="sw")
            old, new = (samples.new(prompt.id, name, version=name) for name in ("v0", "v1"))
            samples.add(database, [old, new])
            given = log.pair(old.id, new.id, better, rater, blind=True, shown_order="ab", source=Source.SIMULATED)
            log.append(database, given)
        return run_command(cli, ["publish", "v1", "--if-won", "0.5", "--workspace", str(workspace.root)])

    assert judged("early", "bb") == 2
    assert judged("wavering", "ba" * 4) == 2
    assert versions.served(database).name == "v0"
    assert judged("sure", "b" * 60) == 0
    served = versions.served(database)
    assert (served.name, {gate["gate"]: gate["passed"] for gate in served.gates}[winning.GATE]) == ("v1", True)


def test_others_can_write_while_weights_are_written_hashed_and_synced(publish, adapter, workspace, monkeypatch):
    """Each of the slow steps waits until another connection has written a row, which it could not do under a lock."""
    slow = SlowAdapter(adapter.snapshot().pairs, adapter.scale)
    object.__setattr__(slow, "begun", threading.Event())
    object.__setattr__(slow, "go_on", threading.Event())
    written = []

    def write() -> None:
        with open_database(workspace) as other:
            other.execute("PRAGMA busy_timeout = 0")
            other.execute("INSERT INTO settings (key, value) VALUES (?, '1')", (f"while {len(written)}",))
            written.append("row")

    def rate() -> None:
        assert slow.begun.wait(20)
        try:
            write()
        finally:
            slow.go_on.set()

    hashed = versions.sha256_of
    synced = publishing.sync_folder
    monkeypatch.setattr(versions, "sha256_of", lambda path: (write(), hashed(path))[1])
    monkeypatch.setattr(publishing, "sync_folder", lambda path: (path.suffix == PARTIAL and write(), synced(path))[1])
    rater = threading.Thread(target=rate)
    rater.start()
    version = publish(candidate=slow)
    rater.join()
    assert written == ["row"] * 3
    assert version.state == "published"


STEPS = {
    "writing": (Adapter, "write"),
    "the probe": (publishing.probe, "write"),
    "hashing": (versions, "sha256_of"),
    "syncing": (publishing, "sync_folder"),
    "the fence": (jobs, "check"),
    "the row": (versions, "add_candidate"),
    "the gates": (versions, "record_gates"),
    "serving": (versions, "serve"),
    "the name": (os, "replace"),
}


@pytest.mark.parametrize("step", STEPS)
def test_an_end_at_any_step_leaves_nothing_behind(step, publish, database, workspace, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(*STEPS[step], stop)
        with pytest.raises(Stop):
            publish()
    assert [version.name for version in versions.every(database)] == ["v0"]
    assert versions.served(database).name == "v0"
    assert list(workspace.versions.iterdir()) == []
    version = publish()
    assert version.name == "v1"
    versions.verify(workspace, version)


KILLED = """
import os, sys
from pathlib import Path
import torch
from storage import jobs, versions
from storage.database import open_database
from storage.workspace import Workspace
from trainer import publishing
from trainer.policy.adapters import Adapter

root, job_id, step = sys.argv[1:]
workspace = Workspace(Path(root))
end = lambda *arguments, **more: os._exit(9)
with open_database(workspace) as database:
    job = jobs.claim(database, jobs.worker_name(), job_id=job_id, pid=os.getpid())
    base = versions.served(database)
    candidate = Adapter({"model.layers.0.mlp.down_proj.weight": (torch.ones(4, 8), torch.ones(8, 4))}, 1.0)
    if step == "hashing":
        versions.sha256_of = end
    with publishing.written(workspace, job, candidate, "tiny", None) as files, database.transaction():
        if step == "rows":
            end()
        made = publishing.add_candidate(
            database, workspace, job, files, base=base, parent="v0", kind="lora", step=1, metrics={}
        )
        publishing.name_folder(workspace, files, made)
        end()  # between the rename and the commit
"""


@pytest.mark.parametrize("step", ["hashing", "rows", "commit"])
def test_a_kill_at_any_step_leaves_nothing_visible_and_a_clean_next_version(step, publish, database, workspace, job):
    jobs.pause(database, job)
    child = [sys.executable, "-c", KILLED, str(workspace.root), job.id, step]
    ended = subprocess.run(child, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 9, ended.stderr
    assert [version.name for version in versions.every(database)] == ["v0"]
    left = list(workspace.versions.iterdir())
    assert [path.name for path in left] == (["v1"] if step == "commit" else [f".{job.id}-2{PARTIAL}"])
    (left[0] / "left-over").write_text("of the crash")
    version = publish(jobs.claim(database, "another worker", job_id=job.id))
    assert version.name == "v1"
    versions.verify(workspace, version)
    assert files(workspace) == {f"v1/{name}" for name in NAMES}
    assert [path.name for path in workspace.versions.iterdir()] == ["v1"]


def test_what_a_living_worker_writes_is_not_swept_away(database, workspace, job):
    own, dead = (workspace.versions / f".{job.id}-{fence}{PARTIAL}" for fence in (job.fence, job.fence - 1))
    for folder in (own, dead):
        folder.mkdir()
    sweep(database, workspace)
    assert list(workspace.versions.iterdir()) == [own]


def test_a_worker_that_lost_its_job_records_nothing(publish, database, workspace, job):
    database.execute("UPDATE jobs SET lease_until = '2000-01-01' WHERE id = ?", (job.id,))
    new = jobs.claim(database, "another worker", job_id=job.id)
    with pytest.raises(LeaseLostError):
        publish()
    assert [version.name for version in versions.every(database)] == ["v0"]
    assert list(workspace.versions.iterdir()) == []
    assert publish(new).name == "v1"


def test_each_candidate_gets_the_next_name(publish):
    assert [publish().name for _ in range(3)] == ["v1", "v2", "v3"]


def test_weights_that_are_not_finite_have_no_probe_and_are_kept_as_rejected(publish, adapter, workspace):
    with torch.no_grad():
        next(adapter.parameters()).fill_(float("nan"))
    assert publish(gate=FAILED).state == "rejected"
    assert files(workspace) == {f"v1/{FILE_NAME}", f"v1/{CONFIG_NAME}"}
