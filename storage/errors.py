"""The one failure type of the project: what happened, and what to do about it."""

from __future__ import annotations


class WorkbenchError(Exception):
    """A failure a person can act on.

    `message` says what happened and where; `hint` says what to do. Commands print both and exit with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(WorkbenchError):
    """Wrong options, configuration or input file; nothing was started."""

    exit_code = 2


class SchemaTooNewError(WorkbenchError):
    """The database was written by a newer program."""


class EarlierReleaseError(WorkbenchError):
    """A file was written by an earlier release, and nothing here can use it any more."""


class LeaseLostError(WorkbenchError):
    """Another worker holds this job now; the caller must stop without writing."""
