"""The trainer's sampler and the engine's decoder of a version say the same, whatever the model and the version are."""

from __future__ import annotations

import pytest
import torch
from architectures import LLAMA_FAMILY, OTHERS, make_model
from tiny_model import make_tiny_model

from trainer.policy import chat, probe
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.backbone import Backbone
from trainer.policy.decoding import Decoder
from trainer.policy.models import ModelFolder
from trainer.policy_config import PpoConfig, Tuning

CPU = torch.device("cpu")


class Words:
    """A tokenizer for models that have none."""

    eos_ids = frozenset({2})

    @staticmethod
    def encode_prompt(text: str, system: str = "") -> list[int]:
        return [3 + ord(letter) % 90 for letter in text]


@pytest.fixture
def no_tokenizer(monkeypatch):
    monkeypatch.setattr(chat.ChatTokenizer, "load", classmethod(lambda *_: Words()))


def proof(folder, dtype, config, tmp_path, head=False):
    """What the engine says of a version that the trainer has just written."""
    backbone = Backbone(ModelFolder("small", folder, "digest"), CPU, dtype)
    policy = backbone.new_policy(config, seed=1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.02)
    candidate = policy.snapshot()
    if head:
        size, words = backbone.hidden_size, backbone.config.vocab_size
        candidate = Adapter({HEAD: (torch.randn(4, size) * 0.1, torch.randn(words, 4) * 0.1)}, 2.0)
    taken = probe.take(backbone.decoder(candidate), backbone.tokenizer)
    assert taken is not None
    engine = Decoder.load(folder, CPU, dtype, None, four_bit=True)
    return probe.prove("v1", taken, engine.with_version(candidate.write(tmp_path, "small")), engine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", [*LLAMA_FAMILY, *OTHERS])
def test_an_adapter_of_any_architecture_is_proven(kind, dtype, tmp_path, no_tokenizer):
    folder = make_model(tmp_path / "model", kind)
    said = proof(folder, dtype, PpoConfig(rank=4), tmp_path)
    assert said.startswith(("exact", "within "))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "config", [PpoConfig(rank=4, policy_share=0.5), PpoConfig(tuning=Tuning.FULL)], ids=["upper", "full"]
)
def test_the_upper_layers_and_whole_models_are_proven(config, dtype, tmp_path):
    said = proof(make_tiny_model(tmp_path / "model"), dtype, config, tmp_path)
    assert said.startswith(("exact", "within "))
    assert config.tuning != Tuning.FULL or said == "exact"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_changed_output_head_is_proven(dtype, tmp_path):
    said = proof(make_tiny_model(tmp_path / "model"), dtype, PpoConfig(rank=4), tmp_path, head=True)
    assert said.startswith(("exact", "within "))
