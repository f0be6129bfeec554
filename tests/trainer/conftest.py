"""A tiny model as a backbone, and reward models and jobs to try things on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from endpoint import KEY
from rated_workspace import LANGUAGES
from tiny_model import CORPUS

from storage import jobs
from storage.records import Job, Prompt
from storage.workspace import Workspace
from trainer import cli
from trainer.config import RewardConfig
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.reward.model import RewardModel

COMMON = ("--dtype", "fp32", "--device", "cpu", "--threads", "1", "--json")


@pytest.fixture(scope="session")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


@pytest.fixture
def reward_model(backbone: Backbone) -> RewardModel:
    """One that likes some answers and not others, for no reason."""
    model = RewardModel(backbone, RewardConfig(rank=4), seed=5)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(6))
    return model


@pytest.fixture
def asked() -> list[Prompt]:
    """A prompt in each of ten languages."""
    return [Prompt(f"p{place}", CORPUS[place], language, "") for place, language in enumerate(LANGUAGES)]


@pytest.fixture
def job(database) -> Job:
    """A job that this process holds."""
    queued = jobs.enqueue(database, "run", {}, steps=10)
    held = jobs.claim(database, "this test", job_id=queued.id)
    assert held is not None
    return held


@pytest.fixture
def command(workspace: Workspace, monkeypatch, capsys):
    """Run a command in the workspace; returns its exit code, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trainer", *arguments, "--workspace", str(workspace.root)])
        code = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = ending.code or 0  # type: ignore[assignment]
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def trainer(command, tiny_model):
    """Run a stage; returns its exit code and its JSON document."""

    def call(*arguments: str, model: bool = True):
        named = ["--model", str(tiny_model), *COMMON] if model else ["--json"]
        code, out, err = command(*arguments, *named)
        assert out, err
        return code, json.loads(out)

    return call


@pytest.fixture
def judge(workspace, monkeypatch, capsys):
    """Run `trainer judge`, or another `command`; returns its exit code, its document (None where it printed none) and
    standard error."""

    def call(*arguments: str, command: str = "judge") -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["trainer", command, *arguments, "--json", "--workspace", str(workspace.root)])
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        code = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        out, err = capsys.readouterr()
        assert KEY not in out + err
        return code, json.loads(out) if out else None, err

    return call


@pytest.fixture
def written(tmp_path):
    """Write a file of reward functions; returns its path."""

    def write(text: str, name: str = "rewards.py") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write
