"""What a run foretold, kept and read again: the same values, and advantages that sum to what came above the first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fixed_answers import ANSWERS, finished, prompt_in, written
from msgspec.structs import replace
from tiny_model import CORPUS

from storage.errors import WorkbenchError
from storage.records import Prompt
from trainer.algorithms import critics
from trainer.algorithms.critics import Critic, foretold
from trainer.algorithms.ilql import Ilql
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import collect_rows
from trainer.config import IlqlConfig, PpoConfig, RewardConfig
from trainer.outcomes import Outcome
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.reward.model import RewardModel

CONFIG = PpoConfig(rank=4, batch=8, answers=2, minibatch=4, max_new_tokens=8, steps=3)
PROMPTS = [Prompt(f"p{place}", text, "en", "") for place, text in enumerate(CORPUS)]


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


def planted(backbone: Backbone) -> RewardModel:
    model = RewardModel(backbone, RewardConfig(), seed=5)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(6))
    return model


def kept(critic: Critic | None, folder: Path) -> Critic:
    assert critic is not None
    critic.write(folder)
    found = Critic.read(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("adapter", [False, True])
def test_a_value_foretells_as_it_did_in_its_run_and_advantages_sum_to_what_came(backbone, tmp_path, adapter):
    reward = planted(backbone)
    run = Ppo(backbone, reward, PROMPTS, replace(CONFIG, value_adapter=adapter), seed=3)
    for _ in range(3):
        run.advance()
    critic = kept(critics.of_ppo(run), tmp_path)
    answers = collect_rows(backbone.decoder(), backbone.tokenizer, PROMPTS[:4], run.sampling, range(4))
    for answer in answers:
        asked, said = answer.prompt_ids, answer.completion.token_ids
        found = foretold(critic, backbone, None, reward, answer.prompt, asked, said)
        own = run.value.foretell(run._unsampled([answer]))[0, : len(said)]
        torch.testing.assert_close(torch.tensor(found.values), own)
        came = float(reward.score_responses([asked], [said], ["en"])[0])
        assert sum(found.advantages) == pytest.approx(came - found.values[0], abs=1e-4)
    with pytest.raises(WorkbenchError, match="reward model that its run learned from"):
        foretold(critic, backbone, None, None, PROMPTS[0], asked, said)


def test_what_compares_answers_has_no_value(backbone):
    assert critics.of_ppo(Ppo(backbone, planted(backbone), PROMPTS, replace(CONFIG, advantage="rloo"), seed=3)) is None


def test_ilql_says_q_less_v_of_each_token_as_it_does_in_its_run(backbone, tmp_path):
    found = [Outcome(written(prompt_in("en"), text), value, 1) for value, text in enumerate(ANSWERS)]
    config = IlqlConfig(rank=4, head_rank=4, minimum=4, steps=3, updates=20, held_out=0.0, batch=4)
    run = Ilql(backbone, found, config, seed=1)
    finished(run)
    critic = kept(critics.of_ilql(run), tmp_path)
    decoder = backbone.decoder(run.result())
    for row in run.course.learned:
        own = foretold(critic, backbone, decoder, None, prompt_in("en"), list(row.prompt), list(row.response))
        places, _ = run.states.places([row])
        hidden = run.states.hidden[places]
        said = backbone.network.head.weight[run.states.tokens[places, None]]
        values = run.value(hidden)
        torch.testing.assert_close(torch.tensor(own.values), values.detach(), atol=1e-4, rtol=1e-4)
        gained = run.targets(hidden, said).mean(0)[:, 0] - values
        torch.testing.assert_close(torch.tensor(own.advantages), gained.detach(), atol=1e-4, rtol=1e-4)
    assert max(map(abs, own.advantages)) > 1e-3, "it has learned something"
