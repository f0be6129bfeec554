"""What several rooms' tests share: a workspace, a tiny model made on the spot, and the bundled one converted once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tiny_model import make_tiny_model

from storage.database import Database, open_database
from storage.workspace import Workspace

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# A shell that starts the tests in the background has them ignore interrupts, and every program that they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def threads_restored() -> Iterator[None]:
    """`--threads` holds for the whole process: put it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(threads_restored: None) -> None:
    """Small models are quickest, and the same to the bit, in one thread."""
    torch.set_num_threads(1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path / "workspace").prepare()


@pytest.fixture
def database(workspace: Workspace) -> Iterator[Database]:
    """The open database of the empty workspace."""
    with open_database(workspace) as opened:
        yield opened


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random llama that ends its answers by chance."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random llama whose answers are as long as is asked."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "endless", ends=False)


@pytest.fixture(scope="session")
def converted_models(request: pytest.FixtureRequest) -> Path:
    """A folder of converted models in pytest's cache: the bundled model is unpacked on the first run only."""
    from trainer.policy.models import resolve

    cached = Workspace(Path(request.config.cache.mkdir("bundled-model"))).prepare()
    resolve("smollm2", cached)
    return cached.models


@pytest.fixture
def bundled_model_workspace(tmp_path: Path, converted_models: Path) -> Workspace:
    """An empty workspace in which the bundled model is converted already."""
    root = tmp_path / "workspace"
    root.mkdir(mode=0o700)
    (root / "models").symlink_to(converted_models)
    return Workspace(root).prepare()
