"""What there is to train on, counted as the trainer counts it: what counts today, of training prompts alone.

It counts examples, which are not ratings (:mod:`storage.feedback.census`): a note teaches nothing, and a pair of two
bad answers teaches two things.

The trainer has the last word; these counts say beforehand what it would refuse. They are sums that are kept as ratings
are stored (storage/schema/0006-stock.sql).
"""

from __future__ import annotations

from dataclasses import dataclass

from storage import reward_models
from storage.database import Database
from storage.records import Split


@dataclass(frozen=True)
class Stock:
    """Counts of what training learns from.

    Attributes:
        judged: of the examples those that judge models gave.
        prompts: to practise on. held_out: never learned from, to measure with.
        examples: what ratings teach: scores, labels, pairs, edits and harm tags; a pair of which both are bad is two.
        imitable: different demonstrations and edited answers.
        rated: different answers that were judged, edited texts among them.
        compared: prompts with two or more of them.
        scored: prompts with a scored answer.
        told: outcomes in words.
        reward_model: the name of the newest one; empty where there is none.
        answers: of models, to any prompt.
    """

    prompts: int = 0
    held_out: int = 0
    examples: int = 0
    imitable: int = 0
    rated: int = 0
    compared: int = 0
    scored: int = 0
    told: int = 0
    reward_model: str = ""
    answers: int = 0
    judged: int = 0


def take_stock(database: Database, base_digest: str) -> Stock:
    """The counts of this moment; the reward model is one of the base model with this digest."""
    prompts = database.rows("SELECT split, sum(prompts) AS n FROM tally_of_prompts GROUP BY 1")
    splits = {row["split"]: row["n"] for row in prompts}
    ratings = database.row(
        """SELECT ifnull(sum(teaches), 0) AS examples, ifnull(sum(teaches) FILTER (WHERE source = 'ai'), 0) AS judged,
                  ifnull(sum(ratings) FILTER (WHERE kind = 'outcome'), 0) AS told
           FROM tally_of_ratings WHERE split = 'train'"""
    )
    lessons = database.row("SELECT rated, compared, scored, imitable FROM tally_of_lessons WHERE split = 'train'")
    newest = reward_models.find(database, base_digest)
    return Stock(
        prompts=splits.get(Split.TRAIN, 0),
        held_out=splits.get(Split.HELD_OUT, 0),
        reward_model=newest.name if newest else "",
        answers=database.scalar("SELECT ifnull(sum(samples), 0) FROM tally_of_samples WHERE origin = 'model'"),
        **(ratings or {}),
        **(lessons or {}),
    )
