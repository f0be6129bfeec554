"""What goes wrong in the database, on its disk or in a file, in words: what happened, what is safe, what to do.

Each kind of trouble has its own words. Only a database that is damaged is a reason to restore a copy: never a disk that
is full or fails, nor a folder that may not be written.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import msgspec

from storage.errors import UsageError, WorkbenchError
from storage.signs import one_line
from storage.sqlite import DatabaseError

SAFE = "what was committed before is safe"
LITTLE = 64 * 1024  # bytes; SQLite takes 32 KiB to begin with
READING_GOES_ON = "reading and exporting work; to change anything, make it writable or copy the folder elsewhere"
FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
CLOSED_ERRORS = frozenset({errno.EACCES, errno.EPERM})
# A name that cannot be meant; everything else is no fault of who named the file.
WRONG_NAMES = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
)


class ReadOnlyError(WorkbenchError):
    """The workspace can be read and not written."""


def is_locked(error: BaseException | None) -> bool:
    """Whether another program holds the database at this moment."""
    found = of_the_database(error)
    return found is not None and ("locked" in str(found) or "busy" in str(found))


def of_the_database(error: BaseException | None) -> DatabaseError | None:
    """What SQLite said, however it was put into words since."""
    while error is not None and not isinstance(error, DatabaseError):
        error = error.__cause__
    return error


def is_known(error: BaseException) -> bool:
    """Whether this is a trouble of the database, a row in it, the disk, a file or the memory, and no fault of the
    program."""
    known = (WorkbenchError, OSError, MemoryError, UnicodeError, msgspec.MsgspecError)
    return isinstance(error, known) or of_the_database(error) is not None


def kindly(
    error: BaseException, *, safe: str = SAFE, refused: str = "refused this", folder: Path | None = None
) -> WorkbenchError:
    """The error as one that a person can act on; one that is already, and is of neither database nor disk, as it is.

    Args:
        safe: what is not lost, as half a sentence.
        refused: what the workspace did, where nothing better is known.
        folder: the workspace, where it is known: what SQLite calls an I/O error is a full disk where no room is left.
    """
    told = of_the_database(error)
    if isinstance(error, WorkbenchError) and (told is None or isinstance(error, ReadOnlyError)):
        return error
    if told is not None:
        found = _of_sqlite(told, safe, refused, folder)
    elif isinstance(error, OSError):
        name = f" {one_line(_name(error.filename))}" if error.filename else ""
        found = of_file(f"cannot read or write{name}", error, safe)
    elif isinstance(error, MemoryError):
        found = WorkbenchError("out of memory", f"{safe}; close other programs, or ask for less at once")
    elif isinstance(error, UnicodeError):
        found = _of_text(error, safe)
    else:
        what = one_line(str(error)) or type(error).__name__
        found = WorkbenchError(f"the workspace {refused}: {what}", f"{safe}; ask `workbench doctor`")
    found.__cause__ = error
    return found


def of_file(doing: str, error: OSError, safe: str = "", hint: str = "name another file") -> WorkbenchError:
    """A file or folder that the system does not let us use.

    Args:
        doing: what failed, such as `cannot write out.csv`.
        safe: what is not lost, as half a sentence; may be empty.
        hint: what to do about a name that cannot be used.
    """
    number = error.errno
    said = error.strerror or str(error) or type(error).__name__
    if number in FULL_ERRORS:
        why, advice = "the disk is full", "make room on it and try again"
    elif number == errno.EFBIG:
        why, advice = "the file would become larger than is allowed here", "see `ulimit -f`, then try again"
    elif number == errno.EROFS:
        why, advice = "it is on a disk that can only be read", "choose another place"
    elif number in CLOSED_ERRORS:
        why, advice = said[:1].lower() + said[1:], "choose another place, or make this one writable"
    elif number == errno.EPIPE:
        why, advice = "nobody reads it any more", "read it to the end, or have it written to a file"
    elif number in (errno.EMFILE, errno.ENFILE):
        why, advice = "too many files are open", "close other programs, or see `ulimit -n`"
    elif number in WRONG_NAMES:
        return UsageError(f"{doing}: {said}", hint)
    else:
        why, advice = f"the disk does not answer as it should: {said}", "look after the disk, then try again"
    return WorkbenchError(f"{doing}: {why}", f"{safe}; {advice}" if safe else advice)


@contextmanager
def told_of_file(doing: str, safe: str = "", hint: str = "name another file") -> Iterator[None]:
    """Inside, what the system refuses is told in the words of :func:`of_file`."""
    try:
        yield
    except OSError as error:
        raise of_file(doing, error, safe, hint) from error


def has_no_room(folder: Path) -> bool:
    """Whether there is not even a little room for files in a folder: the disk is full, or a quota used up."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(LITTLE))
    except OSError as error:
        return error.errno in FULL_ERRORS
    return False


def _of_sqlite(told: DatabaseError, safe: str, refused: str, folder: Path | None) -> WorkbenchError:
    said = str(told)
    if is_locked(told):
        return WorkbenchError("another program holds the workspace", f"{safe}; try again when it is done")
    if "full" in said or ("I/O" in said and folder is not None and has_no_room(folder)):
        return WorkbenchError("the disk is full", f"{safe}; make room on it and try again")
    if "readonly" in said:
        return ReadOnlyError("the workspace can only be read", f"{safe}; {READING_GOES_ON}")
    if "unable to open" in said:
        return WorkbenchError(
            "the files of the workspace's database cannot be opened",
            f"{safe}; look at the owner and mode of the folder and of workbench.db in it",
        )
    if "I/O" in said:
        return WorkbenchError(
            f"the disk does not answer as it should: {said}", f"{safe}; look after the disk, then try again"
        )
    if "malformed" in said or "not a database" in said:
        return WorkbenchError(
            f"the workspace's database is damaged: {said}",
            "`workbench doctor` tells how far it goes; the newest sound copy is in the folder's backups/, or your own",
        )
    return WorkbenchError(f"the workspace {refused}: {said or type(told).__name__}", f"{safe}; ask `workbench doctor`")


def _of_text(error: UnicodeError, safe: str) -> WorkbenchError:
    text = getattr(error, "object", "")
    shown = f": {one_line(_name(text), 60)}" if text else ""
    return UsageError(
        f"a text is not valid UTF-8{shown}",
        f"{safe}; give it as UTF-8 (an argument, a file or a variable holds other bytes, or the locale is not UTF-8)",
    )


def _name(name: object) -> str:
    return name.decode("utf-8", errors="replace") if isinstance(name, bytes) else str(name)
