"""Two workspaces become one: what another holds comes into this one, whole or not at all.

Keys are UUIDs, so that what both hold already is known by its key and comes once: merging again changes nothing. What
comes gets sequences of its own, after all that is here, in the order that it had. A prompt that both asked is one, and
of its two uses the stricter holds for both (held out wins). A version whose name is taken gets the next one;
its files are copied, hashed, and refused where they are not those that were recorded. Which version is served, and all
settings, stay as they are. A rating that a rater gave here and there replaces the one from here, as if it had been said
after it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from storage import conversations, unfinished, versions
from storage.database import Database, read_database
from storage.digests import sha256_of
from storage.durable import sync_file, sync_folder
from storage.errors import UsageError, WorkbenchError
from storage.feedback import clocks, guidelines, log, projection, replacing
from storage.feedback.kinds import TURNS
from storage.records import JobState, RewardModel, Split, Version, VersionState
from storage.workspace import Workspace

Row = dict[str, Any]
PARTIAL = ".merging"


class Merged(msgspec.Struct):
    """How much came; `stricter` prompts of here are held out, or of ethics, from now on, as they were there. `renamed`
    holds the versions and reward models that bear another name here."""

    prompts: int = 0
    samples: int = 0
    ratings: int = 0
    versions: int = 0
    jobs: int = 0
    reward_models: int = 0
    raters: int = 0
    stricter: int = 0
    renamed: dict[str, str] = msgspec.field(default_factory=dict)


def merge(
    database: Database,
    here: Workspace,
    there: Workspace,
    wait: Callable[[], None] = lambda: None,
    progress: Callable[[str], None] = lambda doing: None,
) -> Merged:
    """Bring in what another workspace holds. An import that is under way is waited for (`wait` is called before);
    `progress` is told of each part.

    Raises:
        UsageError: it is this one; or a job is running there.
        WorkbenchError: there is none, it cannot be read, or a file of a version is not the one that was recorded.
            Nothing was changed.
    """
    if there.existing().root.resolve() == here.root.resolve():
        raise UsageError("a workspace cannot be merged into itself", "name the other one: workbench merge OTHER")
    with (
        read_database(there) as other,
        other.snapshot(),
        unfinished.turn(database, wait),
        contextlib.ExitStack() as undo,
    ):
        running = other.row("SELECT id FROM jobs WHERE state = 'running' LIMIT 1")
        if running is not None:
            raise UsageError(
                f"the job {running['id'][:8]} is running in {there.root}", "wait until it is done, or cancel it there"
            )
        database.execute("PRAGMA synchronous = FULL")
        work = _Merge(database, here, other, there, undo)
        with database.transaction():
            work.everything(progress)
        undo.pop_all()
        return work.done


class _Merge:
    """One merge, in one transaction. Files that it made are taken away by `undo` unless all went well."""

    def __init__(
        self, database: Database, here: Workspace, other: Database, there: Workspace, undo: contextlib.ExitStack
    ) -> None:
        self.database, self.here, self.other, self.there, self.undo = database, here, other, there, undo
        self.done = Merged()
        self.version_names: dict[str, str] = {}  # there: here
        self.prompt_ids: dict[str, str] = {}

    def everything(self, progress: Callable[[str], None]) -> None:
        """In the order in which rows refer to each other."""
        progress("merging jobs and versions")
        fresh = self._jobs()
        self._versions()
        self._reward_models()
        progress("merging prompts and answers")
        self._prompts()
        known = self._samples()
        progress("merging ratings")
        self._raters()
        self._ratings(known)
        self._of_jobs(fresh)

    # Jobs, versions and reward models

    def _jobs(self) -> list[str]:
        """The jobs that have ended; the others come when they have, with another merge. Returns the keys of those that
        came. Their checkpoints and logs stay where they are."""
        fresh = [row for row in self._fresh("jobs") if row["state"] in (JobState.DONE, JobState.FAILED)]
        for row in fresh:
            row |= {"checkpoint": None, "log": None, "begun": None, "pid": None, "worker": None, "lease_until": None}
        self.database.insert_many("jobs", fresh)
        self.done.jobs = len(fresh)
        return [row["id"] for row in fresh]

    def _job(self, job_id: str | None) -> str | None:
        """The key of a job, if it is here by now."""
        return self.database.scalar("SELECT id FROM jobs WHERE id = ?", (job_id,))

    def _versions(self) -> None:
        """Versions, each after its parent. A base model is known by its digest, a version by its key or its file."""
        for one in self.other.records(Version, "SELECT * FROM versions ORDER BY sequence"):
            found = self.database.record(
                Version,
                """SELECT * FROM versions WHERE id = ?1 OR (kind = 'base' AND ?2 = 'base' AND base_digest = ?3)
                   OR (sha256 = ?4 AND base_digest = ?3) ORDER BY id = ?1 DESC LIMIT 1""",
                (one.id, one.kind, one.base_digest, one.sha256),
            )
            name = found.name if found is not None else self._new_version(one)
            self.version_names[one.name] = name
            if name != one.name:
                self.done.renamed[one.name] = name

    def _new_version(self, one: Version) -> str:
        """Store a version that is not here, with its files; returns its name here."""
        if one.kind == "base":
            return versions.ensure_base(self.database, one.base_model, one.base_digest).name
        taken = versions.find(self.database, one.name) is not None
        name = versions.next_name(self.database) if taken else one.name
        file = self._copied(one.name, one.file, one.sha256, Path("versions") / name)
        state = VersionState.CANDIDATE if one.state == VersionState.PUBLISHED else one.state
        parent = None if one.parent is None else self.version_names[one.parent]
        self.database.insert("versions", msgspec.structs.replace(one, name=name, file=file, parent=parent, state=state))
        self.done.versions += 1
        return name

    def _reward_models(self) -> None:
        for one in self.other.records(RewardModel, "SELECT * FROM reward_models ORDER BY sequence"):
            if self.database.scalar("SELECT 1 FROM reward_models WHERE id = ?", (one.id,)):
                continue
            taken = self.database.scalar("SELECT 1 FROM reward_models WHERE name = ?", (one.name,))
            count = self.database.scalar("SELECT count(*) FROM reward_models")
            name = f"rm{count + 1}" if taken else one.name
            file = self._copied(one.name, one.file, one.sha256, Path(one.file).parent)
            judge = Path(one.file).parent.parent / "judge"
            if (self.there.root / judge).is_dir() and not (self.here.root / judge).exists():
                self._copy_folder(judge, judge)
            self.database.insert(
                "reward_models", msgspec.structs.replace(one, name=name, file=file, job_id=self._job(one.job_id))
            )
            self.done.reward_models += 1
            if name != one.name:
                self.done.renamed[one.name] = name

    def _copied(self, name: str, file: str | None, sha256: str | None, folder: Path) -> str:
        """Copy the folder of a file, and check that it is the one that was recorded; returns where it is here.

        Raises:
            WorkbenchError: it is missing, or has changed.
        """
        assert file is not None, "only a base model has no file"
        source = Path(file)
        keep = "nothing was changed; restore the file there from a copy, then merge again"
        if not (self.there.root / source).is_file():
            raise WorkbenchError(f"{name}: {self.there.root / source} is missing", keep)
        with self._made(folder) as partial:
            alone = len(source.parts) < 3  # beside those of other versions
            _copy(self.there.root / source.parent, partial, source.name if alone else None)
            if sha256_of(partial / source.name) != sha256:
                what = "is not the file that was recorded (its digest differs)"
                raise WorkbenchError(f"{name}: {self.there.root / source} {what}", keep)
        return str(folder / source.name)

    def _copy_folder(self, source: Path, folder: Path) -> None:
        with self._made(folder) as partial:
            _copy(self.there.root / source, partial)

    @contextlib.contextmanager
    def _made(self, folder: Path) -> Iterator[Path]:
        """A folder to fill, which gets its name when it is filled, and is taken away if the merge fails."""
        place = self.here.root / folder
        partial = place.with_name(f".{place.name}{PARTIAL}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            yield partial
            sync_folder(partial)
            shutil.rmtree(place, ignore_errors=True)  # left by a crash between rename and commit: no row names it
            partial.rename(place)
            self.undo.callback(shutil.rmtree, place, ignore_errors=True)
            sync_folder(place.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    # Prompts, samples and ratings

    def _prompts(self) -> None:
        """Prompts; one that both asked is the one of here."""
        decided: dict[str, Split] = {}
        made: list[Row] = []
        for row in self._rows("SELECT * FROM prompts ORDER BY sequence"):
            opening = row["opening"]
            if opening not in decided:
                uses = conversations.splits_of(self.database, opening)
                decided[opening] = conversations.strictest_of([*uses, Split(row["split"])])
                if uses:
                    self.done.stricter += conversations.make_stricter(self.database, opening, decided[opening])
            found = self.database.row(
                """SELECT id, task FROM prompts WHERE id = ?1 OR (text_key = ?2 AND system = ?3 AND language = ?4)
                   LIMIT 1""",
                (row["id"], row["text_key"], row["system"], row["language"]),
            )
            if found is None:
                made.append(row | {"split": decided[opening].value})
                self.prompt_ids[row["id"]] = row["id"]
                continue
            self.prompt_ids[row["id"]] = found["id"]
            if row["task"] and not found["task"]:
                conversations.name_task(self.database, found["id"], row["task"])
        self.database.insert_many("prompts", made)
        self.done.prompts = len(made)
        self._corrections()

    def _corrections(self) -> None:
        """What was corrected of prompts there is told of them here; as it has no key, it is known by itself."""
        columns = "prompt_id, field, was, became, made_by, created_at"
        known = {tuple(row.values()) for row in self.database.rows(f"SELECT {columns} FROM prompt_changes")}
        told = [
            row | {"prompt_id": self.prompt_ids[row["prompt_id"]]}
            for row in self._rows(f"SELECT {columns} FROM prompt_changes ORDER BY sequence")
        ]
        self.database.insert_many("prompt_changes", [row for row in told if tuple(row.values()) not in known])

    def _samples(self) -> set[str]:
        """Samples; returns the keys of those that were here before."""
        known = self._known("samples")
        fresh = [
            row | {"prompt_id": self.prompt_ids[row["prompt_id"]], "version": self._version(row["version"])}
            for row in self._rows("SELECT * FROM samples ORDER BY sequence")
            if row["id"] not in known
        ]
        self.database.insert_many("samples", fresh)
        came = {row["id"] for row in fresh}
        self.database.insert_many(
            "expectations", [row for row in self._rows("SELECT * FROM expectations") if row["sample_id"] in came]
        )
        self.done.samples = len(fresh)
        return known

    def _ratings(self, known_samples: set[str]) -> None:
        """The events that are not here, after all that are, in their order; and what counts from now on."""
        known, before = self._known("ratings"), log.position(self.database)
        # What ratings answer to: g1 of there may be g2 here.
        asked = {
            one.name: guidelines.version_of(self.database, one.guideline) for one in guidelines.versions(self.other)
        }
        last = self.database.scalar("SELECT id FROM ratings ORDER BY sequence DESC LIMIT 1")
        events = self._rows("SELECT * FROM ratings ORDER BY sequence")
        stretches = clocks.stretches((row["id"] for row in events), clocks.seams(self.other))
        fresh: list[Row] = []
        seams: list[str] = []  # where another clock goes on: around all that comes, and where one does so there
        stretch = None
        for row, lies_in in zip(events, stretches, strict=True):
            if row["id"] in known:
                continue
            if lies_in != stretch and (fresh or last):
                seams.append(fresh[-1]["id"] if fresh else last)
            stretch = lies_in
            if row["supersedes"] is None and row["kind"] not in TURNS and row["sample_id"] in known_samples:
                row["supersedes"] = self._said_here(row["id"])
            fresh.append(row | {"guideline": asked.get(row["guideline"], row["guideline"])})
        self.database.insert_many("ratings", fresh)
        projection.count(self.database, "ratings.sequence > ?", before)
        tied = [row["id"] for row in fresh if row["supersedes"] is not None or row["gesture"] is not None]
        projection.settle(self.database, tied)
        if fresh:
            clocks.add_seams(self.database, [*seams, fresh[-1]["id"]])
        self.done.ratings = len(fresh)

    def _said_here(self, rating_id: str) -> str | None:
        """The rating of here that one from there takes the place of, if the same rater gave one of the same name."""
        return replacing.replaced_by(self.database, log.get(self.other, rating_id))

    def _raters(self) -> None:
        known = {row["name"] for row in self.database.rows("SELECT name FROM raters")}
        fresh = [row for row in self._rows("SELECT * FROM raters ORDER BY name") if row["name"] not in known]
        self.database.insert_many("raters", fresh)
        self.done.raters = len(fresh)

    def _of_jobs(self, jobs: list[str]) -> None:
        """What belongs to the jobs that came, and what was measured of versions."""
        for job in jobs:
            for table, order in (("job_ratings", "rating_id"), ("metrics", "rowid"), ("rollouts", "rowid")):
                rows = self._rows(f"SELECT * FROM {table} WHERE job_id = ? ORDER BY {order}", (job,))
                self.database.insert_many(table, rows)
        known = self._known("evaluations")
        measured = self._rows("SELECT * FROM evaluations ORDER BY rowid")
        fresh = [
            row
            | {
                "version": self._version(row["version"]),
                "against": self._version(row["against"]),
                "job_id": self._job(row["job_id"]),
            }
            for row in measured
            if row["id"] not in known
        ]
        self.database.insert_many("evaluations", fresh)

    # How rows are read

    def _version(self, name: str | None) -> str | None:
        """What a version of there is called here."""
        return None if name is None else self.version_names[name]

    def _known(self, table: str) -> set[str]:
        """The keys of there that are here already."""
        keys = projection.encoded([row["id"] for row in self._rows(f"SELECT id FROM {table}")])
        here = f"SELECT id FROM {table} WHERE id IN (SELECT value FROM json_each(?))"
        return {row["id"] for row in self.database.rows(here, (keys,))}

    def _fresh(self, table: str) -> list[Row]:
        """The rows of there that are not here, in their order."""
        known = self._known(table)
        return [row for row in self._rows(f"SELECT * FROM {table} ORDER BY sequence") if row["id"] not in known]

    def _rows(self, sql: str, parameters: tuple[str, ...] = ()) -> list[Row]:
        """Rows of there, without their sequences: they get new ones."""
        found = self.other.rows(sql, parameters)
        for row in found:
            row.pop("sequence", None)
        return found


def _copy(source: Path, folder: Path, only: str | None = None) -> None:
    """Copy a folder's files (or one of them), each on disk when this returns; links are neither followed nor copied."""
    folder.mkdir(mode=0o700)
    for file in sorted(source.iterdir()):
        if only not in (None, file.name):
            continue
        if file.is_file() and not file.is_symlink():
            shutil.copyfile(file, folder / file.name)
            sync_file(folder / file.name)
