"""Files and packs from the Library: an import after a look at what it does, one that is stopped, an export, packs."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest
from driving import SIZES, opened, type_text, until, visible
from textual.pilot import Pilot
from textual.widgets import Input

from storage import conversations, unfinished
from storage.database import Database
from storage.exchange.importing import import_file
from storage.feedback import log
from storage.workspace import Workspace
from workbench.screens.library.exchanging import PreviewDialog
from workbench.screens.library.screen import LibraryScreen
from workbench.shell.app import WorkbenchApp
from workbench.widgets.dialogs import FormDialog
from workbench.widgets.progress import ProgressDialog, Watch


async def shelves(pilot: Pilot[None]) -> LibraryScreen:
    app = await opened(pilot)
    await pilot.press("f5")
    await until(pilot, lambda: isinstance(app.screen, LibraryScreen))
    assert isinstance(app.screen, LibraryScreen)
    return app.screen


async def fill_in(pilot: Pilot[None], name: str, text: str) -> None:
    """Write into a field of the form in front."""
    await until(pilot, lambda: isinstance(pilot.app.screen, FormDialog))
    pilot.app.screen.query_one(f"#field-{name}", Input).value = text


def words(app: WorkbenchApp) -> str:
    return " ".join(visible(app).replace("│", " ").replace("▌", " ").split())  # as it is wherever a line is broken


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_is_looked_at_before_it_is_imported(
    workspace: Workspace, database: Database, tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names are short then, and what is said of them fits into a small terminal
    good, bad = Path("good.jsonl"), Path("bad.jsonl")
    record = {"prompt": "Mto ni nini?", "response": "[/b]Maji\x1b[2J", "score": 4, "sheet": 7}
    good.write_text(json.dumps(record) + "\n" + json.dumps({"prompt": "Ziwa ni nini?"}), encoding="utf-8")
    bad.write_text(json.dumps({**record, "score": 9}), encoding="utf-8")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size, notifications=True) as pilot:
        screen = await shelves(pilot)
        await pilot.press("I")
        await fill_in(pilot, "file", "nowhere.jsonl")
        await pilot.press("enter")
        await until(pilot, lambda: "there is no such file" in words(app))
        await fill_in(pilot, "file", str(bad))
        await fill_in(pilot, "language", "swa")
        await pilot.press("enter")
        await until(pilot, lambda: "score: 9" in words(app) and "outside the" in words(app))
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        form = app.screen
        assert (form.query_one("#field-file", Input).value, form.query_one("#field-language", Input).value) == (
            str(bad), "sw",
        )  # fmt: skip
        await fill_in(pilot, "file", str(good))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PreviewDialog) and "2 records" in words(app))
        if size[1] > 12:
            assert "2 records (1 prompt, 1 score)" in words(app)
            assert "line 1, read as" in words(app)
            assert "fields not read: sheet" in words(app)
            assert "\x1b[2J" not in visible(app)
        assert conversations.recent(database) == [], "nothing is stored by looking"
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PreviewDialog))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen and len(screen.shelf) == 2)
        await until(pilot, lambda: "saved ✓ 2 records" in words(app))
    (rating,) = log.effective(database)
    assert (rating.value, rating.rater) == (4, "import")
    assert {one.language for one in conversations.recent(database)} == {"sw"}


async def test_an_import_that_is_stopped_leaves_nothing_and_can_be_begun_again(
    workspace: Workspace, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"question {n}", "language": "en"}) for n in range(20_000)))
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await shelves(pilot)
        await pilot.press("I")
        await fill_in(pilot, "file", str(file))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PreviewDialog), 60)
        seen, told = threading.Event(), Watch.told

        def told_and_held_up(watch: Watch, doing: str, done: int, of: int) -> None:
            told(watch, doing, done, of)
            assert not of or seen.wait(60), "a quick machine is through before anyone looks"

        monkeypatch.setattr(Watch, "told", told_and_held_up)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ProgressDialog) and " of 20000 records" in words(app), 60)
        await pilot.press("escape")
        seen.set()
        await until(pilot, lambda: app.screen is screen, 60)
        await until(pilot, lambda: "stopped: nothing was imported" in words(app))
        assert app.saver.pending == [], "what was stopped is not tried again"
    assert unfinished.find(database) is None
    assert database.scalar("SELECT count(*) FROM main.prompts") == 0


async def test_an_export_stands_beside_its_manifest_and_packs_are_added_once(
    workspace: Workspace, database: Database
) -> None:
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await shelves(pilot)
        await until(pilot, lambda: "No prompt yet" in words(app))
        for new in ("8 prompts are new, of 8", "0 prompts are new, of 8"):
            await pilot.press("P")
            await until(pilot, lambda: "every language and task" in words(app))
            await type_text(pilot, "sw/sum")
            await until(pilot, lambda: "sw/summary" in words(app) and "sw/dialogue" not in words(app))
            await pilot.press("enter")
            await until(pilot, lambda new=new: new in words(app))  # type: ignore[misc]
            await until(pilot, lambda: len(screen.shelf) == 8)
        file = workspace.exports / "prompts.jsonl"
        for replaces in (False, True):
            await pilot.press("E")
            await fill_in(pilot, "kind", "prompts")
            await pilot.press("enter")
            if replaces:
                await until(pilot, lambda: "Replace the file?" in words(app))
                file.write_text("of before")
                await pilot.press("enter")
            await until(pilot, lambda: app.screen is screen and "written ✓ 8 records" in words(app))
            await until(pilot, lambda: file.read_text(encoding="utf-8").count("\n") == 8)
        manifest = json.loads(file.with_name("prompts.jsonl.manifest.json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert (manifest["sha256"], manifest["languages"]) == (digest, {"sw": 8})
        assert digest[:16] in words(app)
    assert import_file(database, str(file)).already == 8
