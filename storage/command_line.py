"""The edge of every command: its streams, its exit code, and what is told where it fails.

Standard output is data, and UTF-8 whatever the locale is. Whatever fails is a line on standard error and a hint, never
a traceback: a trouble of disk, file or database has its own words (storage/troubles.py), a fault of the program names
the log with its traceback (storage/faults.py).
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

import click
import msgspec

from storage.errors import WorkbenchError
from storage.signs import safe_text
from storage.workspace import Workspace

INTERRUPTED = 130
FAILED = 1


@dataclass
class Running:
    """The command that runs: the object of its click context."""

    workspace: Workspace | None = None


def run(command: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    """Run a click command to its end, and return the exit code.

    0 done, 1 failed, 2 wrong usage, 130 interrupted. SystemExit passes.
    """
    running = Running()
    before = sys.stdin, sys.stdout, sys.stderr
    _prepare_streams()
    try:
        code = _run(command, arguments, name, running)
        unsaid = _flushed(sys.stdout)
        if unsaid is not None and code == 0:
            code = _output_failed(unsaid)
        _flushed(sys.stderr)
        return code
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _run(command: click.Command, arguments: Sequence[str] | None, name: str, running: Running) -> int:
    _complete(command, name)
    try:
        # Not `command.main`, which keeps to itself that nobody reads the output any more.
        given = list(sys.argv[1:] if arguments is None else arguments)
        with command.make_context(name, given, obj=running) as context:
            result: Any = command.invoke(context)
    except (click.Abort, KeyboardInterrupt, EOFError):
        say("interrupted")
        return INTERRUPTED
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except Exception as error:
        unsaid = _flushed(sys.stdout) if isinstance(error, OSError) else None
        if unsaid is not None or isinstance(error, BrokenPipeError):
            return _output_failed(unsaid or error)
        told = in_words(error, running.workspace)
        tell(told)
        return told.exit_code
    return result if isinstance(result, int) else 0


def _complete(command: click.Command, name: str) -> None:
    """Answer a shell that asks how a line could go on, as click's `main` does."""
    variable = f"_{name.upper()}_COMPLETE"
    if instruction := os.environ.get(variable):
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(command, {}, name, variable, instruction))


def in_words(error: Exception, workspace: Workspace | None) -> WorkbenchError:
    """Whatever went wrong as one that a person can act on."""
    if isinstance(error, WorkbenchError):
        return error
    from storage import faults, troubles  # not on the way of a command that works

    if not troubles.is_known(error):
        return faults.in_words(error, workspace)
    return troubles.kindly(error, folder=workspace.root if workspace else None)


def works_on(workspace: Workspace) -> Workspace:
    """Say which workspace the running command works on: its log is where a fault is written down."""
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, Running):
        context.obj.workspace = workspace
    return workspace


def tell(error: WorkbenchError) -> None:
    """An error on standard error: a line, and what to do."""
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint: {error.hint}")


def say(text: str) -> None:
    """Narrate on standard error. Where that is gone, or on a disk that fails, nothing is said."""
    with suppress(OSError, ValueError):
        print(safe_text(text), file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Print records, lists and dictionaries as one indented JSON document."""
    try:
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    except UnicodeEncodeError:  # the name of a file that is not UTF-8: its bytes are escaped
        text = json.dumps(msgspec.to_builtins(document), ensure_ascii=True, indent=2)
    print(text)


def _prepare_streams() -> None:
    """UTF-8 on all of them, and none that is missing: what is opened next must not take the place of one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free; a write to it fails, and is told
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A lone surrogate stands for a byte of a name that is not UTF-8; in JSON this is its escape.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _output_failed(error: Exception) -> int:
    """Nobody reads standard output any more, or its disk is full."""
    from storage.troubles import of_file

    what = "cannot write standard output"
    stored = "what the command has stored is stored"
    tell(of_file(what, error, stored) if isinstance(error, OSError) else WorkbenchError(f"{what}: {error}", stored))
    return FAILED


def _flushed(stream: TextIO) -> Exception | None:
    """Write what a stream still holds; returns what went wrong, and then it goes nowhere: the interpreter flushes
    streams at its end, and would complain."""
    try:
        stream.flush()
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
        return error
    return None
