"""Small random models of several architectures, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from architectures import make_model


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an architecture of `architectures.py`."""
    root = tmp_path_factory.mktemp("architectures")

    def folder(name: str) -> Path:
        return root / name if (root / name).exists() else make_model(root / name, name)

    return folder
