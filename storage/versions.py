"""Versions of the weights: which exist, where each came from, and which one is served.

The served version is the newest row of `version_events`; publishing and rolling back only ever add rows there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from storage import clock
from storage.database import Database
from storage.digests import sha256_of
from storage.errors import UsageError, WorkbenchError
from storage.records import Begun, Version, VersionState
from storage.workspace import Workspace


def ensure_base(database: Database, base_model: str, base_digest: str) -> Version:
    """The version of an untouched base model: `v0` for the first one a workspace uses, then `v0-NAME`."""
    with database.transaction():
        found = database.record(
            Version, "SELECT * FROM versions WHERE kind = 'base' AND base_digest = ?", (base_digest,)
        )
        if found:
            return found
        name = "v0" if find(database, "v0") is None else f"v0-{base_model}"
        if find(database, name) is not None:
            name = f"{name}-{base_digest[:6]}"
        created = Version(
            clock.new_id(), name, base_model, base_digest, VersionState.PUBLISHED, clock.now(), kind="base"
        )
        database.insert("versions", created)
        if served(database) is None:
            _event(database, name, "publish", "the base model")
    return created


def next_name(database: Database) -> str:
    """The name the next trained version will have: v1, v2, ..."""
    numbers = [int(row["name"][1:]) for row in database.rows("SELECT name FROM versions") if row["name"][1:].isdigit()]
    return f"v{max(numbers, default=0) + 1}"


def add_candidate(
    database: Database,
    *,
    base: Version,
    parent: str,
    file: str,
    sha256: str,
    kind: str = "lora",
    job_id: str | None = None,
    step: int | None = None,
    metrics: dict[str, Any] | None = None,
) -> Version:
    """Record a finished, synced and hashed weights file under the next name; it is not served yet."""
    with database.transaction():
        created = Version(
            clock.new_id(), next_name(database), base.base_model, base.base_digest, VersionState.CANDIDATE,
            clock.now(), kind, parent, job_id, step, file, sha256, [], metrics or {},
        )  # fmt: skip
        database.insert("versions", created)
    return created


def record_gates(database: Database, name: str, gates: list[dict[str, Any]], metrics: dict[str, Any]) -> None:
    """Store what the gate found: objects `{gate, passed, value, bound, detail}`, and the figures to show."""
    merged = {**get(database, name).metrics, **metrics}
    with database.transaction():
        database.execute(
            "UPDATE versions SET gates = ?, metrics = ? WHERE name = ?",
            (msgspec.json.encode(gates).decode(), msgspec.json.encode(merged).decode(), name),
        )


def publish(database: Database, workspace: Workspace, name: str, reason: str = "") -> Version:
    """Serve a version from now on, after checking its file.

    Raises:
        UsageError: it is a control.
        WorkbenchError: its file is missing or is not the one that was recorded; the served version stays.
    """
    found = get(database, name)
    _refuse_control(found)
    verify(workspace, found)
    return serve(database, name, reason)


def serve(database: Database, name: str, reason: str = "") -> Version:
    """Serve a version from now on whose file is known to be sound: hashing it here would keep others from writing.

    Raises:
        UsageError: it is a control.
    """
    _refuse_control(get(database, name))
    with database.transaction():
        database.execute("UPDATE versions SET state = 'published' WHERE name = ?", (name,))
        _event(database, name, "publish", reason)
    return get(database, name)


def reject(database: Database, name: str, reason: str) -> Version:
    """Mark a candidate that did not pass the gate."""
    with database.transaction():
        database.execute("UPDATE versions SET state = 'rejected' WHERE name = ?", (name,))
        _event(database, name, "reject", reason)
    return get(database, name)


def rollback(database: Database, workspace: Workspace, reason: str = "") -> Version:
    """Go back to the version that was served before the served one, and mark that one.

    Raises:
        UsageError: nothing was served before it.
        WorkbenchError: the file of the version to go back to is damaged.
    """
    before = served_before(database)
    if before is not None:
        verify(workspace, before)
    return serve_before(database, reason)


def serve_before(database: Database, reason: str = "") -> Version:
    """Roll back where the earlier version's file is known to be sound: hashing it here would keep others from writing.

    Raises:
        UsageError: nothing was served before the served version.
    """
    with database.transaction():
        current, before = served(database), served_before(database)
        if current is None or before is None:
            raise UsageError(
                "there is nothing to roll back: nothing was served before",
                "`workbench versions` lists what exists; `workbench publish VERSION` serves any of it",
            )
        database.execute("UPDATE versions SET state = 'rolled-back' WHERE name = ?", (current.name,))
        database.execute("UPDATE versions SET state = 'published' WHERE name = ?", (before.name,))
        _event(database, before.name, "rollback", reason or f"back from {current.name}")
    return get(database, before.name)


def served_before(database: Database) -> Version | None:
    """The version that was served before the served one, or its parent where that is not on record; None for neither.

    What was rolled back is left out: going back twice goes two versions back. Weights of another base model are too.
    """
    served_in_turn: list[str] = []
    for event in database.rows(
        "SELECT version, action FROM version_events WHERE action IN ('publish', 'rollback') ORDER BY sequence"
    ):
        name = event["version"]
        if event["action"] == "rollback" and name in served_in_turn:
            del served_in_turn[served_in_turn.index(name) + 1 :]
        elif name not in served_in_turn[-1:]:
            served_in_turn.append(name)
    current = served(database)
    if current is None:
        return None
    for name in reversed(served_in_turn[:-1]):
        found = get(database, name)
        if found.base_digest == current.base_digest and name != current.name:
            return found
    return get(database, current.parent) if current.parent is not None else None


def served(database: Database, begun: Begun | None = None) -> Version | None:
    """The version that new answers come from, or came from when a job began; None where no model was loaded yet."""
    return database.record(
        Version,
        """SELECT versions.* FROM versions JOIN version_events ON version_events.version = versions.name
           WHERE action IN ('publish', 'rollback') AND (?1 IS NULL OR version_events.sequence <= ?1)
           ORDER BY version_events.sequence DESC LIMIT 1""",
        (begun and begun.version_events,),
    )


def served_of(database: Database, root: Version) -> Version:
    """The version that was served last of those that go back to `root`; that one itself when there is none."""
    for found in database.records(
        Version,
        """SELECT versions.* FROM versions JOIN version_events ON version_events.version = versions.name
           WHERE action IN ('publish', 'rollback') AND base_digest = ? ORDER BY version_events.sequence DESC""",
        (root.base_digest,),
    ):
        if goes_back_to(database, found, root):
            return found
    return root


def goes_back_to(database: Database, version: Version, root: Version) -> bool:
    """Whether a version was made from another, over however many jobs."""
    if root.kind == "base":
        return version.base_digest == root.base_digest
    return root.name in lineage(database, version)


def lineage(database: Database, version: Version) -> dict[str, Version]:
    """A version and those that it goes back to, by name, the youngest first."""
    found = {version.name: version}
    while version.parent is not None and version.parent not in found:
        version = get(database, version.parent)
        found[version.name] = version
    return found


def adopted(database: Database, base: Version, digest: str, sha256: str) -> Version | None:
    """The version that an adapter is or became, by the digest of all its files, or the SHA-256 of a weights file of our
    own; None where it is none yet."""
    return database.record(
        Version,
        """SELECT * FROM versions WHERE base_digest = ? AND (json_extract(metrics, '$.adopted') = ? OR sha256 = ?)
           ORDER BY sequence LIMIT 1""",
        (base.base_digest, digest, sha256),
    )


def words_of(database: Database, workspace: Workspace, version: Version) -> Path | None:
    """The folder of the tokenizer that a version was made with, where that is not its base model's."""
    for one in lineage(database, version).values():
        path = path_of(workspace, one)
        if path is not None and (path.parent / "tokenizer_config.json").is_file():
            return path.parent
    return None


