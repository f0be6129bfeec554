"""Adapters: merged and unmerged forward passes agree, files come back as they were, and peft reads them."""

from __future__ import annotations

import json

import pytest
import torch
from architectures import LLAMA_FAMILY, reference_logits, reference_model, tokens
from hand_made import merged
from transformers import AutoConfig

from trainer.policy import decoding
from trainer.policy.adapters import CONFIG_NAME, FILE_NAME, read_adapter, write_adapter
from trainer.policy.decoding import Decoder
from trainer.policy.layout import TokenLayout
from trainer.policy.llama import LlamaNetwork
from trainer.policy.lora import LoraAdapter
from trainer.policy.weights import Weights

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=LLAMA_FAMILY)
def adapted(request, model_of):
    """A model folder, its trainable network and a random adapter of every linear layer."""
    folder = model_of(request.param)
    network = LlamaNetwork(AutoConfig.from_pretrained(folder), Weights.open(folder, None), CPU, torch.float32)
    generator = torch.Generator().manual_seed(5)
    adapter = LoraAdapter(network.adaptable(), 4, 6.0, generator)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return folder, network, adapter


@pytest.fixture
def version(adapted, tmp_path):
    """The adapter's file."""
    folder, _, adapter = adapted
    path = tmp_path / FILE_NAME
    write_adapter(path, adapter.snapshot().pairs, alpha=adapter.alpha, base=str(folder))
    return path


def unmerged_logits(network, adapter, ids):
    """(length, vocabulary) of the trainable pass with the adapter beside the frozen weights."""
    layout = TokenLayout.build([ids[:1]], [ids[1:]], CPU)
    with torch.no_grad():
        return network.run(network.embed(layout), layout, adapter) @ network.head_weight.T


def test_merged_unmerged_and_peft_say_the_same(adapted, version):
    from peft import PeftModel

    folder, network, adapter = adapted
    (ids,) = tokens(1, 12)
    expected = unmerged_logits(network, adapter, ids)
    beside = Decoder.load(folder, CPU, torch.float32, version)
    within = merged(folder, adapter.snapshot(), torch.float32)
    with torch.inference_mode():
        served, inside = (
            decoder.network.prefill([ids], torch.tensor([0]), len(ids) + 1)[0][0] for decoder in (beside, within)
        )
        from_peft = reference_logits(PeftModel.from_pretrained(reference_model(folder), version.parent), ids)
        plain = reference_logits(reference_model(folder), ids)
    torch.testing.assert_close(served, expected[-1], **CLOSE)
    torch.testing.assert_close(inside, expected[-1], **CLOSE)
    torch.testing.assert_close(from_peft, expected, **CLOSE)
    assert (plain - expected).abs().max() > 0.1, "the adapter changes something"


def test_an_adapter_file_comes_back_as_it_was(adapted, version):
    _, _, adapter = adapted
    written, read = adapter.snapshot(), read_adapter(version)
    assert read.scale == written.scale
    assert read.pairs.keys() == written.pairs.keys()
    for name, pair in written.pairs.items():
        assert all(torch.equal(one, other) for one, other in zip(pair, read.pairs[name], strict=True))
    assert json.loads((version.parent / CONFIG_NAME).read_text())["r"] == 4


def test_one_version_after_another_stands_beside_the_pristine_base(adapted, version):
    folder, _, _ = adapted
    (ids,) = tokens(2, 7)
    base = Decoder.load(folder, CPU, torch.float32)

    def say(decoder):
        return decoder.network.prefill([ids], torch.tensor([0]), 8)[0]

    twice = base.with_version(version).with_version(version)
    with torch.inference_mode():
        assert torch.equal(say(twice), say(Decoder.load(folder, CPU, torch.float32, version)))
        assert torch.equal(say(twice.with_version(None)), say(base))


def test_a_version_is_laid_out_the_same_by_one_thread_and_by_several_and_reads_the_base_no_more(
    adapted, version, monkeypatch
):
    base = Decoder.load(adapted[0], CPU, torch.float32)
    assert base.parameters > 0

    def read_again(*_: object) -> None:
        raise AssertionError("the files of the base model are read again")

    monkeypatch.setattr(decoding, "count", read_again)
    monkeypatch.setattr(decoding, "_network", read_again)
    usual = torch.get_num_threads()
    said = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            said.append(base.with_version(version).next_logprobs([[1, 2, 3], [4]]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(usual)
    assert torch.allclose(*said, atol=1e-5)
    assert not torch.equal(said[0], base.next_logprobs([[1, 2, 3], [4]]))


def test_an_adapter_of_another_scale_is_taken_over_with_the_same_effect(adapted):
    _, network, adapter = adapted
    other = LoraAdapter(network.adaptable(), 4, 16.0, torch.Generator().manual_seed(1))
    other.load(adapter.snapshot())
    (ids,) = tokens(3, 6)
    torch.testing.assert_close(unmerged_logits(network, other, ids), unmerged_logits(network, adapter, ids), **CLOSE)


def test_a_fresh_adapter_changes_nothing(adapted):
    _, network, _ = adapted
    fresh = LoraAdapter(network.adaptable(), 4, 6.0, torch.Generator().manual_seed(1))
    (ids,) = tokens(4, 6)
    assert torch.equal(unmerged_logits(network, fresh, ids), unmerged_logits(network, None, ids))
