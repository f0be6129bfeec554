"""Files and packs in the Library: import after a look at what it would do, export with a manifest, prompt packs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from storage import packs
from storage.database import Database
from storage.errors import WorkbenchError
from storage.exchange import exporting, importing, layouts
from storage.exchange.importing import Imported, Looked
from storage.exchange.layouts.entries import DEFAULT_RATER, Defaults
from storage.exchange.manifest import Exported
from storage.exchange.translating import Reading
from storage.languages import UNKNOWN, name
from storage.wording import counted
from workbench.screens.library.correcting import needed
from workbench.text import content, from_home, one_line
from workbench.widgets.dialogs import ConfirmDialog, Dialog, Field, FormDialog, PickDialog
from workbench.widgets.parsing import one_of
from workbench.widgets.progress import Watch, watched

if TYPE_CHECKING:
    from workbench.desk import Desk
    from workbench.shell.app import WorkbenchApp

LONGEST_SHOWN = 120  # characters of a text in a preview


# In


async def bring_in(app: WorkbenchApp, desk: Desk) -> Imported | None:
    """Ask for a file, show what it holds, and import it. None where nothing was imported; failures are told."""
    typed: dict[str, Any] = {"file": "", "language": UNKNOWN, "rater": DEFAULT_RATER, "layout": "", "bad": "refuse"}
    while True:
        values = await app.push_screen_wait(_import_form(typed))
        if values is None:
            return None
        typed = values
        if (found := await _look(app, desk, values)) is None:
            continue
        if await app.push_screen_wait(PreviewDialog(str(values["file"]), found)):
            return await _import(app, desk, values)


def _import_form(typed: dict[str, Any]) -> FormDialog:
    known = tuple(layouts.every())
    fields = [
        Field("file", "file", typed["file"], _there, ".jsonl .json .csv .parquet .gz"),
        Field("language", "language", typed["language"], needed, "of records that name none"),
        Field("rater", "rater", typed["rater"], _named, "of records that name none"),
        Field("layout", "layout", typed["layout"], one_of("", *known), "empty: seen from the fields"),
        Field("bad", "bad records", typed["bad"], one_of("refuse", "skip"), "refuse the file, or skip them"),
    ]
    return FormDialog("Import prompts and feedback", fields)


async def _look(app: WorkbenchApp, desk: Desk, values: dict[str, Any]) -> Looked | None:
    """What a file holds; None where it cannot be imported, or the reading was stopped."""
    watch = Watch()
    try:
        return await watched(
            app, "Reading the file", watch,
            desk.looking.do(lambda database: importing.look(values["file"], progress=watch.told, **_how(values))),
        )  # fmt: skip
    except WorkbenchError as error:
        _tell(app, watch, error)
        return None


async def _import(app: WorkbenchApp, desk: Desk, values: dict[str, Any]) -> Imported | None:
    watch = Watch()

    async def work() -> Imported:
        if desk.read_only is not None:
            raise desk.read_only
        return await desk.importing.do(
            lambda database: importing.import_file(database, values["file"], progress=watch.told, **_how(values))
        )

    done: list[Imported] = []
    # Among the writes of the app: whoever leaves meanwhile is asked, and waited for.
    task = app.saver.begin(
        "import", f"the import of {one_line(values['file'], 40)}", work, done.append,
        lambda error: _tell(app, watch, error),
    )  # fmt: skip
    if task is None:
        app.say("an import is under way: wait for it")
        return None
    await watched(app, "Importing", watch, task)
    return done[0] if done else None


def _how(values: dict[str, Any]) -> dict[str, Any]:
    """How the form says that a file is to be read."""
    return {
        "defaults": Defaults(values["language"], values["rater"]),
        "reading": Reading(values["layout"] or None),
        "skip_bad": values["bad"] == "skip",
    }


def _tell(app: WorkbenchApp, watch: Watch, error: WorkbenchError) -> None:
    if watch.stopped.is_set():
        app.say("stopped: nothing was imported")
    else:
        app.report(error)


class PreviewDialog(Dialog[bool]):
    """What a file holds, and what its first records become. Enter imports, Escape goes back to the form."""

    AUTO_FOCUS = "#page"
    BINDINGS: ClassVar = [("enter", "accept", "import")]

    def __init__(self, file: str, found: Looked) -> None:
        super().__init__(f"Import {one_line(Path(file).name, 40)}?")
        self.found = found

    def fields(self) -> ComposeResult:
        self.add_class("sheet")
        with VerticalScroll(id="page"):
            yield Static(Content("\n").join(summary(self.found)))
            for one in self.found.examples:
                yield Static(Content.styled(f"line {one.line}, read as {one.layout}", "$text-muted"))
                for record in one.becomes:
                    yield Static(content("  " + json.dumps(_cut(record), ensure_ascii=False)))
        yield Static(
            Content.assemble(("enter", "bold $accent"), " import   ", ("esc", "bold $accent"), " back"), id="answer"
        )

    def action_accept(self) -> None:
        self.dismiss(True)


def summary(found: Looked) -> list[Content]:
    """A file in a few lines: what it holds, and what to beware of."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items())
    total = Content.assemble((counted(found.records, "record"), "bold"), f" ({kinds})")
    lines = [total, *(Content(f"read as {name}: {count}") for name, count in found.layouts.items())]
    warned = [f"left out: {line}" for line in found.skipped_because]
    if found.ignored_fields:
        warned.append(f"fields not read: {', '.join(found.ignored_fields)}")
    warned += [f"{theirs} could be the {ours}: workbench import --map {ours}={theirs}" for theirs, ours in
               found.could_be.items()]  # fmt: skip
    return [*lines, *(content(one_line(line, 400), "$text-warning") for line in warned)]


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_cut(one) for one in value]
    return value if not isinstance(value, str) or len(value) <= LONGEST_SHOWN else value[: LONGEST_SHOWN - 1] + "…"


