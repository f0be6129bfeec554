"""Insight: figures are chosen, read, drawn, saved and followed to their versions by keys, whatever they hold."""

from __future__ import annotations

import csv
import shutil

import pytest
from driving import SIZES, opened, ready, until, visible
from textual.pilot import Pilot

from docs.pictures import furnish
from storage import clock, conversations, evaluations, samples, versions
from storage.database import Database
from storage.feedback import log
from storage.insight import FIGURES
from storage.insight.figure import Figure, Found, Plot, Point, Series, Table
from storage.records import Choice, Evaluation
from storage.workspace import Workspace
from workbench.screens.insight import screen, told
from workbench.screens.insight.screen import InsightScreen
from workbench.screens.versions.screen import VersionsScreen
from workbench.shell.actions import NUMBERS
from workbench.shell.app import WorkbenchApp
from workbench.widgets.dialogs import SheetDialog
from workbench.widgets.figures import FigureView

NAMES = [figure.name for figure in FIGURES]


async def insight(pilot: Pilot[None]) -> InsightScreen:
    """The screen, with its first figure read."""
    app = await opened(pilot)
    ready(app, "v2")
    await pilot.press("f4")
    await until(pilot, lambda: isinstance(app.screen, InsightScreen) and app.screen.known)
    assert isinstance(app.screen, InsightScreen)
    return app.screen


async def choose(pilot: Pilot[None], shown: InsightScreen, name: str) -> None:
    """Go to a figure by keys, and wait for it."""
    for _ in FIGURES:
        if shown.figure.name == name:
            break
        await pilot.press("down")
    await until(pilot, lambda: shown.figure.name == name and name in shown.known)
    await pilot.pause()


def compared(database: Database, old: str, new: str, prompts: int) -> None:
    """Blind pairs, of which the newer version wins nine of ten."""
    for number in range(prompts):
        prompt = conversations.add(database, f"barafu {old} {new} {number}", language="ar")
        pair = [samples.new(prompt.id, f"{name} {number}", version=name, finish_reason="eos") for name in (old, new)]
        samples.add(database, pair)
        choice = Choice.A if number % 10 == 0 else Choice.B
        log.append(database, log.pair(pair[0].id, pair[1].id, choice, "ana", blind=True, shown_order="ba"))


@pytest.mark.parametrize("size", SIZES)
async def test_figures_are_chosen_and_read_by_keys(workspace: Workspace, database: Database, size: tuple[int, int]):
    furnish(database)
    compared(database, "v1", "v2", 40)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press("f3")  # its style sheet must not reach what is on Insight
        await until(pilot, lambda: app.current_mode == "train")
        shown = await insight(pilot)
        await until(pilot, lambda: "●" in visible(app) and "■v2" in visible(app))
        if size[0] >= 80:
            assert all(figure.title in visible(app) for figure in FIGURES)
        assert app.focused is shown.query_one("#chooser")
        assert (FIGURES[0].what[:30] in visible(app)) == (size[0] >= 80)
        await choose(pilot, shown, "win-rates")
        await until(pilot, lambda: "├" in visible(app) and "▲" in visible(app) and "n 40" in visible(app))
        await pilot.press("up" if NAMES.index("win-rates") else "down")
        assert shown.figure.name != "win-rates"
        await choose(pilot, shown, "win-rates")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SheetDialog) and "verdict" in _all_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is shown)
        if size[0] >= 80:
            assert "against" in visible(app), "the table stands below"
            await pilot.press("V")
            await until(pilot, lambda: isinstance(app.screen, VersionsScreen) and app.screen.selected is not None)
            assert app.screen.selected.name == "v2"  # type: ignore[attr-defined]
        else:
            assert "v version" not in visible(app), "no row is in sight"


def _all_of(app: WorkbenchApp) -> str:
    """What a sheet says, scrolled or not."""
    from workbench.widgets.table import RowTable

    return " ".join(str(column.label) for column in app.screen.query_one(RowTable).ordered_columns)


async def test_an_empty_workspace_says_what_to_do_for_every_figure_and_on_which_screen(workspace: Workspace):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        shown = await insight(pilot)
        for figure in FIGURES:
            await choose(pilot, shown, figure.name)
            await until(pilot, lambda figure=figure: f"{figure.title}: nothing to show yet." in visible(app))
            where = told.FILLED_ON.get(figure.name, ())
            assert all(f"f{NUMBERS[name]} {name.title()}" in visible(app).split("\n", 2)[2] for name in where)
            assert where or "--workspace" in visible(app), "a key, or a command and where"
            assert "E export" not in visible(app)


