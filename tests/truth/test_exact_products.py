"""Logits in fp32 and attention that is the same in sampling and in learning, against products in fp64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from trainer.policy import linear
from trainer.policy.attention import ShortAttention
from trainer.policy.linear import AdaptedOutput, OutputLinear, exact_product

ROWS, INTO, OUT = 12, 576, 2000
LARGE = 60.0  # nats


def head_and_states(dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight (out, in) and states (rows, in) whose largest logit is about 60."""
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.randn(OUT, INTO, generator=generator), torch.randn(ROWS, INTO, generator=generator)
    size = (x @ weight.T).abs().max()
    return (weight * LARGE / size).to(dtype), x.to(dtype)


def largest_error(found: torch.Tensor, weight: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None) -> float:
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert found.dtype == torch.float32
    assert exact.abs().max() > 0.9 * LARGE
    return float((found.double() - exact).abs().max())


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_product_of_16_bit_operands_is_exact_beyond_them(dtype, biased):
    weight, x = head_and_states(dtype)
    bias = torch.randn(OUT, generator=torch.Generator().manual_seed(2)).to(dtype) if biased else None
    assert largest_error(exact_product(x, weight, bias), weight, x, bias) < 1e-3
    if dtype == torch.bfloat16:
        plain = functional.linear(x, weight, bias).float()
        assert largest_error(plain, weight, x, bias) > 0.05, "which the plain product is not"


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("layout", ["16-bit floats", "packed", "plain"])
def test_the_output_head_is_as_exact_in_every_layout(layout, biased, monkeypatch):
    weight, x = head_and_states()
    if layout == "packed" and not linear.can_pack(weight):
        pytest.skip("this CPU has no products of its own for bf16")
    if layout != "16-bit floats":
        monkeypatch.setattr(linear, "fits_half", lambda weight: False)
    if layout == "plain":
        monkeypatch.setattr(linear, "can_pack", lambda weight: False)
    bias = torch.randn(OUT, generator=torch.Generator().manual_seed(2)).bfloat16() if biased else None
    head = OutputLinear(weight, bias)
    assert (head.single is not None, head.packed is not None) == (layout == "16-bit floats", layout == "packed")
    assert largest_error(head(x), weight, x, bias) < 1e-3
    assert largest_error(head(x[:1]), weight, x[:1], bias) < 1e-3


def test_an_updated_head_equals_a_merged_one():
    weight, x = head_and_states(torch.float32)
    generator = torch.Generator().manual_seed(3)
    down, up = torch.randn(4, INTO, generator=generator) * 0.1, torch.randn(OUT, 4, generator=generator) * 0.1
    once = AdaptedOutput(OutputLinear(weight), down, up)
    twice = AdaptedOutput(once, down, up)
    torch.testing.assert_close(once(x), x @ (weight + up @ down).T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(twice(x), x @ (weight + 2 * up @ down).T, rtol=1e-4, atol=1e-4)
    assert (once(x) - x @ weight.T).abs().max() > 0.1, "the update changes something"


def test_the_update_of_a_16_bit_head_stays_in_fp32():
    weight, x = head_and_states()
    generator = torch.Generator().manual_seed(3)
    down, up = torch.randn(4, INTO, generator=generator) * 1e-3, torch.randn(OUT, 4, generator=generator) * 1e-3
    exact = x.double() @ (weight.double() + up.double() @ down.double()).T
    found = AdaptedOutput(OutputLinear(weight), down, up)(x)
    assert float((found.double() - exact).abs().max()) < 1e-3


# --- attention -------------------------------------------------------------------------------------------------------


def operands(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries of six heads over keys and values of two, and the mask of two rows of which one is padded."""
    generator = torch.Generator().manual_seed(4)
    rows, length, size = 2, 9, 16
    query = torch.randn(rows, 6, length, size, generator=generator).to(dtype)
    key, value = (torch.randn(rows, 2, length, size, generator=generator).to(dtype) for _ in range(2))
    allowed = torch.ones(length, length, dtype=torch.bool).tril().expand(rows, 1, length, length).clone()
    allowed[1, :, :, :3] = False
    allowed |= torch.eye(length, dtype=torch.bool)
    return query, key, value, torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_attention_is_that_of_fp64(dtype):
    query, key, value, mask = operands(dtype)
    found = ShortAttention.apply(query, key, value, mask)
    exact = fused(query.double(), key.double(), value.double(), mask)
    assert found.dtype == dtype
    if dtype == torch.bfloat16:
        assert torch.equal(found, exact.bfloat16()), "rounded once, at the end"
    torch.testing.assert_close(found.double(), exact, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_its_gradients_are_those_of_autograd():
    *leaves, mask = operands(torch.float32)
    for leaf in leaves:
        leaf.requires_grad_()
    weights = torch.randn(leaves[0].shape, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad((ShortAttention.apply(*leaves, mask) * weights).sum(), leaves)
    exact = torch.autograd.grad((fused(*(leaf.double() for leaf in leaves), mask) * weights).sum(), leaves)
    for one, other in zip(found, exact, strict=True):
        assert one.abs().max() > 0.1
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_order_and_batch_of_summing_change_no_bit_of_16_bit_attention():
    query, key, value, mask = operands(torch.bfloat16)
    together = ShortAttention.apply(query, key, value, mask)
    for row in range(2):
        alone = ShortAttention.apply(
            query[row : row + 1], key[row : row + 1], value[row : row + 1], mask[row : row + 1]
        )
        assert torch.equal(alone[0], together[row])
    groups = query.shape[1] // key.shape[1]
    last = functional.scaled_dot_product_attention(  # as a step of decoding has it
        query[:, :, -1].double().view(2, 2, groups, 16),
        key.double(),
        value.double(),
        attn_mask=mask[..., -1:, :].double(),
    )
    assert torch.equal(last.reshape(2, 6, 16).bfloat16(), together[:, :, -1])
