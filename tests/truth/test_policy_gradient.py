"""REINFORCE, RLOO and GRPO against what mathematics says of them."""

from __future__ import annotations

from itertools import product

import torch

from trainer.algorithms import maths

TOKENS, LENGTH = 3, 3


def test_leave_one_out_is_each_return_less_the_mean_of_the_others():
    returns = torch.tensor([[1.0, 4.0, -2.0, 0.5], [3.0, 3.0, 3.0, 3.0]], dtype=torch.float64)
    expected = torch.stack(
        [returns[:, i] - torch.cat([returns[:, :i], returns[:, i + 1 :]], 1).mean(1) for i in range(4)], 1
    )
    torch.testing.assert_close(maths.leave_one_out(returns), expected)
    torch.testing.assert_close(maths.leave_one_out(returns).sum(1), torch.zeros(2, dtype=torch.float64))


def test_equal_rewards_give_grpo_no_gradient():
    advantages = maths.group_normalised(torch.full((2, 5), 0.7))
    assert torch.equal(advantages, torch.zeros(2, 5))


def test_the_policy_gradient_equals_exact_enumeration_of_all_sequences():
    """27 sequences, 39 logits; each estimate lies within 3.5 standard errors of the exact derivative."""
    generator = torch.Generator().manual_seed(0)
    prefixes = [prefix for size in range(LENGTH) for prefix in product(range(TOKENS), repeat=size)]
    place = {prefix: number for number, prefix in enumerate(prefixes)}
    logits = torch.randn(len(prefixes), TOKENS, generator=generator, dtype=torch.float64, requires_grad=True)
    sequences = list(product(range(TOKENS), repeat=LENGTH))
    reward = torch.randn(len(sequences), generator=generator, dtype=torch.float64)
    rows = torch.tensor([[place[sequence[:step]] for step in range(LENGTH)] for sequence in sequences])
    tokens = torch.tensor(sequences)

    def logprobs() -> torch.Tensor:
        return torch.log_softmax(logits, -1)[rows, tokens]  # (27, 3)

    probabilities = logprobs().sum(1).exp()
    (exact,) = torch.autograd.grad((probabilities * reward).sum(), logits)

    estimates = []
    for _ in range(200):
        drawn = torch.multinomial(probabilities.detach(), 64, replacement=True, generator=generator)
        advantages = maths.leave_one_out(reward[drawn][None])[0]
        new = logprobs()[drawn]
        mask = torch.ones_like(new, dtype=torch.bool)
        # With the old policy equal to the new one the ratio is 1: the clipped surrogate is the plain policy gradient.
        result = maths.policy_loss(new, new.detach(), advantages[:, None].expand_as(new), mask, clip=0.2)
        (gradient,) = torch.autograd.grad(-LENGTH * result.loss, logits)
        estimates.append(gradient)
    found = torch.stack(estimates)
    error = found.std(0) / len(estimates) ** 0.5
    assert ((found.mean(0) - exact).abs() <= 3.5 * error + 1e-12).all()
    assert (found.mean(0) - exact).norm() < 0.1 * exact.norm()


def test_exact_charges_with_its_own_k1_give_each_token_the_exact_gradient_and_less_noise():
    """All 27 sequences are enumerated: the expectation has no noise, so that it must equal the derivative."""
    generator = torch.Generator().manual_seed(1)
    prefixes = [prefix for size in range(LENGTH) for prefix in product(range(TOKENS), repeat=size)]
    place = {prefix: number for number, prefix in enumerate(prefixes)}
    logits = torch.randn(len(prefixes), TOKENS, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(len(prefixes), TOKENS, generator=generator, dtype=torch.float64).log_softmax(-1)
    tokens = torch.tensor(list(product(range(TOKENS), repeat=LENGTH)))
    rows = torch.tensor([[place[tuple(one[:step])] for step in range(LENGTH)] for one in tokens.tolist()])
    reward = torch.randn(len(tokens), generator=generator, dtype=torch.float64)
    mask, beta = torch.ones(len(tokens), LENGTH, dtype=torch.bool), 0.7

    logprobs = logits.log_softmax(-1)[rows, tokens]
    chances = logprobs.sum(1).exp()
    k1 = logprobs - reference[rows, tokens]
    (true,) = torch.autograd.grad((chances * (reward - beta * k1.sum(1))).sum(), logits, retain_graph=True)

    everywhere = logits.log_softmax(-1)
    exact = (everywhere.exp() * (everywhere - reference)).sum(-1).detach()[rows]
    own, nothing = k1.detach(), torch.zeros_like(exact)
    charged, _ = maths.gae(maths.token_rewards(reward, own, mask, beta), nothing, mask, 1.0, 1.0)
    smooth, _ = maths.gae(maths.token_rewards(reward, exact, mask, beta), nothing, mask, 1.0, 1.0)
    smooth = maths.own_charge(smooth, own, exact, mask, beta)
    spreads = []
    for advantages in (charged, smooth):
        (found,) = torch.autograd.grad(
            (chances.detach()[:, None] * advantages * logprobs).sum(), logits, retain_graph=True
        )
        torch.testing.assert_close(found, true)
        mean = (chances[:, None] * advantages).sum(0)
        spreads.append(float((chances[:, None] * (advantages - mean).square()).sum().detach()))
    assert spreads[1] < spreads[0]
