"""The gate: what passes, what does not, and that it measures what it says."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch

from storage.records import Sampling
from trainer.config import GateConfig, PpoConfig
from trainer.evaluation.gate import judge
from trainer.evaluation.intervals import mean_interval
from trainer.evaluation.judging import Judge

SAMPLING = Sampling(max_new_tokens=6)
PASSED = dict.fromkeys(("reward gain", "judge", "languages", "support", "KL bound", "finite"), True)


@pytest.fixture
def candidate(backbone):
    """A function that makes an adapter which changes the policy by so much."""

    def make(strength: float):
        adapter = backbone.new_adapter(PpoConfig(rank=4), seed=1, upper=False)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * strength)
        return adapter.snapshot()

    return make


def verdicts(report) -> dict[str, bool]:
    return {gate["gate"]: gate["passed"] for gate in report.gates}


@pytest.fixture
def judged(backbone, reward_model, asked, candidate):
    def judge_it(strength: float, held_out=asked, **bounds):
        jury = Judge(reward_model)
        return judge(backbone, jury, candidate(strength), None, held_out, GateConfig(**bounds), SAMPLING)

    return judge_it


def test_a_candidate_that_changes_nothing_gains_nothing_and_is_rejected(judged):
    report = judged(0.0)
    assert (report.gain.mean, report.gain.low, report.gain.high, report.gain.n) == (0, 0, 0, 10)
    assert report.kl == pytest.approx(0, abs=1e-5)
    figures = report.metrics()
    assert figures["reward"] == figures["parent_reward"]
    assert verdicts(report) == {**PASSED, "reward gain": False}
    assert not report.passed


def test_the_lower_end_of_the_interval_decides(judged):
    report = judged(0.3)
    assert report.gain.low < report.gain.mean < report.gain.high
    below, above = report.gain.low - 0.01, (report.gain.low + report.gain.mean) / 2
    assert verdicts(judged(0.3, min_gain=below))["reward gain"]
    assert not verdicts(judged(0.3, min_gain=above))["reward gain"], "the mean alone would pass"


def test_a_divergence_out_of_bounds_is_rejected(judged):
    report = judged(0.3, min_gain=-100, max_kl=0.01)
    assert report.kl > 0.01
    assert verdicts(report) == {**PASSED, "KL bound": False}


def test_the_gain_of_each_language_is_reported_and_the_worst_can_be_seen(judged, asked):
    report = judged(0.3, held_out=[*asked, msgspec.structs.replace(asked[0], id="again", text="Hello?")])
    by_language = report.measured.by_language
    assert by_language["en"].n == 2
    total = sum(gain.mean * gain.n for gain in by_language.values())
    assert report.gain.mean == pytest.approx(total / 11)
    assert report.metrics()["reward_gain_by_language"]["sw"]["n"] == 1


def test_the_same_candidate_is_judged_the_same_twice(judged):
    one, other = judged(0.3), judged(0.3)
    assert (one.gates, one.metrics()) == (other.gates, other.metrics())


def test_only_so_many_prompts_are_answered(judged):
    assert judged(0.1, prompts=4).gain.n == 4


def test_rewards_that_are_not_finite_are_rejected(judged, reward_model):
    with torch.no_grad():
        reward_model.head.bias.fill_(torch.inf)
    report = judged(0.01, min_gain=-100)
    assert verdicts(report) == {**PASSED, "reward gain": False, "finite": False}


def test_the_interval_is_students():
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446305 * math.sqrt(5 / 3) / 2  # t(0.975, 3 degrees), deviation, root of n
    assert (found.mean, found.n) == (2.5, 4)
    assert (found.low, found.high) == (pytest.approx(2.5 - half), pytest.approx(2.5 + half))
    assert mean_interval([1.0]).low == -math.inf
