"""Train: choosing runs and seeing them beside each other."""

from __future__ import annotations

from typing import Any

import pytest
from driving import SIZES, opened, served_base, until, visible

from storage import jobs, metrics
from storage.database import Database
from storage.records import Job
from storage.workspace import Workspace
from workbench.screens.train.comparing import ComparisonSheet, JobsDialog
from workbench.shell.app import WorkbenchApp
from workbench.widgets.plots import CurvePlot


def run_of(database: Database, seed: int, gain: float, rate: float = 1e-4, **more: Any) -> Job:
    queued = jobs.enqueue(database, "ppo", {"seed": seed, "ppo": {"learning_rate": rate, "advantage": "gae"}} | more)
    job = jobs.claim(database, "test", job_id=queued.id)
    assert job is not None
    for step in range(1, 6):
        metrics.record(database, job.id, step, {("objective/scores", None): gain * step, ("objective/kl", None): step})
    result = {"version": f"v{seed}", "state": "published", "reward_gain": gain, "held_out_prompts": 40, "kl": 3.0,
              "reward_gain_interval": [gain - 0.1, gain + 0.1]}  # fmt: skip
    jobs.finish(database, job, result)
    return jobs.get(database, job.id)


async def choosing(pilot) -> WorkbenchApp:  # type: ignore[no-untyped-def]
    app = await opened(pilot)
    await pilot.press("f3")
    await until(pilot, lambda: "last run" in visible(app))
    await pilot.press("v")
    await until(pilot, lambda: isinstance(app.screen, JobsDialog))
    return app


@pytest.mark.parametrize("size", SIZES)
async def test_chosen_runs_are_seen_beside_each_other(workspace: Workspace, database: Database, size: tuple[int, int]):
    served_base(database)
    run_of(database, 0, 0.2)
    run_of(database, 1, 0.4)
    run_of(database, 0, 0.7, rate=3e-4)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await choosing(pilot)
        await pilot.press("space", "down", "space", "down", "space", "enter")
        await until(pilot, lambda: isinstance(app.screen, ComparisonSheet) and "reward gain" in visible(app))
        plots = [plot for plot in app.screen.query(CurvePlot) if app.screen.query_one("#curves").display]
        if size == (40, 12):
            assert plots == []
            await pilot.press("end")
            await until(pilot, lambda: "KL to reference" in visible(app))
        else:
            assert len(plots) == 2
            shown = visible(app)
            assert "reward gain +0.70 [+0.60, +0.80] over 40 prompts" in shown
            assert "reward gain +0.30 [-0.97, +1.57] over 2 seeds" in shown
            assert "seeds pooled: 1, 0" in shown
            assert "ppo.learning_rate  a 0.0003  b 0.0001" in shown
            await until(pilot, lambda: all(plot.drawn for plot in plots))
            await pilot.press("end")
            await until(pilot, lambda: "a 3.5  b 2, 1" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_one_run_is_no_comparison(workspace: Workspace, database: Database):
    served_base(database)
    run_of(database, 0, 0.2)
    run_of(database, 1, 0.4, control="shuffled [/b] \x1b[31m")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await choosing(pilot)
        await until(pilot, lambda: "control: shuffled [/b] ␛[31m" in visible(app))
        await pilot.press("space", "enter")
        await until(pilot, lambda: "choose two runs or more" in visible(app))
        await pilot.press("space", "down", "space", "up", "enter")
        await pilot.pause(0.1)
        assert isinstance(app.screen, JobsDialog)
        await pilot.press("space", "enter")
        await until(pilot, lambda: "⊘ control: shuffled [/b]" in visible(app))


async def test_where_there_is_one_run_only_it_is_said(workspace: Workspace, database: Database):
    served_base(database)
    run_of(database, 0, 0.2)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: "last run" in visible(app))
        await pilot.press("v")
        await until(pilot, lambda: "there are no two runs yet" in visible(app))


async def test_a_broken_row_is_told_and_the_app_goes_on(workspace: Workspace, database: Database):
    served_base(database)
    job = run_of(database, 0, 0.2)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: "last run" in visible(app))
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute("UPDATE jobs SET config = '{' WHERE id = ?", (job.id,))
        await until(pilot, lambda: "cannot be read" in visible(app))
        await pilot.press("v")
        await pilot.press("f1")
        await until(pilot, lambda: app.current_mode == "prompt" and "Ask something" in visible(app))
        database.execute("UPDATE jobs SET config = '{}' WHERE id = ?", (job.id,))
        await pilot.press("f3")
        await until(pilot, lambda: "last run" in visible(app))
