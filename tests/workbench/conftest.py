"""What the tests of the app, the engine and the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_talk import Talk
from fake_talk import FakeEngine

from storage.workspace import Workspace


@pytest.fixture
def talk(workspace: Workspace, endless_model: Path) -> Iterator[Talk]:
    """An engine that has loaded the endless model."""
    talk = Talk(workspace)
    talk.load(endless_model)
    yield talk
    talk.engine.finish()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    """A fake engine's folder; at the end none of it may live."""
    fake = FakeEngine(tmp_path / "fake-engine")
    yield fake
    assert fake.living() == []
    assert fake.heard("two alive") == []
