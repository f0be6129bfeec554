"""An update makes the host wait where it must decide, and nowhere else: a device is given its work without a pause."""

from __future__ import annotations

import pytest
import torch
from census import Census, waits
from tiny_model import CORPUS

from storage.records import Prompt
from trainer.algorithms.ppo import Ppo
from trainer.config import RewardConfig
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.policy_config import PpoConfig
from trainer.reward.model import RewardModel

# The rollout's ratio is checked once a round; figures tell whether to step; the norm tells whether it is finite.
FIGURES, NORM = 1, 1


@pytest.fixture
def run(tiny_model) -> Ppo:
    """PPO with a value of its own, two pieces a minibatch."""
    backbone = Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)
    prompts = [Prompt(f"p{place}", CORPUS[place], "en", "") for place in range(4)]
    config = PpoConfig(
        rank=4,
        batch=4,
        answers=2,
        minibatch=2,
        accumulation=2,
        epochs=2,
        warmup=0,
        max_new_tokens=6,
        value_adapter=True,
    )
    return Ppo(backbone, RewardModel(backbone, RewardConfig(rank=4), seed=5), prompts, config, seed=3)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "computed again"])
def test_updates_wait_for_their_figures_and_their_norm_alone(run, kept, monkeypatch):
    run.backbone.network.checkpointing = not kept
    found: dict[str, list[list[str]]] = {"policy": [], "value": []}

    def counted(name, update):
        def under(*args, **kwargs):
            with Census() as census:
                figures = update(*args, **kwargs)
            if not kwargs.get("first"):
                found[name].append(waits(census.seen))
                assert len(census.seen) > 100
            return figures

        return under

    monkeypatch.setattr(run, "_update_policy", counted("policy", run._update_policy))
    monkeypatch.setattr(run.value, "update", counted("value", run.value.update))
    run.advance()
    assert found["policy"]
    assert found["value"]
    for name, one in ((name, one) for name, each in found.items() for one in each):
        assert len(one) <= FIGURES + NORM, (name, one)


def test_the_census_sees_what_waits():
    values = torch.arange(6.0)
    with Census() as census:
        values[values > 2] = 0
        values[values > 2]
        float(values.sum())
    assert waits(census.seen) == ["aten.index_put_", "aten.index", "aten._local_scalar_dense"]
