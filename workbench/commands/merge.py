"""`workbench merge`: what another workspace holds comes into this one."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from storage import merging
from storage.workspace import Workspace
from workbench.commands.options import json_option, opened, print_json, print_table, say, workspace_option
from workbench.commands.progress import progress


@click.command("merge")
@click.argument("other", type=click.Path(path_type=Path, file_okay=False))
@json_option
@workspace_option
def merge_command(other: Path, as_json: bool, workspace: str | None) -> None:
    """Bring in what another workspace (OTHER, a folder) holds: whole, or not at all.

    Prompts, answers, ratings with all their history, versions with their files, jobs with their figures, reward models
    and raters. What is here already is known by its key and comes once: merging again changes nothing. A prompt that is
    held out in one of the two is held out from now on. Which version is served and all settings stay as they are, and
    so does the other workspace.

    \b
    Examples:
      workbench merge ~/amina/dialects
      workbench merge ~/amina/dialects --json
    """
    there = Workspace(other.expanduser().absolute())
    with opened(workspace) as (place, database), progress() as bar:
        found = merging.merge(database, place, there, lambda: say("another import is waited for"), bar)
    if as_json:
        print_json(found)
        return
    told = msgspec.to_builtins(found)
    renamed = told.pop("renamed")
    print_table(["what came", "how many"], [(name.replace("_", " "), many) for name, many in told.items()])
    for before, now in renamed.items():
        say(f"{before} of {other.name} is {now} here")
