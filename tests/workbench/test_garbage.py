"""When the app looks for garbage: never within a key, and never through what stays."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench import garbage


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    usual = gc.get_threshold()
    yield
    gc.set_threshold(*usual)
    gc.unfreeze()
    gc.enable()


class Looks:
    """How often Python looks through everything."""

    def __enter__(self) -> Looks:
        self.count = 0
        gc.callbacks.append(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._heard)

    def _heard(self, phase: str, info: dict[str, int]) -> None:
        self.count += phase == "start" and info["generation"] == 2


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(garbage.time, "monotonic", lambda: seconds)


def test_a_start_is_over_once_nobody_has_pressed_a_key_for_a_moment(monkeypatch: pytest.MonkeyPatch):
    at(monkeypatch, 100.0)
    garbage.not_yet()
    tidying = garbage.Tidying()
    for seconds in (100.3, 100.6, 100.9):
        at(monkeypatch, seconds)
        tidying.key()
        tidying.look()
        assert not gc.isenabled()
    at(monkeypatch, 101.5)
    tidying.look()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[2] == garbage.SELDOM


def test_a_start_is_over_some_seconds_later_whoever_types(monkeypatch: pytest.MonkeyPatch):
    at(monkeypatch, 100.0)
    garbage.not_yet()
    tidying = garbage.Tidying()
    at(monkeypatch, 100.0 + 2 * garbage.START_SECONDS)
    tidying.key()
    with Looks() as looks:
        tidying.look()
    assert gc.isenabled()
    assert not looks.count


def test_everything_is_looked_through_in_a_pause_alone(monkeypatch: pytest.MonkeyPatch):
    at(monkeypatch, 100.0)
    tidying = garbage.Tidying()
    while gc.get_count()[2] < garbage.DUE:
        gc.collect(1)
    with Looks() as looks:
        tidying.key()
        tidying.look()
        assert not looks.count
        at(monkeypatch, 101.0)
        tidying.look()
        tidying.look()
    assert looks.count == 1


def test_the_app_starts_without_a_look(tmp_path: Path):
    code = """
import gc, sys
from pathlib import Path
from textual.app import App
from storage.workspace import Workspace
from workbench import cli
App.run = lambda app: print(gc.isenabled())
cli.open_app(Workspace(Path(sys.argv[1])))
"""
    served = {**os.environ, "TEXTUAL_DRIVER": "textual.drivers.headless_driver:HeadlessDriver"}  # needs no terminal
    command = [sys.executable, "-c", code, str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=served)
    assert done.stdout == "False\n"
