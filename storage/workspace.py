"""Where things live: one folder holds the database, the weights, the logs and the exports of a project."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from storage.errors import UsageError

ENVIRONMENT_VARIABLE = "WORKBENCH_WORKSPACE"


@dataclass(frozen=True)
class Workspace:
    """The folder of one project and the fixed names inside it."""

    root: Path

    @classmethod
    def locate(cls, option: str | Path | None = None) -> Workspace:
        """The workspace of `--workspace`, else of WORKBENCH_WORKSPACE, else the platform's user data folder."""
        chosen = option or os.environ.get(ENVIRONMENT_VARIABLE)
        root = Path(chosen) if chosen else Path(platformdirs.user_data_dir("alignment-workbench", appauthor=False))
        return cls(root.expanduser().absolute())

    def prepare(self) -> Workspace:
        """Create the folders, readable by the user alone."""
        try:
            for folder in (self.root, self.models, self.versions, self.logs, self.exports, self.backups):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            raise UsageError(
                f"cannot use {self.root} as a workspace: {error.strerror or error}",
                "choose another folder with --workspace DIR, or make this one writable",
            ) from error
        return self

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
