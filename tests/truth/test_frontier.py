"""PPO on a real network where the answer is known: no policy lies above the frontier, and PPO comes near to it."""

from __future__ import annotations

import pytest
import torch

from benchmarks.frontier import TOLERANCE, Point, Problem, exact_policy, planted, settings, summary, train
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder


@pytest.fixture(scope="module")
def backbone(tiny_model) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


def test_the_bound_is_reached_by_the_best_policy_alone():
    generator = torch.Generator().manual_seed(1)
    reference, rewards, other = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    problem = Problem(reference.log_softmax(0), rewards)
    for beta in (2.0, 0.5):
        best = problem.point(problem.best(beta))
        assert best.reward - beta * best.kl == pytest.approx(problem.bound(beta))
        some = problem.point(other.log_softmax(0))
        assert some.reward - beta * some.kl < problem.bound(beta)
        assert problem.above(best) <= TOLERANCE
        assert problem.above(Point(best.kl, best.reward + 0.05)) > TOLERANCE
    assert problem.point(problem.reference).kl == 0


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_ppo_stays_below_the_frontier_and_comes_near(backbone, beta):
    problem = planted(backbone, seed=0)
    config = settings(beta, 60, rank=8)
    points, policy = train(backbone, problem, config, seed=1)
    assert torch.equal(exact_policy(backbone, None), problem.reference)
    assert points[0].kl == pytest.approx(0, abs=1e-9)
    found = summary(problem, beta, points, policy)
    assert found["share"] > 0.9
    assert found["total_variation"] < 0.1
