"""Every command of both rooms, each under every trouble, in one process: `python troubled.py WORK` prints what came.

It is a process of its own because its disk fails: the shim of the chaos run (benchmarks/chaos_faults.py) is preloaded,
and as root it gives up the right to write what its mode forbids. The commands come from the command lines themselves,
so that a new one is under every trouble too.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from benchmarks.chaos_faults import BROKEN, FULL, Faults
from storage import conversations, database, jobs, metrics, samples, versions
from storage.feedback import log
from storage.sqlite import sqlite3
from storage.workspace import Workspace
from trainer import cli as trainer
from workbench import cli as workbench

# What a test gives for an argument, by its name, and by command where that differs; where None, nothing.
GIVEN: dict[str | tuple[str, str], str | None] = {
    "file": "feedback.jsonl", ("export", "file"): "out/scores.csv", ("backup", "file"): "out/copy.db",
    ("report", "file"): "out/v1.html", ("insight", "names"): None,
    "kind": "scores", "version": "v1", "sample": "SAMPLE", "subject": "v1", "text": "The bread rose.",
    "job": "JOB", "jobs": "JOB",
    "stdin": None, "html": None, "name": None, "action": None, "other": "sound", "value": None, "folder": "out/v1",
    "names": "fr/summary",
}  # fmt: skip
# What keeps a command short: no model is loaded, so that it ends where it looks for one; its port is taken.
TAKEN = socket.socket()
TAKEN.bind(("127.0.0.1", 0))
TAKEN.listen()
MORE = {
    "serve": ["--port", str(TAKEN.getsockname()[1])],
    "generate": ["--prompt", "Why?", "--version", "v9"],
    "chat": ["--version", "v9"],
    "demo": ["--model", "./nowhere"],
    "resume": [],
}
NO_MODEL = ["--model", "./nowhere"]
KEPT = ("prompts", "samples", "ratings", "versions")
PRINTS = ("latin-1", "closed pipe", "full output")
DISKS = ("full disk", "failing disk", "failing disk, after 4 writes")
# It makes a workspace of its own, and starts an engine there, or leaves all of it to the app: troubles of one that
# exists are none of its.
MAKES_ITS_OWN = {"demo": ("none", "full disk", "failing disk"), "serve": ("none",)}


class Told(msgspec.Struct, frozen=True):
    """What came of one command under one trouble.

    Attributes:
        lost: rows that were there before and are not any more, or what is wrong with the database.
        changed: what is in the workspace now and was not before, or otherwise.
    """

    command: str
    trouble: str
    code: int
    out: str
    err: str
    lost: list[str]
    changed: list[str]


@dataclass(frozen=True)
class Command:
    """A command, and how it is run on a workspace."""

    room: str
    name: str
    click: click.Command

    @property
    def title(self) -> str:
        return f"{self.room} {self.name}"

    @property
    def parameters(self) -> dict[str, click.Parameter]:
        return {one.name: one for one in self.click.params if one.name}

    def line(self, workspace: Path, **other: str) -> list[str]:
        """The arguments, `other` in place of what is usually given, by name of the parameter."""
        line = [self.name]
        for name, parameter in self.parameters.items():
            given: str | None = other.get(name, "")
            if isinstance(parameter, click.Argument):
                given = given or GIVEN.get((self.name, name), GIVEN.get(name, ""))
                assert given != "", f"{self.title}: say in GIVEN what a test gives for {name}"
                line += [given.replace("SAMPLE", SAMPLE).replace("JOB", JOB)] if given else []
            elif given:
                line += [parameter.opts[0], given]
        more = MORE.get(self.name, NO_MODEL if "model" in self.parameters else [])
        return [*line, *(more if not {"typed", "file"} & other.keys() else []), "--workspace", str(workspace)]

    def texts(self) -> list[str]:
        """The names of all that is given as text."""
        texts = (name for name, one in self.parameters.items() if isinstance(one.type, click.types.StringParamType))
        return [name for name in texts if not name.startswith("workspace")]

    def printing(self, workspace: Path) -> list[str]:
        """The arguments with which as much as can be goes to standard output."""
        line = self.line(workspace, **{"file": "-"} if self.name == "export" else {})
        return line + (["--json"] if "as_json" in self.parameters else [])


def commands() -> list[Command]:
    """All of them, as the command lines list them."""
    found = []
    for room, group in (("workbench", workbench.cli), ("trainer", trainer.cli)):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            found.append(Command(room, name, command))
    return found


SAMPLE = JOB = ""


def fill(workspace: Workspace) -> None:
    """A workspace with something for every command: ratings, a version and a job that can be resumed."""
    global SAMPLE, JOB
    with database.open_database(workspace) as opened:
        for number in range(60):
            prompt = conversations.add(opened, f"Wie heißt 冰 auf Kiswahili? {number} " + "x" * 300, language="de")
            answer = samples.new(prompt.id, f"barafu {number}", version=None)
            samples.add(opened, [answer])
            log.append(opened, log.score(answer.id, 1 + number % 5, "amína"))
        SAMPLE = answer.id
        base = versions.ensure_base(opened, "smollm2", "d" * 64)
        file = workspace.versions / "v1.safetensors"
        file.write_bytes(b"weights")
        sha256 = versions.sha256_of(file)
        versions.add_candidate(opened, base=base, parent="v0", file="versions/v1.safetensors", sha256=sha256)
        versions.publish(opened, workspace, "v1")
        JOB = jobs.enqueue(opened, "run", {"model": "./nowhere"}, steps=3).id
        metrics.record(opened, JOB, 1, {("objective/kl", None): 0.5, ("objective/kl", "de"): 0.25})


def rows(workspace: Workspace) -> set[str]:
    """What no trouble may take away; raises where the database is not sound."""
    with database.read_database(workspace) as opened:
        verdict = opened.scalar("PRAGMA integrity_check")
        assert verdict == "ok", verdict
        return {f"{table} {row['id']}" for table in KEPT for row in opened.rows(f"SELECT id FROM {table}")}


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its digest."""
    return {
        ascii(str(path.relative_to(folder))): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


class Run:
    """The folder of a run: `sound` is a workspace with everything, `space` the copy that a command works on."""

    def __init__(self, work: Path) -> None:
        self.work = work
        os.chdir(work)
        self.out = work / "out"
        self.faults = Faults(work / "shim", work)
        self.sound = work / "sound"
        self.out.mkdir()
        fill(Workspace(self.sound).prepare())
        self.before = rows(Workspace(self.sound))
        (work / "feedback.jsonl").write_text('{"prompt": "冰?", "response": "barafu", "score": 4}\n', encoding="utf-8")

    def tell(self, command: Command, trouble: str, **other: str) -> Told:
        """Run a command on a fresh copy of the workspace, under a trouble; `other` is what it is given."""
        place = self.work / ("space\udcff" if trouble == "name that is not UTF-8" else "space")
        for old in (self.out, *self.work.glob("space*")):  # `demo` takes the first name that is free
            shutil.rmtree(old)
        self.out.mkdir()
        if trouble != "no workspace":
            shutil.copytree(self.sound, place)
        workspace = Workspace(place)
        with TROUBLES.get(trouble, sound)(self, workspace) as stdout:
            before = contents(place)
            line = command.printing(place) if trouble in PRINTS else command.line(place, **other)
            code, out, err = spoken(command, line, stdout)
        after = contents(place)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        lost: list[str] = []
        if not trouble.startswith("damaged") and trouble != "no workspace":
            try:
                lost = sorted(self.before - rows(workspace))
            except Exception as error:
                lost = [f"{type(error).__name__}: {error}"]
        return Told(command.title, trouble, code, out, err, lost, changed)


def spoken(command: Command, line: list[str], stdout: Any) -> tuple[int, str, str]:
    """The exit code of a command, and what it printed on its two streams."""
    main: Callable[[list[str]], None] = workbench.main if command.room == "workbench" else trainer.main
    earlier = sys.stdout, sys.stderr
    said = io.BytesIO()
    stderr = io.TextIOWrapper(said, encoding="latin-1", write_through=True)
    sys.stdout, sys.stderr = stdout, stderr
    try:
        main(line)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException as error:  # the very thing that must not happen
        code = -1
        stderr.write(f"Traceback: {type(error).__name__}: {error!a}")
    finally:
        sys.stdout, sys.stderr = earlier
    path = getattr(stdout, "name", None)
    out = Path(path).read_bytes().decode("utf-8") if isinstance(path, str) and path != "/dev/full" else ""
    return code, out, said.getvalue().decode("utf-8")


# Troubles: each yields the standard output that the command gets


@contextmanager
def sound(run: Run, workspace: Workspace, encoding: str = "utf-8") -> Iterator[Any]:
    with (run.work / "stdout").open("w", encoding=encoding) as stream:
        yield stream


def failing(error: int, after: int) -> Callable[[Run, Workspace], Any]:
    @contextmanager
    def disk(run: Run, workspace: Workspace) -> Iterator[Any]:
        with (Path("/dev/shm") / f"stdout-{os.getpid()}").open("w+") as stream:
            run.faults.fail("command", error, after=after)  # the slot that the test names
            try:
                yield stream
            finally:
                run.faults.heal()
        Path(stream.name).unlink()

    return disk


@contextmanager
def read_only(run: Run, workspace: Workspace) -> Iterator[Any]:
    places = [path for root in (workspace.root, run.out) for path in (root, *root.rglob("*"))]
    modes = {path: path.stat().st_mode for path in places}
    for path in places:
        path.chmod(modes[path] & ~0o222)
    try:
        with sound(run, workspace) as stream:
            yield stream
    finally:
        for path in places:
            path.chmod(modes[path])


@contextmanager
def locked(run: Run, workspace: Workspace) -> Iterator[Any]:
    holder = sqlite3.connect(str(workspace.database), isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("UPDATE settings SET value = value")
    try:
        with sound(run, workspace) as stream:
            yield stream
    finally:
        holder.close()


def damaged(begin: float, end: float | None) -> Callable[[Run, Workspace], Any]:
    """The bytes of the database between two shares of its length are 0xff; where there is no end, it is cut off."""

    @contextmanager
    def file(run: Run, workspace: Workspace) -> Iterator[Any]:
        length = workspace.database.stat().st_size
        with workspace.database.open("r+b") as bad:
            bad.seek(int(begin * length))
            if end is None:
                bad.truncate()
            else:
                bad.write(b"\xff" * int((end - begin) * length))
        with sound(run, workspace) as stream:
            yield stream

    return file


@contextmanager
def latin_1(run: Run, workspace: Workspace) -> Iterator[Any]:
    with sound(run, workspace, "latin-1") as stream:
        yield stream


@contextmanager
def closed_pipe(run: Run, workspace: Workspace) -> Iterator[Any]:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        yield stream


@contextmanager
def full_output(run: Run, workspace: Workspace) -> Iterator[Any]:
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        yield stream


TROUBLES: dict[str, Callable[[Run, Workspace], Any]] = {
    "none": sound,
    "full disk": failing(FULL, 0),
    "failing disk": failing(BROKEN, 0),
    "failing disk, after 4 writes": failing(BROKEN, 4),
    "read-only": read_only,
    "locked": locked,
    "damaged header": damaged(0, 0.001),
    "damaged schema": damaged(0.05, 0.5),
    "damaged rows": damaged(0.6, 1),
    "damaged end": damaged(0.3, None),
    "latin-1": latin_1,
    "closed pipe": closed_pipe,
    "full output": full_output,
    "no workspace": sound,
    "name that is not UTF-8": sound,
}


def obeys_modes(work: Path) -> bool:
    """Whether a file that its mode protects is protected from this process."""
    protected = work / "protected"
    protected.touch(0o400)
    return not os.access(protected, os.W_OK)


def main() -> None:
    database.BUSY_TIMEOUT_MS = 20
    run = Run(Path(sys.argv[1]))
    there = [one for one in TROUBLES if not (one in DISKS and run.faults.missing)]
    there = [one for one in there if one != "read-only" or obeys_modes(run.work)]
    told = []
    for command in commands():
        for trouble in (one for one in there if one in MAKES_ITS_OWN.get(command.name, TROUBLES)):
            told.append(run.tell(command, trouble))
        for name in command.texts():
            told.append(run.tell(command, "bytes that are not UTF-8", **{name: "zw\udcffei"}))
    json.dump(msgspec.to_builtins(told), sys.stdout)


if __name__ == "__main__":
    main()
