"""Every stage of the trainer from the command line: to a version, with metrics; cancelled, resumed, and the same."""

from __future__ import annotations

import random
import string
import time
from collections import Counter

import pytest
import torch
from rated_workspace import LANGUAGES, fill
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import CORPUS

from storage import conversations, jobs, metrics, reward_models, samples, versions
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.feedback import log
from storage.records import Split
from storage.workspace import Workspace
from trainer import job as job_module
from trainer import pipeline, rewards
from trainer.config import RewardKind
from trainer.evaluation import seen
from trainer.job import CancelledError, HeldJob
from trainer.methods import run
from trainer.policy.decoding import Decoder

GATE = ("--gate-prompts", "4", "--gate-min-gain=-100", "--gate-max-kl", "1000", "--gate-max-new-tokens", "6")
ROUNDS = ("--batch", "8", "--answers", "2", "--minibatch", "4", "--max-new-tokens", "6", "--rank", "4", "--steps", "3")
FIXED = ("--batch", "8", "--rank", "4", "--steps", "3", "--reward-rank", "4", "--reward-epochs", "1")
CHOSEN = ("--prompts", "6", "--answers", "2", "--batch", "4", "--epochs", "2", "--max-new-tokens", "6", "--rank", "4")
# command -> its options, and a metric that each of its steps records
STAGES = {
    "ppo": ([*ROUNDS], "objective/kl"),
    "ppo on a table": ([*ROUNDS, "--reward-model", "table"], "objective/kl"),
    "ppo, value adapter": ([*ROUNDS, "--value-adapter", "--accumulation", "2"], "value/explained_variance"),
    "ppo, full": ([*ROUNDS, "--tuning", "full", "--gradient-checkpointing"], "objective/kl"),
    "reinforce": ([*ROUNDS], "objective/scores"),
    "rloo": ([*ROUNDS], "objective/scores"),
    "grpo": ([*ROUNDS], "objective/scores"),
    "sft": ([*FIXED], "loss/train"),
    "dpo": ([*FIXED], "loss/train"),
    "dpo, kto": ([*FIXED, "--loss", "kto"], "loss/train"),
    "best-of-n": ([*CHOSEN], "loss/train"),
    "ilql": ([*FIXED], "loss/q"),
    "hindsight": ([*FIXED], "loss/train"),
    "hindsight, chain": ([*FIXED, "--relabelling", "chain"], "loss/train"),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rated(database: Database) -> Database:
    """Scores, a second and better answer to each prompt, and demonstrations, in ten languages."""
    fill(database, 24)
    for number, prompt in enumerate(
        sorted(conversations.by_split(database, Split.TRAIN), key=lambda prompt: prompt.id)
    ):
        words = CORPUS[number % len(LANGUAGES)].split()
        better = samples.new(prompt.id, " ".join(words[:6]))
        shown = samples.new(prompt.id, " ".join(words[:4]), origin="demonstration")
        samples.add(database, [better, shown])
        log.append(database, log.score(better.id, 5, "amina"))
    return database


def weights(workspace: Workspace, version) -> dict[str, torch.Tensor]:
    return load_file(str(workspace.root / version.file))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_ends_in_a_version_and_a_cancelled_one_in_the_same(
    stage, trainer, rated, workspace, tiny_model, monkeypatch
):
    options, metric = STAGES[stage]
    command = stage.split(",")[0].split()[0]
    if command in ("ppo", "reinforce", "rloo", "grpo") and "table" not in stage:
        code, fitted = trainer("reward", "--rank", "4", "--epochs", "1")
        assert (code, fitted["state"], fitted["version"]) == (0, "done", None)
        assert reward_models.find(rated, versions.get(rated, "v0").base_digest).name == "rm1"
    code, whole = trainer(command, *options, *GATE, "--no-publish")
    assert (code, whole["state"], whole["version"]) == (0, "done", "v1"), whole["error"]
    assert [step for step, _ in metrics.series(rated, whole["job"], metric)] == [1, 2, 3]
    assert jobs.ratings_of(rated, whole["job"]) or command in ("ppo", "reinforce", "rloo", "grpo", "sft")
    unbroken = versions.get(rated, "v1")
    assert unbroken.kind == ("full" if "full" in stage else "lora")
    Decoder.load(tiny_model, torch.device("cpu"), torch.float32, workspace.root / unbroken.file)

    monkeypatch.setattr(job_module, "HEARTBEAT_SECONDS", 0.02)
    record = HeldJob.record

    def cancelled_in_the_middle(held, step, figures, rollouts=()):
        record(held, step, figures, rollouts)
        if step == 2 and (metric, None) in figures:
            with open_database(workspace) as other:
                jobs.request_cancel(other, held.job.id)
            time.sleep(0.3)  # a heartbeat hears of it

    with monkeypatch.context() as patch:
        patch.setattr(HeldJob, "record", cancelled_in_the_middle)
        code, paused = trainer(command, *options, *GATE, "--no-publish")
    assert (code, paused["state"]) == (130, "paused")
    assert (workspace.root / jobs.get(rated, paused["job"]).checkpoint).name == "step-2"
    code, resumed = trainer("resume", paused["job"], model=False)
    assert (code, resumed["state"], resumed["version"]) == (0, "done", "v2")
    first, second = (weights(workspace, versions.get(rated, name)) for name in ("v1", "v2"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first), "bit by bit"
    assert not (workspace.jobs / paused["job"] / "checkpoints").exists()


def cut_off(*arguments, **more):
    raise CancelledError("the job was cancelled", "go on with `trainer resume`")


class Counted:
    """How often each step of each figure was recorded."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        record = HeldJob.record

        def counting(held, step, figures, rollouts=()):
            self.counts.update((name, step) for name, language in figures if language is None)
            record(held, step, figures, rollouts)

        patch.setattr(HeldJob, "record", counting)

    def of(self, name: str) -> dict[int, int]:
        return {step: count for (found, step), count in self.counts.items() if found == name}


@pytest.mark.parametrize("stage", ["ppo on a table", "sft", "dpo", "best-of-n", "ilql", "hindsight"])
def test_a_stage_that_was_cut_off_in_its_gate_goes_straight_back_to_it(stage, trainer, rated, workspace, monkeypatch):
    options, metric = STAGES[stage]
    command = [stage.split()[0], *options, *GATE, "--no-publish"]
    assert trainer(*command)[1]["version"] == "v1"
    counted = Counted(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "judge", cut_off)
        code, paused = trainer(*command)
    assert (code, paused["state"]) == (130, "paused")
    assert (workspace.root / jobs.get(rated, paused["job"]).checkpoint).name == "step-3"
    code, resumed = trainer("resume", paused["job"], model=False)
    assert (code, resumed["version"]) == (0, "v2")
    assert counted.of(metric) == {1: 1, 2: 1, 3: 1}, "no step was taken again"
    first, second = (weights(workspace, versions.get(rated, name)) for name in ("v1", "v2"))
    assert all(torch.equal(first[name], second[name]) for name in first), "bit by bit"


def test_a_gate_that_was_cancelled_between_its_batches_ends_after_resume_as_if_nothing_had_happened(
    trainer, rated, workspace, monkeypatch
):
    options = [*ROUNDS, *GATE, "--gate-answers", "20", "--reward-model", "table", "--no-publish"]
    monkeypatch.setattr(seen, "BATCH", 16)
    assert trainer("ppo", *options)[1]["version"] == "v1"
    monkeypatch.setattr(job_module, "HEARTBEAT_SECONDS", 0.02)
    batches = []
    collected = seen.collect

    def cancelled_after_three(*arguments):
        batches.append(1)
        if len(batches) == 3:
            with open_database(workspace) as other:
                jobs.request_cancel(other, jobs.every(other)[0].id)
            time.sleep(0.3)  # a heartbeat hears of it
        return collected(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(seen, "collect", cancelled_after_three)
        code, paused = trainer("ppo", *options)
    assert (code, paused["state"], len(batches)) == (130, "paused", 3)
    code, resumed = trainer("resume", paused["job"], model=False)
    assert (code, resumed["version"]) == (0, "v2")
    first, second = (versions.get(rated, name) for name in ("v1", "v2"))
    assert (first.gates, first.metrics) == (second.gates, second.metrics)


# --- reward models of before ------------------------------------------------------------------------------------------


def test_a_resumed_run_keeps_the_reward_model_that_was_the_latest_when_it_began(trainer, rated, monkeypatch):
    trainer("reward", "--rank", "4")
    assert trainer("rloo", *ROUNDS, *GATE, "--no-publish")[1]["version"] == "v1"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "judge", cut_off)
        _, paused = trainer("rloo", *ROUNDS, *GATE, "--no-publish")
    prompt = conversations.by_split(rated, Split.TRAIN)[0]
    liked = samples.new(prompt.id, "quite another answer")
    samples.add(rated, [liked])
    log.append(rated, log.score(liked.id, 1, "amina"))
    trainer("reward", "--rank", "4")
    assert reward_models.find(rated, versions.get(rated, "v0").base_digest).name == "rm2"
    code, resumed = trainer("resume", paused["job"], model=False)
    assert (code, resumed["version"]) == (0, "v2")
    first, second = (versions.get(rated, name) for name in ("v1", "v2"))
    assert (first.gates, first.metrics) == (second.gates, second.metrics)


def test_a_reward_model_of_an_earlier_release_is_refused_by_name_and_auto_fits_a_new_one(trainer, rated, workspace):
    trainer("reward", "--rank", "4")
    file = workspace.root / reward_models.find(rated, versions.get(rated, "v0").base_digest).file
    with safe_open(str(file), framework="pt") as opened:
        header = {name: text for name, text in opened.metadata().items() if name != "parts"}
    save_file(load_file(str(file)), str(file), metadata=header)
    code, refused = trainer("rloo", *ROUNDS, *GATE)
    assert (code, refused["state"]) == (1, "failed")
    assert "it is of an earlier release" in refused["error"]
    assert "`trainer reward`" in jobs.get(rated, refused["job"]).hint
    code, found = trainer("dpo", *FIXED, *GATE)
    assert (code, found["state"], found["version"]) == (0, "done", "v1")
    assert reward_models.of_job(rated, found["job"]).name == "rm2"


# --- controls ---------------------------------------------------------------------------------------------------------

CONTROLLED = {
    "run": [*ROUNDS, "--sft-steps", "1"],
    "ppo": [*ROUNDS],
    "rloo": [*ROUNDS],
    "sft": [*FIXED],
    "dpo": [*FIXED],
    "best-of-n": [*CHOSEN],
    "ilql": [*FIXED],
    "hindsight": [*FIXED],
}


@pytest.mark.parametrize("stage", CONTROLLED)
@pytest.mark.parametrize("control", ["shuffled", "constant"])
def test_a_control_is_never_published_and_leaves_no_reward_model_behind(stage, control, trainer, rated, workspace):
    code, found = trainer(stage, *CONTROLLED[stage], *GATE, "--gate-max-outside", "1", "--control", control)
    assert rated.scalar("SELECT count(*) FROM reward_models") == 0
    if stage in ("dpo", "ilql", "hindsight") and control == "constant":
        assert (code, found["state"], found["version"]) == (2, "failed", None)
        assert "constant ones teach it nothing" in found["error"]
        return
    assert (code, found["state"]) == (0, "done"), found["error"]
    assert (found["result"]["state"], found["result"]["control"]) == ("rejected", control)
    assert {gate["gate"]: gate["passed"] for gate in found["result"]["gates"]}["control"] is False
    made = versions.get(rated, found["version"])
    assert (made.state, made.metrics["control"]) == ("rejected", control)
    assert versions.served(rated).name == "v0"
    for publish in (lambda: versions.publish(rated, workspace, made.name), lambda: versions.serve(rated, made.name)):
        with pytest.raises(UsageError, match=f"is a control: it learned from {control} ratings"):
            publish()
    assert versions.served(rated).name == "v0"
    assert versions.get(rated, made.name).state == "rejected"


def test_nothing_goes_on_from_what_a_control_has_learned(trainer, rated):
    assert trainer("rloo", *ROUNDS, *GATE, "--control", "shuffled")[0] == 0
    code, found = trainer("ppo", *ROUNDS, *GATE)
    assert (code, found["state"]) == (2, "failed")
    assert "no reward model was fitted" in found["error"]
    assert trainer("reward")[0] == 0
    code, found = trainer("ppo", *ROUNDS, *GATE)
    assert (code, found["state"], found["result"]["parent"]) == (0, "done", "v0")
    assert found["result"]["control"] == ""


@pytest.mark.parametrize("kind", list(map(str, RewardKind)))
def test_a_pipeline_that_was_cut_off_after_each_of_its_learners_takes_no_step_twice(
    kind, trainer, rated, workspace, monkeypatch
):
    options = [*ROUNDS, "--reward-kind", kind, "--reward-rank", "4", "--reward-epochs", "1", "--sft-steps", "2"]
    command = ["run", *options, *GATE, "--no-publish"]
    assert trainer(*command)[1]["version"] == "v1"
    counted = Counted(monkeypatch)
    arguments, model = command, True
    # The reward model before it is stored, what imitation learned before it is stored, and the policy at the gate.
    for place, cut in ((rewards, "reference_answers"), (run, "keep"), (pipeline, "judge")):
        with monkeypatch.context() as patch:
            patch.setattr(place, cut, cut_off)
            code, paused = trainer(*arguments, model=model)
        assert (code, paused["state"]) == (130, "paused"), paused["error"]
        arguments, model = ["resume", paused["job"]], False
    code, resumed = trainer(*arguments, model=model)
    assert (code, resumed["version"]) == (0, "v2")
    for name, steps in (("loss/judge", None), ("loss/reward", None), ("loss/train", 2), ("objective/kl", 3)):
        taken = counted.of(name)
        assert taken
        assert set(taken.values()) == {1}, f"{name} was learned again"
        assert steps is None or sorted(taken) == list(range(1, steps + 1))
    first, second = (weights(workspace, versions.get(rated, name)) for name in ("v1", "v2"))
    assert all(torch.equal(first[name], second[name]) for name in first), "bit by bit"
    assert not (workspace.jobs / resumed["job"] / "checkpoints").exists()


def test_a_reward_model_alone_leaves_no_checkpoint_behind(trainer, rated, workspace):
    code, fitted = trainer("reward", "--rank", "4", "--epochs", "1")
    assert (code, fitted["state"]) == (0, "done")
    assert {path.name for path in (workspace.jobs / fitted["job"]).iterdir()} == {"judge", "reward"}


def test_the_pipeline_imitates_demonstrations_first(trainer, rated):
    options = [*ROUNDS, "--reward-rank", "4", "--reward-epochs", "1", "--sft-steps", "2"]
    code, found = trainer("run", *options, *GATE)
    assert (code, found["state"], found["version"]) == (0, "done", "v1")
    assert [step for step, _ in metrics.series(rated, found["job"], "loss/train")] == [1, 2]
    assert [step for step, _ in metrics.series(rated, found["job"], "objective/kl")] == [1, 2, 3]
    assert metrics.series(rated, found["job"], "data/held_out") == [(1, 0.0)], "its loss decides nothing"
    code, without = trainer("run", *options, *GATE, "--no-demonstrations")
    assert (code, without["state"]) == (0, "done")
    assert metrics.series(rated, without["job"], "loss/train") == []


@pytest.mark.parametrize("reference", ["base", "start", "parent"])
def test_what_was_imitated_is_never_undone_however_far_it_is_from_the_base(reference, trainer, rated):
    """Imitation goes many KL targets away. Held near its start it begins at none; held near the base, or the parent
    (which is the base here), it begins far away, and that is where it is measured from."""
    far = ["--sft-steps", "40", "--sft-learning-rate", "0.02", "--kl-target", "0.5", "--learning-rate", "1e-5"]
    options = [*ROUNDS, "--reward-rank", "4", *far, "--reference", reference]
    code, found = trainer("run", *options, *GATE)
    assert (code, found["state"]) == (0, "done")
    kl = [value for _, value in metrics.series(rated, found["job"], "objective/kl")]
    assert metrics.series(rated, found["job"], "policy/rolled_back") == []
    assert versions.get(rated, found["version"]).metrics["kl"] > 3 * 0.5, "the gate asks for the KL to the base"
    if reference == "start":
        assert kl[0] == pytest.approx(0, abs=1e-3)
    else:
        assert kl[0] > 3 * 0.5
    assert [value for _, value in metrics.series(rated, found["job"], "objective/kl_target")] == [0.5] * 3


def test_a_value_that_explains_little_is_said_in_the_log_and_the_result(trainer, rated):
    _, found = trainer("ppo", *ROUNDS, "--reward-model", "table", *GATE)
    explained = [value for _, value in metrics.series(rated, found["job"], "value/explained_variance")]
    told = [value for value in explained if value is not None]
    assert (sum(told) / len(told) < 0.2) == ("rloo" in found.get("remark", ""))


def test_a_table_is_learned_from_and_measured_on_prompts_that_it_knows(trainer, rated):
    unknown = [conversations.add(rated, f"never asked {number}", language="en") for number in range(60)]
    assert {prompt.split for prompt in unknown} == {Split.TRAIN, Split.HELD_OUT}
    code, found = trainer("ppo", *ROUNDS, *GATE, "--reward-model", "table")
    assert (code, found["state"]) == (0, "done")
    practised = {rollout.prompt for rollout in metrics.recent_rollouts(rated, found["job"], 1000)}
    assert practised
    assert not practised & {prompt.text for prompt in unknown}
    assert found["result"]["parent_reward"] != 0, "the table knows the prompts of the gate"


def test_imitation_alone_is_judged_by_its_held_out_loss(trainer, database):
    for number in range(20):
        words = CORPUS[number % len(LANGUAGES)].split()
        language = LANGUAGES[number % len(LANGUAGES)]
        split = Split.HELD_OUT if number % 5 == 4 else Split.TRAIN
        prompt = conversations.add(database, f"{words[0]} {number}", language=language, split=split)
        samples.add(database, [samples.new(prompt.id, " ".join(words[1:4]), origin="demonstration")])
    code, found = trainer("sft", *FIXED, *GATE)
    assert (code, found["state"]) == (0, "done")
    gates = {gate["gate"]: gate for gate in found["result"]["gates"]}
    assert set(gates) == {"held-out loss", "KL bound", "finite"}
    assert found["result"]["loss_gain"] == gates["held-out loss"]["value"]
    assert "reward" not in found["result"]


@pytest.mark.parametrize("learnable", [True, False])
def test_eight_demonstrations_are_published_when_they_teach_something(trainer, database, workspace, learnable):
    letters = list(string.ascii_letters[:48])
    random.Random(3).shuffle(letters)
    for number in range(8):
        prompt = conversations.add(database, f"{CORPUS[number]} {number}", language=LANGUAGES[number])
        noise = "".join(random.Random(number).choices(letters[6 * number :][:6], k=40))  # has no letter with another
        text = "Claro que sí, con mucho gusto." if learnable else noise
        samples.add(database, [samples.new(prompt.id, text, origin="demonstration")])
    conversations.add(
        database, "¿Qué es un faro?", language="es", split=Split.HELD_OUT
    )  # to be answered, for the divergence
    code, found = trainer("sft", "--gate-prompts", "4", "--gate-max-new-tokens", "6", "--gate-max-kl", "1000")
    assert (code, found["state"], found["version"]) == (0, "done", "v1")
    gates = {gate["gate"]: gate["passed"] for gate in found["result"]["gates"]}
    assert gates == {"held-out loss": learnable, "KL bound": True, "finite": True}
    assert versions.get(database, "v1").state == ("published" if learnable else "rejected")
    assert found["result"]["loss_n"] == found["metrics"]["data/cross_fitted"] == found["metrics"]["data/examples"] == 8
    assert found["metrics"]["data/held_out"] == 0
    assert len(list((workspace.jobs / found["job"] / "folds").iterdir())) == 4


def test_hindsight_that_nothing_judges_is_measured_by_folds(trainer, rated):
    code, found = trainer("hindsight", *FIXED, *GATE, "--reward-minimum", "1000", "--levels", "3")
    assert (code, found["state"]) == (0, "done"), found["error"]
    assert {gate["gate"] for gate in found["result"]["gates"]} >= {"held-out loss"}
    assert found["result"]["loss_n"] == found["metrics"]["data/cross_fitted"] > 12
    assert found["metrics"]["data/held_out"] == 0


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("sft", "too few answers to imitate"),
        ("dpo", "nothing judges"),
        ("best-of-n", "nothing tells which answer is best"),
        ("ilql", "nothing judges"),
        ("hindsight", "too few ratings"),
    ],
)
def test_too_little_to_learn_from_ends_with_wrong_usage(stage, says, trainer, database):
    for number in range(9):
        conversations.add(database, f"{CORPUS[number].split()[0]} {number}", language=LANGUAGES[number])
    code, found = trainer(stage, *STAGES[stage][0], *GATE)
    assert (code, found["state"]) == (2, "failed")
    assert says in found["error"]
    assert versions.served(database) is None or versions.served(database).name == "v0"
