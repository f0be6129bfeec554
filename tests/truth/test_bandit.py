"""PPO on a problem whose answer is known: eight arms, a reward for each, and a leash to a reference policy.

The best policy under `E[r] - beta KL(pi || ref)` is `ref * exp(r / beta)`, normalised (Ziegler et al. 2019).
"""

from __future__ import annotations

import pytest
import torch

from trainer.algorithms import maths

ARMS, BETA = 8, 0.5
ROUNDS, BATCH, MINIBATCH, EPOCHS = 100, 1024, 512, 2


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, the reference's log-probabilities, and the best policy."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(ARMS, generator=generator) / 2
    reference = torch.randn(ARMS, generator=generator).log_softmax(0)
    return rewards, reference, (reference + rewards / BETA).softmax(0)


def ppo(rewards: torch.Tensor, reference: torch.Tensor, seed: int, *, pays_k1: bool = True) -> torch.Tensor:
    """The policy that PPO ends with, from the formulas that `trainer.algorithms.ppo` is made of."""
    generator = torch.Generator().manual_seed(seed)
    logits = reference.clone().requires_grad_()
    value = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [logits], "lr": 0.03}, {"params": [value], "lr": 0.05}], eps=1e-5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / ROUNDS)
    mask = torch.ones(BATCH, 1, dtype=torch.bool)
    for _ in range(ROUNDS):
        with torch.no_grad():
            arms = torch.multinomial(logits.softmax(0), BATCH, replacement=True, generator=generator)
            old = logits.log_softmax(0)[arms][:, None]
            k1 = maths.k1(old, reference[arms][:, None])
            exact = (logits.softmax(0) @ (logits.log_softmax(0) - reference)).expand(BATCH, 1)
            charged = maths.token_rewards(rewards[arms], exact, mask, BETA)
            before = value.expand(BATCH, 1).clone()
            advantages, returns = maths.gae(charged, before, mask, 1.0, 0.95)
            if pays_k1:
                advantages = maths.own_charge(advantages, k1, exact, mask, BETA)
            advantages = maths.whiten_like(advantages, advantages[mask])
        for _ in range(EPOCHS):
            for part in torch.randperm(BATCH, generator=generator).split(MINIBATCH):
                new = logits.log_softmax(0)[arms[part]][:, None]
                policy = maths.policy_loss(new, old[part], advantages[part], mask[part], 0.2)
                worth = value.expand(len(part), 1)
                regression, _ = maths.value_loss(worth, before[part], returns[part], mask[part], 0.0)
                optimizer.zero_grad()
                (policy.loss + regression).backward()
                optimizer.step()
        schedule.step()
    return logits.detach().softmax(0)


@pytest.mark.parametrize("seed", range(10))
def test_ppo_reaches_the_exact_optimum(seed):
    rewards, reference, best = problem(seed)
    away = float((reference.exp() - best).abs().sum() / 2)
    assert away > 0.1, "the reference is not the answer already"
    found = ppo(rewards, reference, seed)
    assert float((found - best).abs().sum() / 2) < 0.02


def test_a_token_that_does_not_pay_its_own_k1_feels_no_leash():
    """The exact divergence of a place is the same whichever token is drawn there: charged alone it says nothing."""
    rewards, reference, best = problem(0)
    found = ppo(rewards, reference, 0, pays_k1=False)
    assert float((found - best).abs().sum() / 2) > 0.1
