"""Where things live: one folder holds the database, the weights, the logs and the exports of a project."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from storage.errors import UsageError

ENVIRONMENT_VARIABLE = "WORKBENCH_WORKSPACE"
BEING_MADE = 2.0  # seconds that a program may take from a new file to what stands in it


@dataclass(frozen=True)
class Workspace:
    """The folder of one project and the fixed names inside it."""

    root: Path

    @classmethod
    def locate(cls, option: str | Path | None = None) -> Workspace:
        """The workspace of `--workspace`, else of WORKBENCH_WORKSPACE, else the platform's user data folder."""
        chosen = option or os.environ.get(ENVIRONMENT_VARIABLE)
        return cls(Path(chosen).expanduser().absolute()) if chosen else cls.default()

    @classmethod
    def default(cls) -> Workspace:
        """The one that is meant where none is named."""
        return cls(Path(platformdirs.user_data_dir("alignment-workbench", appauthor=False)).absolute())

    def existing(self) -> Workspace:
        """The workspace itself, once there is one: what only reads makes none.

        Raises:
            UsageError: nothing was ever stored here, or what was is gone.
        """
        if not self.database.exists():
            raise UsageError(
                f"there is no workspace in {self.root}",
                "is it spelled right? --workspace DIR names another; `workbench` and `workbench import` make a new one",
            )
        if self._stays_empty():
            raise UsageError(
                f"{self.database} is empty",
                "where something was stored before, the newest sound copy is in the folder's backups/, or your own",
            )
        return self

    def prepare(self) -> Workspace:
        """Create the folders that are missing, readable by the user alone. Those that are there stay as they are.

        Raises:
            UsageError: the name cannot be that of a folder.
            WorkbenchError: the disk is full, or may not be written.
        """
        try:
            for folder in (self.root, self.models, self.versions, self.logs, self.exports, self.backups):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            from storage.troubles import of_file

            doing = f"cannot use {self.root} as a workspace"
            raise of_file(doing, error, hint="choose another folder with --workspace DIR") from error
        return self

    @property
    def was_emptied(self) -> bool:
        """Whether the database holds nothing though there are backups or versions: something was stored here."""
        left = any(any(folder.glob("*")) for folder in (self.backups, self.versions))
        return left and self.database.exists() and self._stays_empty()

    def _stays_empty(self) -> bool:
        """Whether the database's file holds nothing, also when another program that is just making it had its time."""
        end = time.monotonic() + BEING_MADE
        while not self.database.stat().st_size:
            if time.monotonic() > end:
                return True
            time.sleep(0.02)
        return False

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def database(self) -> Path:
        return self.root / "workbench.db"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def versions(self) -> Path:
        return self.root / "versions"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def jobs(self) -> Path:
        """Checkpoints and working files of training jobs."""
        return self.root / "jobs"
