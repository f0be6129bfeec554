"""The reward model in closed form: exact where Bayesian regression has a formula, and right about what was planted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tiny_model import CORPUS

from storage.records import Prompt
from trainer.config import RewardConfig
from trainer.evaluation.judging import agreement
from trainer.evaluation.measures import rank_correlation
from trainer.examples import Examples, Labelled, Pair, Response, Scored
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.reward.batches import encode
from trainer.reward.folds import folds, shuffled
from trainer.reward.linear_fit import Design, LinearFit, likeliest, solve
from trainer.reward.model import scaled

CONFIG = RewardConfig()
WORDS = " ".join(CORPUS).split()


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(rows: torch.Tensor, target: torch.Tensor) -> Design:
    """Scores alone, all of weight 1."""
    ones = torch.ones(len(rows), dtype=torch.float64)
    return Design(rows, target, ones, torch.ones(len(rows), dtype=torch.bool))


# --- the formula -----------------------------------------------------------------------------------------------------


def test_scores_give_the_posterior_and_the_evidence_of_linear_regression():
    rows, target, noise = drawn(1, 30, 7), drawn(2, 30), 0.3
    prior = drawn(3, 7).exp()
    found = solve(scored(rows, target), prior, noise)
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
    design = Design(rows, target, weight, torch.zeros(40, dtype=torch.bool))
    found = solve(design, prior, 1.0)

    def cost(parameters: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(rows @ parameters, target, weight, reduction="sum")
        return loss + prior @ parameters.square() / 2

    at = found.parameters.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cost(at), at)
    assert slope.abs().max() < 1e-6
    curvature = torch.autograd.functional.hessian(cost, found.parameters)
    torch.testing.assert_close(found.factor @ found.factor.T, curvature, atol=1e-6, rtol=1e-6)


def test_the_evidence_finds_how_far_rewards_spread_and_nothing_where_there_is_nothing():
    rows = torch.cat([drawn(1, 300, 40) / 40**0.5, torch.ones(300, 1, dtype=torch.float64)], 1)
    told = rows[:, :40] @ drawn(2, 40) * 0.8**0.5 + drawn(3, 300) * 0.2**0.5
    found = likeliest(scored(torch.cat([rows, torch.zeros(300, 1)], 1), told), 40, 1)
    assert 0.4 <= found.spread <= 1.6
    assert 0.1 <= found.noise <= 0.4
    noise = likeliest(scored(torch.cat([rows, torch.zeros(300, 1)], 1), drawn(4, 300)), 40, 1)
    assert noise.spread <= 0.05


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
    features = fit.model.features(backbone.trunk(layout), layout)
    centred = features - features.mean(0)
    planted = torch.linalg.svd(centred, full_matrices=False)[0][:, :5].sum(1)
    planted = (planted - planted.mean()) / planted.std()
    return list(zip(responses, planted.tolist(), strict=True))


def fitted(backbone: Backbone, examples: Examples) -> tuple[LinearFit, float]:
    """A fit of three prompts in five, and how it agrees with the ratings of the others, within languages."""
    learned, unseen = folds(examples, 0.4, 1)
    fit = LinearFit(backbone, learned, CONFIG, 0, kept=unseen)
    fit.advance()
    found = agreement(fit.model, unseen)
    assert found is not None
    return fit, found.mean


def test_the_features_are_the_mean_of_an_answers_states_whatever_stands_beside_it(backbone, answers):
    fit = LinearFit(backbone, Examples(), CONFIG, 0)
    encoded = [encode(backbone, response) for response, _ in answers[:6]]
    layout = backbone.layout([prompt for prompt, _ in encoded], [said for _, said in encoded])
    together = fit.model.features(backbone.trunk(layout), layout)
    for (prompt, said), found in zip(encoded, together, strict=True):
        alone = backbone.layout([prompt], [said])
        states = backbone.plain_states(backbone.trunk(alone), alone)
        torch.testing.assert_close(found, states[len(prompt) :].mean(0), atol=1e-5, rtol=1e-5)


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
        rewards = fit.model.score_responses([asked for asked, _ in encoded], [said for _, said in encoded])
        assert rank_correlation(rewards.tolist(), [reward for _, reward in answers]) > 0.75


def test_shuffled_ratings_teach_a_reward_that_is_nearly_flat_and_agrees_with_nothing(backbone, answers):
    real = Examples(scores=[Scored(response, reward, "amina") for response, reward in answers])
    spreads, agreements = [], []
    for seed in range(5):
        fit, agreed = fitted(backbone, shuffled(real, seed))
        encoded = [encode(backbone, response) for response, _ in answers]
        rewards = fit.model.score_responses([asked for asked, _ in encoded], [said for _, said in encoded])
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
    habits = {str(habit): float(fit.effects.offset[place - 1]) for habit, place in fit.effects.index.items()}
    assert habits["mild"] - habits["strict"] == pytest.approx(1.6, abs=0.2)
    found = fit.model.score_responses(*zip(*[encode(backbone, response) for response, _ in answers], strict=True))
    assert rank_correlation(found.tolist(), [reward for _, reward in answers]) > 0.9
    left = [
        Pair(one, other, 1.0, "amina", True) for (one, _), (other, _) in zip(answers[::2], answers[1::2], strict=True)
    ]
    fit, _ = fitted(backbone, Examples(pairs=left, labels=[Labelled(answers[0][0], True)]))
    assert float(fit.effects.side[0].detach()) > 0.5, "who always prefers the left side says nothing of answers"


def test_the_posterior_is_that_of_all_weights_and_not_only_of_those_that_ratings_reach(backbone, answers):
    few = Examples(scores=[Scored(response, reward, "amina") for response, reward in answers[:30]])
    fit = LinearFit(backbone, few, CONFIG, 0)
    fit.advance()
    encoded = [encode(backbone, response) for response, _ in answers]
    asked, said = ([one[place] for one in encoded] for place in (0, 1))
    rewards, deviations = fit.model.score_with_uncertainty(asked, said)
    layout = backbone.layout(asked, said)
    x = scaled(fit.model.features(backbone.trunk(layout), layout)).double()
    # By hand, in all dimensions at once: centre and size are those of the rated answers.
    rated = x[:30]
    centre = rated.mean(0)
    size = (rated - centre).square().sum(1).mean().sqrt()
    rows = torch.cat([(x - centre) / size, torch.ones(len(x), 1)], 1)
    design = torch.cat([rows[:30], torch.ones(30, 1), torch.zeros(30, 3)], 1)  # the rater's offset, and what pairs have
    spread = likeliest_spread(design, torch.tensor([reward for _, reward in answers[:30]], dtype=torch.float64))
    prior = torch.cat([torch.full((x.shape[1],), 1 / spread[0]), torch.ones(1), torch.full((4,), 4.0)]).double()
    found = solve(scored(design, torch.tensor([reward for _, reward in answers[:30]]).double()), prior, spread[1])
    covariance = torch.cholesky_inverse(found.factor)[: rows.shape[1], : rows.shape[1]]
    expected = ((rows @ covariance) * rows).sum(1).sqrt()
    torch.testing.assert_close(rewards.double(), rows @ found.parameters[: rows.shape[1]], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(deviations.double(), expected, atol=1e-3, rtol=1e-3)


def likeliest_spread(design: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    """The spread and noise that the fit chooses, from all dimensions."""
    found = likeliest(scored(design, target), design.shape[1] - 5, 4)
    return found.spread, found.noise
