"""Where a reward is trusted: among answers like the rated ones, in length, language and features."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from hand_made import rollout
from tiny_model import CORPUS

from storage.records import Prompt
from trainer.config import RewardConfig
from trainer.examples import Examples, Response, Scored
from trainer.reward import fitting
from trainer.reward.model import RewardModel
from trainer.reward.support import LANGUAGE_DEVIATION, LENGTH_DEVIATION, Support

KNOWN = Support(shortest=8, longest=32, languages={"en": 9, "sw": 3}, usual=0.2, unsure=0.5, best=1.5, count=12)


@pytest.mark.parametrize(
    ("tokens", "outside"), [(1, True), (7, True), (8, False), (20, False), (32, False), (40, True)]
)
def test_lengths_beyond_the_rated_ones_are_outside(tokens, outside):
    assert KNOWN.is_outside(tokens, "en", 0.1) == outside


def test_rounding_of_a_length_is_not_outside():
    assert not KNOWN.is_outside(33, "en", 0.1)
    assert Support(8, 32.4, {"en": 1}, 1, 1, 1, 1).length_distance(33) < 0.05


def test_a_language_without_ratings_and_a_doubtful_answer_are_outside():
    assert KNOWN.is_outside(20, "fr", 0.1)
    assert not KNOWN.is_outside(20, "sw", 0.5)
    assert KNOWN.is_outside(20, "sw", 0.51)


def test_deviation_grows_with_the_log_of_what_a_length_is_beyond():
    assert KNOWN.deviation(20, "en", 0.3) == pytest.approx(0.3)
    assert KNOWN.deviation(4, "en", 0.0) == pytest.approx(LENGTH_DEVIATION * math.log(2))
    assert KNOWN.deviation(64, "en", 0.0) == pytest.approx(LENGTH_DEVIATION * math.log(2))
    shorter = [KNOWN.deviation(tokens, "en", 0.3) for tokens in (8, 4, 2, 1)]
    longer = [KNOWN.deviation(tokens, "en", 0.3) for tokens in (32, 64, 128, 256)]
    assert shorter == sorted(set(shorter))
    assert longer == sorted(set(longer))
    assert KNOWN.deviation(20, "fr", 0.0) == LANGUAGE_DEVIATION
    assert KNOWN.deviation(4, "fr", 0.3) == pytest.approx(
        math.hypot(0.3, LENGTH_DEVIATION * math.log(2), LANGUAGE_DEVIATION)
    )
    assert KNOWN.length_distance(0) == KNOWN.length_distance(1)


def test_a_support_is_the_middle_of_what_was_rated():
    lengths = list(range(1, 202))
    found = Support.of(lengths, ["en"] * 200 + ["sw"], [n / 100 for n in lengths], [n / 201 for n in lengths])
    assert (found.shortest, found.longest) == (pytest.approx(6), pytest.approx(196))
    assert found.languages == {"en": 200, "sw": 1}
    assert found.best == pytest.approx(1.96)
    assert (found.usual, found.unsure) == (pytest.approx(101 / 201), pytest.approx(191 / 201))
    assert found.count == 201
    alone = Support.of([5], ["en"], [0.2], [0.1])
    assert (alone.shortest, alone.longest, alone.best, alone.usual, alone.unsure) == (5, 5, 0.2, 0.1, 0.1)


# --- a reward model with one -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(backbone) -> RewardModel:
    """A model of scores of answers of 6 to 9 tokens in English; what is said decides."""
    prompt = [Prompt(f"p{n}", CORPUS[n % 10], "en", "") for n in range(30)]
    generator = torch.Generator().manual_seed(1)
    scores = []
    for number, asked in enumerate(prompt):
        said = torch.randint(50, 350, (6 + number % 4,), generator=generator).tolist()
        answer = Response(asked, backbone.tokenizer.decode(said), tuple(said), "v0")
        scores.append(Scored(answer, float(said[-1] > 200) * 2 - 1, "amina"))
    model, _ = fitting.fit(backbone, Examples(scores=scores), RewardConfig(rank=4, epochs=2), 0)
    return model


@pytest.fixture
def model(fitted):
    fitted.support, fitted.caution = Support(6, 9, {"en": 30}, 0.0, 100.0, 100.0, 30), 1.0
    return fitted


def answers(language: str = "en", lengths=(6, 9, 1, 40)) -> list:
    asked = Prompt("q", "Why?", language, "")
    return [rollout(asked, range(100, 100 + length)) for length in lengths]


def test_a_reward_is_lowered_by_what_is_not_known_of_it(model):
    found = model.rate(answers())
    features = model.features_of(answers())
    _, known = model.score_with_uncertainty(
        [one.prompt_ids for one in answers()], [one.completion.token_ids for one in answers()], ["en"] * 4
    )
    assert len(features) == 4
    lowered = (found.plain - found.rewards).tolist()
    assert lowered[:2] == pytest.approx(known[:2].tolist(), rel=1e-3)
    for place, beyond in ((2, math.log(6)), (3, math.log(40 / 9))):
        assert lowered[place] == pytest.approx(math.hypot(float(known[place]), LENGTH_DEVIATION * beyond), rel=1e-3)
    assert found.outside.tolist() == [False, False, True, True]
    foreign = model.rate(answers("fr"))
    torch.testing.assert_close(foreign.plain, found.plain)
    assert (foreign.rewards < found.rewards).all()
    assert foreign.outside.all()


def test_what_is_usual_costs_nothing(model):
    """All answers are doubtful to some degree: lowering all of them alike would say nothing, and shift every gain."""
    deviations = (model.rate(answers()).plain - model.rate(answers()).rewards).tolist()
    model.support = msgspec.structs.replace(model.support, usual=deviations[3] - 0.1)
    found = model.rate(answers())
    lowered = (found.plain - found.rewards).tolist()
    assert lowered == pytest.approx([max(0.0, one - deviations[3] + 0.1) for one in deviations], abs=1e-4)
    assert min(lowered) == 0 < max(lowered)


def test_without_caution_or_support_a_reward_is_its_best_guess(model):
    model.caution = 0.0
    found = model.rate(answers())
    assert torch.equal(found.rewards, found.plain)
    assert found.outside.tolist() == [False, False, True, True]
    model.support = None
    found = model.rate(answers())
    assert torch.equal(found.rewards, found.plain)
    assert not found.outside.any()


def test_no_answer_is_taken_to_be_better_than_the_best_that_was_rated(model):
    model.caution = 0.0
    plain = model.rate(answers()).plain
    middle = float(plain.median())
    model.support = Support(6, 9, {"en": 30}, 0.0, 100.0, middle, 30)
    found = model.rate(answers())
    torch.testing.assert_close(found.rewards, plain.clamp_max(middle))
    torch.testing.assert_close(found.plain, plain)
    assert (found.rewards < plain).any()


def test_a_batch_that_is_laid_out_is_scored_as_the_same_answers_alone(model, backbone):
    said = answers()
    layout = backbone.layout([one.prompt_ids for one in said], [one.completion.token_ids for one in said])
    trunk = backbone.trunk(layout)
    found, states = model.score(said, trunk, layout, trunk)
    alone = model.rate(said)
    for name in ("rewards", "plain"):
        torch.testing.assert_close(getattr(found, name), getattr(alone, name), rtol=1e-4, atol=1e-4)
    assert torch.equal(found.outside, alone.outside)
    assert len(states) == len(layout.ids)


def test_support_and_caution_come_back_from_the_file(model, backbone, tmp_path):
    model.caution = 0.7
    model.save(tmp_path / "reward.safetensors", {"prompts": ["p1"]})
    again, facts = RewardModel.read(backbone, tmp_path / "reward.safetensors")
    assert facts == {"prompts": ["p1"]}
    assert (again.support, again.caution) == (model.support, 0.7)
    for name in ("rewards", "plain", "outside"):
        assert torch.equal(getattr(again.rate(answers()), name), getattr(model.rate(answers()), name))
