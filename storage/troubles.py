"""What goes wrong in the database or on its disk, in words: what happened, what is safe, what to do."""

from __future__ import annotations

from storage.database import DatabaseError
from storage.errors import WorkbenchError

SAFE = "what was committed before is safe"


def is_locked(error: BaseException | None) -> bool:
    """Whether another program holds the database at this moment."""
    found = of_the_database(error)
    return found is not None and ("locked" in str(found) or "busy" in str(found))


def of_the_database(error: BaseException | None) -> DatabaseError | None:
    """What SQLite said, however it was put into words since."""
    while error is not None and not isinstance(error, DatabaseError):
        error = error.__cause__
    return error


def kindly(error: BaseException, *, safe: str = SAFE, refused: str = "refused this") -> WorkbenchError:
    """The error as one that a person can act on; one that is already, and is of neither database nor disk, as it is.

    Args:
        safe: what is not lost, as half a sentence.
        refused: what the workspace did, where nothing better is known.
    """
    told = of_the_database(error)
    if isinstance(error, WorkbenchError) and told is None:
        return error
    said = str(told or "")
    if is_locked(error):
        found = WorkbenchError("another program holds the workspace", f"{safe}; try again when it is done")
    elif "full" in said:
        found = WorkbenchError("the disk is full", f"{safe}; make room on it and try again")
    elif "I/O" in said or isinstance(error, OSError):
        found = WorkbenchError(f"the disk does not answer as it should: {error}", f"{safe}; try again")
    elif isinstance(error, WorkbenchError):
        return error
    else:
        found = WorkbenchError(
            f"the workspace {refused}: {error or type(error).__name__}", f"{safe}; ask `workbench doctor`"
        )
    found.__cause__ = error
    return found
