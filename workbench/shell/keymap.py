"""Your own keys: a TOML file that maps actions to keys, checked before the app starts."""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import platformdirs
from textual.binding import Binding, BindingsMap
from textual.keys import KEY_ALIASES, KEY_NAME_REPLACEMENTS, Keys, _character_to_key

from storage.errors import UsageError
from storage.workspace import Workspace
from workbench.shell.action import Action
from workbench.shell.actions import ACTIONS, BY_ID, of_screen

FILE_NAME = "keymap.toml"
_NAMED = {key.value for key in Keys} | set(KEY_ALIASES) | set(KEY_NAME_REPLACEMENTS.values())
_MODIFIERS = {"ctrl", "alt", "shift", "super", "meta", "hyper"}


def is_key(key: str) -> bool:
    """Whether a key can be given to an action."""
    return _is_key(_normal(key))


def elsewhere() -> dict[str, tuple[str, ...]]:
    """The keys chosen in the configuration folder, for every workspace. Raises UsageError as :func:`load`."""
    path = config_file()
    return read(path, {}) if path.is_file() else {}


def bindings(screen: str, chosen: Mapping[str, tuple[str, ...]]) -> BindingsMap:
    """The keys of one screen. (Textual's own `set_keymap` drops both of two actions that share a key.)"""
    return BindingsMap(
        Binding(
            ",".join(chosen.get(action.id, action.keys)), action.method, action.label,
            show=action.shown, priority=action.priority, id=action.id, tooltip=action.help,
        )
        for action in of_screen(screen)
    )  # fmt: skip


def load(workspace: Workspace) -> dict[str, tuple[str, ...]]:
    """The keys a person chose, by action id; the workspace's file wins over the configuration folder's.

    Raises:
        UsageError: a file is not TOML, names an unknown action or key, or gives two actions of a screen one key.
    """
    chosen = elsewhere()
    path = workspace.root / FILE_NAME
    return {**chosen, **(read(path, chosen) if path.is_file() else {})}


def config_file() -> Path:
    """The keymap of the configuration folder, which holds for every workspace."""
    return Path(platformdirs.user_config_dir("alignment-workbench", appauthor=False)) / FILE_NAME


def read(path: Path, before: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The remapped keys in one file, on top of those chosen `before` it. Raises UsageError as :func:`load`."""
    try:
        return parsed(path.read_text(encoding="utf-8"), path, before)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", 'write lines such as "review.skip" = "n"') from error


def parsed(text: str, path: Path, before: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The remapped keys in the text of a file, as :func:`read`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}", 'write lines such as "review.skip" = "n"') from error
    chosen = {name: _keys(path, name, value) for name, value in flat(table).items()}
    _refuse_clashes(path, chosen, effective({**before, **chosen}))
    return chosen


def effective(chosen: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The keys of every action, remapped ones included."""
    return {action.id: chosen.get(action.id, action.keys) for action in ACTIONS}


def flat(table: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """`[review]` with `skip = "n"` means the same as `"review.skip" = "n"`."""
    found: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value
    return found


def _keys(path: Path, name: str, value: object) -> tuple[str, ...]:
    if name not in BY_ID:
        raise UsageError(f"{path}: {name}: there is no such action", "`workbench keys` lists all actions")
    keys = [value] if isinstance(value, str) else value
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
        raise UsageError(f"{path}: {name}: want a key or a list of keys", f'for example "{name}" = "f9"')
    normal = tuple(_normal(key) for key in keys)
    for written, key in zip(keys, normal, strict=True):
        if not _is_key(key):
            raise UsageError(
                f"{path}: {name}: {written!r} is not a key", "keys look like x, f9, ctrl+t, alt+enter or question_mark"
            )
    return normal


def _normal(key: str) -> str:
    """`?` and `^t` as Textual names them."""
    if len(key) == 2 and key[0] == "^":
        return f"ctrl+{key[1].lower()}"
    if len(key) == 1 and not key.isalnum():
        return _character_to_key(key)
    return key


def _is_key(key: str) -> bool:
    *modifiers, last = key.split("+")
    if not set(modifiers) <= _MODIFIERS:
        return False
    return last in _NAMED or (len(last) == 1 and last.isalnum()) or _is_sign(last)


def _is_sign(name: str) -> bool:
    """Whether this is a sign's Unicode name as Textual writes it, such as `question_mark`."""
    try:
        unicodedata.lookup(name.replace("_", " "))
    except KeyError:
        return False
    return True


def _refuse_clashes(path: Path, chosen: Mapping[str, tuple[str, ...]], keys: Mapping[str, tuple[str, ...]]) -> None:
    for name, wanted in chosen.items():
        for other in ACTIONS:
            shared = set(wanted) & set(keys[other.id])
            if other.id != name and shared and _meet(BY_ID[name], other):
                raise UsageError(
                    f"{path}: {name}: {min(shared)!r} already means {other.id}",
                    f"choose another key, or give {other.id} another one in the same file",
                )


def _meet(one: Action, other: Action) -> bool:
    """Whether both actions can be meant at the same moment."""
    if "app" in (one.screen, other.screen):
        return one.screen == other.screen or one.priority or other.priority or not {one.when, other.when} - {""}
    if one.sheet != other.sheet:
        return False
    return one.screen == other.screen and (not one.when or not other.when or one.when == other.when)
