"""The job queue: no job runs twice, and none is lost with its worker."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from processes import Child, go, next_line

from storage import clock, conversations, jobs, samples
from storage.database import Database
from storage.errors import LeaseLostError, UsageError, WorkbenchError
from storage.feedback import log
from storage.records import Choice, JobState, Sample, Split


def test_jobs_are_claimed_oldest_first(database: Database) -> None:
    first, second = (jobs.enqueue(database, "ppo", {"steps": steps}) for steps in (1, 2))
    claimed = [jobs.claim(database, "worker", pid=7) for _ in range(3)]
    assert [job and job.id for job in claimed] == [first.id, second.id, None]
    assert claimed[0] is not None
    assert (claimed[0].state, claimed[0].fence, claimed[0].attempts, claimed[0].pid) == (JobState.RUNNING, 1, 1, 7)


def test_a_job_can_be_named_by_the_end_of_its_key(database: Database) -> None:
    job = jobs.enqueue(database, "ppo", {})
    claimed = jobs.claim(database, "worker", job_id=job.id[-8:])
    assert claimed is not None
    assert claimed.id == job.id


@pytest.mark.parametrize("name", ["%", "_", "", " ", "0%", "______", "\udcff"])
def test_a_sign_in_a_name_stands_for_itself_alone(database: Database, name: str) -> None:
    jobs.enqueue(database, "ppo", {})
    with pytest.raises(UsageError):
        jobs.get(database, name)


def test_a_job_that_a_living_worker_holds_is_refused(database: Database) -> None:
    job = jobs.enqueue(database, "ppo", {})
    jobs.claim(database, "one")
    with pytest.raises(UsageError, match="another process"):
        jobs.claim(database, "two", job_id=job.id)
    assert jobs.claim(database, "two") is None


def test_a_finished_job_is_not_claimed_again(database: Database) -> None:
    jobs.enqueue(database, "ppo", {})
    job = jobs.claim(database, "one")
    assert job is not None
    jobs.finish(database, job, {"version": "v1"})
    with pytest.raises(UsageError, match="done already"):
        jobs.claim(database, "two", job_id=job.id)
    done = jobs.get(database, job.id)
    assert (done.state, done.result, done.lease_until) == (JobState.DONE, {"version": "v1"}, None)


def test_a_worker_past_its_lease_writes_nothing_once_another_has_the_job(database: Database) -> None:
    jobs.enqueue(database, "ppo", {})
    slow = jobs.claim(database, "slow", lease=-1)
    other = jobs.claim(database, "other")
    assert slow is not None
    assert other is not None
    assert (other.id, other.fence, other.attempts) == (slow.id, 2, 2)
    for write in (
        lambda: jobs.heartbeat(database, slow),
        lambda: jobs.progress(database, slow, stage="ppo", step=9, steps=9),
        lambda: jobs.set_checkpoint(database, slow, "jobs/slow"),
        lambda: jobs.finish(database, slow, {}),
        lambda: jobs.fail(database, slow, "too late"),
        lambda: jobs.pause(database, slow),
        lambda: jobs.link_ratings(database, slow, []),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert jobs.get(database, other.id) == other


def test_a_worker_past_its_lease_may_go_on_when_nobody_took_the_job(database: Database) -> None:
    jobs.enqueue(database, "ppo", {})
    slow = jobs.claim(database, "slow", lease=-1)
    assert slow is not None
    assert not jobs.is_alive(slow)
    jobs.heartbeat(database, slow)
    assert jobs.is_alive(jobs.get(database, slow.id))


def test_a_cancel_reaches_the_worker_with_its_heartbeat(database: Database) -> None:
    jobs.enqueue(database, "ppo", {})
    job = jobs.claim(database, "worker")
    assert job is not None
    assert jobs.heartbeat(database, job) is False
    jobs.request_cancel(database, job.id)
    assert jobs.heartbeat(database, job) is True
    jobs.set_checkpoint(database, job, "jobs/1/step-7")
    jobs.pause(database, job)
    resumed = jobs.claim(database, "later", job_id=job.id)
    assert resumed is not None
    assert (resumed.checkpoint, resumed.cancel_requested) == ("jobs/1/step-7", False)


def test_a_job_that_nobody_works_on_pauses_at_once(database: Database) -> None:
    waiting = jobs.enqueue(database, "ppo", {})
    assert jobs.request_cancel(database, waiting.id).state == JobState.PAUSED
    dead = jobs.enqueue(database, "sft", {})
    jobs.claim(database, "dead", lease=-1)
    assert jobs.request_cancel(database, dead.id).state == JobState.PAUSED
    assert jobs.claim(database, "another") is None


def test_a_cancelled_job_whose_worker_died_does_not_start_by_itself(database: Database) -> None:
    jobs.enqueue(database, "ppo", {})
    job = jobs.claim(database, "worker", lease=0.2)
    assert job is not None
    jobs.request_cancel(database, job.id)
    time.sleep(0.25)
    assert jobs.claim(database, "another") is None
    assert jobs.claim(database, "another", job_id=job.id) is not None


def test_a_job_remembers_the_ratings_it_learned_from(database: Database, answer: Sample) -> None:
    rating = log.append(database, log.score(answer.id, 4, "ana"))
    jobs.enqueue(database, "reward", {})
    job = jobs.claim(database, "worker")
    assert job is not None
    jobs.link_ratings(database, job, [rating.id])
    jobs.link_ratings(database, job, [rating.id])
    assert jobs.ratings_of(database, job.id) == [rating.id]


@pytest.mark.parametrize("split", [Split.HELD_OUT, Split.ETHICS])
def test_no_job_learns_from_a_rating_of_a_prompt_that_is_not_for_training(
    database: Database, answer: Sample, split: Split
) -> None:
    apart = samples.new(conversations.add(database, "Ziwa ni nini?", language="sw", split=split).id, "Maji mengi.")
    samples.add(database, [apart])
    allowed, forbidden, mixed = log.append_all(
        database,
        [
            log.score(answer.id, 4, "ana"),
            log.score(apart.id, 4, "ana"),
            log.pair(answer.id, apart.id, Choice.A, "ana"),
        ],
    )
    jobs.enqueue(database, "reward", {})
    job = jobs.claim(database, "worker")
    assert job is not None
    for refused in (forbidden, mixed):
        with pytest.raises(WorkbenchError, match="1 of 2 ratings to learn from are of held-out or ethics prompts"):
            jobs.link_ratings(database, job, [allowed.id, refused.id])
    assert jobs.ratings_of(database, job.id) == [], "whole or not at all"


def test_claimers_in_several_processes_never_get_one_job_twice(database: Database, start: Callable[..., Child]) -> None:
    queued = {jobs.enqueue(database, "ppo", {}).id for _ in range(60)}
    children = [start("claim_all") for _ in range(3)]
    assert {next_line(child) for child in children} == {"ready"}
    for child in children:
        go(child)
    claimed = [line for child in children for line in child.communicate()[0].split()]
    assert sorted(claimed) == sorted(queued)


def test_a_worker_stopped_past_its_lease_finds_it_lost(database: Database, start: Callable[..., Child]) -> None:
    job = jobs.enqueue(database, "ppo", {})
    child = start("finish_when_told", 0.5)
    assert next_line(child) == "claimed"
    child.send_signal(signal.SIGSTOP)
    assert jobs.claim(database, "other") is None  # the lease still holds
    time.sleep(0.6)
    other = jobs.claim(database, "other")
    assert other is not None
    assert other.id == job.id
    child.send_signal(signal.SIGCONT)
    told, _ = child.communicate("go\n")
    assert told.split("\n")[:-1] == ["lease lost"] * 3
    jobs.finish(database, other, {"version": "v2"})
    assert jobs.get(database, job.id).result == {"version": "v2"}


def test_a_killed_worker_of_this_host_frees_its_job_at_once(database: Database, start: Callable[..., Child]) -> None:
    job = jobs.enqueue(database, "ppo", {})
    child = start("hold")
    assert next_line(child) == "claimed"
    assert jobs.is_alive(jobs.get(database, job.id))
    with pytest.raises(UsageError, match="another process"):
        jobs.claim(database, "other", job_id=job.id)
    child.kill()
    child.wait()
    assert not jobs.is_alive(jobs.get(database, job.id))
    other = jobs.claim(database, "other")
    assert other is not None
    assert (other.id, other.attempts) == (job.id, 2)


def test_a_killed_worker_frees_its_job_after_the_clock_stepped_back(
    database: Database, start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.enqueue(database, "ppo", {})
    child = start("hold")
    assert next_line(child) == "claimed"
    child.kill()
    child.wait()
    hours_ago = clock.after(-4 * 3600)
    monkeypatch.setattr(jobs.clock, "now", lambda: hours_ago)
    assert not jobs.is_alive(jobs.get(database, job.id))
    assert jobs.claim(database, "other", job_id=job.id) is not None


def test_a_worker_of_another_host_keeps_its_lease_whatever_runs_here(database: Database) -> None:
    job = jobs.enqueue(database, "ppo", {})
    jobs.claim(database, "elsewhere:1234567", pid=1234567)
    assert jobs.is_alive(jobs.get(database, job.id))
    assert jobs.claim(database, "other") is None
