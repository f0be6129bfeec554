"""The reward model in closed form: exact where Bayesian regression has a formula, and right about what was planted."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import CORPUS

from storage.errors import WorkbenchError
from storage.records import Prompt
from trainer.config import RewardConfig
from trainer.evaluation.judging import agreement
from trainer.evaluation.measures import rank_correlation
from trainer.examples import Examples, Labelled, Pair, Response, Scored
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.reward import regression
from trainer.reward.batches import encode
from trainer.reward.folds import folds, shuffled
from trainer.reward.language import leaning
from trainer.reward.linear_fit import LinearFit
from trainer.reward.mixed_model import Design, Prior, solve
from trainer.reward.model import RewardModel
from trainer.reward.regression import Answers, Choice, Coordinates, regress

CONFIG = RewardConfig()
WORDS = " ".join(CORPUS).split()


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(rows: torch.Tensor, target: torch.Tensor) -> Design:
    """Scores alone, all of weight 1."""
    ones = torch.ones(len(rows), dtype=torch.float64)
    nobody = torch.zeros(len(rows), dtype=torch.long)
    return Design(rows, target, ones, torch.ones(len(rows), dtype=torch.bool), nobody, torch.zeros_like(ones))


# --- the formula -----------------------------------------------------------------------------------------------------


def test_scores_give_the_posterior_and_the_evidence_of_linear_regression():
    rows, target, noise = drawn(1, 30, 7), drawn(2, 30), 0.3
    prior = drawn(3, 7).exp()
    found = solve(scored(rows, target), Prior(prior, noise, 0.0))
    precision = rows.T @ rows / noise + torch.diag(prior)
    torch.testing.assert_close(found.parameters, torch.linalg.solve(precision, rows.T @ target / noise))
    torch.testing.assert_close(found.factor @ found.factor.T, precision)
    # The ratings are jointly Gaussian: their density is the evidence.
    covariance = rows @ torch.diag(1 / prior) @ rows.T + noise * torch.eye(30, dtype=torch.float64)
    density = torch.distributions.MultivariateNormal(torch.zeros(30, dtype=torch.float64), covariance).log_prob(target)
    assert found.evidence == pytest.approx(float(density), abs=1e-8)


def test_choices_are_at_their_mode_with_the_curvature_there():
    rows, prior = drawn(1, 40, 5), torch.full((5,), 0.7, dtype=torch.float64)
    chance = torch.sigmoid(rows @ drawn(2, 5) * 2)
    target = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)[(chance * 2.999).long()]
    weight = drawn(4, 40).exp()
    prompt, share, level = torch.arange(40) // 4, drawn(6, 40).abs(), 0.6
    design = Design(rows, target, weight, torch.zeros(40, dtype=torch.bool), prompt, share)
    found = solve(design, Prior(prior, 1.0, level))

    def cost(everything: torch.Tensor) -> torch.Tensor:
        parameters, levels = everything[:5], everything[5:]
        logits = rows @ parameters + share * levels[prompt]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
        return loss + prior @ parameters.square() / 2 + levels.square().sum() / level / 2

    at = torch.cat([found.parameters, found.levels]).requires_grad_()
    (slope,) = torch.autograd.grad(cost(at), at)
    assert slope.abs().max() < 1e-6
    covariance = torch.linalg.inv(torch.autograd.functional.hessian(cost, at.detach()))
    told = torch.cholesky_inverse(found.factor)
    torch.testing.assert_close(told, covariance[:5, :5], atol=1e-6, rtol=1e-6)


def test_levels_of_prompts_are_integrated_out_exactly():
    rows, target, noise, level = drawn(1, 30, 7), drawn(2, 30), 0.3, 0.8
    prior, prompt, share = drawn(3, 7).exp(), torch.arange(30) // 3, torch.full((30,), 0.5, dtype=torch.float64)
    ones = torch.ones(30, dtype=torch.float64)
    design = Design(rows, target, ones, torch.ones(30, dtype=torch.bool), prompt, share)
    found = solve(design, Prior(prior, noise, level))
    # Without them: the scores of a prompt are correlated.
    together = (prompt[:, None] == prompt).double() * level * 0.25 + noise * torch.eye(30, dtype=torch.float64)
    precision = rows.T @ torch.linalg.solve(together, rows) + torch.diag(prior)
    expected = torch.linalg.solve(precision, rows.T @ torch.linalg.solve(together, target))
    torch.testing.assert_close(found.parameters, expected)
    torch.testing.assert_close(found.factor @ found.factor.T, precision)
    covariance = rows @ torch.diag(1 / prior) @ rows.T + together
    density = torch.distributions.MultivariateNormal(torch.zeros(30, dtype=torch.float64), covariance).log_prob(target)
    assert found.evidence == pytest.approx(float(density), abs=1e-8)


@dataclass
class Planted:
    """Ratings of answers in a space of features, with a planted reward of variance 1 and planted levels of prompts."""

    answers: Answers
    scores: list[Scored]
    rewards: torch.Tensor

    @classmethod
    def of(
        cls, seed: int, *, level: float, noise: float = 0.2, reward: float = 1.0, prompts: int = 40, each: int = 4
    ) -> Planted:
        """`level` and `noise` are deviations, in those of the reward; the features hint at the prompt, as states do."""
        count, size = prompts * each, 30
        prompt = torch.arange(count) // each
        features = drawn(seed, count, size) + 1.5 * drawn(seed + 1, prompts, size)[prompt]
        direction = drawn(seed + 2, size)
        rewards = features @ direction
        scale = rewards.std()
        rewards = rewards / scale
        levels = level * drawn(seed + 3, prompts)[prompt]
        values = reward * rewards + levels + noise * drawn(seed + 4, count)
        values, rewards = values / values.std(), rewards / values.std()  # scores are standardised
        asked = [
            Prompt(f"{seed} {number}", f"{number}?", "en" if number % 2 else "es", "") for number in range(prompts)
        ]
        responses = [Response(asked[int(place)], f"answer {row}", None, None) for row, place in enumerate(prompt)]
        known = Answers({response: row for row, response in enumerate(responses)}, [5] * count, features, (20, 10))
        scores = [Scored(response, float(value), "amina") for response, value in zip(responses, values, strict=True)]
        return cls(known, scores, rewards)

    def accuracy(self, found: torch.Tensor, first: int) -> float:
        """Of answers to one prompt, from the row `first` on: the share of pairs that are in their true order."""
        prompt = torch.arange(len(self.scores)) // 4
        same = (prompt[:, None] == prompt).triu(1)
        same[:first] = False
        right = (found[:, None] > found) == (self.rewards[:, None] > self.rewards)
        return float(right[same].double().mean())


def test_the_evidence_finds_how_far_rewards_spread_and_nothing_where_there_is_nothing():
    told = Planted.of(10, level=0.0, noise=0.45)
    found = regress(told.answers, told.scores)
    assert 0.4 <= sum(found.choice.spreads) <= 4
    assert 0.1 <= found.choice.noise <= 0.4
    noise = Planted.of(20, level=0.0, reward=0.0, noise=1.0)
    assert sum(regress(noise.answers, noise.scores).choice.spreads) <= 0.1


def test_what_is_climbed_to_is_the_best_of_all_values():
    for seed in range(0, 30, 10):
        told = Planted.of(seed, level=0.7, noise=0.5)
        found = regress(told.answers, told.scores)
        spreads, noise, level = found.choice.spreads, found.choice.noise, found.choice.level
        others = [Choice(spreads, noise, other) for other in regression.LEVELS]
        others += [Choice(spreads, other, level) for other in regression.NOISES]
        for place in range(len(spreads)):
            others += [
                Choice((*spreads[:place], other, *spreads[place + 1 :]), noise, level) for other in regression.SPREADS
            ]
        best = max(regress(told.answers, told.scores, choice).solution.evidence for choice in others)
        assert found.solution.evidence >= best - 1e-9


def test_answers_to_a_prompt_are_ranked_though_prompts_differ_far_more():
    right, without, levels = [], [], []
    for seed in range(0, 50, 10):
        told = Planted.of(seed, level=3.0, prompts=60)
        learned = told.scores[:160]
        found = regress(told.answers, learned)
        right.append(told.accuracy(found.rewards(told.answers.features), 160))
        levels.append(found.choice.level)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(regression, "LEVELS", (0.0,))  # as if prompts had no level
            plain = regress(told.answers, learned)
        without.append(told.accuracy(plain.rewards(told.answers.features), 160))
    assert min(right) > 0.9, "of prompts that it never saw"
    assert max(without) < min(right)
    assert sum(without) / len(without) < 0.8
    assert min(levels) >= 0.4, "of the scores' variance of 1"


def test_the_evidence_sees_that_prompts_have_no_level_of_their_own():
    for seed in range(0, 50, 10):
        told = Planted.of(seed, level=0.0)
        assert regress(told.answers, told.scores).choice.level <= 0.05


def test_what_the_posterior_says_of_differences_within_a_prompt_holds_as_often_as_it_says():
    inside, count = 0, 0
    for seed in range(0, 200, 10):
        told = Planted.of(seed, level=1.0, noise=0.5, prompts=60)
        found = regress(told.answers, told.scores[:160])
        x = told.answers.features[160:]
        differences, true = x[0::2] - x[1::2], told.rewards[160::2] - told.rewards[161::2]
        deviations = found.posterior().difference_deviations(differences).double()
        error = (differences @ found.weights - true).abs()
        inside += int((error < 1.96 * deviations).sum())
        count += len(error)
    assert 0.9 < inside / count < 0.98


def test_few_answers_and_many_are_computed_alike():
    x = drawn(1, 30, 20)
    spread = torch.tensor([0.5] * 12 + [2.0] * 8, dtype=torch.float64)
    for own in (x, x[:15]):
        space = Coordinates(own, (12, 8))
        rows, turn = space.rows((0.5, 2.0)), space.turn((0.5, 2.0))
        assert rows.shape[1] == min(len(own), 20)
        torch.testing.assert_close(rows @ rows.T, (own * spread) @ own.T, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(rows @ turn, own, atol=1e-6, rtol=1e-6)


# --- on a model ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def answers(backbone: Backbone) -> list[tuple[Response, float]]:
    """Answers of random words in two languages, two to a prompt, with a planted reward: a direction among the states
    that the model reads."""
    chosen = random.Random(1)
    responses: list[Response] = []
    for number in range(240):
        language = "en" if number % 4 < 2 else "es"
        prompt = responses[-1].prompt if number % 2 else Prompt(f"p{number}", CORPUS[0], language, "")
        responses.append(Response(prompt, " ".join(chosen.choices(WORDS, k=chosen.randint(2, 6))), None, None))
    fit = LinearFit(backbone, Examples(), CONFIG, 0)
    encoded = [encode(backbone, response) for response in responses]
    layout = backbone.layout([prompt for prompt, _ in encoded], [said for _, said in encoded])
    features = fit.model.features(backbone.trunk(layout), layout, [one.prompt.language for one in responses])
    centred = features - features.mean(0)
    planted = torch.linalg.svd(centred, full_matrices=False)[0][:, :5].sum(1)
    planted = (planted - planted.mean()) / planted.std()
    return list(zip(responses, planted.tolist(), strict=True))


def languages_of(rated: list[tuple[Response, float]]) -> list[str]:
    return [response.prompt.language for response, _ in rated]


def fitted(backbone: Backbone, examples: Examples) -> tuple[LinearFit, float]:
    """A fit of three prompts in five, and how it agrees with the ratings of the others, within languages."""
    learned, unseen = folds(examples, 0.4, 1)
    fit = LinearFit(backbone, learned, CONFIG, 0, kept=unseen)
    fit.advance()
    found = agreement(fit.model, unseen)
    assert found is not None
    return fit, found.mean


def test_the_features_are_means_over_an_answers_tokens_whatever_stands_beside_it(backbone, answers):
    fit = LinearFit(backbone, Examples(), CONFIG, 0)
    encoded = [encode(backbone, response) for response, _ in answers[:6]]
    layout = backbone.layout([prompt for prompt, _ in encoded], [said for _, said in encoded])
    together = fit.model.features(backbone.trunk(layout), layout, languages_of(answers[:6]))
    for (prompt, said), found, (response, _) in zip(encoded, together, answers, strict=False):
        alone = backbone.layout([prompt], [said])
        states = backbone.plain_states(backbone.trunk(alone), alone)
        size = backbone.hidden_size
        words = backbone.embeddings(alone)
        torch.testing.assert_close(found[:size], words[len(prompt) :].mean(0), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[size:-2], states[len(prompt) :].mean(0), atol=1e-5, rtol=1e-5)
        assert float(found[-2]) == pytest.approx(math.log(len(said)))
        assert float(found[-1]) == pytest.approx(leaning(response.text, response.prompt.language))


def test_a_planted_reward_is_found_from_scores_pairs_and_labels(backbone, answers):
    scores = Examples(scores=[Scored(response, reward, "amina") for response, reward in answers])
    pairs = Examples(
        pairs=[
            Pair(one, other, float(first > second), "amina")
            for (one, first), (other, second) in zip(answers[::2], answers[1::2], strict=True)
        ]
    )
    labels = Examples(labels=[Labelled(response, reward > 0, 1.0, "amina") for response, reward in answers])
    assert fitted(backbone, scores)[1] > 0.9, "on prompts that it never saw"
    encoded = [encode(backbone, response) for response, _ in answers]
    for told in (scores, pairs, labels):
        fit, agreed = fitted(backbone, told)
        assert agreed > 0.4, "with what was said of prompts that it never saw"
        rewards = fit.model.score_responses(*zip(*encoded, strict=True), languages_of(answers))
        assert rank_correlation(rewards.tolist(), [reward for _, reward in answers]) > 0.75


def test_shuffled_ratings_teach_a_reward_that_is_nearly_flat_and_agrees_with_nothing(backbone, answers):
    real = Examples(scores=[Scored(response, reward, "amina") for response, reward in answers])
    spreads, agreements = [], []
    for seed in range(5):
        fit, agreed = fitted(backbone, shuffled(real, seed))
        encoded = [encode(backbone, response) for response, _ in answers]
        rewards = fit.model.score_responses(*zip(*encoded, strict=True), languages_of(answers))
        spreads.append(float(rewards.std()))
        agreements.append(agreed)
    assert sum(spreads) / 5 < 0.25, "of a deviation of 1"
    assert abs(sum(agreements) / 5) < 0.15


def test_raters_offsets_sides_and_length_are_found_and_kept_out(backbone, answers):
    offsets = {"mild": 0.8, "strict": -0.8}
    chosen = random.Random(4)
    scores = []
    for response, reward in answers:
        rater = chosen.choice(sorted(offsets))
        scores.append(Scored(response, reward + offsets[rater], rater))
    fit, _ = fitted(backbone, Examples(scores=scores))
    habits = {str(habit): float(fit.effects.offset[place - 1].detach()) for habit, place in fit.effects.index.items()}
    assert habits["mild"] - habits["strict"] == pytest.approx(1.6, abs=0.2)
    found = fit.model.score_responses(
        *zip(*[encode(backbone, response) for response, _ in answers], strict=True), languages_of(answers)
    )
    assert rank_correlation(found.tolist(), [reward for _, reward in answers]) > 0.9
    left = [
        Pair(one, other, 1.0, "amina", True) for (one, _), (other, _) in zip(answers[::2], answers[1::2], strict=True)
    ]
    fit, _ = fitted(backbone, Examples(pairs=left, labels=[Labelled(answers[0][0], True)]))
    assert float(fit.effects.side[0].detach()) > 0.5, "who always prefers the left side says nothing of answers"


def test_the_posterior_is_that_of_all_weights_and_not_only_of_those_that_ratings_reach(backbone, answers):
    told = [Scored(response, reward, "amina") for response, reward in answers[:30]]
    fit = LinearFit(backbone, Examples(scores=told), CONFIG, 0)
    fit.advance()
    encoded = [encode(backbone, response) for response, _ in answers]
    asked, said = ([one[place] for one in encoded] for place in (0, 1))
    rewards, deviations = fit.model.score_with_uncertainty(asked, said, languages_of(answers))
    known = Answers.read(fit.model, [response for response, _ in answers])
    prior = regress(known, told).choice
    # By hand, in all dimensions at once: centre and sizes are those of the rated answers; levels are parameters too.
    x = known.features
    parts = [part - part[:30].mean(0) for part in x.split(known.parts, 1)]
    x = torch.cat([part / part[:30].square().sum(1).mean().sqrt() for part in parts], 1)
    rows = torch.cat([x, torch.ones(len(x), 1)], 1)
    prompt = torch.nn.functional.one_hot(torch.arange(30) // 2).double()
    design = torch.cat([rows[:30], torch.ones(30, 1), torch.zeros(30, 3), prompt], 1)  # offset, and what pairs have
    spread = torch.tensor(prior.spreads).double().repeat_interleave(torch.tensor(known.parts))
    own = torch.cat([1 / spread, torch.ones(1), torch.full((4,), 4.0), torch.full((15,), 1 / (prior.level or 1e-9))])
    target = torch.tensor([reward for _, reward in answers[:30]]).double()
    found = solve(scored(design, target), Prior(own.double(), prior.noise, 0.0))
    covariance = torch.cholesky_inverse(found.factor)[: rows.shape[1], : rows.shape[1]]
    expected = ((rows @ covariance) * rows).sum(1).sqrt()
    torch.testing.assert_close(rewards.double(), rows @ found.parameters[: rows.shape[1]], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(deviations.double(), expected, atol=1e-3, rtol=1e-3)


def test_a_file_of_an_earlier_release_is_refused_with_what_to_do(backbone, answers, tmp_path):
    fit = LinearFit(backbone, Examples(scores=[Scored(one, value, "amina") for one, value in answers[:30]]), CONFIG, 0)
    fit.advance()
    fit.model.save(tmp_path / "new.safetensors", {})
    again, _ = RewardModel.read(backbone, tmp_path / "new.safetensors")
    asked, said = encode(backbone, answers[40][0])
    assert torch.equal(
        again.score_responses([asked], [said], ["en"]), fit.model.score_responses([asked], [said], ["en"])
    )
    tensors = load_file(tmp_path / "new.safetensors")
    tensors["head.weight"] = tensors["head.weight"][: backbone.hidden_size].clone()
    save_file(tensors, tmp_path / "old.safetensors", metadata={"kind": "linear", "split": str(backbone.split)})
    with pytest.raises(WorkbenchError, match="it is of an earlier release"):
        RewardModel.read(backbone, tmp_path / "old.safetensors")
