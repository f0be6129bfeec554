"""Runs against rewards in plain Python, from the command line."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
import torch
from rated_workspace import fill
from safetensors.torch import load_file

from storage import jobs, metrics, versions
from trainer import cli

ROUNDS = (
    "--batch", "8", "--answers", "2", "--minibatch", "4", "--max-new-tokens", "6", "--rank", "4", "--steps", "3",
    "--gate-prompts", "4", "--gate-min-gain=-100", "--gate-max-kl", "1000",
)  # fmt: skip
ALONE = ("--reward-model", "none", *ROUNDS)

pytestmark = pytest.mark.usefixtures("one_thread")


def refused(workspace, capsys, monkeypatch, *arguments: str) -> str:
    """What a command that is refused before it begins says on standard error."""
    monkeypatch.setattr(sys, "argv", ["trainer", *arguments, "--json", "--workspace", str(workspace.root)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.fixture
def prompted(database):
    """Prompts in ten languages, some held out, with ratings that a function alone does not look at."""
    fill(database, 24)
    return database


def test_a_function_alone_needs_no_ratings_is_drawn_and_judges_itself(trainer, database, written, monkeypatch):
    from storage import conversations
    from storage.records import Split

    for number in range(18):
        split = Split.HELD_OUT if number % 3 == 2 else Split.TRAIN
        conversations.add(database, f"Frage {number}", language=("de", "fr")[number % 2], split=split)
    file = written(
        "print('loaded')\ndef letters(prompt, response, **facts):\n    print('asked')\n    return len(response) / 20\n"
    )
    monkeypatch.chdir(file.parent)
    options = ("--reward-function", "rewards.py:letters=2", "--reward-function", "length:2-4")
    code, found = trainer("rloo", *ALONE, *options)
    assert (code, found["state"], found["version"]) == (0, "done", "v1"), found["error"]
    result = found["result"]
    gates = {gate["gate"]: gate for gate in result["gates"]}
    assert gates["judge"]["passed"]
    assert gates["judge"]["detail"] == "judged by the function that was optimised: it is the goal itself"
    assert "support" not in gates, "there are no ratings that an answer could be unlike"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert versions.get(database, "v1").metrics["reward_functions"] == [
        {"name": "letters", "function": f"{file}:letters", "weight": 2.0, "sha256": digest},
        {"name": "length", "function": "length:2-4", "weight": 1.0, "sha256": None},
    ]
    job = jobs.get(database, found["job"])
    assert job.config["reward_function"] == [f"{file}:letters=2", "length:2-4=1"], "found from every folder"
    assert job.config["reward_function_sha256"] == [digest, ""]
    gains = result["reward_gain_by_part"]
    assert gains.keys() == {"letters", "length"}
    assert 2 * gains["letters"]["mean"] + gains["length"]["mean"] == pytest.approx(result["reward_gain"], abs=1e-5)
    for language in (None, "de", "fr"):
        rows = [metrics.series(database, job.id, f"reward/part_{name}", language) for name in ("letters", "length")]
        scores = metrics.series(database, job.id, "objective/scores", language)
        assert len(scores) >= 1
        steps = dict(scores)
        for (step, letters), (_, length) in zip(*rows, strict=True):
            assert steps[step] == pytest.approx(2 * letters + length, abs=1e-5)


@pytest.mark.parametrize("stage", ["ppo", "grpo", "reinforce", "run"])
def test_a_mixture_with_the_learned_reward_is_judged_by_both(stage, trainer, prompted, written):
    file = written("def letters(prompts, responses):\n    return [len(said) / 20 for said in responses]\n")
    options = ("--reward-function", f"{file}:letters=0.5", "--reward-model", "new", "--gate-max-outside", "1")
    options += ("--sft-steps", "1") if stage == "run" else ()
    options += ("--score-clip", "1000")  # the parts are told before the clip
    code, found = trainer(stage, *ROUNDS, *options, "--reward-rank", "4", "--reward-epochs", "1")
    assert (code, found["state"], found["version"]) == (0, "done", "v1"), found["error"]
    parts = {name: found["metrics"][f"reward/part_{name}"] for name in ("learned", "letters")}
    assert found["metrics"]["objective/scores"] == pytest.approx(parts["learned"] + 0.5 * parts["letters"], abs=1e-4)
    gains = found["result"]["reward_gain_by_part"]
    total = gains["learned"]["mean"] + 0.5 * gains["letters"]["mean"]
    assert found["result"]["reward_gain"] == pytest.approx(total, abs=1e-4)
    assert found["result"]["reward_functions"][0]["name"] == "letters"
    assert "goal itself" not in str(found["result"]["gates"])


def test_a_table_and_a_function_go_together_and_parts_are_exported_and_compared(
    trainer, prompted, workspace, written, monkeypatch, capsys
):
    code, found = trainer("rloo", *ROUNDS, "--reward-model", "table", "--reward-function", "regex:a=0.5")
    assert (code, found["state"]) == (0, "done"), found["error"]
    for arguments in (("export-metrics", found["job"]), ("compare", found["job"])):
        monkeypatch.setattr(sys, "argv", ["trainer", *arguments, "--workspace", str(workspace.root)])
        cli.main()
        out = capsys.readouterr().out
        assert "reward/part_regex" in out
        assert "reward/part_learned" in out


# One answer in two is longer than three letters or so: it fails in some round, not in the first look at the base model.
FAILING = """
calls = []
def letters(prompts, responses):
    calls.append(1)
    if len(calls) > FIRST:
        raise ConnectionError("the judge does not answer")
    return [len(said) / 20 for said in responses]
