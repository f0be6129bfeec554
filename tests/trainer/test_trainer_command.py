"""The `trainer` command from imported ratings to a version, with its exit codes, cancel and resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import torch
from rated_workspace import LENIENT, fill, run_options
from tiny_model import CORPUS

from storage import conversations, jobs, metrics, versions
from storage.database import open_database
from storage.exchange.importing import import_file
from storage.records import Split
from trainer import job as job_module
from trainer.algorithms.ppo import Ppo
from trainer.config import GateConfig, RewardConfig, RunConfig
from trainer.policy.decoding import Decoder
from trainer.policy_config import PpoConfig

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("threads_restored")


@pytest.fixture
def trainer(command):
    """Run a command; returns its exit code, standard output (decoded when JSON) and standard error."""

    def call(*arguments: str):
        code, out, err = command(*arguments)
        return code, json.loads(out) if "--json" in arguments and out else out, err

    return call


@pytest.fixture
def rated(database):
    """The workspace has ratings."""
    fill(database)
    return database


def test_imported_ratings_become_a_published_version(trainer, database, workspace, tiny_model, tmp_path):
    lines = []
    for number in range(60):
        words = CORPUS[number % 10].split()
        said = " ".join(CORPUS[number % 5].split()[: 3 + number % 5])
        split = {"split": "held-out" if number >= 54 else "train"}
        lines.append(
            {"prompt": f"{words[0]} {number}", "response": said, "score": 1 + number % 5,
             "scale": [1, 5], "language": "en", "rater": "amina", **split}
        )  # fmt: skip
    file = tmp_path / "ratings.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    assert import_file(database, str(file)).ratings == 60

    code, found, err = trainer(*run_options(tiny_model, "--steps", "3", *LENIENT, "--json"))
    assert (code, found["state"], found["version"], found["steps"], found["error"]) == (0, "done", "v1", 3, None)
    gates = ["reward gain", "judge", "languages", "support", "KL bound", "finite"]
    assert [gate["gate"] for gate in found["result"]["gates"]] == gates
    assert found["result"]["held_out_prompts"] == 6
    assert set(found["result"]["learning"]) == {"seconds", "processor_seconds"}
    assert min(found["result"]["learning"].values()) > 0
    assert "learning from 54 ratings" in err
    assert "the judge learned from 22 of them, of other prompts" in err

    version = versions.served(database)
    assert (version.name, version.parent, version.job_id, version.step) == ("v1", "v0", found["job"], 3)
    assert version.metrics["reward_gain"] == pytest.approx(found["result"]["reward_gain"])
    assert [step for step, _ in metrics.series(database, found["job"], "objective/scores")] == [1, 2, 3]
    assert len(jobs.ratings_of(database, found["job"])) == 54
    held_out = {prompt.text for prompt in conversations.by_split(database, Split.HELD_OUT)}
    practised = {rollout.prompt for rollout in metrics.recent_rollouts(database, found["job"], 1000)}
    assert practised
    assert not practised & held_out
    Decoder.load(tiny_model, torch.device("cpu"), torch.float32, workspace.root / version.file)


def test_a_second_run_goes_on_from_the_served_version(trainer, rated, tiny_model):
    first = trainer(*run_options(tiny_model, "--steps", "2", *LENIENT, "--json"))[1]
    code, out, _ = trainer(*run_options(tiny_model, "--steps", "2", *LENIENT, "--seed", "1"))
    assert code == 0
    assert out.startswith("v2  published  reward ")
    second = versions.get(rated, "v2")
    assert second.parent == first["version"] == "v1"
    assert rated.scalar("SELECT count(*) FROM reward_models") == 2


def test_a_candidate_that_fails_the_gate_is_rejected_and_the_old_version_served(trainer, rated, tiny_model):
    code, found, err = trainer(*run_options(tiny_model, "--steps", "1", "--gate-min-gain=100", "--json"))
    assert (code, found["state"], found["result"]["state"]) == (0, "done", "rejected")
    assert {gate["gate"]: gate["passed"] for gate in found["result"]["gates"]}["reward gain"] is False
    assert versions.served(rated).name == "v0"
    assert versions.get(rated, "v1").state == "rejected"
    assert "FAILED  reward gain" in err


def test_without_publishing_the_candidate_waits(trainer, rated, tiny_model):
    _, found, _ = trainer(*run_options(tiny_model, "--steps", "1", *LENIENT, "--no-publish", "--json"))
    assert (found["version"], found["result"]["state"]) == ("v1", "candidate")
    assert all(gate["passed"] for gate in found["result"]["gates"])
    assert versions.served(rated).name == "v0"


def test_cancel_leaves_a_checkpoint_and_resume_finishes(trainer, rated, workspace, tiny_model, monkeypatch):
    monkeypatch.setattr(job_module, "HEARTBEAT_SECONDS", 0.02)
    whole_step = Ppo.advance

    def cancelled_after_two(self):
        report = whole_step(self)
        if self.step == 2:
            with open_database(workspace) as other:
                jobs.request_cancel(other, jobs.every(other)[0].id)
            time.sleep(0.5)  # a heartbeat hears of it
        return report

    with monkeypatch.context() as patch:
        patch.setattr(Ppo, "advance", cancelled_after_two)
        code, found, err = trainer(*run_options(tiny_model, "--steps", "5", *LENIENT, "--json"))
    assert (code, found["state"], found["version"], found["steps"]) == (130, "paused", None, 2)
    assert f"trainer resume {found['job']}" in err
    (listed,) = trainer("jobs", "--json")[1]
    assert (listed["job"], listed["state"], listed["step"], listed["steps"]) == (found["job"], "paused", 2, 5)
    assert (workspace.root / jobs.get(rated, found["job"]).checkpoint).is_dir()
    assert "paused   policy 2/5" in trainer("jobs")[1]

    code, _, err = trainer("cancel", found["job"])
    assert (code, "is paused already" in err) == (2, True)
    code, resumed, err = trainer("resume", found["job"], "--json")
    assert (code, resumed["state"], resumed["version"]) == (0, "done", "v1")
    assert "going on from step 2" in err
    assert "learning" not in resumed["result"]  # it knows of its last piece alone
    assert [step for step, _ in metrics.series(rated, found["job"], "objective/kl")] == [1, 2, 3, 4, 5]
    assert rated.scalar("SELECT count(*) FROM reward_models") == 1
    code, _, err = trainer("resume", found["job"])
    assert (code, "is done already" in err) == (2, True)


def test_a_cancelled_job_that_nobody_works_on_pauses_at_once(trainer, database):
    queued = jobs.enqueue(database, "run", {})
    code, found, _ = trainer("cancel", queued.id, "--json")
    assert (code, found["state"]) == (0, "paused")


def test_a_job_that_ended_between_its_commit_and_saying_so_makes_no_second_version(
    trainer, rated, workspace, tiny_model, monkeypatch
):
    def crash(*more):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(job_module.jobs, "finish", crash)
        code, _, err = trainer(*run_options(tiny_model, "--steps", "1", *LENIENT))
    log = workspace.logs / "errors.log"
    assert (code, "error: the program failed: RuntimeError: power cut\n" in err, str(log) in err) == (1, True, True)
    assert "Traceback" not in err
    assert "in crash" in log.read_text(encoding="utf-8")
    (job,) = jobs.every(rated)
    assert versions.served(rated).name == "v1"
    code, out, _ = trainer("resume", job.id)
    assert (code, out.startswith("v1  published")) == (0, True)
    assert [version.name for version in versions.every(rated)] == ["v1", "v0"]
    assert jobs.get(rated, job.id).state == "done"


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_too_few_ratings_end_with_wrong_usage_and_numbers(trainer, database, tiny_model):
    fill(database, count=9)
    code, found, err = trainer(*run_options(tiny_model, "--steps", "1", "--json"))
    assert (code, found["state"], found["version"]) == (2, "failed", None)
    assert "8 scores, 0 labels, 0 pairs; 20 are needed" in found["error"]
    assert "rate 12 more answers" in err
    assert versions.every(database) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--stepz", "3"], "--stepz"),
        (["run", "--steps", "many"], "--steps"),
        (["run", "--steps", "0"], "--steps must be"),
        (["run", "--minibatch", "7"], "does not divide"),
        (["run", "--config", "/no/such.toml"], "cannot read"),
        (["run", "--job", "nothing"], "there is no job 'nothing'"),
        (["resume", "nothing"], "there is no job 'nothing'"),
        (["cancel", "nothing"], "there is no job 'nothing'"),
        (["fly"], "fly"),
    ],
)
def test_wrong_usage_starts_no_job(trainer, database, arguments, says):
    code, _, err = trainer(*arguments)
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert jobs.every(database) == []


def test_a_model_that_is_not_there_fails_the_job_kindly(trainer, rated):
    code, _, err = trainer("run", "--model", "./nowhere")
    assert code == 2
    assert "no model called './nowhere'" in err
    assert jobs.every(rated)[0].state == "failed"


def test_a_job_of_another_kind_is_refused(trainer, database):
    queued = jobs.enqueue(database, "of tomorrow", {})
    code, _, err = trainer("resume", queued.id)
    assert (code, "does not know" in err) == (2, True)


# --- two at once -----------------------------------------------------------------------------------------------------


def test_two_trainers_started_at_once_never_run_one_job_twice(rated, workspace, tiny_model):
    config = RunConfig(
        model=str(tiny_model), threads=1, dtype="fp32", reward=RewardConfig(rank=4, epochs=1),
        ppo=PpoConfig(rank=4, steps=1, max_new_tokens=8), gate=GateConfig(prompts=4, min_gain=-100),
    )  # fmt: skip
    queued = jobs.enqueue(rated, "run", msgspec.to_builtins(config))
    command = [sys.executable, "-m", "trainer", "run", "--job", queued.id, "--json", "--workspace", str(workspace.root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200) for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    for process, (out, err) in zip(both, said, strict=True):
        if process.returncode == 0:
            assert json.loads(out)["version"] == "v1"
        else:
            assert "is running in another process" in err or "is done already" in err
    done = jobs.get(rated, queued.id)
    assert (done.state, done.attempts, done.fence) == ("done", 1, 1)
    assert [version.name for version in versions.every(rated)] == ["v1", "v0"]
