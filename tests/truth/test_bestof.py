"""Best-of-n distillation: whom it chooses, how far that goes, and that what is learned has that distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from fixed_answers import QUESTIONS, advance, assert_resumes_exactly, prompt_in
from msgspec.structs import replace

from storage.errors import UsageError
from storage.records import Prompt
from trainer.algorithms.rollouts import Rollout
from trainer.config import build
from trainer.methods.bestof import METHOD, BestOf, BestOfConfig, best, kl_bound
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.policy_config import Tuning
from trainer.processes import Processes
from trainer.reward.protocol import Scores

CONFIG = BestOfConfig(rank=4, answers=4, prompts=64, epochs=2, batch=8, max_new_tokens=4, learning_rate=2e-3)
ARMS = 12


@pytest.fixture(scope="module")
def backbone(tiny_model) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


def best_of_n(chances: torch.Tensor, rewards: torch.Tensor, n: int) -> torch.Tensor:
    """How likely each answer is the best of n, exactly; no two rewards are equal."""
    order = rewards.argsort()
    below = torch.cat([torch.zeros(1, dtype=chances.dtype), chances[order].cumsum(0)]).clamp(max=1)
    found = torch.empty_like(chances)
    found[order] = below[1:] ** n - below[:-1] ** n
    return found


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_the_best_is_chosen_as_often_as_it_should_be(n):
    generator = torch.Generator().manual_seed(n)
    chances = torch.randn(ARMS, generator=generator, dtype=torch.float64).softmax(0)
    rewards = torch.randn(ARMS, generator=generator, dtype=torch.float64)
    draws = 20_000
    said = torch.multinomial(chances, draws * n, replacement=True, generator=generator)
    chosen = said[best(rewards[said].tolist(), n)]
    counts = torch.bincount(chosen, minlength=ARMS) / draws
    exact = best_of_n(chances, rewards, n)
    assert float(exact.sum()) == pytest.approx(1)
    spread = (exact * (1 - exact) / draws).sqrt()
    assert bool(((counts - exact).abs() < 4 * spread + 1e-4).all())


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_the_best_of_n_is_no_farther_than_the_bound_and_as_far_where_every_answer_is_rare(n):
    generator = torch.Generator().manual_seed(7)
    for arms in (3, ARMS, 100_000):
        chances = torch.rand(arms, generator=generator, dtype=torch.float64)
        chances /= chances.sum()
        exact = best_of_n(chances, torch.rand(arms, generator=generator, dtype=torch.float64), n)
        apart = float((exact * (exact / chances).log()).nan_to_num().sum())
        assert apart <= kl_bound(n) + 1e-9
        if arms == 100_000:
            assert apart == pytest.approx(kl_bound(n), abs=0.01)
    assert kl_bound(1) == 0


def test_equal_scores_keep_the_first():
    assert best([1.0, 1.0, 0.0, 0.0, 2.0, 2.0], 3) == [0, 4]


class ByFirstToken:
    """A reward that is known: a number for each token of the vocabulary, by the first token of the answer."""

    def __init__(self, size: int) -> None:
        self.worth = torch.randn(size, generator=torch.Generator().manual_seed(3))

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        return Scores.certain(self.worth[[one.completion.token_ids[0] for one in rollouts]])


def same_question(count: int) -> list[Prompt]:
    """One question under many keys, so that a round draws the best of n many times."""
    return [Prompt(f"prompt {place:03}", QUESTIONS["es"], "es", "") for place in range(count)]


def first_token(backbone: Backbone, learner: BestOf | None = None) -> torch.Tensor:
    """(vocabulary,) how likely the served model begins its answer with each token, fp64."""
    decoder = backbone.decoder(learner.result() if learner else None)
    asked = backbone.tokenizer.encode_prompt(QUESTIONS["es"])
    with torch.inference_mode():
        logits, _ = decoder.network.prefill([asked], torch.tensor([0]), len(asked) + 1)
    return logits[0].double().softmax(-1)


def test_what_is_learned_has_the_distribution_of_the_best_of_n(backbone):
    config = replace(CONFIG, max_new_tokens=1, prompts=512, answers=4, epochs=4, batch=32, learning_rate=5e-3)
    before = first_token(backbone)
    reward = ByFirstToken(len(before))
    exact = best_of_n(before, reward.worth.double(), 4)
    learner = BestOf(backbone, reward, same_question(512), config, 1)
    figures = learner.advance().figures
    mean = float((exact * reward.worth.double()).sum())
    spread = float((exact * (reward.worth.double() - mean).square()).sum().sqrt()) / math.sqrt(512)
    assert figures["bestof/best", None] == pytest.approx(mean, abs=4 * spread)
    plain = float((before * reward.worth.double()).sum())
    assert figures["objective/scores", None] == pytest.approx(plain, abs=4 / math.sqrt(2048))
    assert figures["objective/kl", None] == pytest.approx(0, abs=1e-4), "the base model is no way from itself"
    assert figures["bestof/kl_bound", None] == pytest.approx(math.log(4) - 0.75)
    advance(learner, learner.steps - 1)
    after = first_token(backbone, learner)
    reached = float((after * reward.worth.double()).sum())
    assert reached - plain == pytest.approx(mean - plain, rel=0.15)


@pytest.mark.parametrize("tuning", Tuning)
def test_rounds_go_on_from_what_was_learned(backbone, tuning):
    config = replace(
        CONFIG, max_new_tokens=1, prompts=128, epochs=3, batch=16, rounds=3, tuning=tuning,
        learning_rate=5e-3 if tuning == Tuning.LORA else 1e-3,
    )  # fmt: skip
    learner = BestOf(backbone, ByFirstToken(len(first_token(backbone))), same_question(128), config, 1)
    assert learner.steps == 3 * learner.each == 3 * 24
    figures = advance(learner, learner.steps)
    told = [one["objective/scores", None] for one in figures if ("objective/scores", None) in one]
    assert len(told) == 3
    assert told[0] < told[1] < told[2]
    moved = [one["objective/kl", None] for one in figures if ("objective/kl", None) in one]
    assert moved[0] < 0.01 < moved[1] < moved[2]


def spoken(count: int = 8) -> list[Prompt]:
    return [prompt_in(language) for language in list(QUESTIONS)[:count]]


def test_the_tokens_that_were_sampled_are_learned_and_the_curves_that_are_drawn_recorded(backbone):
    reward = ByFirstToken(len(first_token(backbone)))
    learner = BestOf(backbone, reward, spoken(), replace(CONFIG, epochs=1), 1)
    report = learner.advance()
    assert isinstance(METHOD.board, tuple)
    assert {(curve.metric, None) for curve in METHOD.board} <= report.figures.keys()
    assert len(report.rollouts) == len(learner.kept) == 8
    assert {row.group for row in learner.kept} == {prompt.id for prompt in spoken()}
    for row, (rollout, score, _) in zip(learner.kept, report.rollouts, strict=True):
        assert row.outcome == pytest.approx(float(reward.worth[row.response[0]]))
        assert row.outcome >= score, "at least as good as the first of its answers"
        assert list(row.prompt) == rollout.prompt_ids


def test_where_there_are_more_prompts_than_a_round_takes_another_part_is_drawn_each(backbone):
    reward = ByFirstToken(len(first_token(backbone)))
    config = replace(CONFIG, prompts=4, rounds=2, epochs=2, batch=8, language_balance=1.0)
    learner = BestOf(backbone, reward, same_question(12), config, 1)
    assert (learner.each, learner.steps) == (1, 2)
    learner.advance()
    first = {row.group for row in learner.kept}
    learner.advance()
    assert not first & {row.group for row in learner.kept}


@pytest.mark.parametrize("rounds", [1, 2])
def test_going_on_from_a_checkpoint_is_going_on(backbone, tmp_path, rounds):
    reward = ByFirstToken(len(first_token(backbone)))
    config = replace(CONFIG, rounds=rounds, epochs=4 if rounds == 1 else 3)
    assert_resumes_exactly(lambda: BestOf(backbone, reward, spoken(), config, 1), tmp_path / "checkpoint")


def test_what_cannot_be_is_refused(backbone):
    with pytest.raises(UsageError, match="9 answers to each of 500 prompts are over 4096 a round"):
        build(BestOfConfig, {"answers": 9, "prompts": 500})
    with pytest.raises(UsageError, match="1 prompt cannot be shared by 2 processes"):
        BestOf(backbone, ByFirstToken(10), same_question(1), CONFIG, 1, processes=Processes(0, 2))