"""


def test_a_function_that_fails_loses_nothing_and_the_mended_one_goes_on_when_it_is_accepted(
    trainer, prompted, workspace, written, monkeypatch, capsys
):
    good = FAILING.replace("FIRST", "1000000")
    file = written(good)
    options = ("rloo", *ALONE, "--reward-function", f"{file}:letters", "--no-publish", "--gate-answers", "2")
    code, whole = trainer(*options)
    assert (code, whole["version"]) == (0, "v1")

    # The base model's answers, and the two minibatches of two rounds; the third round fails.
    file = written(FAILING.replace("FIRST", "5"))
    code, failed = trainer(*options)
    assert (code, failed["state"]) == (2, "failed")
    assert "letters raised ConnectionError: the judge does not answer (rewards.py, line 6)" in failed["error"]
    assert "“" in failed["error"]
    assert (workspace.root / jobs.get(prompted, failed["job"]).checkpoint).name == "step-2", "two rounds are kept"

    written(good)
    err = refused(workspace, capsys, monkeypatch, "resume", failed["job"])
    assert f"{file}:letters has changed since the job began" in err
    assert "begin a new run" in err
    assert jobs.get(prompted, failed["job"]).state == "failed"
    code, resumed = trainer("resume", failed["job"], "--accept-reward-function", model=False)
    assert (code, resumed["state"], resumed["version"]) == (0, "done", "v2")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert jobs.get(prompted, failed["job"]).config["reward_function_sha256"] == [digest]
    assert versions.get(prompted, "v2").metrics["reward_functions"][0]["sha256"] == digest
    first, second = (load_file(str(workspace.root / versions.get(prompted, name).file)) for name in ("v1", "v2"))
    assert all(torch.equal(first[name], second[name]) for name in first), "bit by bit as if nothing had happened"


def test_a_function_that_fails_at_once_ends_before_any_step(trainer, prompted, written):
    file = written("def f(prompt, response):\n    return None\n")
    code, found = trainer("rloo", *ALONE, "--reward-function", f"{file}:f")
    assert (code, found["state"], found["steps"]) == (2, "failed", 0)
    assert "returned None (NoneType)" in found["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--reward-model", "none"), "give a reward function"),
        (("--reward-model", "none", "--reward-function", "language", "--control", "shuffled"), "a control replaces"),
        (("--reward-function", "none_such.py:f"), "cannot read"),
        (
            ("--reward-function", "language", "--reward-function-sha256", "a", "--reward-function-sha256", "b"),
            "digests",
        ),
    ],
)
def test_wrong_usage_is_told_before_anything_is_queued(arguments, says, workspace, database, capsys, monkeypatch):
    assert says in refused(workspace, capsys, monkeypatch, "rloo", *arguments)
    assert jobs.every(database) == []


def test_without_a_reward_model_it_is_said_that_a_function_alone_needs_none(trainer, prompted):
    code, found = trainer("rloo", *ROUNDS, "--reward-function", "language")
    assert code == 2
    assert "--reward-model none" in jobs.get(prompted, found["job"]).hint


def test_functions_can_come_from_a_file_of_settings(trainer, prompted, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('reward_model = "none"\nreward_function = ["regex:a=0.5", "length:1-3"]\n')
    code, found = trainer("rloo", *ROUNDS, "--config", str(recipe))
    assert (code, found["state"]) == (0, "done"), found["error"]
    assert json.loads(json.dumps(jobs.get(prompted, found["job"]).config["reward_function"])) == [
        "regex:a=0.5", "length:1-3=1",
    ]  # fmt: skip
