"""What the tests of the app, the engine and the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_talk import Talk

from storage.workspace import Workspace


@pytest.fixture
def talk(workspace: Workspace, endless_model: Path) -> Iterator[Talk]:
    """An engine that has loaded the endless model."""
    talk = Talk(workspace)
    talk.load(endless_model)
    yield talk
    talk.engine.finish()
