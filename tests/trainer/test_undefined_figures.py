"""No figure is a number where its inputs do not tell it: of nothing, of one, of values that are all alike."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import msgspec
import pytest
import torch
from hand_made import side
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from storage import jobs, metrics
from storage.records import Prompt
from trainer.algorithms import maths
from trainer.algorithms.updates import take_step
from trainer.evaluation.gate import GateReport, measure
from trainer.evaluation.intervals import Interval, bootstrap_interval, mean_interval
from trainer.evaluation.judging import Judge
from trainer.evaluation.measures import area_under_curve, calibration, rank_correlation, slope
from trainer.evaluation.watch import WatchReport
from trainer.examples import Habit, Labelled, Pair, Response, Scored
from trainer.processes import Processes
from trainer.reward.effects import RatingEffects
from trainer.reward.measure import measure as compare
from trainer.reward.protocol import ConstantReward

numbers = st.floats(-1e6, 1e6, allow_nan=False)
many = st.lists(numbers, max_size=12)


@st.composite
def with_a_constant(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Values, and as many that are all alike."""
    values = draw(many)
    return values, [draw(numbers)] * len(values)


@given(with_a_constant())
def test_a_constant_has_no_correlation_no_slope_and_no_order(found):
    values, constant = found
    assert rank_correlation(values, constant) is rank_correlation(constant, values) is None
    assert slope(constant, values) is None
    assert area_under_curve(values, [True] * len(values)) is area_under_curve(values, [False] * len(values)) is None
    assert bootstrap_interval(range(len(values)), lambda rows: rank_correlation(values, constant)) is None
    returns = torch.tensor(constant or [0.0])
    explained = maths.explained_variance(torch.randn(len(returns)), returns, torch.ones(len(returns), dtype=torch.bool))
    assert math.isnan(float(explained))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=12))
def test_what_is_told_is_finite_and_what_is_bounded_lies_around_it(rows):
    left, right = [float(one) for _, one, _ in rows], [float(other) for _, _, other in rows]
    units = [unit for unit, _, _ in rows]

    def figure(chosen) -> float | None:
        return rank_correlation([left[row] for row in chosen], [right[row] for row in chosen])

    found = bootstrap_interval(units, figure, draws=60)
    if len(set(left)) < 2 or len(set(right)) < 2:
        assert found is None
        return
    assert -1 <= found.mean <= 1
    assert found.n == len(set(units))
    assert not found.bounded or -1 <= found.low <= found.high <= 1
    assert found.bounded or found.reason
    assert found.n > 1 or not found.bounded


@given(numbers)
def test_of_nothing_and_of_one_there_is_no_figure(value):
    for figure in (rank_correlation, slope):
        assert figure([], []) is figure([value], [value]) is None
    assert area_under_curve([], []) is area_under_curve([value], [True]) is None
    assert calibration([], []) is None
    assert bootstrap_interval([], lambda rows: 0.5) is None
    one = mean_interval([value])
    assert (one.bounded, one.bounds, one.reason) == (False, None, "1 prompt")
    with pytest.raises(ValueError, match="nothing"):
        mean_interval([])


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_of_what_is_not_finite_there_is_no_figure(wrong):
    assert rank_correlation([1, 2, wrong], [1, 2, 3]) is rank_correlation([1, 2, 3], [1, wrong, 3]) is None
    assert slope([1.0, 2.0], [1.0, wrong]) is None
    assert not mean_interval([1.0, wrong]).bounded
    assert "not finite: no interval" in str(mean_interval([1.0, wrong]))


def test_an_interval_says_in_words_that_it_is_none():
    assert str(Interval(0.31, -math.inf, math.inf, 1)) == "+0.31 (1 prompt: no interval)"
    assert str(Interval(0.31, -math.inf, math.inf, 12)) == "+0.31 (12 prompts, too alike: no interval)"
    assert str(Interval(0.31, 0.1, 0.5, 12)) == "+0.31 [+0.10, +0.50]"


def test_draws_that_tell_nothing_are_left_out_and_too_many_of_them_leave_no_interval():
    values = [0.0] * 9 + [1.0]

    def spread(rows) -> float | None:
        chosen = [values[row] for row in rows]
        return max(chosen) - min(chosen) if len(set(chosen)) > 1 else None

    rare = bootstrap_interval(range(10), spread)
    assert (rare.mean, rare.bounded) == (1, False), "a third of the draws miss the one that differs"
    values = [0.0, 1.0] * 5
    often = bootstrap_interval(range(10), spread)
    assert (often.low, often.high) == (1, 1), "the few that miss one kind count for nothing"


