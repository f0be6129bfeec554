"""What the commands share: their common options, opening the workspace, and printing tables and JSON."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from storage import languages
from storage.command_line import print_json, say, works_on
from storage.database import Database, open_database, read_database
from storage.durable import sync_folder
from storage.errors import UsageError
from storage.workspace import Workspace
from workbench.text import columns

__all__ = [
    "filled",
    "json_option",
    "language_option",
    "opened",
    "print_json",
    "print_table",
    "reading",
    "say",
    "workspace_option",
]

workspace_option = click.option("--workspace", metavar="DIR", help="The folder of the project.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@contextmanager
def opened(workspace: str | None, *, create: bool = False) -> Iterator[tuple[Workspace, Database]]:
    """The workspace of `--workspace` and its database, open to write; a new one is created and told of.

    Raises:
        UsageError: there is none, and none is to be created.
    """
    place = works_on(Workspace.locate(workspace))
    is_new = not place.database.exists()
    with open_database(place, create=create) as database:
        if is_new:
            say(f"made a new workspace in {place.root}")
        yield place, database


@contextmanager
def filled(workspace: str | None, *, keep: bool) -> Iterator[Database]:
    """The database of `--workspace`, to be filled at one go. A folder that is not there yet appears when all went well:
    what is refused, and what is not to be kept, makes none."""
    place = works_on(Workspace.locate(workspace))
    if place.root.exists():
        with opened(workspace, create=True) as (_, database):
            yield database
        return
    with _for_now(place.root, beside=keep) as made:
        with open_database(made, create=True) as database:
            yield database
        if keep:
            _put(made.root, place.root)
            say(f"made a new workspace in {place.root}")


@contextmanager
def _for_now(root: Path, *, beside: bool) -> Iterator[Workspace]:
    """A workspace that is taken away again unless it was put elsewhere; where it is to be put, on the same disk."""
    if beside:
        root.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent if beside else None))
    try:
        yield Workspace(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(folder: Path, root: Path) -> None:
    """Give a folder its name. Raises UsageError: there is one of that name by now."""
    try:
        folder.rename(root)
    except OSError as error:
        raise UsageError(
            f"another program made {root} meanwhile", "nothing was stored there by this one: run it again"
        ) from error
    sync_folder(root.parent)


@contextmanager
def reading(workspace: str | None) -> Iterator[tuple[Workspace, Database]]:
    """The workspace of `--workspace` and its database, open to read alone. Raises UsageError: there is none."""
    place = works_on(Workspace.locate(workspace))
    with read_database(place) as database:
        yield place, database


def language_option(tag: str, option: str = "--language") -> str:
    """The tag of an option in its normal form. Raises UsageError when it is none."""
    try:
        return languages.normal(tag)
    except languages.BadTagError as error:
        raise UsageError(f"{option} {tag}: {error}", f"for example {option} fr") from error


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print aligned columns; every cell is cleaned and kept on one line, None is a dash."""
    for line in columns(header, rows):
        click.echo(line)
