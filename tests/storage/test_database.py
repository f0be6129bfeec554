"""The rules of the one way to open the database, each with its test."""

from __future__ import annotations

import signal
import stat
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from children import NEXT_MIGRATION
from processes import Child, go, next_line

from storage import conversations, settings
from storage import database as storage_database
from storage import workspace as storage_workspace
from storage.backups import backup
from storage.database import Database, DatabaseError, open_database, read_database
from storage.errors import SchemaTooNewError, UsageError, WorkbenchError
from storage.feedback import log
from storage.records import Sample
from storage.schema.migrations import CURRENT, MIGRATIONS
from storage.sqlite import write_ahead_log_is_safe
from storage.workspace import Workspace

# The engine


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_the_write_ahead_log_waits_for_an_sqlite_without_the_race(
    tmp_path: Path, version: tuple[int, ...], safe: bool
) -> None:
    assert write_ahead_log_is_safe(version, tmp_path) is safe


def test_an_sqlite_with_the_race_falls_back_to_a_rollback_journal(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_database, "sqlite_version", lambda: (3, 40, 1))
    with open_database(workspace) as database:
        assert database.scalar("PRAGMA journal_mode") == "delete"
        conversations.add(database, "¿Qué es un glaciar?", language="es")
    assert not list(workspace.root.glob("*-wal"))


def test_a_network_disk_gets_no_write_ahead_log(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sqlite.file_system", lambda path: "nfs4")
    with open_database(workspace) as database:
        assert database.journal_mode == "delete"


def test_every_connection_syncs_each_commit_and_waits_for_locks(database: Database) -> None:
    assert database.scalar("PRAGMA synchronous") == 2  # FULL
    assert database.scalar("PRAGMA busy_timeout") == storage_database.BUSY_TIMEOUT_MS
    assert database.scalar("PRAGMA foreign_keys") == 1
    assert database.scalar("PRAGMA journal_mode") == "wal"


def test_database_and_workspace_are_private(workspace: Workspace, database: Database) -> None:
    conversations.add(database, "Was ist ein Gletscher?", language="de")  # makes the -wal and -shm files
    assert stat.S_IMODE(workspace.root.stat().st_mode) == 0o700
    files = list(workspace.root.glob("workbench.db*"))
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_is_no_database_is_refused_and_left_alone(workspace: Workspace) -> None:
    workspace.database.write_bytes(b"these are notes, not a database" * 100)
    with pytest.raises(WorkbenchError, match="cannot open"):
        open_database(workspace)
    assert workspace.database.read_bytes().startswith(b"these are notes")


def test_a_workspace_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="--workspace"):
        open_database(Workspace(tmp_path / "file"))


# To read alone


def files_of(workspace: Workspace) -> dict[str, bytes]:
    """The files with something in them: SQLite may leave an empty one where it cannot go on."""
    return {str(path): data for path in workspace.root.rglob("*") if path.is_file() and (data := path.read_bytes())}


def test_what_only_reads_leaves_no_file_behind_and_cannot_write(
    workspace: Workspace, database: Database, answer: Sample
) -> None:
    database.close()
    before = files_of(workspace)
    with read_database(workspace) as database:
        assert database.scalar("SELECT count(*) FROM samples") == 1
        with pytest.raises(DatabaseError, match="readonly"):
            settings.put(database, "theme", "dusk")
    assert files_of(workspace) == before


