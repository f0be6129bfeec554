"""Several processes started by a launcher: one job, one writer, one voice, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rated_workspace import LENIENT, fill, run_options
from tiny_model import CORPUS

from storage import jobs, metrics, versions
from storage.errors import UsageError
from storage.exchange.importing import import_file
from trainer.processes import Processes

ROOT = Path(__file__).parents[2]
LAUNCH = (
    "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2", "--num_machines", "1",
    "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
)  # fmt: skip
STEPS = 12


@pytest.fixture
def launch(workspace) -> Iterator:
    """Start two processes of the `trainer` command; they are ended with the test."""
    launched: list[subprocess.Popen] = []

    def start(*arguments: str, how: str = "--multi_gpu") -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *LAUNCH, how, "-m", "trainer", *arguments, "--workspace", str(workspace.root)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        launched.append(subprocess.Popen(command, env=environment, cwd=workspace.root, text=True, **pipes))
        return launched[-1]

    yield start
    for process in launched:
        for left in [*children(process), process]:
            left.kill()


def children(launcher: subprocess.Popen) -> list[psutil.Process]:
    """The launcher's processes, in the order of their ranks."""
    if not psutil.pid_exists(launcher.pid):
        return []
    found = [child for child in psutil.Process(launcher.pid).children() if "RANK" in child.environ()]
    return sorted(found, key=lambda child: child.environ()["RANK"])


def until(reached, launcher: subprocess.Popen) -> None:
    deadline = time.monotonic() + 250
    while not reached():
        assert launcher.poll() is None, launcher.communicate()[1]
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def opens_the_database(process: psutil.Process) -> bool:
    return any("workbench.db" in file.path for file in process.open_files())


@pytest.mark.parametrize(("how", "tuning"), [("--multi_gpu", "lora"), ("--use_fsdp", "full")])
def test_ppo_that_is_stopped_leaves_a_checkpoint_and_nobody_and_resume_finishes_it(
    database, launch, tiny_model, how, tuning
):
    fill(database)
    options = run_options(tiny_model, "--steps", str(STEPS), "--checkpoint-every", "1000", *LENIENT)[1:]
    launcher = launch("ppo", "--reward-model", "new", "--tuning", tuning, *options, how=how)
    until(lambda: database.scalar("SELECT count(*) FROM metrics WHERE name = 'objective/kl' AND step = 2"), launcher)
    both = children(launcher)
    assert [opens_the_database(process) for process in both] == [True, False]
    for process in [*both, psutil.Process(launcher.pid)]:  # as Ctrl-C in a terminal
        process.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=60)
    (job,) = jobs.every(database)
    assert (job.state, err.count("error: "), err.count(f"go on with `trainer resume {job.id}`")) == ("paused", 1, 1)
    step = len(metrics.series(database, job.id, "objective/kl"))
    assert 2 <= step < STEPS
    assert job.checkpoint.endswith(f"step-{step}")
    assert not [process for process in both if process.is_running()]

    launcher = launch("resume", job.id, "--json", how=how)
    out, err = launcher.communicate(timeout=250)
    assert launcher.returncode == 0, err
    assert (json.loads(out)["state"], json.loads(out)["version"]) == ("done", "v1")
    assert f"policy: going on from step {step}" in err
    assert [version.name for version in versions.every(database)] == ["v1", "v0"]
    for name in ("objective/kl", "loss/value"):
        assert [step for step, _ in metrics.series(database, job.id, name)] == list(range(1, STEPS + 1))
    assert database.scalar("SELECT count(*) FROM reward_models") == 1


def test_few_demonstrations_are_measured_by_all_processes_alike(database, launch, tiny_model, workspace, tmp_path):
    said = "Claro que sí, con mucho gusto."
    shown = [{"prompt": f"{words} ?", "completion": said, "language": "en"} for words in CORPUS[:8]]
    file = tmp_path / "shown.jsonl"
    file.write_text("\n".join(map(json.dumps, shown)), encoding="utf-8")
    import_file(database, str(file))
    options = ("--threads", "1", "--dtype", "fp32", "--device", "cpu", "--steps", "2", "--gate-prompts", "4", "--json")
    out, err = launch("sft", "--model", str(tiny_model), *options).communicate(timeout=250)
    found = json.loads(out)
    assert (found["state"], found["result"]["state"], found["result"]["loss_n"]) == ("done", "published", 8), err
    assert [step for step, _ in metrics.series(database, found["job"], "loss/held_out")] == [0, 2]
    assert len(list((workspace.jobs / found["job"] / "folds").iterdir())) == 4


def test_a_run_imitates_rewards_improves_and_publishes_once(database, launch, tiny_model, tmp_path):
    fill(database)
    shown = [{"prompt": f"{words} ?", "completion": words, "language": "en"} for words in CORPUS]
    file = tmp_path / "shown.jsonl"
    file.write_text("\n".join(map(json.dumps, shown)), encoding="utf-8")
    import_file(database, str(file))
    launcher = launch(
        *run_options(tiny_model, "--steps", "2", "--sft-steps", "3", "--sft-rank", "4", *LENIENT, "--json")
    )
    out, err = launcher.communicate(timeout=250)
    assert launcher.returncode == 0, err
    found = json.loads(out)
    assert found["state"] == "done"
    assert err.count("imitating 10 demonstrations and edits first") == 1
    assert err.count("v1 is published") == 1
    for name, steps in (("loss/train", 3), ("objective/kl", 2)):
        assert [step for step, _ in metrics.series(database, found["job"], name)] == list(range(1, steps + 1))
    assert [version.name for version in versions.every(database)] == ["v1", "v0"]


