"""What the tests of the app, the engine and the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_talk import Talk
from fake_talk import FakeEngine

from storage.workspace import Workspace

OF_A_PERSON = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")


@pytest.fixture(autouse=True)
def nobody_in_particular(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for each test: the keys and settings of whoever runs the tests are not read."""
    home = tmp_path_factory.mktemp("home")
    for name in OF_A_PERSON:
        monkeypatch.setenv(name, str(home))
    for name in ("WORKBENCH_WORKSPACE", "NO_COLOR", "TEXTUAL_THEME", "EDITOR", "VISUAL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys wait for the write before them however busy the machine is, as they do where it takes no longer than a
    blink. The tests of writes that take longer have a fixture of this name that leaves the blink as it is."""
    monkeypatch.setattr("workbench.widgets.judging.BLINK", 10.0)


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
