"""Explanations whose answer is known: a planted token, completeness, and what refitting without a rating says."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from tiny_model import CORPUS

from storage.records import Prompt
from trainer.config import RewardConfig
from trainer.examples import Examples, Labelled, Pair, Response, Scored
from trainer.explaining.influence import influences, without
from trainer.explaining.tokens import TOLERANCE, integrated_gradients, left_out
from trainer.explaining.weighing import weighs
from trainer.policy.backbone import Backbone
from trainer.policy.layout import TokenLayout
from trainer.policy.models import ModelFolder
from trainer.policy.trainable_transformers import TrainableTransformers
from trainer.reward.batches import distinct_responses, encode
from trainer.reward.linear_fit import LinearFit
from trainer.reward.model import RewardModel
from trainer.reward.regression import Answers, Design, Prior, regress, solve

PLANTED = " bluu"
WORDS = [f" {word}" for word in " ".join(CORPUS[:5]).split()]


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


def planted(count: int = 80) -> Examples:
    """Scores of answers as long as each other that one word in them decides, wherever it stands."""
    drawn = torch.Generator().manual_seed(4)
    scores = []
    for number in range(count):
        has = number // 20 % 2 == 1  # to every prompt two answers with the word and two without
        words = [WORDS[place] for place in torch.randint(len(WORDS), (6,), generator=drawn).tolist()]
        if has:
            words[int(torch.randint(6, (1,), generator=drawn))] = PLANTED
        prompt = Prompt(f"p{number % 20}", CORPUS[number % 5], "en", "")
        scores.append(Scored(Response(prompt, "".join(words), None, None), 1.0 if has else -1.0, "amina"))
    return Examples(scores=scores)


@pytest.fixture(scope="module")
def fitted(backbone: Backbone) -> RewardModel:
    fit = LinearFit(backbone, planted(), RewardConfig(), seed=0)
    fit.advance()
    return fit.model


def test_the_planted_word_has_the_largest_share_and_costs_most_when_left_out(fitted, backbone):
    tokens = backbone.tokenizer
    word = tokens.encode_response(PLANTED, end=False)
    for place in (1, 4):
        words = [*WORDS[2 : 2 + place], PLANTED, *WORDS[20:24]]
        asked, said = encode(backbone, Response(Prompt("p", CORPUS[0], "en", ""), "".join(words), None, None))
        start = next(at for at in range(len(said)) if said[at : at + len(word)] == word)
        shares = integrated_gradients(fitted, asked, said, "en").shares
        own = sum(shares[start : start + len(word)])
        others = [
            sum(shares[at : at + len(word)])
            for at in range(len(said) - len(word) + 1)
            if at >= start + len(word) or at + len(word) <= start
        ]
        assert own > 2 * max(others) > 0
        lost = left_out(fitted, asked, said, "en")
        assert max(range(len(lost)), key=lambda at: lost[at] or 0.0) in range(start, start + len(word))


@pytest.mark.parametrize("kind", ["linear", "adapter"])
def test_shares_are_complete_before_anything_is_shared_out(backbone, kind):
    model = RewardModel(backbone, RewardConfig(kind=kind, rank=4), seed=5)
    with torch.no_grad():
        model.head.weight.normal_(std=20, generator=torch.Generator().manual_seed(6))
    for text in CORPUS[:4]:
        asked, said = encode(backbone, Response(Prompt("p", CORPUS[5], "es", ""), text, None, None))
        found = integrated_gradients(model, asked, said, "es")
        difference = found.reward - found.baseline
        assert abs(difference) > 0.1
        assert abs(found.residual) <= TOLERANCE * max(1.0, abs(difference))
        assert sum(found.shares) == pytest.approx(difference, abs=1e-5)
        assert found.reward == pytest.approx(float(model.score_responses([asked], [said], ["es"])[0]))


def test_a_head_that_reads_words_alone_gives_each_token_what_its_word_is_worth(backbone):
    """Then the reward is linear in the tokens, and its shares are known in closed form."""
    model = RewardModel(backbone, RewardConfig(), seed=5)
    size = model.parts[0]
    with torch.no_grad():
        model.head.weight[:size].normal_(std=9, generator=torch.Generator().manual_seed(6))
    asked, said = encode(backbone, Response(Prompt("p", CORPUS[5], "en", ""), CORPUS[0], None, None))
    table = torch.nn.functional.rms_norm(backbone.vectors(torch.arange(backbone.network.head_weight.shape[0])), (size,))
    worth = (table - table.mean(0)) @ model.head.weight[:size].detach() / sum(model.parts) ** 0.5 / len(said)
    found = integrated_gradients(model, asked, said, "en")
    torch.testing.assert_close(torch.tensor(found.shares), worth[said], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma", "gemma3_text", "mixtral"])
def test_any_model_reads_vectors_as_it_reads_their_tokens(model_of, name):
    """Families that run through transformers' modules: the vectors of some tokens give their states, and a slope."""
    network = TrainableTransformers(model_of(name), torch.device("cpu"), torch.float32)
    layout = TokenLayout.build([[5, 6, 7], [5, 6]], [[8, 9], [10, 11, 12]], torch.device("cpu"))
    vectors = network.embeddings(layout.ids).detach().float().requires_grad_()
    found = network.run_vectors(vectors, layout, None)
    torch.testing.assert_close(found, network.run(network.embed(layout), layout, None))
    (slope,) = torch.autograd.grad(found[layout.last].sum(), vectors)
    assert (slope.abs().sum(1) > 0).all()


