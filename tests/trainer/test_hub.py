"""A model that is named by its place on the hub: found in the hub's cache, fetched there otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from storage.errors import WorkbenchError
from trainer.policy.models import resolve

COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache of the hub, with no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_hub_name_is_found_in_the_cache(cache, tiny_model, workspace):
    kept = cache / "models--owner--model"
    shutil.copytree(tiny_model, kept / "snapshots" / COMMIT)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(COMMIT)
    found = resolve("owner/model", workspace)
    assert (found.name, found.path, found.hub) == ("model", kept / "snapshots" / COMMIT, "owner/model")
    assert found.digest == resolve(str(tiny_model), workspace).digest


def test_a_hub_name_that_is_not_in_the_cache_says_that_nothing_could_be_fetched(cache, workspace):
    with pytest.raises(WorkbenchError, match=r"owner/model could not be fetched from the hub: .*(cache|offline)"):
        resolve("owner/model", workspace)
