"""Blocks of GGUF files become the numbers that the `gguf` package reads in them, to the bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.policy.models.quantised import FORMATS, GROUP, grid_of, unpacked


@pytest.mark.parametrize("number", FORMATS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 3))
def test_any_bytes_are_read_as_gguf_reads_them(number, seed, rows):
    form = FORMATS[number]
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == (form.numbers, form.size)
    per_row = 512 // form.numbers
    raw = np.random.default_rng(seed).integers(0, 256, (rows, per_row * form.size), dtype=np.uint8)
    with np.errstate(all="ignore"):  # any bytes may be an infinite scale
        expected = torch.from_numpy(np.array(dequantize(raw, gguf.GGMLQuantizationType(number)), dtype=np.float32))
    found = unpacked(torch.from_numpy(raw.copy()), form, (rows, 512))
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q4_K"])
def test_codes_and_steps_are_the_weights(name):
    (form,) = (one for one in FORMATS.values() if one.name == name)
    raw = np.random.default_rng(0).integers(0, 256, (4, 512 // form.numbers, form.size), dtype=np.uint8)
    raw[..., 1] = raw[..., 3] = 40  # scales that are finite
    bytes_ = torch.from_numpy(raw.copy())
    grid = grid_of(bytes_, form, (4, 512))
    assert grid is not None
    assert int(grid.codes.max()) == 15
    spread = [part.repeat_interleave(GROUP, 1) for part in (grid.step, grid.low)]
    torch.testing.assert_close(grid.codes * spread[0] + spread[1], unpacked(bytes_, form, (4, 512)), rtol=0, atol=0)
    assert grid_of(bytes_, FORMATS[8], (4, 512)) is None
