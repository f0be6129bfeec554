"""Writing the keymap file: one line an action, with everything else that a person wrote there left as it is."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from storage.durable import sync_file, sync_folder
from storage.troubles import of_file
from workbench.shell import keymap

HEADER = "# Your keys; `workbench keys` lists all actions.\n"


def put(path: Path, action: str, keys: tuple[str, ...] | None, before: Mapping[str, tuple[str, ...]]) -> None:
    """Give an action other keys in a file, or with None those that it has without it. `before` are those chosen
    elsewhere, which the file goes on top of.

    Raises:
        UsageError: a key already means something else there, or the file is not as it should be.
        WorkbenchError: it cannot be written.
    """
    try:
        written = path.read_text(encoding="utf-8") if path.exists() else HEADER
    except OSError as error:
        raise of_file(f"cannot read {path}", error) from error
    text = changed(written, action, keys)
    keymap.parsed(text, path, before)  # a file that the app would not start with is never there
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        sync_file(partial)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise of_file(f"cannot write {path}", error) from error


def changed(text: str, action: str, keys: tuple[str, ...] | None) -> str:
    """A keymap file's text with other keys for one action."""
    wanted = keymap.flat(tomllib.loads(text))
    wanted.pop(action, None)
    line = ""
    if keys is not None:
        wanted[action] = list(keys)
        line = f"{json.dumps(action)} = {json.dumps(list(keys))}\n"
    top, tables = _parted(text)
    place = re.compile(rf'^\s*(?:"{re.escape(action)}"|{re.escape(action)})\s*=.*\n?', re.MULTILINE)
    new = place.sub(line, top, count=1) if place.search(top) else _ended(top) + line
    if _reads(new + tables) == wanted:
        return new + tables
    # It stands in a table, or over several lines: written anew, one line an action.
    return HEADER + "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in wanted.items())


def _parted(text: str) -> tuple[str, str]:
    """What stands before the first table, and the rest."""
    table = re.search(r"^\s*\[", text, re.MULTILINE)
    return (text, "") if table is None else (text[: table.start()], text[table.start() :])


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _reads(text: str) -> dict[str, object] | None:
    try:
        return keymap.flat(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return None
