"""Checkpoints appear whole or not at all, and what cannot be read is said."""

from __future__ import annotations

import json

import pytest
import torch

from storage import jobs
from storage.errors import EarlierReleaseError, WorkbenchError
from trainer import running
from trainer.algorithms.ppo import Ppo
from trainer.checkpoints import STATE, TENSORS, load, save, whole_folder
from trainer.job import HeldJob
from trainer.policy_config import PpoConfig

CONFIG = PpoConfig(rank=4, batch=4, answers=2, minibatch=4, epochs=1, max_new_tokens=4, steps=3, checkpoint_every=1)


@pytest.fixture
def run(backbone, reward_model, asked) -> Ppo:
    return Ppo(backbone, reward_model, asked, CONFIG, seed=1)


@pytest.fixture
def held(workspace, database, job) -> HeldJob:
    return HeldJob(workspace, database, job, quiet=True)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_that_was_not_finished_never_appears_and_the_earlier_one_stays(tmp_path):
    place = tmp_path / "folder"
    with whole_folder(place) as partial:
        (partial / "file").write_text("first")

    def write_half():
        with whole_folder(place) as partial:
            (partial / "file").write_text("second, half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert (place / "file").read_text() == "first"
    assert names(tmp_path) == ["folder"]
    with whole_folder(place) as partial:
        (partial / "other").write_text("third")
    assert names(place) == ["other"]


@pytest.mark.parametrize("name", [TENSORS, STATE])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_damaged_checkpoint_is_called_so(tmp_path, run, name, damage):
    save(tmp_path / "checkpoint", run)
    file = tmp_path / "checkpoint" / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(WorkbenchError, match=r"checkpoint .* cannot be used") as caught:
        load(tmp_path / "checkpoint", run)
    assert "anew" in caught.value.hint


def test_the_job_names_its_last_whole_checkpoint_and_older_ones_go(held, run, database):
    for _ in range(2):
        run.advance()
        running.checkpoint(held, run)
    found = jobs.get(database, held.job.id)
    assert found.checkpoint == f"jobs/{held.job.id}/checkpoints/policy/step-2"
    assert names(held.folder / "checkpoints" / "policy") == ["step-2"]
    before = (held.folder / "checkpoints" / "policy" / "step-2" / TENSORS).stat()
    running.checkpoint(held, run)
    assert (held.folder / "checkpoints" / "policy" / "step-2" / TENSORS).stat() == before, (
        "the same step is not written again"
    )


def test_a_crash_before_the_new_checkpoint_is_named_leaves_the_old_one_usable(held, run, database, monkeypatch):
    run.advance()
    running.checkpoint(held, run)
    run.advance()
    with monkeypatch.context() as patch:
        patch.setattr(running.jobs, "set_checkpoint", lambda *more: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            running.checkpoint(held, run)
    named = held.workspace.root / jobs.get(database, held.job.id).checkpoint
    load(named, run)
    assert run.step == 1
    run.advance()
    running.checkpoint(held, run)
    assert names(held.folder / "checkpoints" / "policy") == ["step-2"]


def test_the_last_step_leaves_a_checkpoint_from_which_nothing_is_learned_twice(
    held, run, backbone, reward_model, asked, database, monkeypatch
):
    running.learn(held, run, checkpoint_every=2)
    assert jobs.get(database, held.job.id).checkpoint == f"jobs/{held.job.id}/checkpoints/policy/step-3"
    assert names(held.folder / "checkpoints" / "policy") == ["step-3"]
    again = Ppo(backbone, reward_model, asked, CONFIG, seed=1)
    monkeypatch.setattr(again, "advance", lambda: pytest.fail("a step was taken again"))
    monkeypatch.setattr(running, "write", lambda *more: pytest.fail("the checkpoint was written again"))
    running.learn(held, again, checkpoint_every=2)
    assert again.step == 3
    ours, theirs = run.policy.state_dict(), again.policy.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_of_an_earlier_release_is_called_so_and_says_what_to_do(tmp_path, run):
    save(tmp_path / "checkpoint", run)
    file = tmp_path / "checkpoint" / STATE
    state = json.loads(file.read_text())
    del state["learner"]["leash"]
    file.write_text(json.dumps(state))
    with pytest.raises(EarlierReleaseError, match="lacks 'leash': it is of an earlier release") as caught:
        load(tmp_path / "checkpoint", run)
    assert "start the job anew" in caught.value.hint