def find(database: Database, name: str) -> Version | None:
    """A version by name, or None."""
    return database.record(Version, "SELECT * FROM versions WHERE name = ?", (name,))


def get(database: Database, name: str) -> Version:
    """A version by name. Raises UsageError when there is none."""
    found = find(database, name)
    if found is None:
        known = ", ".join(version.name for version in every(database)) or "none yet"
        raise UsageError(f"there is no version {name!r}", f"versions in this workspace: {known}")
    return found


def every(database: Database) -> list[Version]:
    """All versions, newest first."""
    return database.records(Version, "SELECT * FROM versions ORDER BY sequence DESC")


def base_of(database: Database, version: Version) -> Version:
    """The untouched base model that a version was trained from."""
    found = database.record(
        Version, "SELECT * FROM versions WHERE kind = 'base' AND base_digest = ?", (version.base_digest,)
    )
    if found is None:
        raise WorkbenchError(f"the base model of {version.name} is not in this workspace", "run `workbench doctor`")
    return found


def path_of(workspace: Workspace, version: Version) -> Path | None:
    """The absolute path of a version's weights file; None for a base model."""
    return workspace.root / version.file if version.file else None


def verify(workspace: Workspace, version: Version) -> None:
    """Check that a version's file is complete and the one recorded.

    Raises:
        WorkbenchError: missing, unreadable, truncated or changed.
    """
    path = path_of(workspace, version)
    if path is None:
        return
    keep = "the version being served stays; restore the file from a copy, or train again"
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise WorkbenchError(f"{version.name}: cannot read {path}: {error.strerror or error}", keep) from error
    if digest != version.sha256:
        raise WorkbenchError(f"{version.name}: {path} is not the file that was published (its digest differs)", keep)


def _refuse_control(version: Version) -> None:
    """A version that learned from ratings which say nothing answers nobody."""
    control = version.metrics.get("control")
    if control:
        raise UsageError(
            f"{version.name} is a control: it learned from {control} ratings and is never published",
            "it shows what a run gains without the ratings; publish a version that learned from them",
        )


def _event(database: Database, name: str, action: str, reason: str) -> None:
    database.insert(
        "version_events",
        {"id": clock.new_id(), "version": name, "action": action, "reason": reason, "created_at": clock.now()},
    )