def test_nothing_is_made_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    for open_it in (read_database, partial(open_database, create=False)):
        with pytest.raises(UsageError, match="there is no workspace in"):
            open_it(Workspace(tmp_path / "mistyped" / "name"))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file is not waited for: nobody is making a database here."""
    monkeypatch.setattr(storage_workspace, "BEING_MADE", 0.0)


def test_a_database_that_another_program_is_just_making_is_waited_for(workspace: Workspace) -> None:
    (workspace.backups / "workbench.db").touch()
    workspace.database.touch()
    made = threading.Timer(0.3, workspace.database.write_bytes, [b"its first page"])
    made.start()
    assert not workspace.was_emptied
    assert workspace.existing() is workspace
    made.join()


@pytest.mark.usefixtures("hasty")
def test_a_database_that_was_cut_to_nothing_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "workbench.db").touch()
    for open_it in (read_database, partial(open_database, create=False)):
        with pytest.raises(UsageError, match=r"workbench\.db is empty"):
            open_it(Workspace(tmp_path))
    assert not (tmp_path / "workbench.db").stat().st_size


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("left", ["versions/v1", "backups/workbench.db"])
def test_nothing_begins_anew_where_backups_or_versions_say_that_something_was_stored(tmp_path: Path, left: str) -> None:
    (tmp_path / left).parent.mkdir()
    (tmp_path / left).touch()
    (tmp_path / "workbench.db").touch()
    with pytest.raises(UsageError, match=r"workbench\.db is empty"):
        open_database(Workspace(tmp_path))
    assert not (tmp_path / "workbench.db").stat().st_size


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o750)
    (tmp_path / "shared").chmod(0o750)
    open_database(Workspace(tmp_path / "shared")).close()
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "shared" / "versions").stat().st_mode) == 0o700


@pytest.mark.parametrize("killed", [False, True])
def test_it_is_read_where_sqlite_cannot_make_its_own_files(
    workspace: Workspace, database: Database, answer: Sample, start: Callable[..., Child], killed: bool
) -> None:
    """As in a folder that may not be written. What a killed program left in the write-ahead log is read as well."""
    database.close()
    if killed:
        child = start("rate_for_ever", answer.id)
        acknowledged = {next_line(child) for _ in range(5)}
        child.kill()
        child.wait()
        assert (workspace.root / "workbench.db-wal").stat().st_size
    else:
        acknowledged = set()
    (workspace.root / "workbench.db-shm").unlink(missing_ok=True)
    (workspace.root / "workbench.db-shm").mkdir()  # in its way
    before = files_of(workspace)
    with read_database(workspace) as database:
        assert acknowledged <= {row["id"] for row in database.rows("SELECT id FROM ratings")}
        assert database.scalar("SELECT text FROM samples") == answer.text
    assert files_of(workspace) == before


# Transactions


def store_then_fail(database: Database) -> None:
    with database.transaction():
        with database.transaction():
            settings.put(database, "theme", "dusk")
        raise ValueError("after the inner transaction")


def test_a_failed_transaction_leaves_nothing_of_itself_nor_of_inner_ones(database: Database) -> None:
    with pytest.raises(ValueError, match="inner transaction"):
        store_then_fail(database)
    assert settings.get(database, "theme") is None
    settings.put(database, "theme", "dawn")  # and the connection is as good as before
    assert settings.get(database, "theme") == "dawn"


def test_data_version_moves_on_commits_of_others_only(workspace: Workspace, database: Database) -> None:
    before = database.data_version()
    settings.put(database, "theme", "dusk")
    assert database.data_version() == before
    with open_database(workspace) as other:
        settings.put(other, "theme", "dawn")
    assert database.data_version() != before
    assert settings.get(database, "theme") == "dawn"


def test_two_processes_hammering_never_meet_a_locked_database(
    database: Database, answer: Sample, start: Callable[..., Child]
) -> None:
    children = [start("hammer", answer.id, 150) for _ in range(2)]
    assert [next_line(child) for child in children] == ["ready", "ready"]
    for child in children:
        go(child)
    while any(child.poll() is None for child in children):
        log.append(database, log.note(answer.id, "meanwhile", "the third"))
    assert [next_line(child) for child in children] == ["done", "done"]
    assert [child.returncode for child in children] == [0, 0]
    # Read and written in one transaction: a lost update would leave the counter short.
    assert settings.get(database, "counter") == 300
    assert database.scalar("SELECT count(*) FROM ratings WHERE rater != 'the third'") == 300
    assert database.scalar("PRAGMA integrity_check") == "ok"


def test_many_processes_can_open_a_new_workspace_at_once(workspace: Workspace, start: Callable[..., Child]) -> None:
    for turn in range(2):
        for file in workspace.root.glob("workbench.db*"):
            file.unlink()
        children = [start("open_only") for _ in range(4)]
        assert {next_line(child) for child in children} == {"ready"}, turn
        for child in children:
            go(child)
        assert [next_line(child) for child in children] == ["wal"] * 4, turn
        for child in children:
            child.wait()  # the last one to leave takes the write-ahead log away


def test_opening_waits_for_a_writer_that_keeps_the_journal_mode_from_changing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = threading.Event()

    def write_slowly() -> None:
        with open_database(workspace) as slow, slow.transaction():
            settings.put(slow, "theme", "dusk")
            writing.set()
            time.sleep(0.3)

    monkeypatch.setattr(storage_database, "sqlite_version", lambda: (3, 40, 1))
    writer = threading.Thread(target=write_slowly)
    writer.start()
    assert writing.wait(10)
    monkeypatch.undo()
    with open_database(workspace) as database:
        assert database.journal_mode == "wal"
        assert settings.get(database, "theme") == "dusk"
    writer.join()


def test_no_acknowledged_rating_is_lost_to_sigkill(
    database: Database, answer: Sample, start: Callable[..., Child]
) -> None:
    acknowledged: list[str] = []
    for turn in range(8):
        child = start("rate_for_ever", answer.id)
        acknowledged += [next_line(child) for _ in range(20 + 3 * turn)]
        child.send_signal(signal.SIGKILL)
        assert child.stdout is not None
        rest = child.stdout.read()  # what was acknowledged between our last look and the kill
        acknowledged += [line for line in rest.split("\n")[:-1] if line]
        child.wait()
    stored = {row["id"] for row in database.rows("SELECT id FROM ratings")}
    assert len(acknowledged) >= 200
    assert set(acknowledged) <= stored
    assert database.scalar("PRAGMA integrity_check") == "ok"
    assert log.effects_differ(database) == 0


# Migrations


def test_a_newer_schema_is_refused_and_left_alone(workspace: Workspace, database: Database) -> None:
    database.execute(f"PRAGMA user_version = {CURRENT + 1}")
    database.close()
    before = workspace.database.read_bytes()
    with pytest.raises(SchemaTooNewError, match="upgrade"):
        open_database(workspace)
    assert workspace.database.read_bytes() == before


def migrate(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setattr(storage_database, "MIGRATIONS", (*MIGRATIONS, NEXT_MIGRATION))
    monkeypatch.setattr(storage_database, "CURRENT", NEXT_MIGRATION.number)
    return open_database(workspace)


def test_a_migration_keeps_a_sound_backup_of_what_was_there(
    workspace: Workspace, database: Database, answer: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.close()
    with migrate(workspace, monkeypatch) as migrated:
        assert migrated.scalar("PRAGMA user_version") == NEXT_MIGRATION.number
        assert migrated.scalar("SELECT count(*) FROM samples") == 1
        assert migrated.scalar("SELECT id FROM moods") == "calm"
    monkeypatch.undo()
    (copy,) = workspace.backups.glob("*.db")
    restored = Workspace(workspace.root / "restored").prepare()
    restored.database.write_bytes(copy.read_bytes())
    with open_database(restored) as old:
        assert old.scalar("PRAGMA user_version") == CURRENT
        assert old.scalar("SELECT text FROM samples") == answer.text


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_migration_killed_in_the_middle_leaves_the_old_schema(
    workspace: Workspace, database: Database, answer: Sample, start: Callable[..., Child], after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    database.close()
    child = start("die_while_migrating", after)
    assert child.wait() == -signal.SIGKILL
    with open_database(workspace) as old:
        assert old.scalar("PRAGMA user_version") == CURRENT
        assert old.scalar("SELECT count(*) FROM sqlite_master WHERE name = 'moods'") == 0
        assert old.scalar("SELECT count(*) FROM sqlite_master WHERE name = 'settings'") == 1
        assert old.scalar("SELECT text FROM samples") == answer.text
        assert old.scalar("PRAGMA integrity_check") == "ok"
    assert len(list(workspace.backups.glob("*.db"))) == 1
    with migrate(workspace, monkeypatch) as migrated:
        assert migrated.scalar("SELECT id FROM moods") == "calm"


# Backup


def test_a_backup_holds_everything_and_is_private(workspace: Workspace, database: Database, answer: Sample) -> None:
    log.append(database, log.score(answer.id, 5, "ana"))
    copy = backup(database, workspace.backups / "copy.db")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert not list(workspace.backups.glob("*.partial"))
    restored = Workspace(workspace.root / "restored").prepare()
    restored.database.write_bytes(copy.read_bytes())
    with open_database(restored) as other:
        assert log.effective(other) == log.effective(database)


def test_a_backup_never_overwrites_a_file(workspace: Workspace, database: Database) -> None:
    taken = workspace.backups / "copy.db"
    taken.write_text("the last copy of something")
    with pytest.raises(WorkbenchError, match="exists already"):
        backup(database, taken)
    assert taken.read_text() == "the last copy of something"


def test_a_lock_that_lasts_is_told_in_a_sentence(workspace: Workspace, database: Database) -> None:
    with open_database(workspace) as other, database.transaction():
        other.execute("PRAGMA busy_timeout = 20")
        with pytest.raises(WorkbenchError, match="locked by another program"), other.transaction():
            pass
