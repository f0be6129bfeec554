"""What each screen looks like, as text, at three sizes: kept beside the tests, and compared character by character.

To take them anew after a change that is meant: RENEW_SNAPSHOTS=1 python -m pytest tests/workbench/test_app_pictures.py
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest
from driving import opened, ready, until, visible

from docs import pictures
from docs.invented import RATER, furnish
from docs.pictures import ask
from storage import clock
from storage.database import open_database
from storage.workspace import Workspace
from workbench.screens import PLACES
from workbench.shell.app import WorkbenchApp
from workbench.widgets.plots import Picture

KEPT = Path(__file__).parent / "snapshots"
SIZES = [(40, 12), (80, 24), (120, 40)]
SCREENS = {
    "prompt": "f1", "review": "f2", "train": "f3", "insight": "f4", "library": "f5", "opened": "end enter",
    "versions": "f6", "help": "f12", "settings": "f7",
}  # fmt: skip
TIMES = re.compile(r"\d{4}-\d\d-\d\d|(\d\d)?:\d\d(:\d\d)?")
JOBS = re.compile(r"(?<= )[0-9a-f]{8}(?= )")


@pytest.fixture
def keys_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are the same in each run: what stands left and what right depends on them."""
    count = itertools.count(1)
    monkeypatch.setattr(clock, "new_id", lambda: f"00000000-0000-7000-8000-{next(count):012x}")


def drawn(app: WorkbenchApp) -> bool:
    return all(plot.drawn == plot.wanted for plot in app.screen.query(Picture)) and app.looking.seen is not None


async def settled(pilot, app: WorkbenchApp) -> str:  # type: ignore[no-untyped-def]
    """The screen when it has stopped moving: the same ten looks long."""
    before, same = "", 0
    while same < 10:
        await until(pilot, lambda: drawn(app))
        await pilot.pause(0.05)
        now = visible(app)
        before, same = now, same + 1 if now == before else 0
    return before


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_screen_looks_as_it_did(tmp_path: Path, keys_in_order: None, size: tuple[int, int]) -> None:
    workspace = Workspace(tmp_path / "dialects").prepare()
    with open_database(workspace) as database:
        furnish(database)
    app = WorkbenchApp(workspace, start_engine=False)
    differ = []
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        assert app.desk is not None
        app.update_session(rater=RATER, seed=7)
        app.desk.rater = RATER
        ready(app, "v2")
        await ask(app, pilot)
        for name, key in SCREENS.items():
            await pilot.press(*key.split())
            shown = TIMES.sub(lambda found: "-" * len(found[0]), await settled(pilot, app))
            shown = JOBS.sub("-" * 8, shown)
            lines = "\n".join(line.rstrip() for line in shown.split("\n")) + "\n"
            file = KEPT / f"{name}-{size[0]}x{size[1]}.txt"
            if os.environ.get("RENEW_SNAPSHOTS"):
                file.parent.mkdir(exist_ok=True)
                file.write_text(lines, encoding="utf-8")
            elif lines != file.read_text(encoding="utf-8"):
                differ.append(f"{file.name} is now:\n{lines}")
            if name in ("help", "settings"):
                await pilot.press("escape")
                await until(pilot, lambda: len(app.screen_stack) == 1)
    assert not differ, "\n".join(differ)


def test_the_page_of_pictures_shows_every_screen_at_three_sizes() -> None:
    """To draw them anew: python -m docs.pictures"""
    root = Path(pictures.__file__).parents[1]
    told = (root / pictures.PAGE).read_text(encoding="utf-8")
    assert told == pictures.page()
    shown = re.findall(r"\((screenshots/\S+)\)", told)
    assert len(shown) == len(set(shown)) == 3 * len(pictures.PICTURED)
    assert all((root / "docs" / name).stat().st_size > 1000 for name in shown)
    assert {place.name for place in PLACES} <= pictures.PICTURED.keys()
