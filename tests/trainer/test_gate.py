"""The gate: what passes, what does not, and that it measures what it says."""

from __future__ import annotations

import json
import math
from collections import Counter

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records import Prompt, Sampling
from storage.wording import counted
from trainer.config import Control, GateConfig
from trainer.evaluation.gate import in_turns, judge
from trainer.evaluation.intervals import mean_interval
from trainer.evaluation.judging import Judge
from trainer.job import CancelledError
from trainer.policy_config import PpoConfig

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


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["en", "sw", "hi"]), max_size=30), st.integers(0, 30), st.randoms())
def test_of_the_first_held_out_prompts_no_language_is_missing(languages, most, chance):
    held_out = [Prompt(str(place), str(place), language, "") for place, language in enumerate(languages)]
    shuffled = chance.sample(held_out, len(held_out))
    ordered = in_turns(held_out)
    assert in_turns(shuffled) == ordered
    assert sorted(one.id for one in ordered) == sorted(one.id for one in held_out)
    some = Counter(one.language for one in ordered[:most])
    left = {one.language for one in ordered[most:]}
    assert all(some[language] <= some[other] + 1 for other in left for language in some)


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
    assert report.gain.low < report.measured.floor < report.gain.mean < report.gain.high
    below, above = report.measured.floor - 0.01, report.measured.floor + 0.01
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


# --- few prompts, controls, what is kept, and an end in the middle ----------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3])
def test_with_too_few_held_out_prompts_nothing_passes_and_nothing_crashes(judged, asked, count):
    report = judged(0.3, held_out=asked[:count], min_gain=-100)
    assert verdicts(report)["held-out prompts"] is False
    assert not report.passed
    (gate,) = [gate for gate in report.gates if gate["gate"] == "held-out prompts"]
    assert gate["detail"].startswith(f"{counted(count, 'held-out prompt is', 'held-out prompts are')} too few")
    assert (report.held_out_prompts, report.metrics()["held_out_prompts"]) == (count, count)
    assert_a_document(report)
    if not count:
        assert (report.kl, report.gain) == (None, None)
        assert report.metrics()["reasons"]["kl"] == "no held-out prompts"


def test_where_the_loss_decides_no_held_out_prompt_is_needed(backbone, candidate):
    gain = mean_interval([0.2, 0.3, 0.25])
    report = judge(backbone, None, candidate(0.3), None, [], GateConfig(), SAMPLING, gain)
    assert verdicts(report) == {"held-out loss": True, "finite": True}
    assert report.passed
    assert_a_document(report)


@pytest.mark.parametrize("control", ["shuffled", "constant"])
def test_a_control_never_passes_whatever_it_gains(backbone, reward_model, asked, candidate, control):
    config = GateConfig(min_gain=-100, answers=2, max_kl=1000)
    report = judge(
        backbone, Judge(reward_model), candidate(0.3), None, asked, config, SAMPLING, control=Control(control)
    )
    assert verdicts(report) == {**PASSED, "control": False}
    assert not report.passed
    assert report.metrics()["control"] == control
    assert_a_document(report)


def test_the_document_holds_what_its_readers_rely_on(judged):
    report = judged(0.3)
    figures = assert_a_document(report)
    assert figures.keys() >= {
        "kl", "held_out_prompts", "reward", "parent_reward", "reward_gain", "reward_gain_interval",
        "reward_gain_by_language", "reward_gain_matched", "reward_gain_matched_interval", "reward_gain_matched_reason",
        "rests_on", "judge_agreement", "judge_agreement_interval", "length_before", "length_after", "finished_before",
        "finished_after", "outside_support", "outside_support_before", "answers", "missing_eos_penalty", "control",
        "reasons",
    }  # fmt: skip
    assert figures["control"] == ""
    assert figures["reasons"]["judge_agreement"] == "not measured"
    kept = figures["answers"]
    assert len(kept) == 6
    assert kept[0].keys() == {
        "prompt", "language", "before", "after", "reward_before", "reward_after", "tokens_before", "tokens_after",
        "finished_before", "finished_after",
    }  # fmt: skip


def assert_a_document(report) -> dict:
    """The figures as JSON gives them back; no number in them is infinite or none at all."""
    found = report.metrics()
    json.dumps([found, report.gates], allow_nan=False)
    return msgspec.json.decode(msgspec.json.encode(found))


def test_few_prompts_are_answered_more_often_where_nothing_is_asked(backbone, reward_model, asked, candidate):
    jury, short = Judge(reward_model), Sampling(max_new_tokens=1)
    report = judge(backbone, jury, candidate(0.1), None, asked[:4], GateConfig(), short)
    assert (report.answers, len(report.after.rollouts), report.held_out_prompts) == (12, 48, 4)
    report = judge(backbone, jury, candidate(0.1), None, asked[:4], GateConfig(answers=3), short)
    assert (report.answers, report.held_out_prompts) == (3, 4)


def test_a_gate_that_is_told_to_stop_stops_before_the_next_batch(backbone, reward_model, asked, candidate):
    asked_for = []

    def check() -> None:
        asked_for.append(1)
        if len(asked_for) == 3:
            raise CancelledError("the job was cancelled", "go on with `trainer resume`")

    many = [msgspec.structs.replace(asked[0], id=f"q{number}") for number in range(40)]
    config = GateConfig(answers=4)
    with pytest.raises(CancelledError):
        judge(backbone, Judge(reward_model), candidate(0.3), None, many, config, SAMPLING, check=check)
    assert len(asked_for) == 3
