"""`workbench backup`: a checked copy of the database."""

from __future__ import annotations

from pathlib import Path

import click

from storage import backups
from storage.troubles import told_of_file
from workbench.commands.options import json_option, print_json, reading, say, workspace_option
from workbench.commands.progress import progress


@click.command()
@click.argument("file", metavar="FILE")
@json_option
@workspace_option
def backup(file: str, as_json: bool, workspace: str | None) -> None:
    """Copy the database to FILE, a new file, and check the copy. The app and the trainer may go on meanwhile.

    The weights in models/ and versions/ are files already: copy those folders beside it. To restore, put the copy in
    place of workbench.db while nothing runs.

    \b
    Example:
      workbench backup ~/backups/dialects-$(date +%F).db
    """
    with reading(workspace) as (_, database), told_of_file(f"cannot write {file}"), progress("pages") as bar:
        made = backups.backup(database, Path(file).expanduser().absolute(), progress=bar)
    if as_json:
        print_json({"file": str(made), "bytes": made.stat().st_size})
    say(f"wrote and checked {made}")
