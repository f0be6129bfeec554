"""Every theme that is offered can be read on every screen: measured on the lines as they are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from driving import opened, ready, until
from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

from docs.invented import RATER, furnish
from docs.pictures import ask
from storage.database import open_database
from storage.workspace import Workspace
from workbench.shell.app import WorkbenchApp
from workbench.widgets.filter import ContrastFilter

LEAST = 4.5  # WCAG 2.2, success criterion 1.4.3
SCREENS = ("f1", "f2", "f3", "f4", "f5", "f6")
DIALOGS = {"f7": "#dialog", "ctrl+p": "CommandList"}
NAVY = Color.parse("#11141a")


def ratio(style: Style) -> float:
    """The contrast of a drawn style by WCAG's formula; a colour that nobody knows counts as none."""
    if style.color is None or style.bgcolor is None or style.color.triplet is None or style.bgcolor.triplet is None:
        return 1.0
    lights = []
    for triplet in (style.color.triplet, style.bgcolor.triplet):
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in triplet.normalized]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def drawn(app: WorkbenchApp, inside: str = "") -> list[Segment]:
    """All pieces on the screen that are more than a ground, or those inside one widget."""
    strips = app.screen._compositor.render_strips()
    if inside:
        region = app.screen.query_one(inside).region
        strips = [strip.crop(region.x, region.right) for strip in strips[region.y : region.bottom]]
    return [piece for strip in strips for piece in strip if piece.text.strip()]


def faint(app: WorkbenchApp, inside: str = "") -> list[str]:
    pieces = drawn(app, inside)
    assert len(pieces) > 10
    return [
        f"{app.theme}: {ratio(style):.2f} {text!r}"
        for text, style, _ in pieces
        if style is None or style.dim or ratio(style) < LEAST
    ]


async def test_every_theme_reads_on_every_screen(tmp_path: Path):
    workspace = Workspace(tmp_path / "dialects").prepare()
    with open_database(workspace) as database:
        furnish(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert app.desk is not None
        app.desk.rater = RATER
        ready(app, "v2")
        await ask(app, pilot)
        found: list[str] = []
        for key in SCREENS:  # each is made, and has read what it shows, before the first look
            await pilot.press(key)
            await until(pilot, lambda: len(drawn(app)) > 20)
        for theme in sorted(app.available_themes):
            app.theme = theme
            ground = Color.parse(app.get_css_variables()["background"]).rgb
            for key in SCREENS:
                await pilot.press(key)
                await until(pilot, lambda ground=ground: app.screen.styles.background.rgb == ground)
                found += faint(app)
            for key, inside in DIALOGS.items() if theme.startswith("workbench") else ():
                await pilot.press(key)
                await until(pilot, lambda inside=inside: app.screen.is_modal and len(drawn(app, inside)) > 10)
                found += faint(app, inside)
                await pilot.press("escape")
                await until(pilot, lambda: len(app.screen_stack) == 1)
        assert len(app.available_themes) > 15
        assert not any(theme.ansi for theme in app.available_themes.values())
        assert found == []


@given(st.tuples(*[st.integers(0, 255)] * 6), st.booleans())
def test_what_is_too_faint_is_lifted_and_the_rest_is_left(parts: tuple[int, ...], dim: bool):
    style = Style(color=Color(*parts[:3]).rich_color, bgcolor=Color(*parts[3:]).rich_color, dim=dim)
    ((_, lifted, _),) = ContrastFilter().apply([Segment("x", style)], NAVY)
    assert lifted is not None
    assert ratio(lifted) >= LEAST
    assert not lifted.dim
    assert lifted.bgcolor == style.bgcolor
    if ratio(style) >= LEAST and not dim:
        assert lifted.color == style.color


@pytest.mark.parametrize("name", ["default", "red", "color(12)"])
def test_the_terminals_own_colours_stay(name: str):
    style = Style.parse(f"{name} on {name}")
    assert ContrastFilter().apply([Segment("x", style)], NAVY) == [Segment("x", style)]


def test_a_text_without_a_colour_gets_one_that_reads_on_its_ground():
    ((_, style, _),) = ContrastFilter().apply([Segment("x", Style())], NAVY)
    assert style is not None
    assert ratio(style + Style.from_color(bgcolor=NAVY.rich_color)) >= LEAST
