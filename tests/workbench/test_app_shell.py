"""Around the screens: first run, help, palette, themes, remapped keys, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from driving import SIZES, opened, ready, until, visible

from storage import conversations, samples, versions
from storage.database import open_database
from storage.errors import UsageError
from storage.feedback import log
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.engine.status import EngineStatus
from workbench.screens.first_run.screen import FirstRunScreen
from workbench.screens.help.screen import HelpScreen
from workbench.shell.app import WorkbenchApp
from workbench.shell.bars import Bar


@pytest.mark.parametrize("size", SIZES)
async def test_a_new_workspace_shows_what_is_prepared_and_lets_you_look_around(workspace: Workspace, size):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen) and app.desk is not None)
        app.hear(protocol.Progress("convert", "tensors", 0.41))
        await until(pilot, lambda: "41%" in visible(app) and "▸ read the model" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await until(pilot, lambda: "converting 41%" in visible(app).splitlines()[0])
    again = WorkbenchApp(workspace, start_engine=False)
    async with again.run_test(size=size) as pilot:
        await until(pilot, lambda: again.desk is not None)
        assert not isinstance(again.screen, FirstRunScreen)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("key", "word"),
    [("f1", "write"), ("f2", "skip"), ("f3", "start"), ("f4", "figure"), ("f5", "filter"), ("f6", "publish")],
)
async def test_every_screen_keeps_keys_and_focus_at_every_size(workspace: Workspace, size, key: str, word: str):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press(key)
        await pilot.pause(0.1)
        lines = visible(app).splitlines()
        assert "help" in lines[-1]
        assert all(len(line) <= size[0] for line in lines)
        if size[0] >= 80:
            assert "f1 Prompt   f2 Review   f3 Train   f4 Insight   f5 Library   f6 Versions" in lines[1]
        assert len(list(app.screen.walk_children())) < 60


async def test_help_is_about_the_screen_in_front(workspace: Workspace):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f2", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await until(pilot, lambda: "The left answer is better" in visible(app) and "Keys · Review" in visible(app))
        assert "Start training" not in visible(app)
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_the_palette_finds_actions_of_the_registry(workspace: Workspace):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Search for commands" in visible(app))
        await pilot.press(*"versions")
        await until(pilot, lambda: "Go to Versions" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "versions")


async def test_the_theme_is_remembered(workspace: Workspace):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for theme in sorted(app.available_themes):
            app.theme = theme  # every theme has the colours that we use
            await pilot.pause()
        app.theme = "workbench-light"
        await pilot.pause()
    again = WorkbenchApp(workspace, start_engine=False)
    async with again.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert again.theme == "workbench-light"


async def test_without_colours_the_states_are_still_told(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        ready(app)
        await until(pilot, lambda: "● SmolLM2 v0" in visible(app))


async def test_a_remapped_key_is_used_and_shown(workspace: Workspace):
    (workspace.root / "keymap.toml").write_text('"app.show-train" = "f9"\n"app.help" = "f10"\n', encoding="utf-8")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "f10 help" in visible(app).splitlines()[-1]
        await pilot.press("f3")
        await pilot.pause(0.1)
        assert app.current_mode == "prompt"
        await pilot.press("f9")
        await until(pilot, lambda: app.current_mode == "train")


def test_a_wrong_keymap_is_refused_before_the_app_starts(workspace: Workspace):
    (workspace.root / "keymap.toml").write_text('"review.skip" = "u"', encoding="utf-8")
    with pytest.raises(UsageError, match=r"keymap\.toml: review\.skip"):
        WorkbenchApp(workspace)


async def test_a_damaged_database_is_told_and_nothing_is_lost(workspace: Workspace):
    workspace.database.write_bytes(b"this is no database, but somebody's file" * 100)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "is damaged" in visible(app))
        await pilot.press(*"kept")
        await pilot.press("enter")
        await until(pilot, lambda: "your prompt stays here" in visible(app) and "kept" in visible(app))
    assert workspace.database.read_bytes().startswith(b"this is no database")


def test_pictures_of_the_loop_are_of_a_workspace_that_went_through_it(workspace: Workspace, tmp_path: Path):
    from docs.invented import furnish
    from docs.pictures import LOOP_RATED, take_loop

    with pytest.raises(UsageError, match="no workspace"):
        take_loop(Workspace(tmp_path / "nowhere"), tmp_path, start_engine=False)
    with open_database(workspace) as database:
        furnish(database)
        with pytest.raises(UsageError, match="has 11 ratings"):
            take_loop(workspace, tmp_path, start_engine=False)
        prompt = conversations.add(database, "Why?", language="en")
        more = [samples.new(prompt.id, f"answer {n}", version="v0") for n in range(LOOP_RATED)]
        samples.add(database, more)
        for sample in more:
            log.append(database, log.score(sample.id, 3, "rater"))
        with pytest.raises(UsageError, match="serves no version that was compared"):
            take_loop(workspace, tmp_path, start_engine=False)
        versions.serve(database, "v2")
    table, answers = (path.read_text(encoding="utf-8") for path in take_loop(workspace, tmp_path, start_engine=False))
    assert "51&#160;rated" in table
    assert "glacier" in answers
    assert "before" in answers


def test_pictures_of_every_screen(tmp_path: Path):
    from docs.pictures import PICTURED, take
    from docs.pictures import SIZES as DRAWN

    written = take(tmp_path)
    assert {path.stem for path in written} == {f"{name}-{w}x{h}" for name in PICTURED for w, h in DRAWN}
    for path in written:
        assert path.read_text(encoding="utf-8").startswith("<svg")
    assert "bidi-override" in (tmp_path / "library-80x24.svg").read_text(encoding="utf-8")
    assert "glacier" in (tmp_path / "train-120x40.svg").read_text(encoding="utf-8")


async def test_a_bar_is_painted_when_it_has_something_else_to_tell(workspace: Workspace, monkeypatch):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f2")
        await until(pilot, lambda: "Nothing waits" in visible(app))
        await pilot.pause(0.5)
        painted: list[str] = []
        refresh = Bar.refresh

        def noted(bar: Bar, *regions: Any, **more: Any) -> Bar:
            painted.append(type(bar).__name__)
            return refresh(bar, *regions, **more)

        monkeypatch.setattr(Bar, "refresh", noted)
        app.refresh_bars()
        app.screen.refresh_bindings()
        await pilot.pause(0.1)
        assert not painted
        app.engine = EngineStatus("down")
        app.refresh_bars()
        assert painted == ["HeaderBar"]
        await until(pilot, lambda: "engine down" in visible(app))
        await pilot.press("f1")
        await until(pilot, lambda: "send" in visible(app).splitlines()[-1])
        assert "engine down" in visible(app).splitlines()[0]
