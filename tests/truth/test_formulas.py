"""The formulas of policy optimisation against their definitions: sums written out, distributions enumerated."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.algorithms import maths
from trainer.policy_config import PpoConfig

GARBAGE = 1e6  # what may stand in padding


def responses(seed: int, rows: int = 5, longest: int = 7) -> tuple[torch.Generator, torch.Tensor]:
    """A generator, and the mask of responses of random lengths (the first as long as there is room)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (rows,), generator=generator)
    lengths[0] = longest
    return generator, torch.arange(longest) < lengths[:, None]


def normal(generator: torch.Generator, mask: torch.Tensor) -> torch.Tensor:
    return torch.randn(mask.shape, generator=generator, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.1, 1.0), lam=st.floats(0.0, 1.0))
def test_advantages_are_the_discounted_sums_of_the_surprises(seed, gamma, lam):
    generator, mask = responses(seed)
    rewards, values = normal(generator, mask) * mask, normal(generator, mask) * mask
    advantages, returns = maths.gae(rewards, values, mask, gamma, lam)
    for row, length in enumerate(mask.sum(1).tolist()):
        value = [*values[row, :length].tolist(), 0.0]  # nothing is to come after the last token
        surprise = [float(rewards[row, t]) + gamma * value[t + 1] - value[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (later - t) * surprise[later] for later in range(t, length))
            assert float(advantages[row, t]) == pytest.approx(expected, abs=1e-9)
            assert float(returns[row, t]) == pytest.approx(expected + value[t], abs=1e-9)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()


def test_with_lambda_one_the_advantage_is_what_is_still_to_come_less_the_value():
    generator, mask = responses(3)
    rewards, values = normal(generator, mask) * mask, normal(generator, mask) * mask
    advantages, returns = maths.gae(rewards, values, mask, 1.0, 1.0)
    to_come = rewards.flip(1).cumsum(1).flip(1) * mask
    assert torch.allclose(advantages, (to_come - values) * mask)
    assert torch.allclose(returns, to_come)


def test_what_stands_in_padding_changes_no_advantage():
    generator, mask = responses(4)
    rewards, values = normal(generator, mask), normal(generator, mask)
    clean = maths.gae(rewards * mask, values * mask, mask, 0.9, 0.95)
    dirty = maths.gae(rewards + ~mask * GARBAGE, values - ~mask * GARBAGE, mask, 0.9, 0.95)
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1], dirty[1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50), size=st.floats(0.1, 50))
def test_whitened_values_have_mean_0_and_deviation_1_over_the_parts_of_all_processes(seed, shift, size):
    generator, mask = responses(seed)
    values = (shift + size * normal(generator, mask))[mask]
    white = torch.cat([maths.whiten_like(part, values) for part in values.tensor_split(2)])
    assert float(white.mean()) == pytest.approx(0, abs=1e-6)
    assert float(white.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_whitening_equal_values_gives_no_large_numbers():
    values = torch.full((6,), 4.2)
    assert maths.whiten_like(values, values).abs().max() < 0.01


# --- divergence from the reference ---------------------------------------------------------------------------------


def distributions(seed: int, apart: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy, and the log-probabilities of a reference `apart` from it."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(9, generator=generator, dtype=torch.float64)
    other = logits + apart * torch.randn(9, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), other.log_softmax(0)


def exact_kl(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    logprobs = logits.log_softmax(0)
    return (logprobs.exp() * (logprobs - reference)).sum()


@pytest.mark.parametrize("seed", range(5))
def test_k1_and_k3_are_the_divergence_in_expectation(seed):
    logits, reference = distributions(seed)
    logprobs = logits.log_softmax(0).detach()
    chances, kl = logprobs.exp(), float(exact_kl(logits, reference).detach())
    assert kl > 0
    assert float((chances * maths.k1(logprobs, reference)).sum()) == pytest.approx(kl, rel=1e-9)
    assert float((chances * maths.k3(logprobs, reference)).sum()) == pytest.approx(kl, rel=1e-9)
    assert (maths.k3(logprobs, reference) >= 0).all()


def test_k2_approaches_the_divergence_as_the_policies_meet():
    errors = []
    for apart in (0.1, 0.01):
        logits, reference = distributions(0, apart)
        logprobs = logits.log_softmax(0).detach()
        kl = float(exact_kl(logits, reference).detach())
        errors.append(abs(float((logprobs.exp() * maths.k2(logprobs, reference)).sum()) / kl - 1))
    assert errors[0] < 0.15
    assert errors[1] < errors[0] / 5


def gradient_as_a_loss(estimator, logits, reference):
    """The expected gradient of an estimator on samples of the policy (the sampling itself has no gradient)."""
    logprobs = logits.log_softmax(0)
    loss = (logprobs.detach().exp() * estimator(logprobs, reference)).sum()
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("seed", range(5))
def test_as_a_loss_only_k2_follows_the_gradient_of_the_divergence(seed):
    logits, reference = distributions(seed)
    (true,) = torch.autograd.grad(exact_kl(logits, reference), logits)
    assert torch.allclose(gradient_as_a_loss(maths.k2, logits, reference), true)
    assert torch.allclose(gradient_as_a_loss(maths.k1, logits, reference), torch.zeros_like(true), atol=1e-12)
    assert not torch.allclose(gradient_as_a_loss(maths.k3, logits, reference), true, rtol=0.1, atol=1e-3)


def test_k1_is_positive_where_the_policy_says_a_token_more_readily_than_the_reference():
    more, less = torch.tensor(-0.5), torch.tensor(-2.0)
    assert float(maths.k1(more, less)) == pytest.approx(1.5)
    assert float(maths.k1(less, more)) == pytest.approx(-1.5)


# --- rewards ---------------------------------------------------------------------------------------------------------


def test_the_score_lies_on_the_last_real_token_and_every_real_token_pays_for_its_divergence():
    mask = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, True, True]])
    logprobs = torch.tensor([[-1.0, -2, -3, GARBAGE], [-1, GARBAGE, 0, 0], [-1, -1, -1, -1]])
    reference = torch.tensor([[-2.0, -2, -1, -GARBAGE], [-4, 0, GARBAGE, 0], [-1, -1, -1, -2]])
    scores = torch.tensor([10.0, 20, 30])
    found = maths.token_rewards(scores, maths.k1(logprobs, reference), mask, beta=0.5)
    expected = torch.tensor([[-0.5, 0, 11, 0], [18.5, 0, 0, 0], [0, 0, 0, 29.5]])
    assert torch.equal(found, expected)


