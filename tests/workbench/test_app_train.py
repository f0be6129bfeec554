"""Train: plots and figures of a job that another process writes, and starting, cancelling, resuming one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tomllib

import pytest
from driving import SIZES, opened, served_base, until, visible
from textual.widgets import Input, OptionList

from storage import conversations, jobs, metrics, reward_models, samples, versions
from storage.database import Database
from storage.feedback import log
from storage.records import Job, JobState, Split
from storage.workspace import Workspace
from workbench.screens.train.screen import TrainScreen
from workbench.screens.train.start import RecipeDialog, RecipeForm
from workbench.shell.app import WorkbenchApp
from workbench.training.launcher import Trainers, environment
from workbench.training.recipes import RECIPES
from workbench.widgets.dialogs import FormDialog
from workbench.widgets.plots import CurvePlot
from workbench.widgets.trainer_sheet import TrainerSheet, toml


def running_job(database: Database, steps: int = 12, *, lease: float = 600) -> Job:
    """A job with figures in two languages, one of them not finite for a step."""
    served_base(database)
    queued = jobs.enqueue(database, "run", {"seed": 0, "ppo": {"steps": 40, "kl_target": 6.0}}, steps=40)
    job = jobs.claim(database, "test", job_id=queued.id, lease=lease)
    assert job is not None
    for step in range(1, steps + 1):
        write_step(database, job, step)
    jobs.progress(database, job, stage="policy", step=steps, steps=40)
    return jobs.get(database, job.id)


def write_step(database: Database, job: Job, step: int) -> None:
    metrics.record(
        database, job.id, step,
        {
            ("objective/scores", None): math.nan if step == 3 else step / 10,
            ("objective/scores", "es"): step / 9,
            ("objective/scores", "hi"): step / 11,
            ("objective/kl", None): math.inf if step == 4 else step / 4,
            ("objective/kl_coef", None): 0.1,
            ("loss/policy", None): -0.01 * step,
            ("policy/sampler_gap", None): 3e-11,
            ("support/outside", None): step / 100,
            ("support/outside", "es"): step / 80,
            ("response/length", None): 40.0 - step,
            ("throughput/tokens_per_second", None): 400.0,
        },
    )  # fmt: skip


async def training(pilot) -> TrainScreen:  # type: ignore[no-untyped-def]
    app = await opened(pilot)
    await pilot.press("f3")
    await until(pilot, lambda: isinstance(app.screen, TrainScreen) and getattr(app.screen, "view", None) is not None)
    return app.screen  # type: ignore[return-value]


@pytest.mark.parametrize("size", SIZES)
async def test_the_latest_figures_are_text_at_every_size(
    workspace: Workspace, database: Database, size: tuple[int, int]
):
    running_job(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        screen = await training(pilot)
        await until(pilot, lambda: "+1.20" in visible(app))
        shown = visible(app)
        assert "12/40" in shown
        assert "KL" in shown
        plots = [plot for plot in screen.query(CurvePlot) if plot.display and screen.query_one("#plots").display]
        assert len(plots) == {(120, 40): 4, (80, 24): 2, (40, 12): 0}[size] or size == (40, 12)
        if size[0] >= 120:
            assert "outside what was rated" in shown
            assert "sampler gap 3.0e-11 nats/token" in shown
        if size[0] >= 80:
            assert "reward, by language" in shown
            assert "now +1.20  best +1.20 at 12" in shown


async def test_figures_that_are_not_finite_leave_a_gap(workspace: Workspace, database: Database):
    running_job(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await training(pilot)
        assert screen.view is not None
        reward = screen.view.curves["objective/scores", None]
        assert 3 not in reward.steps
        assert 4 not in screen.view.curves["objective/kl", None].steps
        assert all(math.isfinite(value) for curve in screen.view.curves.values() for value in curve.values)


async def test_plots_move_when_the_trainer_writes(workspace: Workspace, database: Database):
    job = running_job(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await training(pilot)
        await until(pilot, lambda: "12/40" in visible(app))
        write_step(database, job, 13)
        jobs.progress(database, job, stage="policy", step=13, steps=40)
        await until(pilot, lambda: "13/40" in visible(app) and "+1.30" in visible(app))
        assert "policy 13/40" in visible(app).splitlines()[0]


async def test_a_trainer_past_its_lease_is_called_stalled(workspace: Workspace, database: Database):
    running_job(database, lease=-1)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await training(pilot)
        await until(pilot, lambda: "✕ stalled" in visible(app))
        assert "r resume" in visible(app).splitlines()[-1]


async def test_cancel_asks_the_trainer_to_stop(workspace: Workspace, database: Database):
    job = running_job(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await training(pilot)
        await pilot.press("c")
        await until(pilot, lambda: jobs.get(database, job.id).cancel_requested)
        await until(pilot, lambda: "stopping" in visible(app))


async def test_a_failed_job_says_why_and_where_its_log_is(workspace: Workspace, database: Database):
    job = running_job(database)
    jobs.set_log(database, job.id, "logs/run.log")
    (workspace.logs / "run.log").write_text("the last words \x1b[31m[/red]\n", encoding="utf-8")
    jobs.fail(database, job, "17 ratings are too few", "rate 3 more answers")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await training(pilot)
        await until(pilot, lambda: "17 ratings are too few" in visible(app))
        shown = visible(app)
        assert "rate 3 more answers" in shown
        assert "logs/run.log" in shown
        assert "the last words ␛[31m[/red]" in shown


async def test_the_recipe_counts_ratings_by_language_and_kind(workspace: Workspace, database: Database):
    served_base(database)
    for language, count in (("fr", 3), ("ar", 2)):
        prompt = conversations.add(database, f"prompt in {language}", language=language)
        made = [samples.new(prompt.id, f"{n}", version="v0") for n in range(count)]
        samples.add(database, made)
        for sample in made:
            log.append(database, log.score(sample.id, 4, "rater"))
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await training(pilot)
        await until(pilot, lambda: "5 ratings (fr 3, ar 2; 5 score)" in visible(app))


def feedback(database: Database, count: int = 10) -> None:
    """Prompts with two scored answers each, and an edit of the first."""
    served_base(database)
    for n in range(count):
        prompt = conversations.add(database, f"¿Qué es {n}?", language="es", split=Split.TRAIN)
        made = [samples.new(prompt.id, f"{n} es {word}", version="v0") for word in ("par", "一个数")]
        samples.add(database, made)
        for value, sample in zip((2, 5), made, strict=True):
            log.append(database, log.score(sample.id, value, "rater"))


def reward_model(database: Database) -> str:
    """A reward model of the base that the tests serve, as a record alone."""
    base = versions.get(database, "v0")
    return reward_models.add(
        database, base=base, file="jobs/1/reward.safetensors", sha256="0" * 64, data_digest="1", job_id=None, metrics={}
    ).name


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are started: the real spawning code, with a short program in place of `-m trainer`."""
    seen: list[list[str]] = []
    real = subprocess.Popen

    def popen(command, **options):  # type: ignore[no-untyped-def]
        seen.append(command)
        return real([sys.executable, "-c", "import os; print(os.nice(0), os.getsid(0) == os.getpid())"], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    return seen


async def test_start_queues_the_job_and_starts_the_command(
    workspace: Workspace, database: Database, commands: list[list[str]]
):
    feedback(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await training(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("backspace", "backspace", "7", "enter")
        await until(pilot, lambda: commands)
        (job,) = jobs.every(database)
        assert (job.kind, job.state, job.steps) == ("run", JobState.QUEUED, 7)
        assert job.config["ppo"] == {
            "steps": 7, "kl_target": 6.0, "advantage": "gae", "batch": 16, "max_new_tokens": 0,
        }  # fmt: skip
        assert job.config["control"] == "none"
        assert commands[0][1:4] == ["-m", "trainer", "run"]
        assert commands[0][-2:] == ["--job", job.id]
        log = workspace.root / (job.log or "")
        await until(pilot, lambda: log.read_text().endswith("True\n"))
    assert environment({"PATH": "/bin"})["OMP_NUM_THREADS"] == str(max(1, (os.cpu_count() or 2) - 1))
    assert environment({"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("size", SIZES)
async def test_the_list_says_what_each_recipe_needs_and_what_there_is(
    workspace: Workspace, database: Database, size: tuple[int, int]
):
    feedback(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await training(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        await until(pilot, lambda: "w whole pipeline  ✓ needs 20" in visible(app))
        await until(pilot, lambda: "s SFT             ✕ needs 8" in visible(app))
        if size[0] >= 80:
            await until(pilot, lambda: "✓ needs 20 examples, has 20" in visible(app))
            await until(pilot, lambda: "✕ needs 8 demonstrations or edits, has 0" in visible(app))
            await until(pilot, lambda: "✕ needs a reward model, has none" in visible(app))
            await until(pilot, lambda: "Imitate demonstrations if there are any" in visible(app))
        if size[1] >= 30:  # else the list scrolls
            assert all(f"{recipe.key} {recipe.name} " in visible(app) for recipe in RECIPES)
        await pilot.press("up")
        await until(pilot, lambda: "c hindsight chain ✓" in visible(app))
        if size[0] >= 80:
            await until(pilot, lambda: "✓ needs 4 prompts with scored answers, has 10" in visible(app))
        await pilot.press("p")
        await until(pilot, lambda: "fit one first: m" in visible(app))
        await until(pilot, lambda: "esc cancel" in visible(app))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_what_a_recipe_is_for_is_told_to_the_end(workspace: Workspace, size: tuple[int, int]):
    """Also where something is missing, which is said first."""
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await training(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        for recipe in RECIPES:
            ending = " ".join(recipe.purpose.split()[-3:])
            await until(pilot, lambda ending=ending: ending in " ".join(visible(app).replace("│", " ").split()))
            await pilot.press("down")
        assert app.screen.query_one("OptionList", OptionList).highlighted == 0, "all of them were looked at"


async def test_a_recipe_that_lacks_something_says_what_to_do(
    workspace: Workspace, database: Database, commands: list[list[str]]
):
    feedback(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await training(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        await pilot.press("s")
        await until(pilot, lambda: "✕ needs 8 demonstrations or edits, has 0: correct answers with e" in visible(app))
        await pilot.press("enter")
        await pilot.press("p")
        await until(pilot, lambda: "fit one first: m in this list" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
    assert not commands


async def test_a_letter_chooses_a_recipe_and_escape_goes_back_to_the_list(
    workspace: Workspace, database: Database, commands: list[list[str]]
):
    feedback(database)
    name = reward_model(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await training(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        await pilot.press("q")
        await until(pilot, lambda: "Start training: ILQL" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        await pilot.press("g")
        await until(
            pilot, lambda: f"(needs a reward model, has {name}; no prompts are held" in " ".join(visible(app).split())
        )
        await pilot.press("enter")
        await until(pilot, lambda: commands)
    (job,) = jobs.every(database)
    assert (job.kind, job.config["ppo"]["advantage"]) == ("grpo", "grpo")


async def test_what_is_wrong_is_said_below_the_field_while_one_types(
    workspace: Workspace, database: Database, commands: list[list[str]]
):
    feedback(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await training(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("tab", "tab", "tab", "1", "3")
        await until(pilot, lambda: "✕ batch: minibatch 8 does not divide batch 13; say 16" in visible(app))
        lines = visible(app).splitlines()
        (place,) = [n for n, line in enumerate(lines) if "✕ batch" in line]
        assert "answers a round" in lines[place - 1]
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, FormDialog)
        await pilot.press("backspace", "6")
        await until(pilot, lambda: "✕ batch" not in visible(app))
    assert not commands


async def test_a_control_is_asked_for_in_the_form_and_told_while_it_runs(
    workspace: Workspace, database: Database, commands: list[list[str]]
):
    feedback(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await training(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        await until(pilot, lambda: "0: as long as the rated answers" in visible(app))
        assert "esc cancel" in visible(app)  # the keys are not pushed off the screen
        await pilot.press("shift+tab")
        await pilot.press(*["backspace"] * 4, *"shufled")
        await until(pilot, lambda: "✕ control: want one of none, shuffled, constant" in visible(app))
        await pilot.press("backspace", "backspace", "backspace", *"fled", "enter")
        await until(pilot, lambda: commands)
        (job,) = jobs.every(database)
        assert job.config["control"] == "shuffled"
        await until(pilot, lambda: "(control: shuffled ratings)" in visible(app))


def test_a_worker_that_dies_without_a_word_is_reported(
    workspace: Workspace, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    trainers = Trainers(workspace)
    job = trainers.enqueue(database, "run", {}, 3)
    trainers.spawn(job)
    trainers.started[job.id].wait()
    problem = trainers.reap(database)
    assert problem is not None
    assert "exit code 1" in problem.message
    assert (job.log or "?") in problem.hint
    assert trainers.reap(database) is None


async def test_what_hindsight_would_learn_from_is_shown_word_for_word_before_it_starts(
    workspace: Workspace, database: Database
):
    feedback(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        await training(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, RecipeForm))
        field = app.screen.query_one("#field-hindsight-levels", Input)
        field.value = "x"
        await pilot.press("alt+e")
        await until(pilot, lambda: "want a whole number" in visible(app))
        field.value = "2"
        await pilot.press("alt+e")
        await until(pilot, lambda: isinstance(app.screen, TrainerSheet))
        await until(pilot, lambda: "hindsight learns from" in visible(app), seconds=60)
        await until(pilot, lambda: " of 2" in visible(app) and "Answer so that a rater gives it" in visible(app))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, RecipeDialog) and "alt+e examples" in visible(app))
        place = app.screen.query_one(OptionList).highlighted
        judge = next(n for n, recipe in enumerate(RECIPES) if not recipe.method.learns)
        app.screen.query_one(OptionList).highlighted = judge
        await until(pilot, lambda: "alt+e examples" not in visible(app))  # nothing is learned from
        app.screen.query_one(OptionList).highlighted = place
        await until(pilot, lambda: "alt+e examples" in visible(app))
        await pilot.press("alt+e")
        await until(pilot, lambda: isinstance(app.screen, TrainerSheet))
    assert not jobs.every(database)


def test_settings_are_written_as_toml():
    config = {"model": 'C:\\a "b" 你', "ppo": {"steps": 4, "learning_rate": 1e-05}, "publish": True}
    assert tomllib.loads(toml(config)) == config
