"""Runs beside each other: what differs, what is pooled, and the intervals of a pool."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from storage import comparison, jobs, metrics, versions
from storage.comparison import Figure, compare, curves, document, student
from storage.database import Database
from storage.errors import UsageError
from storage.records import Job


def finished(database: Database, seed: int, gain: float | None = None, *, kind: str = "ppo", rate: float = 1e-4,
             **more: Any) -> Job:  # fmt: skip
    """A job that is done, with a gain over 40 prompts when one is given."""
    control = more.pop("control", None)
    config = {"seed": seed, "ppo": {"steps": 40, "learning_rate": rate}, "control": control or "none"}
    queued = jobs.enqueue(database, kind, config)
    job = jobs.claim(database, "test", job_id=queued.id)
    assert job is not None
    result = {"state": "published", "held_out_prompts": 40} | more
    if gain is not None:
        result |= {"reward_gain": gain, "reward_gain_interval": [gain - 0.3, gain + 0.3]}
    jobs.finish(database, job, result)
    return jobs.get(database, job.id)


def test_only_settings_that_differ_are_told_and_the_seed_is_none_of_them(database: Database):
    one, other = finished(database, 0), finished(database, 1, rate=3e-4, kind="rloo")
    found = compare(database, [one.id, other.id])
    assert found.settings == {
        "kind": {one.id: "ppo", other.id: "rloo"},
        "ppo.learning_rate": {one.id: 1e-4, other.id: 3e-4},
    }
    assert [run["seed"] for run in document(found, {})["jobs"]] == [0, 1]


def test_a_setting_that_one_job_has_not_is_null(database: Database):
    one, other = finished(database, 0), finished(database, 0, control="shuffled")
    found = compare(database, [one.id, other.id])
    assert found.settings == {"control": {one.id: "none", other.id: "shuffled"}}
    assert [group.control for group in found.groups] == ["", "shuffled"]


def test_a_job_alone_shows_its_own_interval_over_prompts(database: Database):
    found = compare(database, [finished(database, 0, 0.5).id])
    assert found.groups[0].gain == Figure(0.5, (0.2, 0.8), 40, "prompts")
    assert str(found.groups[0].gain) == "+0.50 [+0.20, +0.80] over 40 prompts"


def test_jobs_that_differ_in_the_seed_alone_are_pooled_with_an_interval_over_seeds(database: Database):
    gains = [0.2, 0.5, 0.9]
    pool = [finished(database, seed, gain) for seed, gain in enumerate(gains)]
    other = finished(database, 0, 0.4, rate=3e-4)
    first, second = compare(database, [*(job.id for job in pool), other.id]).groups
    low, high = stats.t.interval(0.95, 2, loc=sum(gains) / 3, scale=stats.sem(gains))
    assert first.gain.mean == pytest.approx(sum(gains) / 3)
    assert first.gain.interval == pytest.approx((low, high))
    assert (first.gain.n, first.gain.over, second.gain.over) == (3, "seeds", "prompts")
    told = document(compare(database, [job.id for job in pool]), {})["groups"][0]
    assert (told["seeds"], told["n"], told["interval"]) == ([0, 1, 2], 3, pytest.approx((low, high)))


def test_a_seed_that_ran_twice_counts_once(database: Database):
    pool = [finished(database, 0, 0.2), finished(database, 0, 0.4), finished(database, 1, 0.5)]
    gain = compare(database, [job.id for job in pool]).groups[0].gain
    assert (gain.mean, gain.n) == (pytest.approx(0.4), 2)


def test_a_pool_without_the_gain_of_one_run_leaves_that_run_out(database: Database):
    waiting = jobs.enqueue(database, "ppo", {"seed": 7, "ppo": {"steps": 40, "learning_rate": 1e-4}, "control": "none"})
    pool = [finished(database, 0, 0.2), finished(database, 1, 0.4), waiting]
    group = compare(database, [job.id for job in pool]).groups[0]
    assert (group.gain.n, group.states) == (2, ["published", "published", "queued"])


def test_a_matched_gain_that_only_some_runs_have_is_not_averaged(database: Database):
    pool = [
        finished(database, 0, 0.2, reward_gain_matched=0.1, reward_gain_matched_interval=[0.0, 0.2]),
        finished(database, 1, 0.4, reward_gain_matched=None, reward_gain_matched_reason="nothing finished"),
    ]
    matched = compare(database, [job.id for job in pool]).groups[0].figures["reward_gain_matched"]
    assert (matched.mean, matched.reason) == (None, "known of 1 of 2 runs")
    alone = compare(database, [pool[1].id]).groups[0].figures["reward_gain_matched"]
    assert str(alone) == "- (nothing finished)"


def test_intervals_without_bounds_are_left_out(database: Database):
    job = finished(database, 0, 0.2, kl=math.inf)
    jobs_result = compare(database, [job.id]).groups[0]
    assert jobs_result.figures["kl"].mean is None
    assert comparison.interval_of([None, 1.0]) is None
    assert comparison.interval_of("no") is None


def test_runs_that_began_from_other_versions_are_pooled_and_called_unlike(database: Database):
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    pool = [finished(database, seed, 0.1 * seed) for seed in range(2)]
    for job, parent in zip(pool, ("v0", "v1"), strict=True):
        versions.add_candidate(database, base=base, parent=parent, file="f", sha256="0", job_id=job.id)
    group = compare(database, [job.id for job in pool]).groups[0]
    assert group.unlike == "from v0, v1"


def test_curves_hold_gaps_and_leave_out_what_no_run_has(database: Database):
    one, other = finished(database, 0), finished(database, 1)
    metrics.record(database, one.id, 1, {("objective/kl", None): 1.0, ("mine", None): 2.0})
    metrics.record(database, one.id, 2, {("objective/kl", None): math.inf})
    runs = compare(database, [one.id, other.id]).runs
    assert curves(database, runs) == {"objective/kl": {one.id: [(1, 1.0), (2, None)]}}
    assert curves(database, runs, ["mine"]) == {"mine": {one.id: [(1, 2.0)]}}
    with pytest.raises(UsageError, match="none of these jobs has the metric 'other'") as refused:
        curves(database, runs, ["other"])
    assert refused.value.hint == "they have mine, objective/kl"


def test_jobs_are_named_by_their_ending_and_count_once(database: Database):
    job = finished(database, 0, 0.2)
    assert [run.job.id for run in compare(database, [job.id, job.id[-8:]]).runs] == [job.id]
    with pytest.raises(UsageError, match="nothing to compare"):
        compare(database, [])
    with pytest.raises(UsageError, match="there is no job 'nobody'"):
        compare(database, ["nobody"])


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 31, 200])
def test_students_quantile_is_that_of_scipy(degrees: int):
    assert student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)
    assert student(degrees, 0.5) == pytest.approx(stats.t.ppf(0.75, degrees), rel=1e-9)