def test_explained_variance_is_1_for_a_perfect_value_and_0_for_the_mean():
    generator, mask = responses(5)
    target = normal(generator, mask)
    dirty = target + ~mask * GARBAGE
    assert float(maths.explained_variance(target, dirty, mask)) == pytest.approx(1)
    assert float(maths.explained_variance(torch.full_like(target, 7.0), dirty, mask)) == pytest.approx(0)
    assert float(maths.explained_variance(-target, dirty, mask)) == pytest.approx(-3)


@pytest.mark.parametrize(("kl", "power"), [(6.0, 0.0), (6.6, 0.1), (12.0, 1.0), (60.0, 1.0), (5.4, -0.1), (0.0, -1.0)])
def test_the_kl_coefficient_follows_the_error_and_takes_its_horizon_for_the_factor_e(kl, power):
    controller = maths.KlController(0.05, target=6.0, horizon=4)
    after = controller.after(kl)
    assert after.beta == pytest.approx(0.05 * math.exp(power / 4))
    assert (after.target, after.horizon) == (6.0, 4)


def test_the_kl_coefficient_of_the_default_settings_moves_within_three_rounds():
    far = near = maths.KlController(0.1, target=6.0, horizon=PpoConfig().kl_horizon_batches, least=0.02)
    for _ in range(3):
        far, near = far.after(60.0), near.after(0.0)
    assert far.beta >= 2 * 0.1
    assert near.beta <= 0.1 / 2
    for _ in range(30):
        near = near.after(0.0)
    assert near.beta == 0.02, "no further than its bound"


@pytest.mark.parametrize(("kl", "factor"), [(0.2, 1.0), (0.8, 1 / 1.5), (0.25, 0.8**0.5), (1e-9, 1.5), (0.0, 1.0)])
def test_the_learning_rate_follows_the_root_of_wanted_over_measured_within_bounds(kl, factor):
    assert maths.RateController(1.0).after(kl, wanted=0.2).scale == pytest.approx(factor)


