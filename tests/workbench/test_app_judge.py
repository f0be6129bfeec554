"""The AI judge from Train: with a real local model, and with an endpoint that hangs until the job is cancelled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from driving import opened, until, visible
from endpoint import KEY, Endpoint, Reply, completion

from storage import conversations, jobs, metrics, samples
from storage.database import Database
from storage.feedback import log
from storage.records import Job, JobState, Rating, Source, Split
from storage.workspace import Workspace
from workbench.screens.train.screen import TrainScreen
from workbench.screens.train.start import RecipeDialog
from workbench.shell.app import WorkbenchApp
from workbench.widgets.dialogs import FormDialog

SLOW = 240.0  # seconds: a process that imports torch, on a busy machine


@pytest.fixture
def answers(database: Database) -> None:
    """Prompts in two languages with two answers each; of the first of them a person has scored one answer."""
    for language, count in (("en", 6), ("sw", 4)):
        for number in range(count):
            prompt = conversations.add(database, f"{language} {number}?", language=language, split=Split.TRAIN)
            made = [samples.new(prompt.id, f"{language} {number} {word}") for word in ("one two", "three")]
            samples.add(database, made)
            if number < 3:
                log.append(database, log.score(made[0].id, 2 + number, "ana"))


async def form(pilot: Any, **typed: str) -> None:
    """Open the judge's form from Train and fill fields by the last part of their names."""
    app = await opened(pilot)
    await pilot.press("f3")
    await until(pilot, lambda: isinstance(app.screen, TrainScreen) and getattr(app.screen, "view", None) is not None)
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, RecipeDialog))
    await pilot.press("a")
    await until(pilot, lambda: isinstance(app.screen, FormDialog) and "Start: AI judge" in visible(app))
    for name, value in typed.items():
        section = "" if name == "model" else "judge-"
        app.screen.query_one(f"#field-{section}{name}").value = value  # type: ignore[attr-defined]
    await pilot.press("enter")


def newest(database: Database) -> Job:
    return jobs.every(database, 1)[0]


def said_by(database: Database, rater: str) -> list[Rating]:
    return log.effective(database, rater=rater)


@pytest.mark.timeout(600)
async def test_a_local_model_rates_what_nobody_has_and_the_screen_tells_what_came_of_it(
    workspace: Workspace, database: Database, answers: None, tiny_model: Path
) -> None:
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await form(pilot, model=str(tiny_model), limit="12", kind="both")
        await until(pilot, lambda: jobs.every(database, 1), SLOW)
        await until(pilot, lambda: newest(database).state is JobState.DONE, SLOW)
        await until(pilot, lambda: "last run AI judge: ai:tiny judged 6 pairs, 12 scores" in visible(app))
        assert "ratings weigh 0.09 in a reward model" in " ".join(visible(app).split())
        await until(pilot, lambda: "prefers what stands first" in visible(app))
        assert "learns from" not in visible(app)
        header = visible(app).splitlines()[0]
        assert "6 rated" in header
        assert "18 by AI" in header
    job, said = newest(database), said_by(database, "ai:tiny")
    assert (job.kind, job.state, job.step, job.steps) == ("judge", JobState.DONE, 18, 18)
    assert {rating.source for rating in said} == {Source.AI}
    assert len(said) == 18, "12 that nobody had rated, and the 6 that a person had"
    assert metrics.newest(database, job.id, "judge/items") == 18


@pytest.mark.timeout(600)
async def test_an_endpoint_that_hangs_is_cancelled_with_a_key_and_the_job_goes_on_with_another(
    workspace: Workspace, database: Database, answers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was judged stays, what was spent counts on, and nothing is asked twice; the key is written down nowhere."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hangs = True

    def reply(body: dict[str, Any], number: int) -> Reply | None:
        if hangs and number > 8:
            return None
        return completion("4", {"4": math.log(0.5), "5": math.log(0.5), "x": -30.0})

    app = WorkbenchApp(workspace, start_engine=False)
    with Endpoint(reply).serving() as endpoint:
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            asked = {"endpoint": endpoint.url, "endpoint_model": "m", "kind": "answers", "limit": "0"}
            await form(pilot, calibrate="0", max_tokens_spent="1313", **asked)
            await until(pilot, lambda: "at work AI judge: judging" in visible(app), SLOW)
            await until(pilot, lambda: "8/14" in visible(app))
            await until(pilot, lambda: len(endpoint.asked) > 8)
            await pilot.press("c")
            await until(pilot, lambda: newest(database).state is JobState.PAUSED, 60)
            assert len(said_by(database, "ai:m")) == 8
            hangs = False
            endpoint.over.set()
            before = len(endpoint.asked)
            await until(pilot, lambda: "r resume" in visible(app))
            await pilot.press("r")
            await until(pilot, lambda: newest(database).state is JobState.DONE, SLOW)
            job, said = newest(database), said_by(database, "ai:m")
            told = f"AI judge: ai:m judged {len(said)} scores, with {101 * len(said)} tokens; stopped, {14 - len(said)}"
            await until(pilot, lambda: told in " ".join(visible(app).split()))
    assert job.result is not None
    assert job.result["tokens"]["total"] == 101 * len(said) <= 1313, "what the first attempt spent counts"
    assert len(endpoint.asked) - before == len(said) - 8 > 0
    assert endpoint.keys == {f"Bearer {KEY}"}
    assert {rating.value for rating in said_by(database, "ai:m")} == {4.5}
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert any(path.parent == workspace.logs for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