def test_a_step_that_is_not_taken_has_no_norm():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([math.inf, 0.0])
    norm, taken = take_step(optim.SGD([weight], lr=1.0), 1.0, Processes())
    assert math.isnan(norm)
    assert not taken


# --- documents -------------------------------------------------------------------------------------------------------


def response(number: int, text: str) -> Response:
    return Response(Prompt(f"p{number}", f"¿{number}?", "es", ""), text, None, None)


answers = st.builds(response, st.integers(0, 4), st.sampled_from(["uno", "dos", "tres"]))
ratings = st.one_of(
    st.builds(Scored, answers, st.sampled_from([-1.0, 0.0, 1.0]), st.just("amina")),
    st.builds(Labelled, answers, st.booleans(), st.just(1.0), st.just("amina")),
    st.builds(Pair, answers, answers, st.sampled_from([0.0, 0.5, 1.0]), st.just("amina")),
)


@settings(deadline=None)
@given(st.lists(ratings, max_size=14), st.integers(1, 3))
def test_every_figure_of_a_reward_model_that_is_null_has_its_reason(kept, levels):
    told = {answer for one in kept for answer in ((one.first, one.second) if isinstance(one, Pair) else [one.response])}
    rewards = {answer: float(place % levels) for place, answer in enumerate(sorted(told, key=str))}
    tokens = dict.fromkeys(rewards, 5)
    found = compare([], kept, rewards, tokens, RatingEffects([Habit("amina")], 1), 0.5)
    document = asdict(found)
    json.dumps(document, allow_nan=False)
    nulls = {name for name, value in document.items() if value is None}
    assert nulls == set(found.reasons), "a reason for each, and none too many"
    assert all(found.reasons.values())
    assert found.length_correlation is None, "all are of one length"
    if len({one.value for one in kept if isinstance(one, Scored)}) < 2 or levels == 1:
        assert found.spearman is None


def test_a_document_of_the_gate_holds_no_infinity_and_says_why():
    asked = Prompt("p", "Why?", "en", "")
    sides = (side([(asked, 4, True, 0.0)]), side([(asked, 4, True, 0.5)]))
    gain = measure(Judge(ConstantReward()), *sides, 1)
    report = GateReport([], 1.0, *sides, 1, gain, mean_interval([0.2]))
    document = report.metrics()
    json.dumps(document, allow_nan=False)
    assert document["reward_gain_interval"] is document["loss_gain_interval"] is None
    assert document["reasons"] == {"reward_gain_interval": "1 prompt", "loss_gain_interval": "1 prompt"}
    told = {name: document[name] for name in ("reward_gain", "loss_gain", "reward_gain_matched")}
    assert told == {"reward_gain": 0.5, "loss_gain": 0.2, "reward_gain_matched": None}
    assert document["reward_gain_by_language"]["en"] == {"mean": 0.5, "low": None, "high": None, "n": 1}
    watched = WatchReport(None, 0, None, 0, "3 rated answers are too few")
    unwatched = GateReport([], 1.0, *sides, 1, seen=watched).metrics()
    assert unwatched["human_agreement"] is unwatched["human_agreement_interval"] is None
    assert unwatched["reasons"] == {"human_agreement": "3 rated answers are too few"}
    watched = WatchReport(Interval(0.4, 0.1, 0.6, 8), 20, None, 0)
    assert GateReport([], 1.0, *sides, 1, seen=watched).metrics()["human_agreement_interval"] == (0.1, 0.6)
    two = [Prompt(name, "Why?", "en", "") for name in "pq"]
    sides = tuple(
        side([(prompt, 4, True, reward) for prompt, reward in zip(two, rewards, strict=True)])
        for rewards in ([0.0, 0.0], [0.5, 0.4])
    )
    assert "reasons" not in GateReport([], 1.0, *sides, 1, measure(Judge(ConstantReward()), *sides, 1)).metrics()
    assert msgspec.json.decode(msgspec.json.encode(document)) == document


def test_a_metric_that_could_not_be_computed_is_stored_as_null(database):
    job = jobs.enqueue(database, "ppo", {})
    metrics.record(database, job.id, 1, {("value/explained_variance", None): math.nan})
    assert metrics.series(database, job.id, "value/explained_variance") == [(1, None)]
