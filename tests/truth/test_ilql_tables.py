"""ILQL's losses find the optimum where it can be computed, and outcomes are compared within prompts."""

from __future__ import annotations

import math

import pytest
import torch
from fixed_answers import prompt_in, written
from torch import Tensor

from storage.records import Prompt
from trainer.algorithms import maths
from trainer.algorithms.ilql import relative_outcomes, within_prompts
from trainer.algorithms.q_values import follow, lambda_returns, token_losses
from trainer.outcomes import Outcome

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


class Table(torch.nn.Module):
    """Q of two heads, (2, states, actions), as a module, so that the targets follow as they do in training."""

    def __init__(self, states: int, actions: int) -> None:
        super().__init__()
        self.q = torch.nn.Parameter(torch.zeros(2, states, actions))


def learn(
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    tau: float,
    value_lam: float = 0.0,
    steps: int = 1500,
) -> tuple[Tensor, Tensor]:
    """Q (states, actions) and V (states,) learned from logged episodes, (B, R) each."""
    online, targets = (Table(int(states.max()) + 1, int(actions.max()) + 1) for _ in range(2))
    values = torch.zeros(int(states.max()) + 1, requires_grad=True)
    optimizer = torch.optim.Adam([online.q, values], lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        said, judged = online.q[:, states, actions], targets.q[:, states, actions]
        losses = token_losses(said, judged, values[states], rewards, mask, gamma, tau, value_lam=value_lam)
        optimizer.zero_grad()
        maths.masked_mean(losses.q + losses.value, mask).backward()
        optimizer.step()
        schedule.step()
        follow(targets, online, 0.1)
    return targets.q.detach().mean(0), values.detach()


def padded(episodes: list[list[tuple[int, int, float]]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Episodes of (state, action, reward) as (B, R) tensors and mask; padding holds rewards that must not count."""
    longest = max(map(len, episodes))
    rows = [[*episode, *[(0, 0, 9.0)] * (longest - len(episode))] for episode in episodes]
    mask = torch.tensor([[place < len(episode) for place in range(longest)] for episode in episodes])
    table = torch.tensor(rows)
    return table[..., 0].long(), table[..., 1].long(), table[..., 2], mask


STATES, GAMMA = 5, 0.9


def move(state: int, action: int) -> tuple[int | None, float]:
    """A chain: left or right; a small prize at the left end, a large one at the right end."""
    following = state + (1 if action else -1)
    if following < 0:
        return None, 0.7
    return (None, 1.0) if following == STATES else (following, 0.0)


def wanderings(count: int) -> list[list[tuple[int, int, float]]]:
    """Episodes of somebody who goes left or right at random, from anywhere."""
    generator = torch.Generator().manual_seed(1)
    episodes = []
    for number in range(count):
        state: int | None = number % STATES
        episode = []
        while state is not None:
            action = int(torch.randint(2, (), generator=generator))
            following, reward = move(state, action)
            episode.append((state, action, reward))
            state = following
        episodes.append(episode)
    return episodes


def value_iteration() -> Tensor:
    """The exact Q of the chain, (states, actions)."""
    q = torch.zeros(STATES, 2)
    for _ in range(200):
        for state in range(STATES):
            for action in range(2):
                following, reward = move(state, action)
                q[state, action] = reward + (0.0 if following is None else GAMMA * float(q[following].max()))
    return q


def test_on_a_chain_ilql_equals_value_iteration():
    exact = value_iteration()
    assert exact.argmax(1).tolist() == [0, 1, 1, 1, 1], "one end is better in some states and the other in others"
    episodes = padded(wanderings(60))
    q, values = learn(*episodes, gamma=GAMMA, tau=0.998)
    torch.testing.assert_close(q, exact, rtol=0, atol=0.01)
    torch.testing.assert_close(values, exact.amax(1), rtol=0, atol=0.01)
    timid, _ = learn(*episodes, gamma=GAMMA, tau=0.5)
    assert (timid - exact).abs().max() > 0.1, "the middle expectile values the wanderer, not the best way"


def test_the_parts_of_different_episodes_are_stitched_together():
    """Start 0, crossing 1, gate 2. Nobody went from the start through the crossing to the good end.

    Action 1 at the start leads to the crossing, action 0 ends with a little; at the crossing and at the gate, action 1
    goes on towards the good end. Those who started at the start all turned off later.
    """
    short = [(0, 0, 0.3)]
    off_at_crossing = [(0, 1, 0.0), (1, 0, -1.0)]
    off_at_gate = [(1, 1, 0.0), (2, 0, -1.0)]
    home = [(2, 1, 1.0)]
    episodes = [short] * 6 + [off_at_crossing] * 6 + [off_at_gate] * 6 + [home] * 2
    ends = {(0, 0): 0.3, (1, 0): -1.0, (2, 0): -1.0, (2, 1): 1.0}
    assert max(sum(reward for *_, reward in episode) for episode in episodes if episode[0][0] == 0) == 0.3

    def expected(policy: Tensor, state: int = 0) -> float:
        worth = [ends.get((state, action)) for action in range(2)]
        found = [expected(policy, state + 1) if value is None else value for value in worth]
        return float(policy[state, 0]) * found[0] + float(policy[state, 1]) * found[1]

    states, actions, rewards, mask = padded(episodes)
    counts = torch.zeros(3, 2)
    counts.index_put_((states[mask], actions[mask]), torch.ones(int(mask.sum())), accumulate=True)
    cloned = counts / counts.sum(1, keepdim=True)
    q, values = learn(states, actions, rewards, mask, gamma=0.99, tau=0.95)
    drawn = (cloned.log() + 8 * (q - values[:, None])).softmax(1)
    assert expected(cloned) < 0.1
    assert expected(drawn) > 0.9, "better than cloning, and than the best episode from the start"


def test_nothing_outside_the_mask_counts_and_nothing_flows_into_what_is_compared_with():
    generator = torch.Generator().manual_seed(2)
    q, target = (torch.randn(2, 3, 4, generator=generator, requires_grad=True) for _ in range(2))
    values = torch.randn(3, 4, generator=generator, requires_grad=True)
    rewards = torch.randn(3, 4, generator=generator)
    mask = torch.arange(4) < torch.tensor([[4], [2], [1]])
    losses = token_losses(q, target, values, rewards, mask, 0.9, 0.7)
    for row in range(3):
        for place in range(4):
            if not mask[row, place]:
                assert losses.q[row, place] == losses.value[row, place] == 0
                continue
            following = float(values[row, place + 1]) if place < 3 and mask[row, place + 1] else 0.0
            errors = [(float(rewards[row, place]) + 0.9 * following - float(head[row, place])) ** 2 for head in q]
            assert float(losses.q[row, place]) == pytest.approx(sum(errors) / 2, abs=1e-5)
            gap = min(float(head[row, place]) for head in target) - float(values[row, place])
            weight = 0.7 if gap > 0 else 0.3
            assert float(losses.value[row, place]) == pytest.approx(weight * gap**2, abs=1e-5)
    losses.q.sum().backward(retain_graph=True)
    assert values.grad is None
    losses.value.sum().backward()
    assert target.grad is None
    assert not values.grad[~mask].any()


def episodes_of(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q and rewards (B, R) at random, and a mask; what stands outside the mask must not count."""
    generator = torch.Generator().manual_seed(seed)
    q, rewards = (torch.randn(4, 6, generator=generator) for _ in range(2))
    return q, rewards, torch.arange(6) < torch.tensor([[6], [4], [1], [2]])


def test_with_lambda_1_returns_are_the_discounted_rewards_that_followed():
    q, rewards, mask = episodes_of(5)
    found = lambda_returns(q, rewards, mask, 0.9, 1.0)
    for row, length in enumerate(mask.sum(1).tolist()):
        for place in range(length):
            brute = sum(0.9 ** (later - place) * float(rewards[row, later]) for later in range(place, length))
            assert float(found[row, place]) == pytest.approx(brute, abs=1e-5)
    assert not found[~mask].any()


def test_q_learns_from_one_step_with_lambda_0_and_from_what_came_with_lambda_1():
    q, rewards, mask = episodes_of(6)
    assert torch.equal(lambda_returns(q, rewards, mask, 0.9, 0.0), q * mask)
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(7))
    losses = token_losses(q[None], q[None], values, rewards, mask, 0.9, 0.7, 0.0)
    for row, length in enumerate(mask.sum(1).tolist()):
        for place in range(length):
            following = float(values[row, place + 1]) if place + 1 < length else 0.0
            error = float(rewards[row, place]) + 0.9 * following - float(q[row, place])
            assert float(losses.q[row, place]) == pytest.approx(error**2, abs=1e-5)
    monte_carlo = token_losses(q[None], q[None], values, rewards, mask, 0.9, 0.7, 1.0)
    returns = lambda_returns(q, rewards, mask, 0.9, 1.0)
    torch.testing.assert_close(monte_carlo.q, (returns - q * mask).square(), **CLOSE)


def test_between_them_a_return_is_the_weighted_sum_of_all_horizons():
    q, rewards, mask = episodes_of(8)
    gamma, lam = 0.9, 0.6
    found = lambda_returns(q, rewards, mask, gamma, lam)
    for row, length in enumerate(mask.sum(1).tolist()):
        for place in range(length):
            total = 0.0
            for end in range(place, length + 1):  # bootstrapped from Q at `end`, or never
                so_far = sum(gamma ** (at - place) * float(rewards[row, at]) for at in range(place, end))
                last = gamma ** (end - place) * float(q[row, end]) if end < length else 0.0
                weight = lam ** (end - place) * ((1 - lam) if end < length else 1.0)
                total += weight * (so_far + last)
            assert float(found[row, place]) == pytest.approx(total, abs=1e-5)


def test_on_a_chain_values_of_what_came_are_those_of_the_wanderer():
    """With value_lam 1 and the middle expectile, V is the mean of what came of a state, and Q looks one step ahead."""
    states, actions, rewards, mask = padded(wanderings(60))
    q, values = learn(states, actions, rewards, mask, gamma=GAMMA, tau=0.5, value_lam=1.0)
    came = lambda_returns(torch.zeros_like(rewards), rewards, mask, GAMMA, 1.0)
    for state in range(STATES):
        assert float(values[state]) == pytest.approx(float(came[mask & (states == state)].mean()), abs=0.02)
        for action in range(2):
            following, reward = move(state, action)
            expected = reward + (0.0 if following is None else GAMMA * float(values[following]))
            assert float(q[state, action]) == pytest.approx(expected, abs=0.02)


def test_outcomes_are_differences_within_prompts():
    def rated(language: str, values: list[float], name: str) -> list[Outcome]:
        prompt = replace_id(prompt_in(language), name)
        return [Outcome(written(prompt, f"{name} {place}"), value, 1) for place, value in enumerate(values)]

    found = [*rated("en", [1.0, 3.0], "a"), *rated("en", [11.0, 13.0], "b"), *rated("es", [5.0], "c")]
    one, two, three, four, alone = relative_outcomes(found)
    assert (one, two) == pytest.approx((three, four)), "how good a prompt's answers are on the whole does not count"
    assert one == pytest.approx(-two)
    assert alone == 0
    values = torch.tensor([one, two, three, four, alone])
    assert float(values.square().mean()) == pytest.approx(1)
    assert relative_outcomes(rated("en", [2.0, 2.0], "a")) == [0.0, 0.0]


def replace_id(prompt: Prompt, name: str) -> Prompt:
    return Prompt(name, f"{prompt.text} {name}", prompt.language, "")


def test_within_prompts_only_differences_to_the_same_prompt_are_correlated():
    pairs = [("a", 1.0, 10.0), ("a", 2.0, 20.0), ("b", 50.0, -7.0), ("b", 51.0, 3.0)]
    assert within_prompts(pairs) == pytest.approx(1)
    assert math.isnan(within_prompts([("a", 1.0, 2.0), ("b", 3.0, 4.0)]))
