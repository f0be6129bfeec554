"""The keys of all actions, each of which can be given another one: written into the workspace's keymap file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList, Static

from storage.errors import WorkbenchError
from storage.forms import search_form
from workbench.shell import keyfile, keymap
from workbench.shell.action import Action
from workbench.shell.actions import ACTIONS, BY_ID, SCREENS, spoken
from workbench.widgets.dialogs import Dialog, PickDialog

KEYS = (("enter", "another key"), ("alt+a", "one more key"), ("alt+d", "the usual keys"), ("esc", "close"))


class PressDialog(Dialog[str]):
    """Takes the next key that is pressed, whatever it usually does. Escape gives up."""

    AUTO_FOCUS = ""
    takes_every_key = True

    def __init__(self, action: Action) -> None:
        super().__init__("Press a key")
        self.about = action

    def fields(self) -> ComposeResult:
        yield Static(Content.assemble(("for ", "$text-muted"), self.about.help))
        yield Static(Content.assemble(("esc", "bold $accent"), " leaves it as it is"), id="answer")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return False

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        if event.key == "escape":
            self.dismiss(None)
        elif keymap.is_key(event.key):
            self.dismiss(event.key)
        else:
            self.complain(f"{event.key} cannot be given to an action")


def found(actions: Sequence[Action], keys: Mapping[str, tuple[str, ...]], typed: str) -> list[Action]:
    """The actions that have what is `typed` as a key (`^t` and `ctrl+t` are one), then those of which all its words say
    something: of what they do, where, when, and under which name."""
    wanted = search_form(typed)

    def has(action: Action) -> bool:
        return any(typed.strip() in (key, spoken(key)) for key in keys[action.id])

    def told(action: Action) -> bool:
        text = search_form(" ".join((action.help, action.label, action.id, SCREENS[action.screen], action.when)))
        return all(word in text for word in wanted.split())

    return [*filter(has, actions), *(one for one in actions if told(one) and not has(one))]


class KeysDialog(PickDialog):
    """All actions in the order of the help, each with its keys, or those that are searched; changed ones are marked."""

    BINDINGS: ClassVar = [("alt+a", "add", "add"), ("alt+d", "reset", "reset")]

    def __init__(self) -> None:
        super().__init__("Keys", self._find, placeholder="search: what it does, or a key")
        self.listed = [action for screen in SCREENS for action in ACTIONS if action.screen == screen]

    def fields(self) -> ComposeResult:
        told = [Content.assemble((key, "bold $accent"), (f" {words}", "$text-muted")) for key, words in KEYS]
        self.add_class("sheet")
        yield Static(Content("   ").join(told), id="told")
        yield from super().fields()

    async def _find(self, typed: str) -> list[tuple[str, Content]]:
        return [(action.id, self._line(action)) for action in found(self.listed, self.workbench.keys, typed)]

    def _line(self, action: Action) -> Content:
        keys = self.workbench.keys[action.id]
        changed = action.id in self.workbench.chosen_keys
        where = SCREENS[action.screen] + (f", {action.when}" if action.when else "")
        return Content.assemble(
            ("• " if changed else "  ", "$policy"),
            (f"{' '.join(map(spoken, keys)):<16} ", "bold $accent"),
            action.help,
            (f"  {where}", "$text-muted"),
        )

    def chosen(self, value: str) -> None:
        self._ask(BY_ID[value], more=False)

    def action_add(self) -> None:
        if (action := self._action) is not None:
            self._ask(action, more=True)

    def action_reset(self) -> None:
        if (action := self._action) is not None:
            self._put(action, None)

    @property
    def _action(self) -> Action | None:
        place = self.query_one(OptionList).highlighted
        return None if place is None else BY_ID[self.choices[place][0]]

    def _ask(self, action: Action, *, more: bool) -> None:
        def pressed(key: str | None) -> None:
            if key is not None:
                self._put(action, (*self.workbench.keys[action.id], key) if more else (key,))

        self.app.push_screen(PressDialog(action), pressed)

    def _put(self, action: Action, keys: tuple[str, ...] | None) -> None:
        """Write it down, and go on with it at once; what is wrong with it is said, and then nothing is changed."""
        path = self.workbench.workspace.root / keymap.FILE_NAME
        try:
            keyfile.put(path, action.id, keys, keymap.elsewhere())
            self.workbench.take_keys()
        except WorkbenchError as error:
            self.complain(f"✕ {error.message.removeprefix(f'{path}: ')}; {error.hint}")
            return
        self.complain("")
        place = next((n for n, (name, _) in enumerate(self.choices) if name == action.id), None)
        if place is not None:
            self.choices[place] = (action.id, self._line(action))
            self.query_one(OptionList).replace_option_prompt_at_index(place, self._line(action))
