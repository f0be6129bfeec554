"""Keeping what the engine said: answers become samples, each stamped with its weights, parameters and seed."""

from __future__ import annotations

from collections.abc import Sequence

from storage import clock, samples
from storage.database import Database
from storage.records import Sample, Sampling
from workbench.engine.protocol import Answer


def store_answers(
    database: Database, prompt_id: str, answers: Sequence[Answer], sampling: Sampling, group_id: str | None = None
) -> list[Sample]:
    """Store the answers of one request as one group of samples, in the order of their candidates."""
    group_id = group_id or clock.new_id()
    stored = [
        samples.new(
            prompt_id,
            answer.text,
            version=answer.version,
            token_ids=answer.token_ids
            or None,  # of an answer that was cut short with the engine, only the text is known
            finish_reason=answer.finish_reason,
            sampling=sampling,
            seed=answer.seed,
            group_id=group_id,
            position=answer.candidate,
            left_out=answer.left_out,
        )
        for answer in sorted(answers, key=lambda answer: answer.candidate)
    ]
    samples.add(database, stored)
    return stored
