"""Held-out prompts as a person meets them: a setting, a check, and a word beside the prompt."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from driving import opened, ready, served_base, until, visible

from storage import conversations, jobs, metrics, samples
from storage.database import Database
from storage.feedback import log
from storage.records import Job, Rollout, Split
from storage.workspace import Workspace
from workbench.cli import cli, run_command
from workbench.commands.doctor import held_out
from workbench.screens.review.screen import ReviewScreen
from workbench.shell.app import WorkbenchApp
from workbench.widgets.editor import PromptInput

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the workspace: its exit code and what it said on both outputs."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_command(cli, ["--workspace", str(workspace.root), *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_share_of_prompts_to_hold_out_is_shown_and_set(run: Run, database: Database) -> None:
    assert run("settings", "held-out-share") == (0, "0.15\n", "")
    assert run("settings", "held-out-share", "0.2")[:2] == (0, "0.2\n")
    assert conversations.held_out_share(database) == 0.2
    assert run("settings")[1].splitlines()[1].split()[:2] == ["held-out-share", "0.2"]
    assert msgspec.json.decode(run("settings", "--json")[1])["held-out-share"] == 0.2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["held-out-share", "1"], "must be at least 0 and below 1, not 1"),
        (["held-out-share", "nan"], "must be at least 0 and below 1, not nan"),
        (["held-out-share", "a fifth"], "must be a number, not 'a fifth'"),
        (["held-out"], "there is no setting 'held-out'"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_do(
    run: Run, database: Database, arguments: list[str], says: str
) -> None:
    code, out, err = run("settings", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert "hint: " in err
    assert conversations.held_out_share(database) == 0.15


def rated_prompt(database: Database, text: str, split: Split = Split.TRAIN) -> str:
    made = samples.new(conversations.add(database, text, split=split).id, "x")
    samples.add(database, [made])
    return log.append(database, log.score(made.id, 4, "ana")).id


@pytest.fixture
def job(database: Database) -> Job:
    """A job under way."""
    jobs.enqueue(database, "run", {})
    claimed = jobs.claim(database, jobs.worker_name())
    assert claimed is not None
    return claimed


def test_the_doctor_counts_what_is_held_out(run: Run, database: Database) -> None:
    for number in range(7):
        rated_prompt(database, f"q {number}", Split.HELD_OUT if number < 2 else Split.TRAIN)
    found = held_out(database)
    assert (found.status, found.detail) == ("ok", "2 held-out prompts of 7; none was ever learned from")
    assert "ok    held-out" in run("doctor")[1]


@pytest.mark.parametrize("split", [Split.HELD_OUT, Split.ETHICS])
def test_the_doctor_sees_held_out_prompts_that_were_learned_from(
    run: Run, database: Database, job: Job, split: Split
) -> None:
    keys = [rated_prompt(database, f"q {number}") for number in range(3)]
    jobs.link_ratings(database, job, keys)
    assert held_out(database).status == "ok"
    for number in range(2):
        conversations.add(database, f"q {number}", split=split)
    found = held_out(database)
    assert found.status == "fail"
    assert found.detail == f"2 held-out or ethics prompts were learned from before, by job {job.id}"
    assert "rollback" in found.hint
    assert run("doctor")[0] == 1


def test_the_doctor_sees_held_out_prompts_that_a_policy_practised_on(database: Database, job: Job) -> None:
    conversations.add(database, "secret", language="sw")
    metrics.add_rollouts(database, [Rollout("r", job.id, 1, "secret", "sw", "said", 0.5, 1.0, 3)])
    conversations.add(database, "secret", split=Split.HELD_OUT)
    assert held_out(database).detail.startswith("2 held-out or ethics prompts were learned from")


@pytest.mark.parametrize(
    ("split", "word"), [(Split.TRAIN, ""), (Split.HELD_OUT, " · held out"), (Split.ETHICS, " · ethics")]
)
async def test_a_rater_sees_that_a_prompt_is_held_out(
    workspace: Workspace, database: Database, split: Split, word: str
) -> None:
    served_base(database)
    prompt = conversations.add(database, "Barafu ni nini?", language="sw", split=split)
    samples.add(database, [samples.new(prompt.id, "Maji magumu.", version="v0", finish_reason="eos")])
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        ready(app)
        app.update_session(language="sw")
        app.screen.query_one(PromptInput).write("Barafu ni nini?")
        await pilot.press("enter")
        await until(pilot, lambda: f"sw{word} ▸ Barafu ni nini?" in visible(app))
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, ReviewScreen) and "Maji magumu." in visible(app))
        assert f"· sw{word} · why:" in visible(app)