def test_the_learning_rate_stays_within_its_bounds_and_a_step_that_was_not_finite_tells_nothing():
    fast = slow = maths.RateController()
    for _ in range(20):
        fast, slow = fast.after(1e-6, wanted=0.2), slow.after(50.0, wanted=0.2)
    assert (fast.scale, slow.scale) == (3.0, 0.1)
    assert fast.after(math.nan, wanted=0.2) == fast


def test_the_learning_rate_of_a_quadratic_divergence_settles_where_a_round_moves_as_wanted():
    rate = maths.RateController()
    for _ in range(8):
        rate = rate.after(0.9 * rate.scale**2, wanted=0.2)
    assert 0.9 * rate.scale**2 == pytest.approx(0.2, rel=1e-3)


def test_the_learning_rate_falls_in_a_line_to_its_last_share():
    assert [maths.decayed(step, 0, 4, 0.2) for step in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert [maths.decayed(step, 2, 4, 0.2) for step in range(5)] == pytest.approx([1.0, 1.0, 1.0, 0.6, 0.2])
    assert [maths.decayed(step, 4, 4, 0.2) for step in range(4)] == [1.0] * 4
    assert maths.decayed(3, 0, 4, 1.0) == 1.0


def test_the_mean_of_others_leaves_out_oneself_and_those_of_other_groups():
    found = maths.mean_of_others(torch.tensor([1.0, 5.0, 2.0, 6.0, 9.0]), ["a", "b", "a", "a", "c"])
    assert found[[0, 2, 3]].tolist() == [4.0, 3.5, 1.5]
    assert found[[1, 4]].isnan().all()


# --- losses ----------------------------------------------------------------------------------------------------------


def test_the_policy_loss_is_the_smaller_gain_of_plain_and_clipped_ratio():
    old = torch.zeros(1, 5)
    new = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1]).log()[None]
    advantages = torch.tensor([[2.0, 2, -2, -2, 2]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    found = maths.policy_loss(new, old, advantages, mask, clip=0.2)
    # min(r A, clip(r) A): 2.4, 1, -3, -1.6, 2.2
    assert float(found.loss) == pytest.approx(-(2.4 + 1 - 3 - 1.6 + 2.2) / 5)
    assert float(found.clip_fraction) == pytest.approx(2 / 5)
    assert torch.allclose(found.ratio, torch.tensor([[1.5, 0.5, 1.5, 0.5, 1.1]]))


def test_padding_changes_no_loss_no_gradient_and_no_figure():
    generator, mask = responses(6)
    old, new, advantages = (normal(generator, mask) for _ in range(3))
    results = []
    for garbage in (0.0, GARBAGE):
        policy = (new + ~mask * garbage).requires_grad_()
        found = maths.policy_loss(policy, old - ~mask * garbage, advantages * mask, mask, 0.2)
        (slope,) = torch.autograd.grad(found.loss, policy)
        value = maths.value_loss(new + ~mask * garbage, old, advantages - ~mask * garbage, mask, 0.2)
        results.append([found.loss, found.clip_fraction, found.approximate_kl, slope, *value])
        assert not slope[~mask].any()
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean.detach(), dirty.detach())


def test_the_mean_over_responses_of_unequal_length_counts_each_token_once():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert float(maths.masked_mean(torch.tensor([[1.0, 2, 3], [6, GARBAGE, GARBAGE]]), mask)) == 3
    assert float(maths.masked_mean(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool))) == 0


def test_the_value_loss_is_half_the_larger_of_clipped_and_plain_error():
    mask = torch.ones(1, 3, dtype=torch.bool)
    old, returns = torch.zeros(1, 3), torch.tensor([[1.0, 1.0, -1.0]])
    values = torch.tensor([[0.5, 0.1, 0.5]])
    assert float(maths.value_loss(values, old, returns, mask, clip=0.0)[0]) == pytest.approx((0.25 + 0.81 + 2.25) / 6)
    loss, share = maths.value_loss(values, old, returns, mask, clip=0.2)
    # plain errors .25, .81, 2.25; clipped to .2, .1, .2 they are .64, .81, 1.44
    assert float(loss) == pytest.approx((0.64 + 0.81 + 2.25) / 3 / 2)
    assert float(share) == pytest.approx(1 / 3)
