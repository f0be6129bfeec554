"""`workbench keys`: every key of the app, from the registry that the app itself reads."""

from __future__ import annotations

import click

from storage.command_line import works_on
from storage.workspace import Workspace
from workbench.commands.options import json_option, print_json, print_table, workspace_option
from workbench.shell import keymap
from workbench.shell.actions import ACTIONS, SCREENS


@click.command()
@json_option
@workspace_option
def keys(as_json: bool, workspace: str | None) -> None:
    """List every key of the app, by screen, your own keymap included. The names in the first column are the ones
    a keymap file uses.

    \b
    Examples:
      workbench keys
      workbench keys --json | jq '.[] | select(.screen == "review")'
    """
    place = works_on(Workspace.locate(workspace))
    if place != Workspace.default() and not place.root.is_dir():
        place.existing()  # a name that is mistyped has no keymap to read
    chosen = keymap.effective(keymap.load(place))
    if as_json:
        print_json(
            [
                {
                    "id": action.id,
                    "keys": list(chosen[action.id]),
                    "label": action.label,
                    "help": action.help,
                    "screen": action.screen,
                    "when": action.when,
                }
                for action in ACTIONS
            ]
        )
        return
    print_table(
        ["action", "keys", "where", "what it does"],
        [
            (action.id, " ".join(chosen[action.id]), " / ".join(filter(None, (SCREENS[action.screen], action.when))),
             action.help)
            for action in ACTIONS
        ],
    )  # fmt: skip