# --- ratings ---------------------------------------------------------------------------------------------------------


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_but(design: Design, group: list[int]) -> Design:
    kept = [row for row in range(len(design.target)) if row not in group]
    return Design(**{name: getattr(design, name)[kept] for name in design.__dataclass_fields__})


@pytest.mark.parametrize(("scores", "tolerance"), [(24, 1e-9), (12, 0.2), (0, 0.2)])
def test_what_leaving_ratings_out_does_is_what_refitting_without_them_does(scores, tolerance):
    """Exactly so of scores alone; of choices it is one Newton step, and two dozen of them are few."""
    rows, count = drawn(1, 24, 6), 24
    target = drawn(2, 24)
    target[scores:] = (target[scores:] > 0).double()
    scored = torch.arange(count) < scores
    prompt, share = torch.arange(count) // 3, drawn(3, count).abs()
    design = Design(rows, target, drawn(4, count).exp(), scored, prompt, share)
    for level in (0.0, 0.7):
        prior = Prior(drawn(5, 6).exp(), 0.4, level)
        whole = solve(design, prior)
        groups = [[0], [5], [23], [3, 4], [1, 22]]
        moved = without(design, whole, groups)
        for group, change in zip(groups, moved, strict=True):
            again = solve(rows_but(design, group), prior).parameters - whole.parameters
            assert float((change - again).norm() / again.norm()) < tolerance, (group, level)


def test_the_rating_that_contradicts_all_others_has_the_most_influence(backbone):
    examples = planted()
    wrong = 37
    scores = [dataclasses.replace(score, rating=f"r{at}") for at, score in enumerate(examples.scores)]
    scores[wrong] = dataclasses.replace(scores[wrong], value=-3 * scores[wrong].value)
    fit = LinearFit(backbone, Examples(scores=scores), RewardConfig(), seed=0)
    answers = Answers.read(fit.model, distinct_responses(scores))
    found = regress(answers, scores)
    told = influences(answers, scores, found)
    assert max(told, key=lambda key: told[key].moved) == f"r{wrong}"
    # It raised its own answer where it was given more than the others say, and by what refitting without it says.
    kept = [score for score in scores if score.rating != f"r{wrong}"]
    own = answers.features[[answers.rows[score.response] for score in scores]]
    again = regress(answers, kept, found.choice)
    change = found.rewards(own) - again.rewards(own)
    change -= change.mean()
    assert told[f"r{wrong}"].pull == pytest.approx(float(change[wrong]), rel=0.15)
    assert told[f"r{wrong}"].moved == pytest.approx(float(change.std()), rel=0.15)


