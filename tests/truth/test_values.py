"""The value in closed form, where what comes of an answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from rated_workspace import LANGUAGES
from tiny_model import CORPUS

from storage.records import Prompt
from trainer.algorithms import maths
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import Rollout, collect_rows
from trainer.algorithms.rounds import Piece
from trainer.algorithms.values import by_prompt, verdict
from trainer.config import RewardConfig
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.policy_config import PpoConfig
from trainer.processes import Processes
from trainer.reward.function import RewardFunctionError
from trainer.reward.model import RewardModel
from trainer.reward.protocol import ConstantReward

CONFIG = PpoConfig(rank=4, batch=32, answers=4, minibatch=16, max_new_tokens=10, learning_rate=1e-9, steps=10)
ALONE = Processes()


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Ten questions cut off at each of five places: enough to tell what a prompt's state is worth."""
    return [
        Prompt(f"p{place} {cut}", text[: len(text) * cut // 5], LANGUAGES[place % len(LANGUAGES)], "")
        for place, text in enumerate(CORPUS)
        for cut in range(1, 6)
    ]


def linear_reward(backbone: Backbone, answers: list[Rollout]) -> RewardModel:
    """A planted direction among the states of answers."""
    model = RewardModel(backbone, RewardConfig(), seed=5)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(6))
    asked, said = [one.prompt_ids for one in answers], [one.completion.token_ids for one in answers]
    model.normalise(asked, said, [one.prompt.language for one in answers])
    return model


def answered(run: Ppo, asked: list[Prompt], first: int) -> list[Rollout]:
    seeds = range(first, first + len(asked))
    return collect_rows(run.backbone.decoder(), run.backbone.tokenizer, asked, run.sampling, seeds)


def explained(run: Ppo, piece: Piece) -> float:
    return float(maths.explained_variance(run.value.foretell(piece), piece.returns, piece.mask))


def test_a_planted_line_through_the_states_so_far_is_found(backbone, prompts):
    """It explains more than nine tenths of what it has not seen, after answers that could be counted."""
    run = Ppo(backbone, ConstantReward(), prompts, CONFIG, seed=1)
    drawn = torch.randn(1 + 2 * 64, generator=torch.Generator().manual_seed(3))
    pieces = [run._prepare([*range(50)], answered(run, prompts, 1000 * number)) for number in range(6)]
    for piece in pieces:
        piece.returns = (piece.states @ drawn) * piece.mask
    before = explained(run, pieces[-1])
    for piece in pieces[:-1]:
        run.value.absorb([piece], ALONE, fresh=False)
    assert before == 0
    assert explained(run, pieces[-1]) > 0.9


def test_rated_answers_teach_it_before_the_first_round(backbone, prompts):
    asker = Ppo(backbone, ConstantReward(), prompts, CONFIG, seed=1)
    rated = [one for number in range(3) for one in answered(asker, prompts, 5000 + 100 * number)]
    reward = linear_reward(backbone, rated)
    before, after = (
        [run.advance().figures["value/explained_variance", None] for _ in range(4)]
        for run in (Ppo(backbone, reward, prompts, CONFIG, 1, rated=known) for known in ([], rated))
    )
    assert before[0] == 0, "nothing was seen yet"
    assert after[0] > 0.3
    assert before[3] > 0.2, "rounds teach it as well"


def test_the_other_answers_to_a_prompt_are_a_comparison_that_it_learns_to_trust(backbone, prompts):
    """Rewards of prompts that nothing in the states tells, and a noise in each answer."""
    generator = torch.Generator().manual_seed(5)
    run = Ppo(backbone, ConstantReward(), prompts, CONFIG, seed=1)
    seen = []
    for number in range(20):
        asked = [prompt for prompt in prompts[(number % 2) * 24 :][:24] for _ in range(4)]
        piece = run._prepare([*range(96)], answered(run, asked, 100 * number))
        level = torch.randn(24, generator=generator).repeat_interleave(4)
        piece.scores = level + 0.5 * torch.randn(96, generator=generator)
        piece.returns = piece.scores[:, None] * piece.mask
        piece.peers = maths.mean_of_others(piece.scores, [row // 4 for row in range(96)])
        seen.append(explained(run, piece))
        run.value.absorb([piece], ALONE, fresh=False)
    # The best that can be: the mean of three others tells 1^2 / (1 + 0.25 / 3) of a level, which is 1 / 1.25 of all.
    assert sum(seen[-5:]) / 5 == pytest.approx(1 / (1 + 0.25 / 3) / 1.25, abs=0.1)


def test_an_adapter_of_its_own_begins_as_the_reward_model(backbone, prompts):
    model = RewardModel(backbone, RewardConfig(kind="adapter", rank=4), seed=5)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(6))
        model.mean.fill_(0.3)
        model.deviation.fill_(2.0)
    run = Ppo(backbone, model, prompts, replace(CONFIG, value_adapter=True), seed=1)
    piece = run._prepare([*range(8)], answered(run, prompts[:8], 0))
    lengths = piece.mask.sum(1)
    whole = [one.prompt_ids + one.completion.token_ids for one in piece.rollouts]
    before_last = run.value.foretell(piece)[range(8), lengths - 1]
    beginnings = [ids[:-1] for ids in whole]
    judged = model.score_responses([ids[:-1] for ids in beginnings], [ids[-1:] for ids in beginnings], ["en"] * 8)
    torch.testing.assert_close(before_last, judged, atol=1e-4, rtol=1e-4)


def test_the_language_of_an_answer_is_no_part_of_what_its_beginning_is_judged_by(backbone, prompts):
    run = Ppo(backbone, ConstantReward(), prompts, CONFIG, seed=1)
    model = linear_reward(backbone, answered(run, prompts[:8], 0))
    found = []
    for weight in (0.0, 100.0):
        with torch.no_grad():
            model.head.weight[-1] = weight
        asked = Ppo(backbone, model, prompts, CONFIG, seed=1)
        found.append(asked._prepare([*range(8)], answered(asked, prompts[:8], 0)).states)
    assert torch.equal(*found)


def test_rated_answers_come_in_runs_that_keep_prompts_together(backbone, prompts):
    run = Ppo(backbone, ConstantReward(), prompts, CONFIG, seed=1)
    rated = answered(run, [prompt for prompt in prompts[:7] for _ in range(3)], 0)
    runs = list(by_prompt(rated, 6, seed=0))
    assert sorted(map(len, runs)) == [3, 6, 6, 6]
    assert sum(len({one.prompt.id for one in part}) for part in runs) == 7
    uneven = list(by_prompt([*rated, *answered(run, [prompts[0]] * 14, 100)], 6, seed=0))
    assert sum(map(len, uneven)) == 35
    assert max(map(len, uneven)) == 6, "one prompt with many answers does not make a run that memory was not asked for"


def test_a_reward_that_fails_among_rated_answers_leaves_none_to_be_learned_twice(backbone, prompts, monkeypatch):
    reward = ConstantReward()
    asker = Ppo(backbone, reward, prompts, CONFIG, seed=1)
    rated = answered(asker, prompts, 0)
    unbroken, broken = (Ppo(backbone, reward, prompts, CONFIG, 1, rated=rated) for _ in range(2))
    unbroken.advance()
    calls, score = [], reward.score

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:  # two minibatches, one run of rated answers, and then
            raise RewardFunctionError("it failed")
        return score(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(reward, "score", failing)
        with pytest.raises(RewardFunctionError):
            broken.advance()
    broken.advance()
    torch.testing.assert_close(broken.value.gram, unbroken.value.gram, rtol=0, atol=0)
    assert unbroken.value.gram.abs().max() > 0


def test_a_run_says_when_its_value_explained_little():
    assert "rloo" in verdict([0.9, *[0.1] * 10])
    assert verdict([0.0, *[0.3] * 10]) is None
    assert verdict([None, None]) is None
    assert verdict([]) is None
    assert "explained 0%" in verdict([-0.5])
