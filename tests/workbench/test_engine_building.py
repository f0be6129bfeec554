"""Reading a model in the engine: two things at once, but never transformers by two threads."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.policy.models import config
from trainer.policy.models.config import read_config
from workbench.engine import building


def test_what_transformers_must_read_is_read_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch):
    began, read = threading.Event(), []

    def stated(folder: Path) -> object:
        assert not began.wait(0.2), "the tokenizer is being read by another thread"
        return read.append("config") or object()

    def words() -> str:
        began.set()
        return read.append("words") or "words"

    monkeypatch.setattr(config, "read_config", stated)
    folder = SimpleNamespace(path=Path("gemma"))
    assert building.read(folder, words, lambda: read.append("weights") or "weights") == ("words", "weights")
    assert read == ["config", "words", "weights"]


def test_a_llama_is_read_beside_its_tokenizer(tiny_model: Path):
    folder = SimpleNamespace(path=tiny_model)
    assert isinstance(read_config(tiny_model), config.Config)
    words_wait = threading.Event()
    found = building.read(folder, lambda: words_wait.wait(30), lambda: words_wait.set() or "weights")
    assert found == (True, "weights")
