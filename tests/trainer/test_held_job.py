"""Holding a job: cancellation leaves it paused, a lost lease stops the worker, and every ending is recorded."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from storage import jobs, metrics
from storage.database import DatabaseError
from storage.errors import LeaseLostError, UsageError, WorkbenchError
from trainer import job as job_module
from trainer.job import CancelledError, HeldJob, claim, summary


@pytest.fixture
def held(workspace, database, job, monkeypatch) -> HeldJob:
    monkeypatch.setattr(job_module, "HEARTBEAT_SECONDS", 0.02)
    return HeldJob(workspace, database, job, quiet=True)


def until_stopped(held: HeldJob) -> None:
    """Work that never ends by itself."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        held.check()
        time.sleep(0.01)
    raise AssertionError("nobody stopped it")


def take_over(database, job) -> None:
    """Let the lease run out and another worker claim the job."""
    database.execute("UPDATE jobs SET lease_until = '2000-01-01' WHERE id = ?", (job.id,))
    assert jobs.claim(database, "another worker", job_id=job.id)


def test_where_a_job_stands_is_told_however_long_its_next_step_takes(held, database, job):
    """Steps that follow each other closely are not all stored; the last one is, before the next one comes."""

    def work(held: HeldJob) -> dict[str, Any]:
        held.progress("sampling", 1, 9)
        held.progress("sampling", 2, 9)
        held.progress("sampling", 3, 9)
        deadline = time.monotonic() + 30
        while jobs.get(database, job.id).step < 3:
            assert time.monotonic() < deadline, "it was held back"
            time.sleep(0.01)
        jobs.heartbeat(database, held.job, place=("sampling", 2, 9))  # one that comes late
        jobs.heartbeat(database, held.job, place=("before", 8, 9))
        return {}

    held.run(work)
    done = jobs.get(database, job.id)
    assert (done.stage, done.step) == ("sampling", 3)


def test_a_job_that_ends_well_is_done_with_its_result(held, database):
    assert held.run(lambda held: {"version": "v1"}) == {"version": "v1"}
    found = jobs.get(database, held.job.id)
    assert (found.state, found.result, found.lease_until) == ("done", {"version": "v1"}, None)


def test_a_cancel_from_another_process_pauses_the_job(held, database):
    def work(held):
        jobs.request_cancel(database, held.job.id)
        until_stopped(held)

    with pytest.raises(CancelledError) as caught:
        held.run(work)
    assert caught.value.exit_code == 130
    assert f"trainer resume {held.job.id}" in caught.value.hint
    assert jobs.get(database, held.job.id).state == "paused"
    again = claim(database, held.job.id)
    assert again.attempts == 2
    assert not again.cancel_requested, "an old cancel does not stop the resumed job"
    assert again.pid == os.getpid()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_the_old_handler_returns(held, database, number):
    before = signal.getsignal(number)
    steps = []

    def work(held):
        os.kill(os.getpid(), number)
        steps.append("the step goes on")
        until_stopped(held)

    with pytest.raises(CancelledError):
        held.run(work)
    assert steps
    assert jobs.get(database, held.job.id).state == "paused"
    assert signal.getsignal(number) == before


def test_a_second_signal_stops_at_once_and_the_job_can_be_resumed(held, database):
    def work(held):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt):
        held.run(work)
    assert jobs.get(database, held.job.id).state == "paused"
    assert claim(database, held.job.id).attempts == 2


def test_a_worker_whose_job_was_taken_over_stops_and_changes_nothing(held, database):
    def work(held):
        take_over(database, held.job)
        until_stopped(held)

    with pytest.raises(LeaseLostError):
        held.run(work)
    found = jobs.get(database, held.job.id)
    assert (found.state, found.worker) == ("running", "another worker")


def test_a_worker_that_lost_its_job_stores_no_metric_and_does_not_finish_it(held, database):
    take_over(database, held.job)
    with pytest.raises(LeaseLostError):
        held.record(1, {("objective/kl", None): 1.0})
    assert not metrics.series(database, held.job.id, "objective/kl")
    with pytest.raises(LeaseLostError):
        held.progress("policy", 1, 2)
    with pytest.raises(LeaseLostError):
        held.run(lambda held: {"version": "v9"})
    assert jobs.get(database, held.job.id).result is None


def test_the_lease_is_kept_while_the_work_is_busy(held, database):
    before = jobs.get(database, held.job.id).lease_until

    def work(held):
        deadline = time.monotonic() + 5
        while jobs.get(database, held.job.id).lease_until == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return {}

    earlier = set(threading.enumerate())
    held.run(work)
    assert set(threading.enumerate()) <= earlier


@pytest.mark.parametrize(
    ("error", "told", "hint"),
    [
        (UsageError("too few ratings", "rate more"), "too few ratings", "rate more"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero", "log"),
    ],
)
def test_a_failure_is_recorded_with_what_to_do(held, database, error, told, hint):
    def work(held):
        raise error

    with pytest.raises(type(error)):
        held.run(work)
    found = jobs.get(database, held.job.id)
    assert (found.state, found.error) == ("failed", told)
    assert hint in found.hint
    assert summary(database, held.job.id, None)["error"] == told


def test_a_step_written_again_replaces_its_figures_and_rollouts(held, database):
    for kl in (1.0, 2.0):
        rollout = metrics.new_rollout(held.job.id, 3, "Kwa nini?", "sw", f"kl {kl}", 0.5, kl, 7)
        held.record(3, {("objective/kl", None): kl, ("objective/kl", "sw"): kl + 1}, [rollout])
    assert metrics.series(database, held.job.id, "objective/kl") == [(3, 2.0)]
    assert metrics.series(database, held.job.id, "objective/kl", "sw") == [(3, 3.0)]
    assert [rollout.text for rollout in metrics.recent_rollouts(database, held.job.id)] == ["kl 2.0"]


def test_progress_is_in_the_database_and_on_standard_error_only_when_asked(held, database, capsys):
    held.progress("policy", 0, 5)
    held.progress("policy", 5, 5)
    found = jobs.get(database, held.job.id)
    assert (found.stage, found.step, found.steps) == ("policy", 5, 5)
    assert capsys.readouterr() == ("", "")
    HeldJob(held.workspace, database, held.job).progress("gate", 0, 1)
    seen = capsys.readouterr()
    assert "gate" in seen.err
    assert not seen.out


def test_a_job_that_somebody_holds_cannot_be_claimed(database, job):
    with pytest.raises(WorkbenchError, match="is running in another process"):
        claim(database, job.id)


def test_a_heartbeat_outlives_a_database_that_does_not_answer(held, database, monkeypatch):
    """Locked, or a disk that fails: what comes after is heard again."""
    beats = []
    beat = jobs.heartbeat

    def heartbeat(*given, **more):
        beats.append(len(beats))
        if len(beats) <= 2:
            raise DatabaseError("database is locked")
        return beat(*given, **more)

    monkeypatch.setattr(job_module.jobs, "heartbeat", heartbeat)

    def work(held):
        jobs.request_cancel(database, held.job.id)
        until_stopped(held)

    with pytest.raises(CancelledError):
        held.run(work)
    assert len(beats) > 2


def test_a_failure_that_cannot_be_recorded_is_told_all_the_same(held, monkeypatch):
    def fail(*_):
        raise DatabaseError("disk I/O error")

    def work(held):
        raise ZeroDivisionError("the true cause")

    monkeypatch.setattr(job_module.jobs, "fail", fail)
    with pytest.raises(ZeroDivisionError, match="the true cause"):
        held.run(work)
