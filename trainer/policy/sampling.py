"""Choosing the next token from logits.

Each row of a batch has its own random numbers, drawn from its own seed before the first step, so what a row says does
not depend on which other rows it is sampled with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from storage.records import Sampling

# The vocabulary is searched in two levels: first a block, then the token inside it.
BLOCK = 256


def uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """Random numbers in [0, 1) for each row and step: (rows, steps, 2), fp64 on the CPU."""
    drawn = torch.empty(len(seeds), steps, 2, dtype=torch.float64)
    generator = torch.Generator()
    for row, seed in enumerate(seeds):
        generator.manual_seed(seed)
        drawn[row] = torch.rand(steps, 2, generator=generator, dtype=torch.float64)
    return drawn


def choose(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """One token a row, with its log-probability under the distribution at the sampling temperature.

    The log-probability is that of the *full* softmax at the temperature, before top-k and top-p cut it: this is what
    the training code recomputes.

    Args:
        logits: (rows, vocabulary), any float type. Those in fp32 are overwritten: memory for another array of this
            size, taken and given back at each step, costs more than the arithmetic.
        uniform: (rows, 2) in [0, 1), on the device of the logits.

    Returns:
        token ids (rows,) int64, log-probabilities (rows,) fp32.
    """
    if sampling.temperature == 0:
        scores = logits.float()
        tokens = scores.argmax(-1)
        return tokens, scores.gather(-1, tokens[:, None])[:, 0] - scores.logsumexp(-1)
    weights = logits.to(torch.float32)
    if sampling.temperature != 1:
        weights /= sampling.temperature
    highest = weights.amax(-1, keepdim=True)
    weights.sub_(highest).exp_()
    total = weights.sum(-1, keepdim=True)
    if sampling.top_k or sampling.top_p < 1:
        tokens = _from_nucleus(weights, total, uniform, sampling)
    else:
        tokens = _from_all(weights, uniform)
    return tokens, (weights.gather(-1, tokens[:, None]) / total).log()[:, 0]


def _from_all(weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw from unnormalised weights (rows, vocabulary) by inverting their sums, block first, then token."""
    rows, vocabulary = weights.shape
    if vocabulary % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, BLOCK - vocabulary % BLOCK))
    blocks = weights.view(rows, -1, BLOCK)
    block = _invert(blocks.sum(-1), uniform[:, 0])
    inside = blocks[torch.arange(rows, device=weights.device), block]
    return block * BLOCK + _invert(inside, uniform[:, 1])


def _from_nucleus(weights: Tensor, total: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Draw after keeping the `top_k` heaviest tokens and, of those, the smallest set that holds `top_p` of the mass."""
    vocabulary = weights.shape[-1]
    # Sorting the whole vocabulary is slow, and the nucleus is nearly always small: look at the heaviest ones first.
    keep = min(sampling.top_k or 1024, vocabulary)
    heaviest, order = weights.topk(keep)
    mass = total if not sampling.top_k else heaviest.sum(-1, keepdim=True)
    if sampling.top_p < 1:
        before = heaviest.cumsum(-1) - heaviest
        if not sampling.top_k and bool((before[:, -1:] < sampling.top_p * mass).any()) and keep < vocabulary:
            heaviest, order = weights.sort(-1, descending=True)
            before = heaviest.cumsum(-1) - heaviest
        heaviest = heaviest.masked_fill(before >= sampling.top_p * mass, 0.0)
    picked = _invert(heaviest, uniform[:, 0])
    return order.gather(-1, picked[:, None])[:, 0]


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The index at which the running sum of (rows, n) weights passes `uniform` of the whole; never one of weight 0."""
    running = weights.double().cumsum(-1)
    target = (uniform.double() * running[:, -1])[:, None]
    index = torch.searchsorted(running, target, right=True)[:, 0]
    # Rounding may step past the last weight above zero: fall back to it.
    last = weights.shape[-1] - 1 - (weights.flip(-1) > 0).to(torch.int8).argmax(-1)
    return torch.minimum(index, last)


def penalise_repeats(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide the positive and multiply the negative logits of tokens already said (CTRL, Keskar et al. 2019).

    Args:
        logits: (rows, vocabulary). seen: (rows, vocabulary) bool.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
