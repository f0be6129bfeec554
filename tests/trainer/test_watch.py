"""The over-optimisation watch: which rows it takes, and that it tells pleasing people from gaming the reward."""

from __future__ import annotations

import math
import random
from functools import cache

import pytest
import torch
from tiny_model import CORPUS

from storage import conversations, samples
from storage.feedback import log
from storage.records import Choice, Prompt, Source, Split
from trainer.algorithms.rollouts import Rollout
from trainer.config import RewardConfig
from trainer.evaluation.watch import HeldOutRow, Watch, agreement, held_out_rows
from trainer.examples import Examples, Response, Scored, collect
from trainer.policy.decoding import Completion
from trainer.policy_config import AdapterConfig
from trainer.reward import fitting
from trainer.reward.batches import encode

DIGEST = "digest of the model that learns"
LANGUAGES = ("en", "es", "fr", "de", "pt", "zh", "ar", "hi", "ja", "sw")


@pytest.fixture(scope="module")
def rows() -> list[HeldOutRow]:
    """Answers to ten prompts in ten languages, four each, from bad to good."""
    chosen = random.Random(0)
    found = []
    for place, language in enumerate(LANGUAGES):
        prompt = Prompt(f"p{place}", CORPUS[place][:12], language, "")
        for value in (-1.5, -0.5, 0.5, 1.5):
            text = "".join(chosen.choices(CORPUS[place], k=8))
            found.append(HeldOutRow(Response(prompt, text, None, None), value))
    return found


@pytest.fixture(scope="module")
def policy_trained(backbone, rows):
    """A function that gives a policy that makes what people liked likelier (1) or what they disliked (-1)."""
    encoded = [encode(backbone, row.response) for row in rows]
    layout = backbone.layout([asked for asked, _ in encoded], [said for _, said in encoded])
    value = torch.tensor([row.value for row in rows])

    @cache
    def train(direction: float):
        adapter = backbone.new_adapter(AdapterConfig(rank=4), 0, upper=False)
        optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
        for _ in range(8):
            likelihood = backbone.log_likelihood(backbone.hidden(layout, adapter), layout, 1.0).sum(1)
            optimizer.zero_grad()
            (-direction * (value * likelihood / layout.mask.sum(1)).mean()).backward()
            optimizer.step()
        return adapter

    return train


def test_a_policy_that_learns_what_people_like_agrees_and_one_that_learns_the_opposite_is_flagged(
    backbone, rows, policy_trained
):
    watch = Watch(backbone, rows)
    good = watch.measure(policy_trained(1.0))
    bad = watch.measure(policy_trained(-1.0))
    assert good.agreement.low > 0.2
    assert not good.gamed(reward_gain=1.0)
    assert bad.agreement.high < -0.2
    assert bad.against
    assert bad.gamed(reward_gain=0.5)
    assert not bad.gamed(reward_gain=-0.5), "a reward that falls is not gamed"
    assert (good.rows, good.agreement.n) == (40, 10)
    figures = bad.figures()
    assert figures["watch/human_agreement", None] == bad.agreement.mean
    assert figures["watch/human_rows", None] == 40
    assert figures["watch/human_prompts", None] == 10


def test_of_a_policy_that_shifts_nothing_no_agreement_is_told_but_why(backbone, rows):
    same = backbone.new_adapter(AdapterConfig(rank=4), 0, upper=False)
    found = Watch(backbone, rows).measure(same)
    assert (found.agreement, found.rows, found.against) == (None, 40, False)
    assert found.reason == "the shifts or the ratings of all 40 answers are equal"
    assert math.isnan(found.figures()["watch/human_agreement", None]), "null is stored, not what was told before"
    assert agreement(backbone, same, rows) is None


def test_where_people_rated_all_alike_no_agreement_is_told(backbone, rows, policy_trained):
    alike = [HeldOutRow(row.response, 0.5) for row in rows]
    assert Watch(backbone, alike).measure(policy_trained(-1.0)).agreement is None


def test_chance_is_seldom_flagged(backbone, rows, policy_trained):
    """Values that have nothing to do with what the policy learned: one look in forty may be against them by chance."""
    flagged = 0
    for seed in range(12):
        values = [row.value for row in rows]
        random.Random(seed).shuffle(values)
        mixed = [HeldOutRow(row.response, value) for row, value in zip(rows, values, strict=True)]
        flagged += Watch(backbone, mixed).measure(policy_trained(-1.0)).gamed(reward_gain=1.0)
    assert flagged <= 3


