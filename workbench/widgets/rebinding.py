"""The keys of all actions, each of which can be given another one: written into the workspace's keymap file."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from storage.errors import WorkbenchError
from workbench.shell import keyfile, keymap
from workbench.shell.action import Action
from workbench.shell.actions import ACTIONS, SCREENS, spoken
from workbench.widgets.dialogs import Dialog

KEYS = (("enter", "another key"), ("a", "one more key"), ("d", "the usual keys"), ("esc", "close"))


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


class KeysDialog(Dialog[None]):
    """All actions in the order of the help, each with its keys; those that were changed are marked."""

    AUTO_FOCUS = "OptionList"
    CAN: ClassVar = frozenset[str]()
    BINDINGS: ClassVar = [
        ("a", "add", "add"),
        ("d", "reset", "reset"),
        ("j", "move(1)", "down"),
        ("k", "move(-1)", "up"),
    ]

    def __init__(self) -> None:
        super().__init__("Keys")
        self.listed = [action for screen in SCREENS for action in ACTIONS if action.screen == screen]

    def fields(self) -> ComposeResult:
        told = [Content.assemble((key, "bold $accent"), (f" {words}", "$text-muted")) for key, words in KEYS]
        self.add_class("sheet")
        yield Static(Content("   ").join(told), id="told")
        yield OptionList(*(self._line(action) for action in self.listed), markup=False)

    def _line(self, action: Action) -> Option:
        keys = self.workbench.keys[action.id]
        changed = action.id in self.workbench.chosen_keys
        where = SCREENS[action.screen] + (f", {action.when}" if action.when else "")
        return Option(
            Content.assemble(
                ("• " if changed else "  ", "$policy"),
                (f"{' '.join(map(spoken, keys)):<16} ", "bold $accent"),
                action.help,
                (f"  {where}", "$text-muted"),
            )
        )

    def action_move(self, step: int) -> None:
        listed = self.query_one(OptionList)
        listed.action_cursor_down() if step > 0 else listed.action_cursor_up()

    def on_option_list_option_selected(self) -> None:
        self._ask(more=False)

    def action_add(self) -> None:
        self._ask(more=True)

    def action_reset(self) -> None:
        if (action := self._action) is not None:
            self._put(action, None)

    @property
    def _action(self) -> Action | None:
        place = self.query_one(OptionList).highlighted
        return None if place is None else self.listed[place]

    def _ask(self, *, more: bool) -> None:
        action = self._action
        if action is None:
            return

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
        listed = self.query_one(OptionList)
        listed.replace_option_prompt_at_index(self.listed.index(action), self._line(action).prompt)
