"""The reward's uncertainty on planted linear data: exact, falling with labels, larger far away, and honest."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import CORPUS

from storage.errors import WorkbenchError
from storage.records import Prompt
from trainer.config import RewardConfig, RewardKind
from trainer.examples import Examples, Labelled, Pair, Response, Scored, fingerprint
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.reward import fitting
from trainer.reward.batches import encode
from trainer.reward.folds import without
from trainer.reward.model import RewardModel
from trainer.reward.report import FitReport
from trainer.reward.uncertainty import Posterior, precision_factor, with_bias

SIZE = 12  # features
NOISE = 0.25  # variance of a score around its reward


def planted(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, noisy scores and the weights they come from, drawn from the prior."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, SIZE, generator=generator, dtype=torch.float64)
    weights = torch.randn(SIZE, generator=generator, dtype=torch.float64)
    scores = features @ weights + NOISE**0.5 * torch.randn(rows, generator=generator, dtype=torch.float64)
    return features, scores, weights


def known(features: torch.Tensor) -> Posterior:
    """What scores of these features tell, with a prior of variance 1 on each weight."""
    nowhere = torch.zeros(SIZE, dtype=torch.float64)
    prior = torch.ones(SIZE + 1, dtype=torch.float64)
    return Posterior(nowhere, precision_factor(prior, [with_bias(features, nowhere) / NOISE**0.5]))


def test_the_deviation_is_that_of_the_closed_form():
    features, _, _ = planted(30, 1)
    rows = with_bias(features, torch.zeros(SIZE))
    covariance = torch.linalg.inv(torch.eye(SIZE + 1) + rows.T @ rows / NOISE)
    expected = (rows @ covariance * rows).sum(1).sqrt()
    torch.testing.assert_close(known(features).deviations(features), expected)


def test_more_labels_leave_less_doubt_and_distance_more():
    features, _, _ = planted(512, 2)
    asked = planted(50, 3)[0]
    doubts = [float(known(features[:count]).deviations(asked).mean()) for count in (0, 8, 32, 128, 512)]
    assert all(later < 0.9 * earlier for earlier, later in pairwise(doubts)), doubts
    assert doubts[-1] < 0.1 * doubts[0]
    near = known(features).deviations(asked)
    assert bool((known(features).deviations(5 * asked) > 3 * near).all())


def test_doubt_falls_only_where_it_was_labelled():
    features, _, _ = planted(200, 4)
    features[:, SIZE // 2 :] = 0
    seen, unseen = torch.zeros(1, SIZE), torch.zeros(1, SIZE)
    seen[0, 0] = unseen[0, -1] = 1.0
    found = known(features)
    assert float(found.deviations(seen.double())) < 0.2
    assert float(found.deviations(unseen.double())) == pytest.approx(1, abs=0.05), "the prior's"


def test_errors_are_as_large_as_is_said():
    """Over many planted worlds, error over deviation is standard normal: its square is 1 in the mean."""
    ratios = []
    for seed in range(60):
        features, scores, weights = planted(20, 100 + seed)
        rows = torch.cat([features, torch.ones(20, 1, dtype=torch.float64)], 1)
        precision = torch.eye(SIZE + 1) + rows.T @ rows / NOISE
        estimate = torch.linalg.solve(precision, rows.T @ scores / NOISE)
        asked = planted(10, 900 + seed)[0]
        found = torch.cat([asked, torch.ones(10, 1)], 1) @ estimate
        ratios.append((found - asked @ weights) / known(features).deviations(asked))
    ratio = torch.cat(ratios)
    assert float(ratio.square().mean()) == pytest.approx(1, abs=0.2)
    assert float((ratio.abs() < 1.96).double().mean()) == pytest.approx(0.95, abs=0.03)


# --- on a model ------------------------------------------------------------------------------------------------------

CONFIG = RewardConfig(kind=RewardKind.ADAPTER, rank=4, alpha=8, epochs=4, learning_rate=1e-2, held_out=0.2)


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def answers() -> list[tuple[Response, float]]:
    """Answers of random words; those with more words are better."""
    chosen, words = random.Random(7), " ".join(CORPUS).split()
    found = []
    for number in range(240):
        length = chosen.randint(1, 6)
        prompt = Prompt(f"p{number}", CORPUS[number % 10][:20], "und", "")
        found.append((Response(prompt, " ".join(chosen.choices(words, k=length)), None, None), (length - 3.5) / 1.7))
    return found


def fitted(backbone: Backbone, examples: Examples, config: RewardConfig, seed: int) -> tuple[RewardModel, FitReport]:
    """Learned from most prompts and measured on the others."""
    prompts = sorted({example.prompt.id for example in examples.every()}, key=fingerprint)
    kept = set(prompts[: int(len(prompts) * config.held_out)])
    learned, others = without(examples, kept), without(examples, set(prompts) - kept)
    return fitting.fit(backbone, learned, config, seed, kept=others)


def deviations(model: RewardModel, responses: list[Response]) -> torch.Tensor:
    encoded = [encode(model.backbone, response) for response in responses]
    return model.score_with_uncertainty(*zip(*encoded, strict=True), ["en"] * len(encoded))[1]


def kinds(rated: list[tuple[Response, float]]) -> dict[str, Examples]:
    """The same judgements as scores, as labels and as pairs."""
    return {
        "scores": Examples(scores=[Scored(response, value, "amina") for response, value in rated]),
        "labels": Examples(labels=[Labelled(response, value > 0, 1.0, "amina") for response, value in rated]),
        "pairs": Examples(
            pairs=[
                Pair(one, Response(one.prompt, other.text, None, None), float(first > second), "amina")
                for (one, first), (other, second) in zip(rated[::2], rated[1::2], strict=True)
                if first != second
            ]
        ),
    }


@pytest.mark.parametrize("kind", ["scores", "labels", "pairs"])
def test_a_model_is_surer_with_more_ratings_of_any_kind(backbone, answers, kind):
    asked = [response for response, _ in answers[200:]]
    few, _ = fitted(backbone, kinds(answers[:40])[kind], CONFIG, 0)
    many, _ = fitted(backbone, kinds(answers[:200])[kind], CONFIG, 0)
    assert float(deviations(many, asked).mean()) < 0.85 * float(deviations(few, asked).mean())


def test_deviations_are_in_units_of_the_normalised_reward_and_come_back_from_the_file(backbone, answers, tmp_path):
    model, _ = fitted(backbone, kinds(answers[:80])["scores"], CONFIG, 0)
    asked = [response for response, _ in answers[200:]]
    encoded = [encode(backbone, response) for response in asked]
    prompts, said = [prompt for prompt, _ in encoded], [said for _, said in encoded]
    before, english = deviations(model, asked), ["en"] * len(asked)
    model.normalise(prompts, said, english)
    rewards, after = model.score_with_uncertainty(prompts, said, english)
    torch.testing.assert_close(after, before / model.deviation)
    torch.testing.assert_close(rewards, model.score_responses(prompts, said, english))
    torch.testing.assert_close(
        model.score_with_uncertainty(prompts, said, english, batch=3)[1], after, rtol=1e-3, atol=1e-5
    )
    model.save(tmp_path / "reward.safetensors", {})
    again = RewardModel(backbone, CONFIG, seed=99)
    again.load(tmp_path / "reward.safetensors")
    assert torch.equal(again.score_with_uncertainty(prompts, said, english)[1], after)


def test_a_file_without_uncertainty_still_scores_and_says_what_it_lacks(backbone, answers, tmp_path):
    model, _ = fitted(backbone, kinds(answers[:40])["scores"], CONFIG, 0)
    model.save(tmp_path / "new.safetensors", {})
    older = load_file(tmp_path / "new.safetensors")
    del older["feature_centre"], older["precision_factor"]
    save_file(older, tmp_path / "old.safetensors", metadata={"facts": json.dumps({"examples": 40})})
    again = RewardModel(backbone, CONFIG, seed=99)
    again.load(tmp_path / "new.safetensors")
    assert again.knows_uncertainty
    assert again.load(tmp_path / "old.safetensors") == {"examples": 40}
    asked, said = encode(backbone, answers[0][0])
    assert torch.equal(again.score_responses([asked], [said], ["en"]), model.score_responses([asked], [said], ["en"]))
    assert not again.knows_uncertainty
    with pytest.raises(WorkbenchError, match="unavailable") as caught:
        again.score_with_uncertainty([asked], [said], ["en"])
    assert "trainer reward" in caught.value.hint
