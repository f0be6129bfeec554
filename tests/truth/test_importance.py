"""Importance weights of tokens that a coarser sampler drew: against their definition, and against exact gradients."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from trainer.algorithms.sampler_gap import importance


def test_importance_is_the_ratio_truncated_and_nothing_at_cap_0():
    policy, sampler = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0 - math.log(1.5), -4.0])
    torch.testing.assert_close(importance(policy, sampler, 2.0), torch.tensor([1.0, 1.5, 2.0]))
    assert torch.equal(importance(policy, sampler, 0.0), torch.ones(3))
    torch.testing.assert_close(importance(sampler, policy, 2.0)[2], torch.tensor(math.exp(-3)))


@pytest.mark.parametrize(("length", "left"), [(1, 0.01), (2, 0.75), (3, 0.85)])
def test_importance_brings_the_gradient_of_a_coarse_sampler_nearer_to_the_exact_one(length, left):
    """All sequences of three tokens are enumerated: these are expectations, without any noise of drawing. A token's own
    weight takes all of its error away, and none of that of the tokens around it."""
    nearer = []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        prefixes = [prefix for size in range(length) for prefix in product(range(3), repeat=size)]
        place = {prefix: number for number, prefix in enumerate(prefixes)}
        logits = torch.randn(len(prefixes), 3, generator=generator, dtype=torch.float64, requires_grad=True)
        sequences = list(product(range(3), repeat=length))
        reward = torch.randn(len(sequences), generator=generator, dtype=torch.float64)
        rows = torch.tensor([[place[said[:step]] for step in range(length)] for said in sequences])
        tokens = torch.tensor(sequences)
        own = torch.log_softmax(logits, -1)[rows, tokens]
        rounded = torch.log_softmax((logits.detach() / 0.7).round() * 0.7, -1)[rows, tokens]
        (exact,) = torch.autograd.grad((own.sum(1).exp() * reward).sum(), logits, retain_graph=True)

        def error(cap: float, own=own, rounded=rounded, reward=reward, logits=logits, exact=exact) -> float:
            said = rounded.sum(1).exp()
            advantages = (reward - (said * reward).sum())[:, None] * importance(own.detach(), rounded, cap)
            surrogate = (said[:, None] * advantages * own).sum()
            (found,) = torch.autograd.grad(surrogate, logits, retain_graph=True)
            return float((found - exact).norm() / exact.norm())

        nearer.append((error(0.0), error(2.0)))
    without, corrected = (torch.tensor(errors) for errors in zip(*nearer, strict=True))
    assert corrected.mean() < left * without.mean(), nearer
    assert (corrected < without).sum() >= 9
