"""A version appears complete or not at all, whatever happens between its files and its row."""

from __future__ import annotations

import json
import os

import pytest
import torch

from storage import jobs, versions
from storage.errors import LeaseLostError
from trainer import publishing
from trainer.config import PpoConfig
from trainer.policy.adapters import CONFIG_NAME, FILE_NAME, read_adapter
from trainer.publishing import add_candidate


@pytest.fixture
def adapter(backbone):
    made = backbone.new_adapter(PpoConfig(rank=4), seed=1, upper=False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


@pytest.fixture
def add(database, workspace, job, adapter):
    base = versions.ensure_base(database, "tiny", "digest")

    def make(of=job):
        return add_candidate(
            database,
            workspace,
            of,
            adapter.snapshot(),
            base=base,
            parent=base.name,
            step=3,
            metrics={"reward_gain": 0.5},
        )

    return make


def files(workspace) -> set[str]:
    return {str(path.relative_to(workspace.versions)) for path in workspace.versions.rglob("*") if path.is_file()}


def test_a_candidate_is_whole_and_not_served(add, adapter, database, workspace):
    version = add()
    assert (version.name, version.state, version.parent, version.step) == ("v1", "candidate", "v0", 3)
    versions.verify(workspace, version)
    assert files(workspace) == {f"v1/{FILE_NAME}", f"v1/{CONFIG_NAME}"}
    read = read_adapter(workspace.root / version.file)
    for name, pair in adapter.snapshot().pairs.items():
        assert all(torch.equal(one, other) for one, other in zip(pair, read.pairs[name], strict=True))
    assert read.scale == adapter.scale
    assert json.loads((workspace.versions / "v1" / CONFIG_NAME).read_text())["lora_alpha"] == adapter.alpha
    assert versions.served(database).name == "v0"


def test_a_crash_between_the_rename_and_the_commit_leaves_a_clean_next_version(add, database, workspace, monkeypatch):
    class Crash(BaseException):
        pass

    def crash(*arguments, **more):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(publishing.versions, "add_candidate", crash)
        with pytest.raises(Crash):
            add()
    assert (workspace.versions / "v1").exists(), "the files are there, and no row names them"
    assert versions.find(database, "v1") is None
    (workspace.versions / "v1" / "left-over").write_text("of the crash")
    version = add()
    assert version.name == "v1"
    versions.verify(workspace, version)
    assert files(workspace) == {f"v1/{FILE_NAME}", f"v1/{CONFIG_NAME}"}


def test_a_crash_while_writing_leaves_nothing_that_looks_like_a_version(add, database, workspace, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *places: (_ for _ in ()).throw(OSError("no space left on device")))
        with pytest.raises(OSError, match="no space left"):
            add()
    assert versions.find(database, "v1") is None
    assert not (workspace.versions / "v1").exists()
    assert add().name == "v1"
    assert [path.name for path in workspace.versions.iterdir()] == ["v1"]


def test_a_worker_that_lost_its_job_records_nothing(add, database, workspace, job):
    database.execute("UPDATE jobs SET lease_until = '2000-01-01' WHERE id = ?", (job.id,))
    new = jobs.claim(database, "another worker", job_id=job.id)
    with pytest.raises(LeaseLostError):
        add()
    assert [version.name for version in versions.every(database)] == ["v0"]
    assert not (workspace.versions / "v1").exists()
    assert add(new).name == "v1"


def test_each_candidate_gets_the_next_name(add):
    assert [add().name for _ in range(3)] == ["v1", "v2", "v3"]
