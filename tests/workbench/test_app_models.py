"""Choosing the model in the app: from what is bundled, local and used before, a path or a hub name."""

from __future__ import annotations

from pathlib import Path

import pytest
from driving import opened, type_text, until, visible, with_engine
from fake_talk import FakeEngine

from storage import versions
from storage.database import Database
from storage.workspace import Workspace
from trainer.policy.models.bundles import BUNDLES
from workbench.cli import cli
from workbench.engine.status import EngineStatus
from workbench.shell import models, session
from workbench.shell.app import WorkbenchApp
from workbench.shell.follow import Follower


def test_the_bundled_models_are_those_of_the_trainer():
    assert {name: bundle.packages[0] for name, bundle in BUNDLES.items()} == models.BUNDLED


async def test_a_model_is_chosen_remembered_and_kept_where_another_cannot_be_loaded(
    workspace: Workspace, database: Database, fake: FakeEngine, tiny_model: Path
):
    local = workspace.models / "mine"
    local.symlink_to(tiny_model)
    app = WorkbenchApp(workspace, model=str(tiny_model), start_engine=False)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await with_engine(pilot, fake)
        assert fake.heard("load")[-1]["model"] == str(tiny_model)
        await pilot.press("alt+m")
        await until(pilot, lambda: "smollm2" in visible(app) and "in this workspace" in visible(app))
        await until(pilot, lambda: "gemma" in visible(app))
        await type_text(pilot, "mine")
        await until(pilot, lambda: "gemma" not in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: fake.heard("load")[-1]["model"] == str(local) and app.engine.model == str(local))
        await until(pilot, lambda: models.choices(database, workspace)[2:] != [] and app.model == str(local))
        app.follow(False)
        app.update_session(pinned="v7")
        fake.mood(load="fail")
        await pilot.press("alt+m")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await type_text(pilot, "owner/none")
        await until(pilot, lambda: "a path or a hub name, as typed" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: fake.heard("load")[-1]["model"] == "owner/none")
        await until(pilot, lambda: app.session.model == str(local) and app.engine.is_ready)
        await until(pilot, lambda: "goes on answering" in visible(app))
        assert (app.session.follow, app.session.pinned) == (False, "v7"), "what was pinned goes on answering"
        fake.mood()
        models.use(app, str(tiny_model))
        await until(pilot, lambda: app.model == str(tiny_model) and app.session.follow)
        assert app.session.pinned == ""
        models.use(app, str(local))
        await until(pilot, lambda: app.model == str(local))
    assert session.load(database).model == str(local)
    known = {one.reference: one.about for one in models.choices(database, workspace)}
    assert known.pop("gemma").startswith("bundled")
    assert known.pop("smollm2") == "bundled; English above all"
    assert known == {str(local): "in this workspace", str(tiny_model): "used before"}
    again = WorkbenchApp(workspace, start_engine=False)
    async with again.run_test() as pilot:
        await opened(pilot)
        assert again.session.model == str(local)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_new_workspace_offers_the_model_of_many_languages_where_it_is_installed(
    tmp_path: Path, monkeypatch, size
):
    monkeypatch.setattr(models, "is_installed", lambda name: True)
    app = WorkbenchApp(Workspace(tmp_path / "new"), start_engine=False)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "m answer with gemma: many languages" in visible(app))
        await until(pilot, lambda: "look around meanwhile" in visible(app))
        assert app.session.model == "smollm2"
        await pilot.press("m")
        await until(pilot, lambda: "answer with gemma" not in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 1)
    again = WorkbenchApp(app.workspace, start_engine=False)
    async with again.run_test() as pilot:
        await opened(pilot)
        assert again.session.model == "gemma"


async def test_a_new_workspace_offers_no_model_that_is_not_installed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(models, "is_installed", lambda name: False)
    app = WorkbenchApp(Workspace(tmp_path / "new"), start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.desk is not None)
        await pilot.press("m")
        await opened(pilot)
        assert app.session.model == "smollm2"
        assert "answer with" not in visible(app)


def test_what_is_served_of_another_model_is_not_followed(database: Database):
    class Swaps:
        def __init__(self) -> None:
            self.followed: list[str] = []

        def follow(self, name: str) -> None:
            self.followed.append(name)

    follower = Follower()
    follower.supervisor = swaps = Swaps()  # type: ignore[assignment]
    follower.served = versions.ensure_base(database, "smollm2", "a" * 64)
    follower.follow(EngineStatus("ready", base="b" * 64))
    assert not swaps.followed
    follower.follow(EngineStatus("ready", base="a" * 64))
    assert swaps.followed == ["v0"]


def test_the_app_takes_a_model(tmp_path: Path, monkeypatch):
    opened_with = []
    monkeypatch.setattr("workbench.cli.open_app", lambda *given: opened_with.append(given) or 0)
    cli.main(["--workspace", str(tmp_path), "--model", "owner/one"], standalone_mode=False)
    assert opened_with == [(Workspace(tmp_path), "owner/one")]