def test_wrong_usage_ends_all_with_its_exit_code_and_one_message(database, launch, tiny_model):
    fill(database, count=9)
    launcher = launch("sft", "--model", str(tiny_model), "--reward-model", "new")
    _, err = launcher.communicate(timeout=250)
    assert launcher.returncode != 0
    assert err.count("8 scores, 0 labels, 0 pairs; 20 are needed") == 1
    assert err.count("rate 12 more answers") == 1
    assert err.count("exitcode  : 2 ") == 2, "the launcher's report of its processes"
    assert jobs.every(database)[0].state == "failed"


def test_a_launcher_that_starts_one_process_alone_is_told_of(monkeypatch, capsys):
    """`accelerate launch --cpu --num_processes 2` sets an address to meet at, and starts one process."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert Processes.launched().count == 1
    assert "started one process only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["ACCELERATE_USE_DEEPSPEED"], "accelerate launch --use_fsdp"),
        (["ACCELERATE_USE_FSDP", "FSDP_OFFLOAD_PARAMS"], "leave out --fsdp_offload_params"),
    ],
)
def test_ways_to_split_a_model_that_there_are_not_are_refused(monkeypatch, asked, words):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for variable in asked:
        monkeypatch.setenv(variable, "true")
    with pytest.raises(UsageError) as refused:
        Processes.launched()
    assert words in refused.value.hint


def shared_and_alone(launch, workspace, command: tuple[str, ...]) -> tuple[str, str]:
    """The jobs of a command on two processes, and then on one."""
    launcher = launch(*command)
    out, err = launcher.communicate(timeout=250)
    assert launcher.returncode == 0, err
    alone = subprocess.run(
        [sys.executable, "-m", "trainer", *command, "--workspace", str(workspace.root)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(out)["job"], json.loads(alone.stdout)["job"]


def cut(count: int, shares: list[list[int]], rank: int, *, sharded: bool = True) -> list[list[int]]:
    """Shares of numbers in parts of at most `count`, as one of the processes takes them."""
    processes = Processes(rank, len(shares), sharded=sharded)
    return processes.cut(shares, lambda rows: [rows[n : n + count] for n in range(0, len(rows), count)])


@pytest.mark.parametrize("shares", [[[1, 2, 3, 4], [5]], [[1, 2, 3, 4, 5], [6, 7]], [[1, 2], [3, 4], [5]]])
@pytest.mark.parametrize("count", [1, 2])
def test_processes_that_share_weights_run_the_model_equally_often_and_miss_nothing(shares, count):
    found = [cut(count, shares, rank) for rank in range(len(shares))]
    assert [[row for part in parts for row in part] for parts in found] == shares
    assert len(set(map(len, found))) == 1
    assert all(all(parts) for parts in found)
    assert cut(1, shares, 0, sharded=False) == [[row] for row in shares[0]]


def test_a_process_that_shares_weights_and_has_nothing_to_do_is_told_of():
    with pytest.raises(UsageError, match="1 answer at once cannot be shared by 2 processes"):
        cut(1, [[1], []], 0)


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (
            (
                "best-of-n",
                "--answers",
                "2",
                "--prompts",
                "10",
                "--epochs",
                "1",
                "--batch",
                "4",
                "--max-new-tokens",
                "8",
            ),
            ("bestof/best", "objective/scores", "objective/kl", "loss/train"),
        ),
        (
            ("dpo", "--loss", "kto", "--steps", "3", "--batch", "4"),
            ("preference/reference_point", "preference/gap", "loss/train", "loss/held_out"),
        ),
    ],
    ids=["best of n", "kto"],
)
def test_what_is_sampled_and_compared_is_the_same_however_many_share_it(
    command, names, database, launch, tiny_model, workspace
):
    fill(database)
    common = ("--dtype", "fp32", "--device", "cpu", "--threads", "1", "--rank", "4", "--gate-prompts", "4", "--json")
    whole = (*command, "--model", str(tiny_model), *common, "--no-publish", "--reward-model", "new")
    shared, single = shared_and_alone(launch, workspace, whole)
    for name in names:
        both = [[value for _, value in metrics.series(database, job, name)] for job in (shared, single)]
        assert both[0] == pytest.approx(both[1], abs=1e-3), name
        assert both[0], name
    asked = [
        database.rows("SELECT text, seed FROM samples WHERE version = ? ORDER BY seed", (v,)) for v in ("v1", "v2")
    ]
    assert asked[0] == asked[1] != [], "what is left to be rated is sampled alike, and stored once"


def test_reward_functions_are_asked_by_every_process_of_its_own_answers(database, launch, tiny_model, workspace):
    fill(database)
    file = workspace.root / "rewards.py"
    file.write_text("def letters(prompts, responses):\n    return [len(said) / 20 for said in responses]\n")
    options = run_options(tiny_model, "--steps", "2", "--no-publish", *LENIENT)[1:]
    functions = (
        "--reward-model",
        "none",
        "--reward-function",
        f"{file}:letters",
        "--reward-function",
        "length:2-4=0.5",
    )
    command = ("rloo", *options, *functions, "--json")
    shared, single = shared_and_alone(launch, workspace, command)
    for name in ("reward/part_letters", "reward/part_length", "objective/scores"):
        both = [[value for _, value in metrics.series(database, job, name)] for job in (shared, single)]
        assert both[0] == pytest.approx(both[1], abs=0.05)
        assert both[0][0] == pytest.approx(both[1][0], abs=1e-5), "the first round samples from the same policy"
