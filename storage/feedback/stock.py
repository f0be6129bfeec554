"""What there is to train on, counted as the trainer counts it: what counts today, of training prompts alone.

The trainer has the last word; these counts say beforehand what it would refuse.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage import reward_models
from storage.database import Database

_BLANK = " \t\r\n"
# A harm tag teaches that an answer is bad, unless its severity is 0.
_HARM = """kind = 'tags' AND coalesce(json_extract(tags, '$.severity') > 0,
                                     coalesce(json_extract(tags, '$.harm'), 0) NOT IN (0, ''))"""
_JUDGED = f"""
    WITH judged AS (
        SELECT rating.*, samples.prompt_id FROM effective_ratings AS rating
        JOIN samples ON samples.id = rating.sample_id JOIN prompts ON prompts.id = samples.prompt_id
        WHERE prompts.split = 'train' AND (kind IN ('score', 'label', 'pair', 'edit') OR {_HARM})
    ), rated AS (
        SELECT prompt_id, text, version, token_ids FROM samples WHERE id IN (
            SELECT sample_id FROM judged WHERE attribute = 'overall'
            UNION SELECT other_sample_id FROM judged WHERE attribute = 'overall')
        UNION
        SELECT prompt_id, text, NULL, NULL FROM judged WHERE kind = 'edit' AND attribute = 'overall'
    )"""


@dataclass(frozen=True)
class Stock:
    """Counts of what training learns from.

    Attributes:
        prompts: to practise on. held_out: never learned from, to measure with.
        ratings: scores, labels, pairs, edits and harm tags; a pair of which both are bad is two.
        imitable: different demonstrations and edited answers.
        rated: different answers that were judged, edited texts among them.
        compared: prompts with two or more of them.
        scored: prompts with a scored answer.
        told: outcomes in words.
        reward_model: the name of the newest one; empty where there is none.
    """

    prompts: int = 0
    held_out: int = 0
    ratings: int = 0
    imitable: int = 0
    rated: int = 0
    compared: int = 0
    scored: int = 0
    told: int = 0
    reward_model: str = ""


def take_stock(database: Database, base_digest: str) -> Stock:
    """The counts of this moment; the reward model is one of the base model with this digest."""
    splits = {row["split"]: row["n"] for row in database.rows("SELECT split, count(*) AS n FROM prompts GROUP BY 1")}
    (judged,) = database.rows(
        f"""{_JUDGED} SELECT
            (SELECT coalesce(sum(CASE choice WHEN 'both-bad' THEN 2 ELSE 1 END), 0) FROM judged) AS ratings,
            (SELECT count(*) FROM rated) AS rated,
            (SELECT count(*) FROM (SELECT 1 FROM rated GROUP BY prompt_id HAVING count(*) > 1)) AS compared,
            (SELECT count(DISTINCT samples.prompt_id) FROM judged
             JOIN samples ON samples.id = sample_id WHERE kind = 'score' AND attribute = 'overall') AS scored"""
    )
    imitable = database.scalar(
        """SELECT count(*) FROM (
               SELECT prompt_id, samples.text FROM samples JOIN prompts ON prompts.id = prompt_id
               WHERE samples.origin = 'demonstration' AND split = 'train' AND trim(samples.text, :blank) != ''
               UNION
               SELECT prompt_id, rating.text FROM effective_ratings AS rating
               JOIN samples ON samples.id = sample_id JOIN prompts ON prompts.id = prompt_id
               WHERE kind = 'edit' AND split = 'train' AND trim(rating.text, :blank) != '')""",
        {"blank": _BLANK},
    )
    told = database.scalar(
        """SELECT count(*) FROM effective_ratings AS rating
           JOIN samples ON samples.id = sample_id JOIN prompts ON prompts.id = prompt_id
           WHERE kind = 'outcome' AND split = 'train' AND trim(rating.text, :blank) != ''""",
        {"blank": _BLANK},
    )
    newest = reward_models.find(database, base_digest)
    return Stock(
        prompts=splits.get("train", 0), held_out=splits.get("held-out", 0), imitable=imitable, told=told,
        reward_model=newest.name if newest else "", **judged,
    )  # fmt: skip
