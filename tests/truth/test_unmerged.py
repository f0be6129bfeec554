"""Light serving: an adapter beside the weights, and weights read in 4 bits, say what the merged 16-bit weights say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import make_model
from hand_made import merged

from storage.errors import WorkbenchError
from storage.records import Sampling
from trainer.policy import kernels
from trainer.policy.adapters import FILE_NAME, Adapter
from trainer.policy.decoding import Decoder
from trainer.policy.kernels import frozen_linear
from trainer.policy.linear import ByRows, GridLinear, HalfLinear
from trainer.policy.weights import Weights

CPU = torch.device("cpu")


def grid_weight(out: int, into: int, seed: int = 0) -> torch.Tensor:
    """A weight as a 4-bit file gives it: 16 evenly spaced values in each group of 32, extremes among them."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (out, into // 32, 32), generator=generator)
    codes[..., 0], codes[..., 1] = 0, 15
    step = torch.rand(out, into // 32, 1, generator=generator) * 0.02 + 0.001
    low = -8 * step + 0.01 * torch.randn(out, into // 32, 1, generator=generator)
    return (codes * step + low).flatten(1).bfloat16()


@pytest.fixture
def few(monkeypatch) -> int:
    """Up to so many rows the layouts for few rows serve, whatever is fastest here."""
    monkeypatch.setattr(kernels, "few_rows", lambda kernel, threads=None: 8)
    return 8


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 40])
def test_products_with_weights_on_a_grid_are_exact_to_rounding(rows, few):
    weight, bias = grid_weight(96, 64), torch.randn(96).bfloat16()
    layer = frozen_linear(weight, bias, four_bit=True)
    assert isinstance(layer, ByRows)
    assert isinstance(layer.few, GridLinear)
    x = torch.randn(rows, 1, 64).bfloat16()
    exact = x.double() @ weight.double().T + bias.double()
    assert (layer(x).double() - exact).norm() < 0.01 * exact.norm()
    assert torch.equal(layer(x), (layer.few if rows <= few else layer.many)(x))
    assert torch.equal(layer.dense(), weight)


@pytest.mark.parametrize("rows", [1, 8, 9])
def test_bf16_weights_are_multiplied_exactly_as_16_bit_floats(rows, few):
    weight, bias = torch.randn(96, 64).bfloat16().float(), torch.randn(96)
    layer = frozen_linear(weight, bias)
    assert isinstance(layer, ByRows)
    assert isinstance(layer.few, HalfLinear)
    x = torch.randn(rows, 3, 64) if rows < 3 else torch.randn(rows, 64)
    exact = (x.double() @ weight.double().T + bias.double()).float()
    torch.testing.assert_close(layer(x), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.few.dense(), weight, rtol=1e-6, atol=1e-7)


def test_a_frozen_layer_hands_gradients_on(few):
    weight, x = torch.randn(96, 64), torch.randn(20, 64, requires_grad=True)
    for layer in (frozen_linear(weight), frozen_linear(weight.bfloat16().float())):
        scale = torch.randn(20, 96)
        (slope,) = torch.autograd.grad((layer(x) * scale).sum(), x)
        torch.testing.assert_close(slope, scale @ layer.dense(), rtol=1e-4, atol=1e-4)


def test_weights_that_fit_no_layout_for_few_rows_stay_as_they_are(few):
    def grid_of(weight: torch.Tensor) -> bool:
        return isinstance(frozen_linear(weight, four_bit=True), ByRows)

    assert grid_of(grid_weight(96, 64))
    assert not grid_of(torch.randn(96, 64).bfloat16())
    assert not grid_of(torch.randn(96, 40).bfloat16()), "40 does not divide into groups"
    assert not grid_of(torch.randn(96, 64)), "fp32 weights lose something in 16 bits"
    assert not grid_of(grid_weight(96, 64).float() * 1e9), "and large ones do not fit"


def test_what_is_fastest_is_measured_once_and_remembered(monkeypatch, tmp_path):
    file, asked = tmp_path / "deep" / "kernels.json", []
    monkeypatch.setattr(kernels, "remembered_in", lambda: file)
    monkeypatch.setattr(kernels, "measured", lambda kernel: asked.append(kernel) or 16)
    for kernel in ("half", "grid", "half"):
        kernels._few_rows.cache_clear()
        assert kernels.few_rows(kernel) == 16
    assert asked == ["half", "grid"]
    file.write_text("damaged", encoding="utf-8")
    kernels._few_rows.cache_clear()
    assert kernels.few_rows("half") == 16, "measured again"
    kernels._few_rows.cache_clear()


