"""`workbench settings`: what a person decides about a workspace."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from storage import conversations
from storage.database import Database
from storage.errors import UsageError
from storage.feedback import guidelines
from workbench.commands.options import json_option, opened, print_json, print_table, reading, say, workspace_option
from workbench.shell import session
from workbench.shell.session import BY_NAME, SETTINGS, Setting


@click.command("settings")
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option("--guidelines", "asked", is_flag=True, help="List what raters were asked, by the versions ratings name.")
@json_option
@workspace_option
def settings_command(name: str | None, value: str | None, asked: bool, as_json: bool, workspace: str | None) -> None:
    """Show the settings of the workspace, or one of them (NAME), or change it to VALUE.

    In the app, the same settings stand in a form. An app that is open goes on with its own, and
    writes down what is changed in it alone.

    \b
    held-out-share   from 0 to below 1, 0.15 at first: the share of new prompts that are held out. Which ones, a hash
                     of their text decides when they are first stored. Prompts that are there already stay as they are.

    \b
    Examples:
      workbench settings
      workbench settings held-out-share 0.2
      workbench settings language sw
    """
    if asked:
        with reading(workspace) as (_, database):
            _print_guidelines(guidelines.versions(database), as_json)
        return
    if name is not None and name not in BY_NAME:
        raise UsageError(f"there is no setting {name!r}", f"the settings are: {', '.join(BY_NAME)}")
    changes = name is not None and value is not None
    with opened(workspace, create=True) if changes else reading(workspace) as (_, database):
        if name is not None and value is not None:
            _put(database, BY_NAME[name], value)
            kept = BY_NAME[name].shown(_get(database, BY_NAME[name]))
            since = "" if BY_NAME[name].path else " for prompts that are stored from now on"
            say(f"{name} is {kept or 'empty'}{since}")
        wanted = SETTINGS if name is None else (BY_NAME[name],)
        found = {setting.name: _get(database, setting) for setting in wanted}
    if as_json:
        print_json(found)
    elif name is None:
        rows = [(one.name, one.shown(found[one.name]), one.help) for one in SETTINGS]
        print_table(["setting", "value", "meaning"], rows)
    else:
        click.echo(BY_NAME[name].shown(found[name]))


def _print_guidelines(found: list[guidelines.Version], as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    rows = [
        (one.name, one.since[:16], one.guideline.scale.written, guidelines.written(one.guideline.attributes),
         one.guideline.text)
        for one in found
    ]  # fmt: skip
    print_table(["version", "since", "scale", "attributes", "guideline"], rows)


def _get(database: Database, setting: Setting) -> Any:
    return setting.of(session.load(database)) if setting.path else conversations.held_out_share(database)


def _put(database: Database, setting: Setting, typed: str) -> None:
    try:
        value = setting.parse(typed)
    except ValueError as error:
        said = str(error)
        what = said if said.startswith("must") else f"cannot be {typed!r}: {said}"
        raise UsageError(f"{setting.name} {what}", f"{setting.title}: {setting.help}") from None
    if not setting.path:
        conversations.set_held_out_share(database, value)
        return
    with database.transaction():
        session.save(database, session.changed(session.load(database), {setting.path: value}))