async def test_news_draw_the_figure_anew_and_leave_what_was_chosen(
    workspace: Workspace, database: Database, monkeypatch: pytest.MonkeyPatch
):
    furnish(database)
    monkeypatch.setattr(screen, "REST", 0)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        shown = await insight(pilot)
        await choose(pilot, shown, "win-rates")
        compared(database, "v0", "v1", 20)
        await until(pilot, lambda: "v1 over v0" in visible(app))
        await choose(pilot, shown, "frontier")
        await pilot.press("tab", "tab", "down")
        await until(pilot, lambda: shown.version == "v1")
        base = versions.get(database, "v0")
        versions.add_candidate(
            database, base=base, parent="v1", file="versions/v3.safetensors", sha256="0" * 64, step=60,
            metrics={"reward_gain": 0.5, "reward_gain_interval": [0.3, 0.7], "kl": 2.8, "held_out_prompts": 40},
        )  # fmt: skip
        await until(pilot, lambda: "v3" in visible(app))
        assert (shown.figure.name, shown.version) == ("frontier", "v1")
        assert app.focused is shown.table
        # What `trainer evaluate` measures is news as well.
        await pilot.press("tab")
        await choose(pilot, shown, "evaluation")
        measured = Evaluation(clock.new_id(), "v2", "bias", "bias", 0.3, 24, clock.now(), "ar", 0.1, 0.5)
        evaluations.add(database, [measured])
        await until(pilot, lambda: shown.found is not None and shown.found.table.rows)
        assert ("v2", "ar") in {(row[0], row[4]) for row in shown.found.table.rows}  # type: ignore[union-attr]
        await choose(pilot, shown, "frontier")
        # Of another screen, nothing is read: what stands in the figure is as it was left.
        await pilot.press("f1")
        left = shown.known["frontier"]
        versions.add_candidate(
            database, base=base, parent="v3", file="versions/v4.safetensors", sha256="0" * 64, step=80,
            metrics={"reward_gain": 0.1, "reward_gain_interval": [0.0, 0.2], "kl": 3.8, "held_out_prompts": 40},
        )  # fmt: skip
        await until(pilot, lambda: app.looking.seen is not None and app.looking.seen.versions[1] == 5)
        await pilot.pause(0.3)
        assert shown.known["frontier"] is left
        await pilot.press("f4")
        await until(pilot, lambda: "v4" in visible(app))


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that cannot be read, and one of names in many scripts."""
    point = Point(0, 0.2, 0.1, 0.3, "العربية", 12)
    series = (Series("数据", (point, Point(1, -0.2))), Series("β", (point,), "bars"))
    plot = Plot("[/bold] خطأ", "اللغة", "लाभ", series, 0.0, ("العربية\x1b[2J", "中文 (简体)"))
    found = Found(plot, Table(("language", "gain"), (("العربية", 0.2), ("中文 (简体)", None))), ("हिन्दी [/bold]",))

    def fails(database: Database) -> Found:
        raise ZeroDivisionError("no row")

    endless = Plot("Endless", "x", "y", (Series("a", (Point(-1.7e308, 1.0), Point(1.7e308, 2.0))),))
    figures = (
        Figure("odd", "Odd", "How.", fails),
        Figure("scripts", "परीक्षा", "العربية.", lambda database: found),
        Figure("endless", "Endless", "How.", lambda database: Found(endless, Table(("x",), ((1.0,),)))),
    )
    monkeypatch.setattr(screen, "FIGURES", figures)


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_a_figure_that_cannot_be_read_is_told_in_its_place_and_names_of_any_script_are_drawn(
    workspace: Workspace, odd: None, size: tuple[int, int]
):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        shown = await insight(pilot)
        await until(pilot, lambda: "✕" in visible(app) and "no row" in " ".join(visible(app).split()))
        await pilot.press("j")
        await until(pilot, lambda: "中文" in visible(app) and "ةيبرعلا" in visible(app))
        await until(pilot, lambda: "├" in visible(app) and "0.2" in visible(app))
        assert all(one.plot is not None for one in shown.query(FigureView))
        await pilot.press("j")
        await until(pilot, lambda: "✕ the program failed" in visible(app), 20)
        await pilot.press("j")
        await until(pilot, lambda: "no row" in " ".join(visible(app).split()))
        assert "OverflowError" in (workspace.logs / "errors.log").read_text()


def files(workspace: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.exports.iterdir()}


async def test_a_figure_is_written_beside_what_is_there_and_says_where(workspace: Workspace, database: Database):
    furnish(database)
    (workspace.exports / "insight-balance.csv").write_text("mine")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        shown = await insight(pilot)
        await choose(pilot, shown, "balance")
        await until(pilot, lambda: "E export" in visible(app))
        await pilot.press("E")
        await until(pilot, lambda: "insight-balance-2.csv" in visible(app) and "exports" in visible(app))
        first = files(workspace)
        made = {f"insight-balance-2.{form}" for form in ("svg", "png", "csv")}
        assert first.keys() == made | {"insight-balance.csv"}
        assert first["insight-balance.csv"] == b"mine"
        rows = list(csv.DictReader(first["insight-balance-2.csv"].decode().splitlines()))
        assert shown.found is not None
        assert shown.found.plot is not None
        assert len(rows) == len(shown.found.plot.points)
        assert float(rows[0]["y"]) == shown.found.plot.points[0].y
        assert first["insight-balance-2.png"].startswith(b"\x89PNG")
        assert b"</svg>" in first["insight-balance-2.svg"]
        await pilot.press("E")
        await until(pilot, lambda: (workspace.exports / "insight-balance-3.csv").exists())
        assert first.items() <= files(workspace).items(), "nothing was replaced"
        # Where nothing can be written that is told, and the app goes on.
        shutil.rmtree(workspace.exports)
        await pilot.press("E")
        await until(pilot, lambda: "cannot write" in " ".join(visible(app).split()))
        await pilot.press("down")
        await until(pilot, lambda: shown.figure.name != "balance")
