"""The app with a real engine process: a tiny random model answers, is swapped, dies and comes back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from driving import opened, type_text, until, visible
from tiny_model import make_adapter, make_tiny_model

from storage import conversations, jobs, samples, versions
from storage.database import Database
from storage.feedback import log
from storage.records import Sampling, Split
from storage.workspace import Workspace
from workbench.shell.app import WorkbenchApp

SLOW = 240.0
ENDLESS = 30_000  # tokens: on a busy machine an answer must not end before a key is heard


@pytest.fixture(scope="module")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "endless", ends=False, context=ENDLESS + 1000)


@pytest.fixture
def app(workspace: Workspace, endless_model: Path) -> WorkbenchApp:
    return WorkbenchApp(workspace, model=str(endless_model))


async def loaded(pilot, app: WorkbenchApp, tokens: int) -> None:  # type: ignore[no-untyped-def]
    await opened(pilot)
    app.update_session(sampling=Sampling(max_new_tokens=tokens), seed=3)
    await until(pilot, lambda: app.engine.state == "ready", SLOW)


async def test_ask_publish_swap_ask(workspace: Workspace, database: Database, endless_model: Path, app: WorkbenchApp):
    async with app.run_test(size=(100, 30)) as pilot:
        await loaded(pilot, app, 12)
        await type_text(pilot, "why")
        await pilot.press("enter")
        await until(pilot, lambda: len(samples.recent(database)) == 2, SLOW)
        base = versions.served(database)
        assert base is not None
        file = make_adapter(workspace.versions / "v1", endless_model)
        versions.add_candidate(
            database, base=base, parent="v0", file=str(file.relative_to(workspace.root)),
            sha256=versions.sha256_of(file), metrics={"reward_gain": 0.3, "kl": 2.0},
        )  # fmt: skip
        versions.publish(database, workspace, "v1")
        await until(pilot, lambda: app.engine.version == "v1", SLOW)
        await until(pilot, lambda: "v0 → v1  reward +0.30  KL 2.0" in visible(app))
        await type_text(pilot, "why")
        await pilot.press("enter")
        await until(pilot, lambda: len(samples.recent(database)) == 4, SLOW)
        newest = samples.recent(database, 4)
        assert [sample.version for sample in newest] == ["v1", "v1", "v0", "v0"]
        assert {sample.seed for sample in newest} == {3, 4}
        assert newest[1].text != newest[3].text  # same prompt, same seed, other weights


async def test_escape_stops_a_long_answer_at_once(database: Database, app: WorkbenchApp):
    async with app.run_test(size=(100, 30)) as pilot:
        await loaded(pilot, app, ENDLESS)
        await type_text(pilot, "long")
        await pilot.press("enter")
        await until(pilot, lambda: app.engine.state == "writing", SLOW)
        await pilot.press("escape")
        await until(pilot, lambda: len(samples.recent(database)) == 2, SLOW)
        assert {sample.finish_reason for sample in samples.recent(database)} == {"cancelled"}
        assert app.engine.state == "ready"


async def test_a_killed_engine_comes_back_and_answers_what_was_asked(database: Database, app: WorkbenchApp):
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await loaded(pilot, app, ENDLESS)
        await type_text(pilot, "again")
        await pilot.press("enter")
        await until(pilot, lambda: app.engine.state == "writing", SLOW)
        assert app.supervisor is not None
        assert app.supervisor.pid is not None
        os.kill(app.supervisor.pid, signal.SIGKILL)
        await until(pilot, lambda: "starting it again" in visible(app))
        await until(pilot, lambda: app.engine.state == "writing", SLOW)
        await pilot.press("escape")
        await until(pilot, lambda: len(samples.recent(database)) == 2, SLOW)


async def test_a_model_that_is_not_there_is_explained(workspace: Workspace, tmp_path: Path):
    app = WorkbenchApp(workspace, model=str(tmp_path / "nothing"))
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await opened(pilot)
        await until(pilot, lambda: app.engine.state == "down", SLOW)
        await until(pilot, lambda: "engine down" in visible(app) and "nothing" in visible(app))


@pytest.mark.timeout(900)  # the trainer lets everything else go first, and a busy machine has much
async def test_rate_train_and_read_the_verdict(database: Database, app: WorkbenchApp):
    """The loop with the real trainer as its own process; a random model need not pass the gate."""
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await loaded(pilot, app, 8)
        for n in range(24):
            prompt = conversations.add(
                database, f"¿Cuánto es {n}?", language="es", split=Split.HELD_OUT if n % 3 == 0 else Split.TRAIN
            )
            good, bad = (samples.new(prompt.id, text, version="v0", finish_reason="eos") for text in ("azul", "no no"))
            samples.add(database, [good, bad])
            log.append(database, log.score(good.id, 5, "rater"))
            log.append(database, log.score(bad.id, 1, "rater"))
        await pilot.press("f3")
        await until(pilot, lambda: "48 ratings" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: "w whole pipeline  ✓ needs 20 examples, has 32" in visible(app))  # less the held-out
        await pilot.press("w")
        await until(pilot, lambda: "rounds of rollouts" in visible(app))
        await pilot.press("backspace", "backspace", "2", "enter")
        await until(pilot, lambda: app.trainer.state == "training", SLOW)
        await until(pilot, lambda: jobs.every(database)[0].state == "done", 2 * SLOW)
        await until(
            pilot, lambda: "training is done: v1" in visible(app) and "last run whole pipeline: v1" in visible(app)
        )
        await until(pilot, lambda: "reward, by language" in visible(app))
        assert [version.name for version in versions.every(database)] == ["v1", "v0"]