def test_influence_foretells_what_refitting_without_each_rating_does(backbone):
    """Of every rating of a fit to scores, labels and pairs together; what is foretold against what came."""
    scores = [dataclasses.replace(score, rating=f"s{at}") for at, score in enumerate(planted(40).scores)]
    noise = drawn(9, len(scores)).tolist()
    scores = [dataclasses.replace(one, value=one.value + much) for one, much in zip(scores, noise, strict=True)]
    labels = [Labelled(one.response, one.value > 0, 1.0, "badru", rating=f"l{at}")
              for at, one in enumerate(scores[::4])]  # fmt: skip
    pairs = [Pair(one.response, other.response, float(one.value > other.value), "chen", True, rating=f"p{at}")
             for at, (one, other) in enumerate(zip(scores[:10], scores[20:30], strict=True))]  # fmt: skip
    examples = [*scores, *labels, *pairs]
    model = RewardModel(backbone, RewardConfig(), seed=0)
    answers = Answers.read(model, distinct_responses(examples))
    found = regress(answers, examples)
    told = influences(answers, examples, found)
    whole = found.rewards(answers.features)
    came, foretold = {}, {}
    for one in examples:
        again = regress(answers, [other for other in examples if other is not one], found.choice)
        change = whole - again.rewards(answers.features)
        change -= change.mean()
        rows = [answers.rows[answer] for answer in one.responses]
        came[one.rating] = float(change[rows[0]] - change[rows[1]]) if len(rows) == 2 else float(change[rows[0]])
        foretold[one.rating] = told[one.rating].pull
    both = torch.tensor([[came[key], foretold[key]] for key in came])
    correlation = float(torch.corrcoef(both.T)[0, 1])
    assert correlation > 0.98, f"correlation {correlation:.3f} over {len(came)} ratings"
    for kind in "slp":
        own = torch.tensor([[came[key], foretold[key]] for key in came if key.startswith(kind)])
        assert float(torch.corrcoef(own.T)[0, 1]) > 0.95, kind


def test_what_a_reward_weighs_is_told_with_its_error(backbone):
    """Scores that the length of an answer decides, twice as long one deviation more, and a tag on the planted word."""
    generator = torch.Generator().manual_seed(7)
    scores = []
    for number in range(120):
        count = int(torch.randint(2, 12, (1,), generator=generator))
        words = [WORDS[place] for place in torch.randint(len(WORDS), (count,), generator=generator).tolist()]
        bad = number // 30 % 2 == 0  # two answers of four to each prompt
        text = "".join([*words, PLANTED if bad else ""])
        response = Response(Prompt(f"p{number % 30}", CORPUS[number % 5], "en", ""), text, None, None)
        length = len(backbone.tokenizer.encode_response(text))
        noise = 0.3 * float(torch.randn((), generator=generator))
        scores.append(Scored(response, math.log2(length) - 4 - 2 * bad + noise, "amina"))
    model = RewardModel(backbone, RewardConfig(), seed=0)
    answers = Answers.read(model, distinct_responses(scores))
    found = regress(answers, scores)
    tags = {score.response: {"hate"} for score in scores if PLANTED in score.response.text}
    told = weighs(answers, found, 1.0, tags)
    assert 0 < told.length_doubled_error < 0.5
    assert abs(told.length_doubled - 1.0) < 3 * told.length_doubled_error + 0.1
    assert told.tags["hate"].n == len(tags)
    assert told.tags["hate"].mean + 2 * told.tags["hate"].error < 0
    assert told.languages["en"].n == len(answers.rows)
    habit = told.raters["amina"]
    assert 0 < habit["offset_error"] <= 0.5
    assert habit["side_error"] == pytest.approx(0.5), "of what was never asked the prior is all that is known"
