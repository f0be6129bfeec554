"""The reward model finds what was planted in the ratings: a reward, raters with habits, an order of pairs."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import CORPUS

from storage.records import Prompt
from trainer.checkpoints import load, save
from trainer.config import RewardConfig, RewardKind
from trainer.evaluation.measures import rank_correlation
from trainer.examples import Examples, Habit, Labelled, Pair, Response, Scored
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.policy.weights import EMBEDDING
from trainer.reward import fitting
from trainer.reward.batches import batch_loss, encode, make_batch, within
from trainer.reward.effects import PRIOR, RatingEffects
from trainer.reward.folds import folds
from trainer.reward.model import RewardModel
from trainer.reward.report import FitReport

CONFIG = RewardConfig(kind=RewardKind.ADAPTER, rank=4, alpha=8, epochs=8, learning_rate=1e-2, held_out=0.2)
WORDS = " ".join(CORPUS).split()


@pytest.fixture(scope="module")
def backbone(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The tiny model with larger weights, so that what an answer says shows in the state after its last token."""
    folder = tmp_path_factory.mktemp("models") / "loud"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        tensor *= 20 if name == EMBEDDING else 6 if name.endswith("proj.weight") else 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return Backbone(ModelFolder("tiny", folder, "digest"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def answers(backbone: Backbone) -> list[tuple[Response, float]]:
    """Answers of random words, two to a prompt, with a planted reward: a direction in the model's own features.

    All prompts have one text, so that the reward is about the answers.
    """
    chosen = random.Random(1)
    responses: list[Response] = []
    for number in range(320):
        prompt = responses[-1].prompt if number % 2 else Prompt(f"p{number}", CORPUS[0], "en", "")
        responses.append(Response(prompt, " ".join(chosen.choices(WORDS, k=chosen.randint(1, 6))), None, None))
    direction = torch.randn(backbone.hidden_size, generator=torch.Generator().manual_seed(2))
    encoded = [encode(backbone, response) for response in responses]
    layout = backbone.layout([prompt for prompt, _ in encoded], [said for _, said in encoded])
    with torch.no_grad():
        features = backbone.hidden(layout, None)[layout.last]
    planted = features @ direction
    planted = (planted - planted.mean()) / planted.std()
    return list(zip(responses, planted.tolist(), strict=True))


def new_fit(backbone: Backbone, examples: Examples, config: RewardConfig, seed: int) -> fitting.RewardFit:
    """A fit that learns from some prompts and is measured on the others."""
    learned, kept = folds(examples, config.held_out, 1)
    return fitting.RewardFit(backbone, learned, config, seed, kept=kept)


def fitted(backbone, examples: Examples, config: RewardConfig, seed: int, *more) -> tuple[RewardModel, FitReport]:
    """The same, from beginning to end."""
    learned, kept = folds(examples, config.held_out, 1)
    return fitting.fit(backbone, learned, config, seed, *more, kept=kept)


def test_a_planted_reward_is_found_on_prompts_that_were_kept_back(backbone, answers):
    examples = Examples(scores=[Scored(response, reward, "amina") for response, reward in answers])
    losses = []
    _, report = fitted(backbone, examples, CONFIG, 0, lambda step, steps, loss: losses.append(loss))
    assert report.spearman_n == report.held_out == 64
    assert report.examples == 256
    assert report.spearman > 0.9
    assert losses[-1] < losses[0] / 2
    assert len(losses) == 8 * 16  # batches of 16, eight times


def test_shuffled_ratings_teach_nothing_that_holds(backbone, answers):
    rewards = [reward for _, reward in answers]
    random.Random(3).shuffle(rewards)
    scores = [Scored(response, reward, "amina") for (response, _), reward in zip(answers, rewards, strict=True)]
    _, report = fitted(backbone, Examples(scores=scores), CONFIG, 0)
    assert abs(report.spearman) < 0.4, "three standard deviations of chance at 64"


def test_habits_of_raters_are_found_and_taken_out(backbone, answers):
    """One rater is strict and moves a little, another generous and moves a lot."""
    habits = {"mild": (0.8, 1.5), "strict": (-0.8, 0.5)}
    chosen = random.Random(4)
    scores = []
    for response, reward in answers:
        rater = chosen.choice(sorted(habits))
        offset, gain = habits[rater]
        scores.append(Scored(response, offset + gain * reward, rater))
    model, report = fitted(backbone, Examples(scores=scores), CONFIG, 0)
    mild, strict = report.raters["mild"], report.raters["strict"]
    assert mild.offset - strict.offset == pytest.approx(1.6, abs=0.3)
    assert math.log(mild.gain / strict.gain) == pytest.approx(math.log(3), abs=0.3)
    assert mild.learned + strict.learned == report.examples
    assert mild.agreement.spearman_n + strict.agreement.spearman_n == report.held_out
    assert min(mild.agreement.spearman, strict.agreement.spearman) > 0.8
    encoded = [encode(backbone, response) for response, _ in answers]
    rewards = model.score_responses(
        [prompt for prompt, _ in encoded], [said for _, said in encoded], ["en"] * len(encoded)
    )
    assert rank_correlation(rewards.tolist(), [reward for _, reward in answers]) > 0.9


def test_pairs_alone_order_answers(backbone, answers):
    pairs = [
        Pair(one, other, float(first > second))
        for (one, first), (other, second) in zip(answers[::2], answers[1::2], strict=True)
        if abs(first - second) > 0.3
    ]
    _, report = fitted(backbone, Examples(pairs=pairs), CONFIG, 0)
    assert report.pair_n > 15
    assert report.pair_accuracy > 0.8
    low, high = report.pair_accuracy_interval
    assert low <= report.pair_accuracy <= high
    assert report.spearman is None


def test_labels_alone_separate_good_from_bad(backbone, answers):
    labels = [Labelled(response, reward > 0) for response, reward in answers]
    model, _ = fitted(backbone, Examples(labels=labels), CONFIG, 0)
    encoded = [encode(backbone, label.response) for label in labels]
    rewards = model.score_responses(
        [prompt for prompt, _ in encoded], [said for _, said in encoded], ["en"] * len(encoded)
    )
    good = torch.tensor([label.good for label in labels])
    assert float(((rewards > 0) == good).float().mean()) > 0.85


def rewards_of(model: RewardModel, responses: list[Response]) -> list[float]:
    encoded = [encode(model.backbone, response) for response in responses]
    return model.score_responses(
        [prompt for prompt, _ in encoded], [said for _, said in encoded], ["en"] * len(encoded)
    ).tolist()


def judged_pairs(backbone, answers, rater: str, gain: float, side: float, gamma: float, rounds: int = 4) -> list[Pair]:
    """Pairs as a rater would choose who has these habits and the planted rewards."""
    chosen = random.Random(rater)
    tokens = {response: len(encode(backbone, response)[1]) for response, _ in answers}
    pairs = []
    for _ in range(rounds):
        for (one, first), (other, second) in zip(answers[::2], answers[1::2], strict=True):
            left = chosen.random() < 0.5
            logit = gain * (first - second) + (side if left else -side) + gamma * math.log(tokens[one] / tokens[other])
            wins = chosen.random() < 1 / (1 + math.exp(-logit))
            pairs.append(Pair(one, other, float(wins), rater, left))
    return pairs


def test_what_else_moves_pairs_is_found_and_kept_out_of_the_reward(backbone, answers):
    """One rater prefers what stands left, another what stands right, and both what is longer.

    Quality here does not go with length: pairs alone cannot tell the two apart where it does.
    """
    length = np.array([math.log(len(encode(backbone, response)[1])) for response, _ in answers])
    quality = np.array([reward for _, reward in answers])
    quality = quality - np.polyval(np.polyfit(length, quality, 1), length)
    judged = [(response, float(value)) for (response, _), value in zip(answers, quality / quality.std(), strict=True)]
    pairs = judged_pairs(backbone, judged, "lefty", 1.0, 1.2, 1.0)
    pairs += judged_pairs(backbone, judged, "righty", 1.0, -0.8, 1.0)
    config = msgspec.structs.replace(CONFIG, epochs=3, learning_rate=4e-3)

    model, report = fitted(backbone, Examples(pairs=pairs), config, 0)
    assert report.raters["lefty"].side == pytest.approx(1.2, abs=0.4)
    assert report.raters["righty"].side == pytest.approx(-0.8, abs=0.3)
    assert report.gamma == pytest.approx(1.0, abs=0.5)

    unaware = new_fit(backbone, Examples(pairs=pairs), config, 0)
    unaware.effects.gamma.data.zero_()
    unaware.effects.gamma.requires_grad_(False)
    while unaware.step < unaware.steps:
        unaware.advance()
    responses = [response for response, _ in answers]
    rewards, leaked = rewards_of(model, responses), rewards_of(unaware.model, responses)
    assert rank_correlation(rewards, quality) > 0.7
    assert abs(rank_correlation(rewards, length)) < rank_correlation(leaked, length) - 0.2


def test_no_side_is_fitted_where_none_is_known(backbone, answers):
    pairs = [
        Pair(one, other, float(first > second), "amina")
        for (one, first), (other, second) in zip(answers[:60:2], answers[1:60:2], strict=True)
    ]
    run = new_fit(backbone, Examples(pairs=pairs), msgspec.structs.replace(CONFIG, epochs=1), 0)
    while run.step < run.steps:
        run.advance()
    assert not run.effects.side.any()
    assert run.report().raters["amina"].side is None, "not known is not 0"


def test_a_gain_is_shared_by_a_raters_scores_and_pairs(backbone, answers):
    """A rater who scores timidly is known to choose timidly too: the pairs teach with the gain of the scores."""
    answers = answers[:160]
    timid = [Scored(response, 0.4 * reward, "timid") for response, reward in answers]
    bold = [Scored(response, 1.6 * reward, "bold") for response, reward in answers]
    pairs = judged_pairs(backbone, answers, "timid", 0.4, 0.0, 0.0, rounds=1)
    _, report = fitted(backbone, Examples(scores=timid + bold, pairs=pairs), CONFIG, 0)
    ratio = report.raters["bold"].gain / report.raters["timid"].gain
    assert math.log(ratio) == pytest.approx(math.log(4), abs=0.35)
    assert report.raters["timid"].learned > report.raters["bold"].learned


def test_another_attribute_does_not_stand_for_the_overall_quality(backbone, answers):
    """Politeness here is the opposite of quality: its gain turns negative and the reward follows the quality."""
    scores = [Scored(response, reward, "amina") for response, reward in answers]
    polite = [Scored(response, -reward, "amina", "polite") for response, reward in answers]
    config = msgspec.structs.replace(CONFIG, epochs=5)
    _, report = fitted(backbone, Examples(scores=scores + polite), config, 0)
    assert report.raters["amina"].gain > 0
    assert report.raters["amina (polite)"].gain < 0
    assert report.spearman_n == report.held_out / 2, "held-out figures are of overall scores"
    assert report.spearman > 0.85
    assert report.raters["amina (polite)"].agreement.spearman < -0.85


def test_leniency_is_found_and_implied_labels_have_none(backbone, answers):
    """A severe rater calls only the best good; labels that are implied are all bad and must not be explained away."""
    labels = [Labelled(response, reward > 0.8, 1.0, "severe") for response, reward in answers]
    labels += [Labelled(response, reward > -0.8, 1.0, "mild") for response, reward in answers]
    config = msgspec.structs.replace(CONFIG, epochs=4)
    _, report = fitted(backbone, Examples(labels=labels), config, 0)
    assert report.raters["mild"].leniency - report.raters["severe"].leniency > 1.5
    assert report.label_accuracy > 0.8
    assert report.label_auc > 0.75
    implied = [Labelled(response, False) for response, reward in answers if reward < -1]
    model, report = fitted(backbone, Examples(labels=implied), CONFIG, 0)
    assert report.raters == {}
    assert max(rewards_of(model, [label.response for label in implied])) < -1


# --- a fit is a learner ---------------------------------------------------------------------------------------------


def mixed(backbone, answers) -> Examples:
    """Ratings of every kind, by two raters."""
    return Examples(
        scores=[Scored(response, reward, "amina") for response, reward in answers[:40]],
        labels=[Labelled(response, reward > 0, 1.0, "juma") for response, reward in answers[40:80]],
        pairs=judged_pairs(backbone, answers[80:120], "juma", 1.0, 0.5, 0.2, rounds=1),
    )


def weights(fit: fitting.RewardFit) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value for name, module in fit.modules().items() for key, value in module.state_dict().items()
    }


def test_a_fit_that_was_stopped_goes_on_to_the_same_bits(backbone, answers, tmp_path):
    config = msgspec.structs.replace(CONFIG, epochs=2)
    unbroken = new_fit(backbone, mixed(backbone, answers), config, 1)
    assert unbroken.steps % 2 == 0, "two epochs"
    figures = [unbroken.advance().figures for _ in range(unbroken.steps)]
    first = new_fit(backbone, mixed(backbone, answers), config, 1)
    before = [first.advance().figures for _ in range(7)]
    save(tmp_path / "checkpoint", first)
    second = new_fit(backbone, mixed(backbone, answers), config, 1)
    load(tmp_path / "checkpoint", second)
    after = [second.advance().figures for _ in range(second.steps - 7)]
    assert before + after == figures
    ours, theirs = weights(second), weights(unbroken)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert second.report() == unbroken.report()
    assert torch.equal(second.model.precision_factor, unbroken.model.precision_factor)
    json.dumps(dataclasses.asdict(second.report()), allow_nan=False)


def test_long_answers_are_learned_in_parts_with_the_same_result(backbone, answers, monkeypatch):
    """Neither the parts of an update nor what is kept between epochs changes what is learned."""
    examples = mixed(backbone, answers)
    whole, _ = fitted(backbone, examples, msgspec.structs.replace(CONFIG, epochs=2), 1)
    monkeypatch.setattr(fitting, "MOST_TOKENS", 200)
    monkeypatch.setattr(fitting, "TRUNK_CACHE", 1 << 17)
    run = new_fit(backbone, examples, msgspec.structs.replace(CONFIG, epochs=2), 1)
    assert max(len(parts) for parts in run.batches) > 2
    while run.step < run.steps:
        run.advance()
    kept = sum(trunk.numel() * trunk.element_size() for trunk in run.trunks.values())
    assert 0 < kept <= 1 << 17
    assert run.room == (1 << 17) - kept
    responses = [response for response, _ in answers[:60]]
    assert rewards_of(run.model, responses) == pytest.approx(rewards_of(whole, responses), abs=2e-2)


def test_parts_hold_what_fits_and_never_tear_an_example(backbone, answers):
    examples = mixed(backbone, answers).every()
    parts = list(within(backbone, examples, 150))
    assert [example for part in parts for example in part] == examples
    effects = RatingEffects.of(examples, len(examples))
    for part in parts:
        layout = make_batch(backbone, part, effects).layout
        assert layout.real.numel() <= 150 or len(part) == 1
    assert any(len(part) > 1 for part in parts)


def batch_of(backbone, examples):
    effects = RatingEffects([Habit("amina"), Habit("amina", "polite")], 10)
    return make_batch(backbone, examples, effects), effects


def test_a_tie_pulls_rewards_together_and_a_win_pushes_them_apart(backbone, answers):
    (one, _), (other, _) = answers[:2]
    for wins, expected in ((0.5, 0.0), (1.0, 1.0), (0.0, -1.0)):
        batch, effects = batch_of(backbone, [Pair(one, other, wins)])
        rewards = torch.zeros(2, requires_grad=True)
        batch_loss(rewards, batch, effects, centring=0.0).backward()
        downhill = -rewards.grad
        assert float(downhill[0] - downhill[1]) == pytest.approx(expected)
    batch, effects = batch_of(backbone, [Pair(one, other, 0.5)])
    rewards = torch.tensor([2.0, -1.0], requires_grad=True)
    batch_loss(rewards, batch, effects, centring=0.0).backward()
    assert rewards.grad[0] > 0 > rewards.grad[1]


def test_the_loss_of_a_batch_is_what_is_written_down(backbone, answers):
    """Squared error, logistic loss, Bradley-Terry with side and length, and centring, summed over the examples."""
    one, two, three = (response for response, _ in answers[:3])
    batch, effects = batch_of(
        backbone,
        [
            Scored(one, 1.5, "amina"),
            Scored(two, -0.5, "amina", "polite"),
            Labelled(two, False, 0.5, "amina"),
            Labelled(three, True),
            Pair(one, three, 1.0, "amina", first_left=False),
            Pair(two, one, 0.0),
        ],
    )
    assert len(batch.layout.mask) == 3, "each response is laid out once"
    with torch.no_grad():
        effects.offset.copy_(torch.tensor([0.25, 0.1]))
        effects.bend.copy_(torch.tensor([math.log(2), -0.7]))
        effects.leniency[0], effects.side[0] = 0.3, 0.4
        effects.gamma.fill_(0.6)
    rewards = torch.tensor([0.5, -1.0, 2.0])  # of the three responses
    tokens = [len(encode(backbone, response)[1]) for response in (one, two, three)]

    def surprise(logit: float) -> float:
        """Minus the log-probability of what happened."""
        return math.log1p(math.exp(-logit))

    expected = (0.25 + 2 * 0.5 - 1.5) ** 2 / 2
    expected += 0.5 * (0.1 + (0.5 - 0.7) * -1.0 + 0.5) ** 2 / 2
    expected += 0.5 * surprise(-(0.3 + 2 * -1.0)) + surprise(2.0)
    expected += surprise(2 * (0.5 - 2.0) - 0.4 + 0.6 * math.log(tokens[0] / tokens[2]))
    expected += surprise(-(-1.0 - 0.5 + 0.6 * math.log(tokens[1] / tokens[0])))
    expected += 0.01 * (2.5**2 + 0.5**2)
    assert batch_loss(rewards, batch, effects, 0.01).item() == pytest.approx(expected, rel=1e-5)
    squares = 0.25**2 + 0.1**2 + math.log(2) ** 2 + 0.7**2 + 0.3**2 + 0.4**2 + 0.6**2
    assert effects.penalty().item() == pytest.approx(PRIOR * squares / 10, rel=1e-5)


def test_normalised_rewards_have_mean_0_and_deviation_1_and_come_back_from_the_file(backbone, answers, tmp_path):
    examples = Examples(scores=[Scored(response, 3 + 2 * reward, "amina") for response, reward in answers[:64]])
    model, _ = fitted(backbone, examples, CONFIG, 0)
    encoded = [encode(backbone, response) for response, _ in answers[64:128]]
    prompts, said = [prompt for prompt, _ in encoded], [said for _, said in encoded]
    model.normalise(prompts, said, ["en"] * 64)
    rewards = model.score_responses(prompts, said, ["en"] * 64)
    assert float(rewards.mean()) == pytest.approx(0, abs=1e-4)
    assert float(rewards.std()) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(
        model.score_responses(prompts, said, ["en"] * 64, batch=5), rewards, rtol=1e-4, atol=1e-4
    )
    model.save(tmp_path / "reward.safetensors", {"examples": 64})
    again = RewardModel(backbone, CONFIG, seed=99)
    assert again.load(tmp_path / "reward.safetensors") == {"examples": 64}
    assert torch.equal(again.score_responses(prompts, said, ["en"] * 64), rewards)
