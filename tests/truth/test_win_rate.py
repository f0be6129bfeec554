"""Raters of a known true win rate, asked by the real queue, who look after every pair: how often are they misled?

The newer version wins at the prompts of whose answers the reward model hopes most, and loses at the others. A queue
that asked by hope would find it better where it is not.
"""

from __future__ import annotations

import random

import msgspec
import numpy as np
from test_betting import ever_wrong

from storage import conversations, samples, versions
from storage.database import Database
from storage.feedback import betting, log, queue, winning
from storage.feedback.mix import Mix
from storage.records import Choice, Rating, Sample

PROMPTS, RATERS, PAIRS, AT_ONCE = 600, 200, 40, 20
WINS_LEAST, WINS_MOST = 0.1, 0.9


def key(generator: random.Random, number: int) -> str:
    """A key as the workbench makes them, with a lot that the seed decides."""
    return f"01900000-0000-7000-8000-{number % 16**4:04x}{generator.getrandbits(32):08x}"


def populate(database: Database, seed: int, prompts: int) -> dict[str, float]:
    """Answers of two versions to prompts: how probably each newer one wins, by its key. The more is hoped of a prompt,
    the more answers of the newer version it has; of the older one each has one or two."""
    generator = random.Random(seed)
    base = versions.ensure_base(database, "smollm2", "d" * 64)
    versions.add_candidate(database, base=base, parent="v0", file="v1.safetensors", sha256="e" * 64)
    chances, made = {}, []
    with database.transaction():
        for number in range(prompts):
            prompt = conversations.add(database, f"question {number}?", language="en")
            for name, count in (("v0", 1 + number % 2), ("v1", 1 + 3 * number // prompts)):
                for place in range(count):
                    own = samples.new(prompt.id, f"{name} {number} {place}", version=name, finish_reason="eos")
                    made.append(msgspec.structs.replace(own, id=key(generator, len(made))))
                    if name == "v1":
                        chances[made[-1].id] = WINS_LEAST + (WINS_MOST - WINS_LEAST) * number / (prompts - 1)
        samples.add(database, made)
        for sample, chance in chances.items():
            samples.expect(database, sample, chance + generator.gauss(0, 0.1), 0.1)
    return chances


def truth(chances: dict[str, float], database: Database) -> float:
    """The win rate over all pairs: of each prompt as many as both versions have answers."""
    pairs = database.rows(
        """SELECT a.id FROM samples AS a WHERE a.version = 'v1' AND
              (SELECT count(*) FROM samples AS b WHERE b.prompt_id = a.prompt_id AND b.version = 'v1'
               AND b.sequence < a.sequence)
            < (SELECT count(*) FROM samples AS b WHERE b.prompt_id = a.prompt_id AND b.version = 'v0')"""
    )
    return float(np.mean([chances[row["id"]] for row in pairs]))


def judged(
    pair: tuple[Sample, ...], chances: dict[str, float], rater: str, generator: random.Random, of: str = "versions"
) -> Rating:
    old, new = pair
    choice = Choice.B if generator.random() < chances[new.id] else Choice.A
    return log.pair(old.id, new.id, choice, rater, blind=True, slice=of, source="simulated")


def test_raters_who_look_after_every_pair_are_not_misled_by_what_they_are_asked(database: Database):
    chances = populate(database, 5, PROMPTS)
    true = truth(chances, database)
    only = Mix.of({"versions": 1})
    generator = random.Random(6)
    worths = np.zeros((RATERS, PAIRS))
    for number in range(RATERS):
        said: list[float] = []
        while len(said) < PAIRS:
            items = queue.next_items(database, f"rater {number}", AT_ONCE, shares=only)
            ratings = [judged(item.samples, chances, f"rater {number}", generator) for item in items]
            log.append_many(database, ratings)
            said += [float(one.choice == Choice.B) for one in ratings]
        worths[number] = said
    assert abs(worths[:, :20].mean() - true) < 0.02, "the first twenty are like all"
    assert ever_wrong(worths, true).mean() < betting.ALPHA
    assert len({tuple(row) for row in worths}) == RATERS


def test_what_is_told_after_each_pair_is_of_the_drawn_pairs_alone(database: Database):
    """The mix as it comes, one item at a time, with a look at the figure after each."""
    chances = populate(database, 7, 60)
    generator = random.Random(8)
    said: list[float] = []
    slices: set[str] = set()
    while len(said) < 20:
        (item,) = queue.next_items(database, "ana", 1)
        if item.kind == "single":
            rating = log.score(item.samples[0].id, 3, "ana", slice=item.slice, source="simulated")
        else:
            rating = judged(item.samples, chances, "ana", generator, item.slice)
        if item.slice == "versions":
            said.append(float(rating.choice == Choice.B))
        slices.add(item.slice)
        log.append(database, rating)
        if said:
            found = winning.win_rates(database)[0]
            expected = betting.interval(said)
            assert (found.n, found.rate, found.low, found.high) == (
                expected.n, expected.mean, expected.low, expected.high
            )  # fmt: skip
    assert slices == {"acquisition", "random", "versions", "repeat"}