def test_too_few_rows_say_nothing_and_too_many_are_cut(backbone, rows):
    policy = backbone.new_adapter(AdapterConfig(rank=4), 0, upper=False)
    few = Watch(backbone, rows[:7]).measure(policy)
    assert (few.agreement, few.rows, few.figures(), few.gamed(1.0)) == (None, 0, {}, False)
    assert few.reason == "7 rated answers that the reward model did not learn from are too few"
    assert Watch(backbone, rows[:12]).measure(policy).agreement is None, "three prompts are too few units"
    assert agreement(backbone, policy, rows[:12]) is None
    assert Watch(backbone, rows * 2).measure(policy).rows == 64


def test_rollouts_far_from_what_was_rated_are_more_uncertain_than_the_references(backbone, rows):
    examples = Examples(scores=[Scored(row.response, row.value, "amina") for row in rows])
    model, _ = fitting.fit(backbone, examples, RewardConfig(rank=4, epochs=1), 0)

    def rollout(row: HeldOutRow, said: list[int]) -> Rollout:
        asked, _ = encode(backbone, row.response)
        return Rollout(row.response.prompt, asked, Completion(said, finish_reason="eos"), "")

    usual = [rollout(row, encode(backbone, row.response)[1]) for row in rows]
    strange = [rollout(row, [row_number + 3] * 30) for row_number, row in enumerate(rows)]
    watch = Watch(backbone, rows, model, usual)
    policy = backbone.new_adapter(AdapterConfig(rank=4), 0, upper=False)
    same, far = watch.measure(policy, usual), watch.measure(policy, strange)
    assert same.uncertainty_ratio == pytest.approx(1)
    assert far.uncertainty_ratio > 1.05
    assert far.figures()["watch/uncertainty_ratio", None] == far.uncertainty_ratio
    assert far.figures()["watch/uncertainty_rollouts", None] == 40
    assert watch.measure(policy).uncertainty_ratio is None
    model.feature_centre = model.precision_factor = None
    assert Watch(backbone, rows, model, usual).measure(policy, strange).uncertainty_ratio is None


# --- which rows ------------------------------------------------------------------------------------------------------


def ask(database, text: str, *answers: str, split: Split = Split.TRAIN) -> list[str]:
    prompt = conversations.add(database, text, language="pt", split=split)
    made = [samples.new(prompt.id, answer) for answer in answers]
    samples.add(database, made)
    return [sample.id for sample in made]


def test_rows_are_answers_to_held_out_prompts_that_people_rated(database):
    for number in range(20):
        split = Split.HELD_OUT if number % 4 == 0 else Split.TRAIN
        good, bad, judged = ask(database, f"Por quê {number}?", "bom", "ruim", "da máquina", split=split)
        log.append_all(
            database,
            [
                log.label(good, True, "amina"),
                log.pair(bad, good, Choice.B, "juma"),
                log.label(judged, True, "judge", source=Source.AI),
            ],
        )
    one, other, machine = ask(database, "guardado", "x", "y", "z", split=Split.HELD_OUT)
    log.append_all(
        database,
        [
            log.score(one, 5, "amina"),
            log.label(one, False, "juma", source=Source.IMPORTED),
            log.score(other, 1, "amina"),
            log.score(other, 5, "amina", attribute="polite"),
            log.score(machine, 1, "judge", source=Source.AI),
        ],
    )
    (other_use,) = ask(database, "ética", "x", split=Split.ETHICS)
    log.append(database, log.label(other_use, True, "amina"))
    found = held_out_rows(database, DIGEST)
    asked = {row.response.prompt.text for row in found}
    assert asked == {f"Por quê {number}?" for number in range(0, 20, 4)} | {"guardado"}
    assert not asked & {example.prompt.text for example in collect(database, DIGEST).every()}
    values = {(row.response.prompt.text, row.response.text): row.value for row in found}
    assert {said for _, said in values} == {"bom", "ruim", "x", "y"}, "nothing that an AI alone judged"
    assert values["guardado", "x"] == pytest.approx((2 - 1) / 2), "a top score of few is 2; a bad label -1"
    assert values["guardado", "y"] == -2
    assert {value for (_, said), value in values.items() if said == "bom"} == {1.0}
    assert {value for (_, said), value in values.items() if said == "ruim"} == {-1.0}


def test_rows_are_cut_at_the_same_prompts_each_time(database):
    for number in range(30):
        keys = ask(database, f"pergunta {number}", "a", "b", split=Split.HELD_OUT)
        log.append_all(database, [log.label(key, True, "amina") for key in keys])
    few = held_out_rows(database, DIGEST, most=10)
    assert (len(few), len({row.response.prompt.id for row in few})) == (10, 5)
    assert few == held_out_rows(database, DIGEST, most=60)[:10]


def test_without_ratings_there_are_no_rows(database):
    ask(database, "sozinha", "a", split=Split.HELD_OUT)
    assert held_out_rows(database, DIGEST) == []
