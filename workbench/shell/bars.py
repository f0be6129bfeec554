"""The three bars around every screen: where things stand, where one can go, and what can be done now."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.cells import cell_len
from textual.content import Content
from textual.events import Click
from textual.style import Style
from textual.widget import Widget

from workbench.engine.status import engine_words
from workbench.screens import PLACES
from workbench.shell.action import Action
from workbench.shell.actions import of_screen, spoken
from workbench.text import one_line
from workbench.training.status import trainer_words

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp

_ENGINE_STYLES = {"ready": "$text-success", "writing": "$text-success", "down": "$text-error"}
_TRAINER_STYLES = {"training": "$policy", "stalled": "$text-error", "failed": "$text-error", "idle": "$text-muted"}


class Bar(Widget):
    """One line at the edge of a screen."""

    can_focus = False

    async def on_click(self, event: Click) -> None:
        call = event.style.meta.get("call")
        if call:
            await self.run_action(call)

    @property
    def workbench(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)


class HeaderBar(Bar):
    """Workspace, engine, trainer and the number of ratings, in as many words as fit."""

    def render(self) -> Content:
        app = self.workbench
        room = self.size.width - 2
        engine, trainer = engine_words(app.engine), trainer_words(app.trainer)
        place = one_line(app.workspace.name, 24)
        saving = app.saver.words
        rated = saving or ("" if app.rated is None else f"{app.rated} rated")
        few = saving or ("" if app.rated is None else str(app.rated))
        parts = fitting(
            [
                [f"workbench · {place}", engine[0], trainer[0], rated],
                [place, engine[0], trainer[0], rated],
                [place, engine[0], trainer[1], rated],
                [place, engine[1], trainer[1], rated],
                [engine[1], trainer[1], rated],
                [engine[1], trainer[2], rated],
                [engine[2], trainer[2], few],
            ],
            room,
            3,
        )
        styles = [_ENGINE_STYLES.get(app.engine.state, "$text-warning"),
                  _TRAINER_STYLES.get(app.trainer.state, "$text-warning"),
                  "$text-warning" if saving else "$text-muted"]  # fmt: skip
        name, facts = (parts[0], parts[1:]) if len(parts) == 4 else ("", parts)
        right = Content("   ").join(
            Content.assemble((text[:1], style), text[1:]) if n < 2 else Content.styled(text, style)
            for n, (text, style) in enumerate(zip(facts, styles, strict=True))
        )
        gap = max(1 if name else 0, room - cell_len(name) - right.cell_length)
        return Content.assemble(" ", (name, "bold"), " " * gap, right, " ")


class TabBar(Bar):
    """The screens by number; the one in front stands out by weight and a rule, not by colour alone."""

    def __init__(self, current: str) -> None:
        super().__init__()
        self.current = current

    def render(self) -> Content:
        tabs = []
        for place in PLACES:
            text = f" {place.number} {place.title} "
            if place.name == self.current:
                tabs.append(Content.styled(text, "bold $foreground on $tab-background"))
            else:
                tabs.append(Content.styled(text, Style.parse("$text-muted") + _click(f"app.show('{place.name}')")))
        left = Content(" ").join(tabs)
        keys = self.workbench.keys
        right = Content.assemble(*_item(spoken(keys["app.palette"][0]), "palette", "app.command_palette"))
        gap = self.size.width - left.cell_length - right.cell_length - 1
        return left if gap < 2 else Content.assemble(left, " " * gap, right)


class KeyBar(Bar):
    """The actions that work at this moment, from the registry; neighbours with one label share a place."""

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> Content:
        groups = grouped(self._available())
        help_key = spoken(self.workbench.keys["app.help"][0])
        help_item = () if self.screen.is_modal else _item(help_key, "help", "app.help")
        shown: list[Content] = []
        room = self.size.width - 2 - Content.assemble(*help_item).cell_length
        for keys, actions in groups:
            call = f"screen.{actions[0].method}" if len(actions) == 1 else ""
            item = Content.assemble(*_item(keys, actions[0].label, call))
            room -= item.cell_length + 2
            if room < 0:
                break
            shown.append(item)
        if help_item:
            shown.append(Content.assemble(*help_item))
        return Content.assemble(" ", Content("  ").join(shown))

    def _available(self) -> list[tuple[str, Action]]:
        """The screen's actions whose key would work now, each with that key."""
        working = {(active.binding.id, key) for key, active in self.screen.active_bindings.items() if active.enabled}
        found = []
        for action in of_screen(getattr(self.screen, "KEY", "")):
            key = next((key for key in self.workbench.keys[action.id] if (action.id, key) in working), None)
            if action.shown and key is not None:
                found.append((key, action))
        return found


def grouped(available: list[tuple[str, Action]]) -> list[tuple[str, list[Action]]]:
    """Neighbouring actions with the same label as one item: `1-5 score`, `a/b prefer`."""
    groups: list[tuple[list[str], list[Action]]] = []
    for key, action in available:
        if groups and groups[-1][1][0].label == action.label:
            groups[-1][0].append(spoken(key))
            groups[-1][1].append(action)
        else:
            groups.append(([spoken(key)], [action]))
    return [(f"{keys[0]}-{keys[-1]}" if len(keys) > 2 else "/".join(keys), actions) for keys, actions in groups]


def _item(keys: str, label: str, call: str) -> tuple[Content, ...]:
    click = _click(call) if call else Style()
    return (
        Content.styled(keys, Style.parse("bold $accent") + click),
        Content.styled(f" {label}", Style.parse("$text-muted") + click),
    )


def _click(call: str) -> Style:
    """Marks a piece of a bar as clickable. (Not Textual's own `@click`: that one paints over our colours.)"""
    return Style.from_meta({"call": call})


def fitting(choices: list[list[str]], room: int, gap: int) -> list[str]:
    """The longest wording whose parts, `gap` cells apart, fit into `room` cells; else the last one.

    `choices` goes from the longest wording to the shortest.
    """
    from rich.cells import cell_len

    for parts in choices:
        if sum(map(cell_len, parts)) + gap * (len(parts) - 1) <= room:
            return parts
    return choices[-1]