@pytest.mark.parametrize("kernel", ["half", "grid"])
def test_a_measurement_names_a_number_of_rows(kernel, monkeypatch):
    monkeypatch.setattr(kernels, "LAYERS", 2)
    assert kernels.measured(kernel) in (0, *kernels.ROWS, kernels.ALL)


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def folder(request, tmp_path: Path) -> Path:
    return make_model(tmp_path / request.param, request.param)


@pytest.fixture
def adapter(folder: Path) -> Adapter:
    generator = torch.Generator().manual_seed(2)
    weights = Weights.open(folder, None)
    pairs = {}
    for name in weights.names():
        if name.endswith("proj.weight"):
            out, into = weights.get(name).shape
            pair = torch.randn(4, into, generator=generator), torch.randn(out, 4, generator=generator)
            pairs[name] = (pair[0] * 0.3, pair[1] * 0.3)
    return Adapter(pairs, scale=0.5)


def said(decoder: Decoder) -> tuple[list[list[int]], torch.Tensor]:
    found = decoder.generate([[5, 6, 7], [9, 8]], Sampling(max_new_tokens=12), [1, 2], frozenset())
    return [one.token_ids for one in found], torch.tensor([one.logprobs for one in found])


def test_an_adapter_beside_the_weights_equals_one_merged_into_them(folder, adapter, tmp_path):
    adapter.write(tmp_path, "tiny")
    inside = merged(folder, adapter, torch.float32)
    light = Decoder.load(folder, CPU, torch.float32)
    base_tokens, base_logprobs = said(light)
    for beside in (light.with_version(tmp_path / FILE_NAME), light.with_version(adapter)):
        tokens, logprobs = said(beside)
        assert tokens == said(inside)[0]
        torch.testing.assert_close(logprobs, said(inside)[1], atol=1e-4, rtol=1e-4)
        again, _ = said(beside.with_version(None))
        assert again == base_tokens, "the base is untouched"
    assert not torch.allclose(base_logprobs, said(inside)[1]), "the adapter changes something"


def test_part_of_an_adapter_is_served_too(folder, adapter):
    pairs = {name: pair for name, pair in adapter.pairs.items() if "v_proj" in name or "up_proj" in name}
    some = Adapter(pairs, adapter.scale)
    light = Decoder.load(folder, CPU, torch.float32).with_version(some)
    inside = merged(folder, some, torch.float32)
    assert said(light)[0] == said(inside)[0]
    torch.testing.assert_close(said(light)[1], said(inside)[1], atol=1e-4, rtol=1e-4)


def test_an_adapter_of_another_model_is_refused(folder, adapter):
    light = Decoder.load(folder, CPU, torch.float32)
    name, (down, up) = next(iter(adapter.pairs.items()))
    with pytest.raises(WorkbenchError, match="weights that the model lacks"):
        light.with_version(Adapter({"model.layers.99.mlp.up_proj.weight": (down, up)}, 1.0))
    with pytest.raises(WorkbenchError, match="the model's"):
        light.with_version(Adapter({name: (down, up[:-1])}, 1.0))


@pytest.mark.model
def test_the_bundled_model_says_nearly_the_same_in_4_bits(bundled_model_workspace):
    from trainer.policy import models
    from trainer.policy.chat import ChatTokenizer

    folder = models.resolve("smollm2", bundled_model_workspace).path
    prompts = [ChatTokenizer.load(folder).encode_prompt(text) for text in ("Name three rivers.", "¿Por qué llueve?")]
    plain, light = (Decoder.load(folder, CPU, torch.bfloat16, four_bit=four_bit) for four_bit in (False, True))
    assert any(isinstance(layer.down, ByRows) for layer in light.network.layers)
    differences = []
    for prompt in prompts:
        (answer,) = plain.generate([prompt], Sampling(max_new_tokens=24), [3], frozenset())
        logits = [both.network.prefill([prompt], torch.tensor([0]), len(prompt) + 24) for both in (plain, light)]
        caches = [cache for _, cache in logits]
        for token in answer.token_ids[:-1]:
            steps = [
                both.network.step(torch.tensor([token]), cache)[0].float().log_softmax(-1)
                for both, cache in zip((plain, light), caches, strict=True)
            ]
            differences.append(float((steps[0].exp() * (steps[0] - steps[1])).sum()))
    assert len(differences) == 46
    assert sum(differences) / len(differences) < 0.01, "mean KL, nats a token"