def _there(text: str) -> str:
    """The path of a file that is there; ~ is the home folder."""
    if not text:
        raise ValueError("want the path of a file")
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError("there is no such file")
    return str(path)


def _named(text: str) -> str:
    if not text:
        raise ValueError("want a name")
    return text


# Out


async def write_out(app: WorkbenchApp, desk: Desk) -> Content | None:
    """Ask for a kind and a file, and export with a manifest; returns what was written, in words."""
    kinds = tuple(exporting.KINDS)
    fields = [
        Field("kind", "what", "preference", one_of(*kinds)),
        Field("file", "file", "", _to_be_made, "empty: exports/WHAT.jsonl"),
    ]
    values = await app.push_screen_wait(
        FormDialog("Export", fields, text=f"{', '.join(kinds)}; a manifest is written beside the file")
    )
    if values is None:
        return None
    kind = str(values["kind"])
    file = str(values["file"] or desk.workspace.exports / f"{kind}.jsonl")
    if Path(file).exists() and not await app.push_screen_wait(
        ConfirmDialog("Replace the file?", f"{from_home(Path(file))} is there already.")
    ):
        return None
    command = shlex.join(["workbench", "export", kind, file, "--manifest"])
    watch = Watch()

    def export_file(database: Database) -> Exported:
        return exporting.export_file(
            database, kind, file, manifest=command, heard=lambda done: watch.told("writing", done, 0)
        )

    try:
        written = await watched(app, "Exporting", watch, desk.looking.do(export_file))
    except WorkbenchError as error:
        if watch.stopped.is_set():
            return Content.styled("stopped: nothing was written", "$text-muted")
        app.report(error)
        return None
    return Content.assemble(
        ("written ✓", "$text-success"), f"  {counted(written.records, 'record')}  ",
        (f"sha256 {written.sha256[:16]}…", "$text-muted"), f"  {one_line(from_home(Path(file)), 60)}",
    )  # fmt: skip


def _to_be_made(text: str) -> str:
    """The path of a file in a folder that is there; nothing stays nothing."""
    if not text:
        return ""
    path = Path(text).expanduser()
    if path.is_dir():
        raise ValueError("that is a folder")
    if not path.parent.is_dir():
        raise ValueError("its folder is not there")
    return str(path)


# Packs


async def choose_packs(app: WorkbenchApp, desk: Desk) -> list[packs.Pack] | None:
    """Let a person choose from the prompt packs; None where none was chosen."""
    try:
        held = await desk.read(packs.held)
    except WorkbenchError as error:
        app.report(error)
        return None
    lines: list[tuple[str, Content]] = [(packs.EVERYTHING, _line(packs.EVERYTHING, "every language and task"))]
    for language in dict.fromkeys(pack.language for pack in packs.every()):
        lines.append((language, _line(language, f"{name(language)}: every task")))
    for pack in packs.every():
        there = " · in the workspace" if held[pack.name] == len(pack.prompts) else ""
        lines.append(
            (pack.name, _line(pack.name, f"{packs.title(pack)}, {counted(len(pack.prompts), 'prompt')}{there}"))
        )

    async def find(typed: str) -> list[tuple[str, Content]]:
        wanted = typed.strip().casefold()
        return [(key, line) for key, line in lines if wanted in line.plain.casefold()]

    chosen = await app.push_screen_wait(PickDialog("Add prompts", find, placeholder="language or task"))
    return None if chosen is None else packs.chosen([chosen])


def _line(key: str, words: str) -> Content:
    return Content.assemble((f"{key:<15}", "bold"), words)
