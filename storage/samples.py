"""Samples: answers exactly as generated, each stamped with the weights and parameters that produced it."""

from __future__ import annotations

from collections.abc import Iterable

from storage import clock
from storage.database import Database
from storage.errors import UsageError
from storage.records import Sample, Sampling


def new(
    prompt_id: str,
    text: str,
    *,
    version: str | None = None,
    token_ids: list[int] | None = None,
    finish_reason: str = "",
    sampling: Sampling | None = None,
    seed: int | None = None,
    group_id: str | None = None,
    position: int = 0,
    origin: str = "model",
    left_out: int = 0,
) -> Sample:
    """A sample with a fresh key, not stored yet. `group_id` names the answers that were sampled together."""
    return Sample(
        clock.new_id(), prompt_id, text, clock.now(), version, token_ids, finish_reason, sampling, seed, group_id,
        position, origin, left_out,
    )  # fmt: skip


def add(database: Database, samples: Iterable[Sample]) -> None:
    """Store samples in one transaction."""
    with database.transaction():
        database.insert_many("samples", samples)


def expect(database: Database, sample_id: str, reward: float, deviation: float) -> None:
    """Store what a reward model expects of an answer that nobody has rated, in deviations of its rewards: the review
    queue leads with the answers that it is likeliest to be taught by."""
    database.execute("INSERT INTO expectations VALUES (?, ?, ?)", (sample_id, reward, deviation))


def get(database: Database, sample_id: str) -> Sample:
    """One sample by its key. Raises KeyError when there is none."""
    found = database.record(Sample, "SELECT * FROM samples WHERE id = ?", (sample_id,))
    if found is None:
        raise KeyError(sample_id)
    return found


def named(database: Database, beginning: str) -> Sample:
    """The sample whose key begins so. Raises UsageError when there is none, or more than one."""
    found = database.records(
        Sample,
        "SELECT * FROM samples WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 2",  # keys are of digits up to f
        (beginning.strip().lower(),),
    )
    if len(found) != 1 or not beginning.strip():
        what = "there is no answer" if not found else "several answers have keys that begin with"
        raise UsageError(
            f"{what} {beginning!r}", "`workbench generate --json` prints the key of each answer as `sample`"
        )
    return found[0]


def of_prompt(database: Database, prompt_id: str) -> list[Sample]:
    """All answers to one prompt, oldest first."""
    return database.records(Sample, "SELECT * FROM samples WHERE prompt_id = ? ORDER BY sequence", (prompt_id,))


def of_group(database: Database, group_id: str) -> list[Sample]:
    """The answers that were sampled together, in their order."""
    return database.records(Sample, "SELECT * FROM samples WHERE group_id = ? ORDER BY position", (group_id,))


def recent(database: Database, limit: int = 200) -> list[Sample]:
    """The newest samples."""
    return database.records(Sample, "SELECT * FROM samples ORDER BY sequence DESC LIMIT ?", (limit,))
