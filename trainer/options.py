"""Command-line options made from the configuration classes, so that there is one list of what can be set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import inspect

from storage.command_line import print_json, works_on
from storage.errors import UsageError
from storage.workspace import Workspace
from trainer.config import Config, SettingError, build, read_toml
from trainer.declared import fields, plain

__all__ = ["common", "configuration", "in_workspace", "options_of", "print_json"]
Command = Callable[..., Any]
_TYPES: dict[type, click.ParamType | type] = {
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.StrType: str,
}


def in_workspace(command: Command) -> Command:
    """The option that every command has; the command gets the workspace."""

    @click.option("--workspace", "workspace_option", metavar="DIR", help="the workspace folder  [default: the user's]")
    @wraps(command)
    def wrapped(workspace_option: str | None, **options: Any) -> Any:
        return command(workspace=works_on(Workspace.locate(workspace_option)), **options)

    return wrapped


def common(command: Command) -> Command:
    """The options that every command has which tells something: `--workspace` and `--json`."""
    as_json = click.option("--json", "as_json", is_flag=True, help="print one JSON document on standard output")
    return in_workspace(as_json(command))


def options_of(kind: type[msgspec.Struct], own: str) -> Callable[[Command], Command]:
    """A decorator that gives a click command an option for each field of a configuration, nested sections included.

    Options of the section `own` need no prefix; those of the others are spelled `--SECTION-FIELD`.
    """

    def decorate(command: Command) -> Command:
        for path, field in reversed(fields(kind)):
            command = _option(path, field, own)(command)
        return command

    return decorate


def configuration(
    kind: type[Config], given: dict[str, Any], config_file: Path | None, stored: Mapping[str, Any] | None = None
) -> Config:
    """Defaults, then a stored configuration, then a TOML file, then the options that were given.

    Raises:
        UsageError: an unknown key or a value out of bounds, with where it was said.
    """
    values: dict[str, Any] = copy.deepcopy(dict(stored or {}))  # options go into its sections
    if config_file is not None:
        from_file = read_toml(config_file)
        build(kind, from_file, where=str(config_file))  # so that a mistake is blamed on the file
        values = _merge(values, from_file)
    for path, _ in fields(kind):
        value = given.get("__".join(path))
        if value is not None and value != ():  # an option that may be repeated, and was not given
            section = values
            for part in path[:-1]:
                section = section.setdefault(part, {})
            section[path[-1]] = value
    try:
        return build(kind, values, where="options")
    except SettingError as error:
        raise _as_given(error) from error


def _as_given(error: SettingError) -> UsageError:
    """A mistake told by the option that it was made with, where it is of one, and of the command that runs."""
    context = click.get_current_context(silent=True)
    if context is None:
        return error
    own = next((one.opts[0] for one in context.command.params if one.name == "__".join(error.path)), "")
    return UsageError(error.told(own, error.rule), f"`{context.command_path} --help` tells what each option takes")


def _option(path: tuple[str, ...], field: inspect.Field, own: str) -> Callable[[Command], Command]:
    spelled = "-".join(part for part in path if part != own).replace("_", "-")
    of, text = plain(field)
    default = field.default if field.default is not msgspec.NODEFAULT else None
    shown = f"{default:g}" if isinstance(default, float) else "none" if default in (None, "") else str(default)
    if isinstance(of, inspect.BoolType):
        declaration = f"--{spelled}/--no-{spelled}"
        return click.option(declaration, "__".join(path), default=None, help=f"{text}  [default: {shown.lower()}]")
    if isinstance(of, inspect.EnumType):
        return click.option(
            f"--{spelled}", "__".join(path), type=click.Choice([str(value) for value in of.cls]), default=None,
            help=f"{text}  [default: {shown}]",
        )  # fmt: skip
    if isinstance(of, inspect.VarTupleType):
        one = of.item_type
        each = click.Choice([str(value) for value in one.cls]) if isinstance(one, inspect.EnumType) else str
        return click.option(f"--{spelled}", "__".join(path), type=each, multiple=True, default=None, help=text)
    kind = _TYPES.get(type(of))
    if kind is None:
        raise UsageError(f"the field {'.'.join(path)} cannot be an option", "give it a plain type")
    return click.option(f"--{spelled}", "__".join(path), type=kind, default=None, help=f"{text}  [default: {shown}]")


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
