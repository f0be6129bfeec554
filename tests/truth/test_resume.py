"""A run that was stopped and went on ends exactly where an unbroken one ends: every weight, bit by bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rated_workspace import LANGUAGES, LENIENT, fill, run_options
from safetensors.torch import load_file
from tiny_model import CORPUS

from storage import jobs, metrics, versions
from storage.database import Database, open_database
from storage.records import Prompt
from storage.workspace import Workspace
from trainer import cli
from trainer.algorithms.ppo import Ppo
from trainer.checkpoints import load, save
from trainer.config import RewardConfig
from trainer.learner import Learner
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.policy_config import PpoConfig
from trainer.reward.model import RewardModel

ROOT = Path(__file__).parents[2]
CONFIG = PpoConfig(
    rank=4, batch=8, answers=2, minibatch=4, epochs=2, warmup=1, max_new_tokens=10, learning_rate=1e-3, kl_target=0.5
)
MEASURED = ("timing/", "throughput/", "memory/")


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are added up in another order on another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


def new_run(backbone: Backbone, seed: int = 3) -> Ppo:
    prompts = [Prompt(f"p{place}", CORPUS[place], language, "") for place, language in enumerate(LANGUAGES)]
    reward_model = RewardModel(backbone, RewardConfig(rank=4), seed=5)
    with torch.no_grad():
        reward_model.head.weight.normal_(generator=torch.Generator().manual_seed(6))
    return Ppo(backbone, reward_model, prompts, CONFIG, seed)


def rounds(run: Ppo, count: int) -> list[dict]:
    """The figures of some rounds, without those that a clock or the system measured."""
    figures = [run.advance().figures for _ in range(count)]
    return [{key: value for key, value in found.items() if not key[0].startswith(MEASURED)} for found in figures]


def state_of(run: Learner) -> dict[str, torch.Tensor]:
    """Everything that learning changes, as tensors by name."""
    state = {}
    for name, module in run.modules().items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in run.optimizers().items():
        for number, values in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{number}.{key}": value for key, value in values.items()}
    return state


def assert_same(one: Ppo, other: Ppo) -> None:
    ours, theirs = state_of(one), state_of(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    assert one.state() == other.state()


@pytest.mark.parametrize("half", [1, 3], ids=["while only the value learns", "in the middle"])
def test_training_twice_as_long_equals_training_saving_and_going_on(backbone, tmp_path, half):
    unbroken = new_run(backbone)
    figures = rounds(unbroken, 2 * half)
    first = new_run(backbone)
    before = rounds(first, half)
    save(tmp_path / "checkpoint", first)
    second = new_run(backbone)
    load(tmp_path / "checkpoint", second)
    assert_same(second, first)
    after = rounds(second, half)
    assert before + after == figures
    assert_same(second, unbroken)
    fresh = state_of(new_run(backbone))
    assert any(not torch.equal(fresh[name], value) for name, value in state_of(second).items() if name in fresh)
    assert second.leash.controller != new_run(backbone).leash.controller, (
        "the KL coefficient moved, so its return is tested"
    )


def test_another_seed_is_another_run(backbone):
    assert rounds(new_run(backbone, seed=3), 1) != rounds(new_run(backbone, seed=4), 1)


# --- the whole command, killed in the middle ----------------------------------------------------------------------


def copy_of(workspace: Workspace, place: Path) -> Workspace:
    shutil.copytree(workspace.root, place)
    return Workspace(place)


def trainer(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["trainer", *arguments, "--workspace", str(workspace.root)])
    cli.main()


def wait_for_step(database: Database, step: int, process: subprocess.Popen) -> str:
    """The only job, once it has recorded a step of the policy."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended too early"
        for job in jobs.every(database):
            if len(metrics.series(database, job.id, "objective/kl")) >= step:
                return job.id
        time.sleep(0.01)
    raise AssertionError("no step was recorded in time")


def test_a_killed_run_resumes_and_ends_as_if_nothing_had_happened(workspace, tiny_model, tmp_path, monkeypatch):
    with open_database(workspace) as database:
        fill(database)
    options = run_options(tiny_model, "--steps", "8", "--checkpoint-every", "2", *LENIENT)
    unbroken = copy_of(workspace, tmp_path / "unbroken")
    trainer(unbroken, monkeypatch, *options)

    command = [sys.executable, "-m", "trainer", *options, "--workspace", str(workspace.root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open_database(workspace) as database:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            job_id = wait_for_step(database, 5, process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed = jobs.get(database, job_id)
        assert killed.state == "running"
        assert killed.checkpoint
        assert versions.served(database).name == "v0"
        trainer(workspace, monkeypatch, "resume", job_id)

        resumed = jobs.get(database, job_id)
        assert (resumed.state, resumed.step, resumed.attempts) == ("done", resumed.steps, 2)
        assert versions.served(database).name == "v1"
        assert database.scalar("SELECT count(*) FROM reward_models") == 1
        assert not list((workspace.jobs / job_id).glob("checkpoints/*"))
        with open_database(unbroken) as other:
            (whole,) = jobs.every(other)
            for name in (
                "objective/kl",
                "objective/scores",
                "loss/policy",
                "objective/kl_coef",
                "loss/reward",
                "loss/judge",
            ):
                curve = metrics.series(database, job_id, name)
                assert curve == metrics.series(other, whole.id, name)
            assert [step for step, _ in metrics.series(database, job_id, "objective/kl")] == list(range(1, 9))
            ours, theirs = versions.get(database, "v1"), versions.get(other, "v1")
            assert ours.gates == theirs.gates
            different = {name: (ours.metrics.get(name), told) for name, told in theirs.metrics.items()}
            assert not {name: both for name, both in different.items() if both[0] != both[1]}
            assert ours.metrics.keys() == theirs.metrics.keys()
            counts = "SELECT step, count(*) AS n FROM rollouts GROUP BY step ORDER BY step"
            assert database.rows(counts) == other.rows(counts)
            texts = "SELECT step, prompt, text, reward FROM rollouts ORDER BY step, id"
            assert database.rows(texts) == other.rows(texts)
            files = [
                space.root / versions.get(base, "v1").file for space, base in ((workspace, database), (unbroken, other))
            ]
    ours, theirs = map(load_file, files)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
