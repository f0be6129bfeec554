"""Which stored answers raters are asked to compare first: the pairs that tell the reward model most of all others.

After each fit, and after each run that leaves answers to be rated, the newest answers to training prompts are read, and
the pairs among them are put in order (:mod:`trainer.reward.acquisition`). The review queue
(`storage.feedback.streams`) takes them from a table, language by language, since its process knows no model.
"""

from __future__ import annotations

from itertools import combinations

import torch

from storage.database import Database
from storage.records import Prompt, Sample, Split
from storage.wording import counted
from trainer.examples import Response
from trainer.job import HeldJob
from trainer.reward.acquisition import most_telling
from trainer.reward.batches import encode
from trainer.reward.model import RewardModel, scaled
from trainer.reward.uncertainty import Posterior
from trainer.setting import Setting

MOST_ANSWERS = 240  # that are read, in all languages together: some seconds of two cores
MOST_PAIRS = 200  # that are put in order
Answer = tuple[int, Response]  # its sequence


def ask_to_compare(held: HeldJob, setting: Setting, model: RewardModel | None, seed: int) -> None:
    """Let the review queue lead with the pairs that tell most. A model that does not know its uncertainty leaves it as
    it is."""
    if model is None or model.feature_centre is None or model.precision_factor is None:
        return
    topics = held.share(lambda: candidates(held.database, setting.base.base_digest))
    answers = [answer for topic in topics for answer in topic]
    places = [(one, other) for topic in topics for one, other in combinations(topic, 2)]
    if not places:
        held.share(lambda: _store(held.database, []))
        return
    encoded = [encode(model.backbone, response) for _, response in answers]
    languages = [response.prompt.language for _, response in answers]
    features = model.features_of_ids([asked for asked, _ in encoded], [said for _, said in encoded], languages)
    rows = {sequence: row for row, (sequence, _) in enumerate(answers)}
    first, second = ([rows[pair[side][0]] for pair in places] for side in (0, 1))
    numbers: dict[str, int] = {}
    prompts = [numbers.setdefault(one.prompt.id, len(numbers)) for (_, one), _ in places]
    with torch.no_grad():
        raw, wide = model.head(features), scaled(features)
        found = most_telling(
            Posterior(model.feature_centre, model.precision_factor),
            wide[first] - wide[second],
            raw[first] - raw[second],
            prompts,
            MOST_PAIRS,
            seed,
        )
    told = [(places[place][0], places[place][1], nats) for place, nats in found]
    held.share(lambda: _store(held.database, told))
    held.say(f"{counted(len(told), 'pair is', 'pairs are')} put in order for Review, by what they tell of all others")


def candidates(database: Database, base_digest: str) -> list[list[Answer]]:
    """The newest different answers of versions of a base model to training prompts, those that nobody has compared:
    topic by topic (prompt and version), and as many of each language."""
    languages = [row["language"] for row in database.rows("SELECT DISTINCT language FROM topics ORDER BY 1")]
    found: list[list[Answer]] = []
    for language in languages:
        left = MOST_ANSWERS // len(languages)
        for row in database.rows(
            """SELECT prompt, topics.version FROM topics CROSS JOIN prompts ON prompts.sequence = prompt
               JOIN versions ON versions.sequence = topics.version
               WHERE topics.language = ? AND split = ? AND base_digest = ? AND answers > 1
               ORDER BY topics.version DESC, newest DESC LIMIT ?""",
            (language, Split.TRAIN, base_digest, left),
        ):
            topic = _topic(database, row["prompt"], row["version"])
            if len(topic) > 1 and left > 1:
                found.append(topic[:left])
                left -= len(topic)
    return found


def _topic(database: Database, prompt: int, version: int) -> list[Answer]:
    """The different answers of a version to a prompt that stand in no comparison yet."""
    (asked,) = database.records(Prompt, "SELECT * FROM prompts WHERE sequence = ?", (prompt,))
    rows = database.rows(
        """SELECT sample FROM answers WHERE prompt = ? AND version = ? AND NOT EXISTS (
               SELECT 1 FROM counted WHERE kind = 'pair' AND (counted.sample = answers.sample OR
                                                              (counted.other = answers.sample AND counted.other > 0)))
           GROUP BY words ORDER BY sample""",
        (prompt, version),
    )
    found = []
    for (sequence,) in (tuple(row.values()) for row in rows):
        (one,) = database.records(Sample, "SELECT * FROM samples WHERE sequence = ?", (sequence,))
        ids = None if one.token_ids is None else tuple(one.token_ids)
        found.append((sequence, Response(asked, one.text, ids, one.version)))
    return found


def _store(database: Database, told: list[tuple[Answer, Answer, float]]) -> None:
    """Put these in the place of what an earlier model asked."""
    with database.transaction():
        database.execute("DELETE FROM telling_pairs")
        database.insert_many(
            "telling_pairs",
            [
                {"language": one.prompt.language, "place": place, "sample": min(a, b), "other": max(a, b), "nats": nats}
                for place, ((a, one), (b, _), nats) in enumerate(told)
            ],
        )
