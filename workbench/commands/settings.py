"""`workbench settings`: what a person decides about a workspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click

from storage import conversations
from storage.database import Database
from storage.errors import UsageError
from workbench.commands.options import json_option, opened, print_json, print_table, say, workspace_option


@dataclass(frozen=True)
class Setting:
    """One setting: how it is read, and how a number given for it is stored (raising UsageError out of bounds)."""

    get: Callable[[Database], float]
    put: Callable[[Database, float], None]


SETTINGS = {
    # The share of new prompts that are held out.
    "held-out-share": Setting(conversations.held_out_share, conversations.set_held_out_share),
}


@click.command("settings")
@click.argument("name", required=False)
@click.argument("value", required=False)
@json_option
@workspace_option
def settings_command(name: str | None, value: str | None, as_json: bool, workspace: str | None) -> None:
    """Show the settings of the workspace, or one of them (NAME), or change it to VALUE.

    \b
    held-out-share   from 0 to below 1, 0.15 at first: the share of new prompts that are held out. Which ones, a hash
                     of their text decides when they are first stored. Prompts that are there already stay as they are.

    \b
    Examples:
      workbench settings
      workbench settings held-out-share 0.2
    """
    if name is not None and name not in SETTINGS:
        raise UsageError(f"there is no setting {name!r}", f"the settings are: {', '.join(SETTINGS)}")
    with opened(workspace) as (_, database):
        if name is not None and value is not None:
            SETTINGS[name].put(database, _number(name, value))
            say(f"{name} is {value} for prompts that are stored from now on")
        found = {one: SETTINGS[one].get(database) for one in ([name] if name is not None else SETTINGS)}
    if as_json:
        print_json(found)
    elif name is None:
        print_table(["setting", "value"], [(one, f"{number:g}") for one, number in found.items()])
    else:
        click.echo(f"{found[name]:g}")


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"{name} must be a number, not {value!r}", f"`workbench settings {name} 0.2`, say") from None
