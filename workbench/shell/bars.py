"""The three bars around every screen: where things stand, where one can go, and what can be done now."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, cast

from rich.cells import cell_len
from textual.content import Content
from textual.events import Click
from textual.style import Style
from textual.widget import Widget

from workbench.engine.status import engine_words
from workbench.screens import PLACES
from workbench.shell.action import Action
from workbench.shell.actions import BY_ID, of_screen, spoken
from workbench.text import one_line
from workbench.training.status import trainer_words

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp

_ENGINE_STYLES = {"ready": "$text-success", "writing": "$text-success", "down": "$text-error"}
_TRAINER_STYLES = {"training": "$policy", "stalled": "$text-error", "failed": "$text-error", "idle": "$text-muted"}


class Bar(Widget):
    """One line at the edge of a screen. A subclass gives `facts`, all that it tells, and `draw`, how it tells them.

    It is drawn anew when its facts are others: most of what happens in the app changes no bar, and each that is painted
    makes everything between it and the next one painted be looked through again.
    """

    can_focus = False
    _drawn: tuple[Hashable, Content] | None = None

    def facts(self) -> Hashable:
        """All that it tells now, and the room that it has for that."""
        raise NotImplementedError

    def draw(self, facts: Any) -> Content:
        """Its line."""
        raise NotImplementedError

    def look_again(self) -> None:
        """Draw it anew where there is something else to tell. (Which keys work is asked of the screen in front, and one
        that is being made cannot say yet.)"""
        known = self.app.screen is self.screen and self.screen.is_mounted
        if self._drawn is None or not known or self._drawn[0] != self.facts():
            self.refresh()

    def render(self) -> Content:
        facts = self.facts()
        if self._drawn is None or self._drawn[0] != facts:
            self._drawn = facts, self.draw(facts)
        return self._drawn[1]

    async def on_click(self, event: Click) -> None:
        call = event.style.meta.get("call")
        if call:
            await self.run_action(call)

    @property
    def workbench(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)


class HeaderBar(Bar):
    """Workspace, engine, trainer and the number of ratings, in as many words as fit; AI's are never among people's."""

    def facts(self) -> Hashable:
        app = self.workbench
        engine = (app.engine.state, *engine_words(app.engine))
        trainer = (app.trainer.state, *trainer_words(app.trainer))
        return app.workspace.name, engine, trainer, app.saver.words, app.rated, app.judged, self.size.width

    def draw(self, facts: Any) -> Content:
        name, (engine_state, *engine), (trainer_state, *trainer), saving, count, judged, width = facts
        room = width - 2
        place = one_line(name, 24)
        rated = saving or ("" if count is None else f"{count} rated")
        both = f"{rated} · {judged} by AI" if judged and rated and not saving else rated
        few = saving or ("" if count is None else str(count))
        parts = fitting(
            [
                [f"workbench · {place}", engine[0], trainer[0], both],
                [place, engine[0], trainer[0], both],
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
        styles = [
            _ENGINE_STYLES.get(engine_state, "$text-warning"),
            _TRAINER_STYLES.get(trainer_state, "$text-warning"),
            "$text-warning" if saving else "$text-muted",
        ]
        left, told = (parts[0], parts[1:]) if len(parts) == 4 else ("", parts)
        right = Content("   ").join(
            Content.assemble((text[:1], style), text[1:]) if n < 2 else Content.styled(text, style)
            for n, (text, style) in enumerate(zip(told, styles, strict=True))
        )
        gap = max(1 if left else 0, room - cell_len(left) - right.cell_length)
        return Content.assemble(" ", (left, "bold"), " " * gap, right, " ")


class TabBar(Bar):
    """The screens by their keys; the one in front stands out by weight and a ground of its own, not by hue alone.

    Where not all titles fit, the others are told by their keys.
    """

    def __init__(self, current: str) -> None:
        super().__init__()
        self.current = current

    def facts(self) -> Hashable:
        names = ("app.palette", *(f"app.show-{place.name}" for place in PLACES))
        return self.size.width, *(self.workbench.keys[name][0] for name in names)

    def draw(self, facts: Any) -> Content:
        width, palette, *keys = facts
        left = self._tabs(keys, titles=True)
        if left.cell_length > width:
            left = self._tabs(keys, titles=False)
        right = Content.assemble(*_item(spoken(palette), "palette", "app.command_palette"))
        gap = width - left.cell_length - right.cell_length - 1
        return left if gap < 2 else Content.assemble(left, " " * gap, right)

    def _tabs(self, keys: list[str], *, titles: bool) -> Content:
        tabs = []
        for place, pressed in zip(PLACES, keys, strict=True):
            key = spoken(pressed)
            if place.name == self.current:
                tabs.append(Content.styled(f" {key} {place.title} ", "bold $foreground on $tab-background"))
            else:
                text = f" {key} {place.title} " if titles else f" {key} "
                tabs.append(Content.styled(text, Style.parse("$text-muted") + _click(f"app.show('{place.name}')")))
        return Content(" ").join(tabs)


class KeyBar(Bar):
    """The actions that work at this moment, from the registry; neighbours with one label share a place.

    Where they do not all fit, labels become short, and then the last ones go; those that stay stand at the end.
    """

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.look_again())

    def facts(self) -> Hashable:
        return self.size.width, tuple(self._available())

    def draw(self, facts: Any) -> Content:
        width, available = facts
        groups = grouped(available)
        groups.sort(key=lambda group: group[1][0].stays)
        items = [_action(*group, short=False) for group in groups]
        if _width(items) > width:
            items = [_action(*group, short=True) for group in groups]
        going = sum(not actions[0].stays for _, actions in groups)
        while going and _width(items) > width:
            going -= 1
            del items[going]
        return Content.assemble(" ", Content("  ").join(items))

    def _available(self) -> list[tuple[str, Action]]:
        """The actions of the screen, and help, whose key would work now, each with that key."""
        working = {(active.binding.id, key) for key, active in self.screen.active_bindings.items() if active.enabled}
        wanted = getattr(self.screen, "in_footer", lambda action: True)
        takes = getattr(self.screen, "takes_key", lambda action, key: True)
        found = []
        for action in (*of_screen(getattr(self.screen, "KEY", "")), BY_ID["app.help"]):
            keys = (key for key in self.workbench.keys[action.id] if (action.id, key) in working and takes(action, key))
            key = next(keys, None)
            if action.shown and key is not None and wanted(action):
                found.append((key, action))
        return found


def _action(keys: str, actions: list[Action], *, short: bool) -> Content:
    """One place in the footer, with what a click on it does where it stands for one action."""
    first = actions[0]
    call = f"{'app' if first.screen == 'app' else 'screen'}.{first.method}" if len(actions) == 1 else ""
    return Content.assemble(*_item(keys, (short and first.short) or first.label, call))


def _width(items: list[Content]) -> int:
    return 1 + sum(item.cell_length + 2 for item in items) - 2


def grouped(available: Sequence[tuple[str, Action]]) -> list[tuple[str, list[Action]]]:
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
