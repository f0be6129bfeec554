"""ILQL: its losses find the optimum where it can be computed, and its decoder draws from `log pi + beta (Q - V)`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from architectures import make_model, reference_logits, reference_model, tokens
from fixed_answers import (
    ANSWERS,
    advance,
    assert_resumes_exactly,
    finished,
    log_likelihood,
    prompt_in,
    state_of,
    written,
)
from msgspec.structs import replace
from torch import Tensor

from storage.errors import UsageError
from storage.records import Prompt, Sampling
from trainer.algorithms import maths
from trainer.algorithms.ilql import Ilql, relative_outcomes, within_prompts
from trainer.algorithms.q_values import DRAWS, States, follow, lambda_returns, token_losses
from trainer.algorithms.supervised import Course, Row
from trainer.checkpoints import load, save
from trainer.config import IlqlConfig, Tuning
from trainer.outcomes import Outcome
from trainer.policy.adapters import CONFIG_NAME, FILE_NAME, HEAD, Adapter, read_adapter
from trainer.policy.backbone import Backbone
from trainer.policy.decoding import Decoder
from trainer.policy.models import ModelFolder, weight_files
from trainer.policy.transformers_network import TransformersNetwork
from trainer.policy.weights import Weights

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


# --- tables: the very losses of training, where the answer can be computed -------------------------------------------


class Table(torch.nn.Module):
    """Q of two heads, (2, states, actions), as a module, so that the targets follow as they do in training."""

    def __init__(self, states: int, actions: int) -> None:
        super().__init__()
        self.q = torch.nn.Parameter(torch.zeros(2, states, actions))


def learn(
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    tau: float,
    value_lam: float = 0.0,
    steps: int = 1500,
) -> tuple[Tensor, Tensor]:
    """Q (states, actions) and V (states,) learned from logged episodes, (B, R) each."""
    online, targets = (Table(int(states.max()) + 1, int(actions.max()) + 1) for _ in range(2))
    values = torch.zeros(int(states.max()) + 1, requires_grad=True)
    optimizer = torch.optim.Adam([online.q, values], lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        said, judged = online.q[:, states, actions], targets.q[:, states, actions]
        losses = token_losses(said, judged, values[states], rewards, mask, gamma, tau, value_lam=value_lam)
        optimizer.zero_grad()
        maths.masked_mean(losses.q + losses.value, mask).backward()
        optimizer.step()
        schedule.step()
        follow(targets, online, 0.1)
    return targets.q.detach().mean(0), values.detach()


def padded(episodes: list[list[tuple[int, int, float]]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Episodes of (state, action, reward) as (B, R) tensors and mask; padding holds rewards that must not count."""
    longest = max(map(len, episodes))
    rows = [[*episode, *[(0, 0, 9.0)] * (longest - len(episode))] for episode in episodes]
    mask = torch.tensor([[place < len(episode) for place in range(longest)] for episode in episodes])
    table = torch.tensor(rows)
    return table[..., 0].long(), table[..., 1].long(), table[..., 2], mask


STATES, GAMMA = 5, 0.9


def move(state: int, action: int) -> tuple[int | None, float]:
    """A chain: left or right; a small prize at the left end, a large one at the right end."""
    following = state + (1 if action else -1)
    if following < 0:
        return None, 0.7
    return (None, 1.0) if following == STATES else (following, 0.0)


def wanderings(count: int) -> list[list[tuple[int, int, float]]]:
    """Episodes of somebody who goes left or right at random, from anywhere."""
    generator = torch.Generator().manual_seed(1)
    episodes = []
    for number in range(count):
        state: int | None = number % STATES
        episode = []
        while state is not None:
            action = int(torch.randint(2, (), generator=generator))
            following, reward = move(state, action)
            episode.append((state, action, reward))
            state = following
        episodes.append(episode)
    return episodes


def value_iteration() -> Tensor:
    """The exact Q of the chain, (states, actions)."""
    q = torch.zeros(STATES, 2)
    for _ in range(200):
        for state in range(STATES):
            for action in range(2):
                following, reward = move(state, action)
                q[state, action] = reward + (0.0 if following is None else GAMMA * float(q[following].max()))
    return q


def test_on_a_chain_ilql_equals_value_iteration():
    exact = value_iteration()
    assert exact.argmax(1).tolist() == [0, 1, 1, 1, 1], "one end is better in some states and the other in others"
    episodes = padded(wanderings(60))
    q, values = learn(*episodes, gamma=GAMMA, tau=0.998)
    torch.testing.assert_close(q, exact, rtol=0, atol=0.01)
    torch.testing.assert_close(values, exact.amax(1), rtol=0, atol=0.01)
    timid, _ = learn(*episodes, gamma=GAMMA, tau=0.5)
    assert (timid - exact).abs().max() > 0.1, "the middle expectile values the wanderer, not the best way"


def test_the_parts_of_different_episodes_are_stitched_together():
    """Start 0, crossing 1, gate 2. Nobody went from the start through the crossing to the good end.

    Action 1 at the start leads to the crossing, action 0 ends with a little; at the crossing and at the gate, action 1
    goes on towards the good end. Those who started at the start all turned off later.
    """
    short = [(0, 0, 0.3)]
    off_at_crossing = [(0, 1, 0.0), (1, 0, -1.0)]
    off_at_gate = [(1, 1, 0.0), (2, 0, -1.0)]
    home = [(2, 1, 1.0)]
    episodes = [short] * 6 + [off_at_crossing] * 6 + [off_at_gate] * 6 + [home] * 2
    ends = {(0, 0): 0.3, (1, 0): -1.0, (2, 0): -1.0, (2, 1): 1.0}
    assert max(sum(reward for *_, reward in episode) for episode in episodes if episode[0][0] == 0) == 0.3

    def expected(policy: Tensor, state: int = 0) -> float:
        worth = [ends.get((state, action)) for action in range(2)]
        found = [expected(policy, state + 1) if value is None else value for value in worth]
        return float(policy[state, 0]) * found[0] + float(policy[state, 1]) * found[1]

    states, actions, rewards, mask = padded(episodes)
    counts = torch.zeros(3, 2)
    counts.index_put_((states[mask], actions[mask]), torch.ones(int(mask.sum())), accumulate=True)
    cloned = counts / counts.sum(1, keepdim=True)
    q, values = learn(states, actions, rewards, mask, gamma=0.99, tau=0.95)
    drawn = (cloned.log() + 8 * (q - values[:, None])).softmax(1)
    assert expected(cloned) < 0.1
    assert expected(drawn) > 0.9, "better than cloning, and than the best episode from the start"


def test_nothing_outside_the_mask_counts_and_nothing_flows_into_what_is_compared_with():
    generator = torch.Generator().manual_seed(2)
    q, target = (torch.randn(2, 3, 4, generator=generator, requires_grad=True) for _ in range(2))
    values = torch.randn(3, 4, generator=generator, requires_grad=True)
    rewards = torch.randn(3, 4, generator=generator)
    mask = torch.arange(4) < torch.tensor([[4], [2], [1]])
    losses = token_losses(q, target, values, rewards, mask, 0.9, 0.7)
    for row in range(3):
        for place in range(4):
            if not mask[row, place]:
                assert losses.q[row, place] == losses.value[row, place] == 0
                continue
            following = float(values[row, place + 1]) if place < 3 and mask[row, place + 1] else 0.0
            errors = [(float(rewards[row, place]) + 0.9 * following - float(head[row, place])) ** 2 for head in q]
            assert float(losses.q[row, place]) == pytest.approx(sum(errors) / 2, abs=1e-5)
            gap = min(float(head[row, place]) for head in target) - float(values[row, place])
            weight = 0.7 if gap > 0 else 0.3
            assert float(losses.value[row, place]) == pytest.approx(weight * gap**2, abs=1e-5)
    losses.q.sum().backward(retain_graph=True)
    assert values.grad is None
    losses.value.sum().backward()
    assert target.grad is None
    assert not values.grad[~mask].any()


def episodes_of(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q and rewards (B, R) at random, and a mask; what stands outside the mask must not count."""
    generator = torch.Generator().manual_seed(seed)
    q, rewards = (torch.randn(4, 6, generator=generator) for _ in range(2))
    return q, rewards, torch.arange(6) < torch.tensor([[6], [4], [1], [2]])


def test_with_lambda_1_returns_are_the_discounted_rewards_that_followed():
    q, rewards, mask = episodes_of(5)
    found = lambda_returns(q, rewards, mask, 0.9, 1.0)
    for row, length in enumerate(mask.sum(1).tolist()):
        for place in range(length):
            brute = sum(0.9 ** (later - place) * float(rewards[row, later]) for later in range(place, length))
            assert float(found[row, place]) == pytest.approx(brute, abs=1e-5)
    assert not found[~mask].any()


def test_q_learns_from_one_step_with_lambda_0_and_from_what_came_with_lambda_1():
    q, rewards, mask = episodes_of(6)
    assert torch.equal(lambda_returns(q, rewards, mask, 0.9, 0.0), q * mask)
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(7))
    losses = token_losses(q[None], q[None], values, rewards, mask, 0.9, 0.7, 0.0)
    for row, length in enumerate(mask.sum(1).tolist()):
        for place in range(length):
            following = float(values[row, place + 1]) if place + 1 < length else 0.0
            error = float(rewards[row, place]) + 0.9 * following - float(q[row, place])
            assert float(losses.q[row, place]) == pytest.approx(error**2, abs=1e-5)
    monte_carlo = token_losses(q[None], q[None], values, rewards, mask, 0.9, 0.7, 1.0)
    returns = lambda_returns(q, rewards, mask, 0.9, 1.0)
    torch.testing.assert_close(monte_carlo.q, (returns - q * mask).square(), **CLOSE)


def test_between_them_a_return_is_the_weighted_sum_of_all_horizons():
    q, rewards, mask = episodes_of(8)
    gamma, lam = 0.9, 0.6
    found = lambda_returns(q, rewards, mask, gamma, lam)
    for row, length in enumerate(mask.sum(1).tolist()):
        for place in range(length):
            total = 0.0
            for end in range(place, length + 1):  # bootstrapped from Q at `end`, or never
                so_far = sum(gamma ** (at - place) * float(rewards[row, at]) for at in range(place, end))
                last = gamma ** (end - place) * float(q[row, end]) if end < length else 0.0
                weight = lam ** (end - place) * ((1 - lam) if end < length else 1.0)
                total += weight * (so_far + last)
            assert float(found[row, place]) == pytest.approx(total, abs=1e-5)


def test_on_a_chain_values_of_what_came_are_those_of_the_wanderer():
    """With value_lam 1 and the middle expectile, V is the mean of what came of a state, and Q looks one step ahead."""
    states, actions, rewards, mask = padded(wanderings(60))
    q, values = learn(states, actions, rewards, mask, gamma=GAMMA, tau=0.5, value_lam=1.0)
    came = lambda_returns(torch.zeros_like(rewards), rewards, mask, GAMMA, 1.0)
    for state in range(STATES):
        assert float(values[state]) == pytest.approx(float(came[mask & (states == state)].mean()), abs=0.02)
        for action in range(2):
            following, reward = move(state, action)
            expected = reward + (0.0 if following is None else GAMMA * float(values[following]))
            assert float(q[state, action]) == pytest.approx(expected, abs=0.02)


def test_outcomes_are_differences_within_prompts():
    def rated(language: str, values: list[float], name: str) -> list[Outcome]:
        prompt = replace_id(prompt_in(language), name)
        return [Outcome(written(prompt, f"{name} {place}"), value, 1) for place, value in enumerate(values)]

    found = [*rated("en", [1.0, 3.0], "a"), *rated("en", [11.0, 13.0], "b"), *rated("es", [5.0], "c")]
    one, two, three, four, alone = relative_outcomes(found)
    assert (one, two) == pytest.approx((three, four)), "how good a prompt's answers are on the whole does not count"
    assert one == pytest.approx(-two)
    assert alone == 0
    values = torch.tensor([one, two, three, four, alone])
    assert float(values.square().mean()) == pytest.approx(1)
    assert relative_outcomes(rated("en", [2.0, 2.0], "a")) == [0.0, 0.0]


def replace_id(prompt: Prompt, name: str) -> Prompt:
    return Prompt(name, f"{prompt.text} {name}", prompt.language, "")


def test_within_prompts_only_differences_to_the_same_prompt_are_correlated():
    pairs = [("a", 1.0, 10.0), ("a", 2.0, 20.0), ("b", 50.0, -7.0), ("b", 51.0, 3.0)]
    assert within_prompts(pairs) == pytest.approx(1)
    assert math.isnan(within_prompts([("a", 1.0, 2.0), ("b", 3.0, 4.0)]))


# --- the decoder -----------------------------------------------------------------------------------------------------


def tied_copy(folder: Path, tiny_model: Path) -> Path:
    """The tiny model with its output head tied to its embedding, and no weight of its own for it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, tie_word_embeddings=True)
    model.get_input_embeddings().weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    assert HEAD not in Weights.open(folder, None).names()
    return folder


def backbone_of(folder: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", folder, "digest"), CPU, torch.float32)


@pytest.fixture(scope="module", params=["untied", "tied"])
def backbone(request, tiny_model, tmp_path_factory) -> Backbone:
    tied = request.param == "tied"
    return backbone_of(tied_copy(tmp_path_factory.mktemp("models") / "tied", tiny_model) if tied else tiny_model)


CONFIG = IlqlConfig(
    rank=4, head_rank=3, minimum=4, batch=8, steps=60, most_repeats=1000, learning_rate=5e-3, head_learning_rate=2e-2,
    held_out=0.3, beta=2.0, updates=5, language_model=1.0,
)  # fmt: skip


def planted(languages: tuple[str, ...] = ("en", "zh", "sw", "ar")) -> list[Outcome]:
    """Every answer once in every language; which is good differs from language to language."""
    return [
        Outcome(written(prompt_in(language), text), 2.0 if turn == place else -0.5, 1)
        for place, language in enumerate(languages)
        for turn, text in enumerate(ANSWERS)
    ]


@pytest.fixture
def stirred(backbone) -> Ilql:
    """A learner in which every number was moved at random."""
    learner = Ilql(backbone, planted(), CONFIG, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for module in learner.modules().values():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return learner


def by_hand(learner: Ilql, ids: list[int]) -> Tensor:
    """(length, vocabulary): `log softmax(log pi + beta (Q - V))` after each token, from the definitions."""
    backbone = learner.backbone
    with torch.no_grad():
        hidden = backbone.hidden(backbone.layout([ids[:1]], [ids[1:]]), learner.policy)
        everything = backbone.network.head_weight
        log_pi = (hidden @ everything.T).log_softmax(-1)
        heads = learner.targets
        q = heads(hidden, everything.expand(len(hidden), *everything.shape)).mean(0)
        value = learner.value(hidden)[:, None]
        assert (log_pi.softmax(-1) - (log_pi + learner.config.beta * (q - value)).softmax(-1)).abs().max() > 0.05
        return (log_pi + learner.config.beta * (q - value)).log_softmax(-1)


def test_the_decoder_draws_from_the_policy_shifted_by_the_advantage(stirred, tmp_path):
    backbone = stirred.backbone
    file = stirred.result().write(tmp_path, "tiny")
    base = backbone.decoder()
    prompts = [backbone.tokenizer.encode_prompt(prompt_in(language).text) for language in ("fr", "hi", "de")]
    sampling = Sampling(temperature=1.0, max_new_tokens=12)
    for decoder in (base.with_version(stirred.result()), base.with_version(file)):
        answers = decoder.generate(prompts, sampling, [1, 2, 3], backbone.tokenizer.eos_ids)
        for prompt, answer in zip(prompts, answers, strict=True):
            expected = by_hand(stirred, [*prompt, *answer.token_ids])[len(prompt) - 1 : -1]
            chosen = expected.gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(answer.logprobs), chosen, **CLOSE)
            with torch.inference_mode():
                logits, _ = decoder.network.prefill([prompt], torch.tensor([0]), len(prompt) + 1)
            torch.testing.assert_close(logits[0].log_softmax(-1), expected[0], **CLOSE)


def test_versions_before_and_after_share_what_is_the_same_and_nothing_else(stirred):
    backbone = stirred.backbone
    ids = backbone.tokenizer.encode_prompt(prompt_in("es").text)
    plain = Adapter({name: pair for name, pair in stirred.result().pairs.items() if name != HEAD}, stirred.policy.scale)

    def logits(decoder: Decoder) -> Tensor:
        with torch.inference_mode():
            return decoder.network.prefill([ids], torch.tensor([0]), len(ids) + 1)[0]

    base = backbone.decoder()
    shifted = base.with_version(stirred.result())
    assert shifted.network.embedding is base.network.embedding, "the embedding stays untouched"
    assert shifted.network.output is not base.network.output
    after = shifted.with_version(plain)
    assert after.network.output is base.network.output
    assert torch.equal(logits(after), logits(backbone.decoder(plain)))
    assert torch.equal(logits(shifted.with_version(None)), logits(base))
    assert not torch.equal(logits(shifted), logits(after))


def test_the_file_comes_back_as_it_was_and_peft_reads_it(stirred, tmp_path):
    from peft import PeftModel

    adapter = stirred.result()
    ranks = {pair[0].shape[0] for pair in adapter.pairs.values()}
    assert ranks == {CONFIG.rank, 2 * CONFIG.head_rank}
    file = adapter.write(tmp_path, "tiny")
    assert file.name == FILE_NAME
    read = read_adapter(file)
    assert read.scale == adapter.scale
    assert read.pairs.keys() == adapter.pairs.keys()
    for name, pair in adapter.pairs.items():
        assert all(torch.equal(one, other) for one, other in zip(pair, read.pairs[name], strict=True))
    assert json.loads((tmp_path / CONFIG_NAME).read_text())["rank_pattern"] == {"lm_head": 2 * CONFIG.head_rank}
    ids = stirred.backbone.tokenizer.encode_prompt(prompt_in("hi").text)
    with torch.inference_mode():
        model = PeftModel.from_pretrained(reference_model(stirred.backbone.folder.path), tmp_path)
        torch.testing.assert_close(reference_logits(model, ids).log_softmax(-1), by_hand(stirred, ids), **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "gemma"])
def test_a_tied_head_is_served_by_other_architectures_too(name, tmp_path):
    folder = make_model(tmp_path / name, name)
    model = reference_model(folder)
    embedding = model.get_input_embeddings().weight.detach()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(3, embedding.shape[1], generator=generator), torch.randn(len(embedding), 3)
    untouched = TransformersNetwork.load(folder, Weights(weight_files(folder)), CPU, torch.float32)
    served = untouched.adapted(Adapter({HEAD: (down, up)}, 0.5))
    (ids,) = tokens(1, 9)
    with torch.inference_mode():
        hidden = model.base_model(torch.tensor([ids])).last_hidden_state[0]
        expected = hidden @ (embedding + 0.5 * up @ down).T
        found, _ = served.prefill([ids], torch.tensor([0]), 10)
    torch.testing.assert_close(found[0], expected[-1], **CLOSE)
    assert torch.equal(served.model.get_input_embeddings().weight, embedding)


# --- the learner -----------------------------------------------------------------------------------------------------


def test_after_learning_the_best_answer_is_given_where_imitation_gives_all_alike(tiny_model):
    backbone = backbone_of(tiny_model)
    outcomes = planted(("en", "zh", "sw"))
    config = replace(
        CONFIG, held_out=0.0, steps=300, learning_rate=1e-3, head_rank=16, conservative=0.1, batch=12, lam=1.0
    )  # fmt: skip
    learner = Ilql(backbone, outcomes, config, seed=1)
    figures = finished(learner)
    assert figures["loss/q", None] < 0.05
    adapter = learner.result()
    cloned = Adapter({name: pair for name, pair in adapter.pairs.items() if name != HEAD}, adapter.scale)
    before, after = (backbone.decoder(version) for version in (cloned, adapter))
    for outcome in outcomes:
        prompt = backbone.tokenizer.encode_prompt(outcome.response.prompt.text)
        said = backbone.tokenizer.encode_response(outcome.response.text)
        assert 0.15 < math.exp(log_likelihood(before, prompt, said)) < 0.35
        probability = math.exp(log_likelihood(after, prompt, said))
        assert probability > 0.8 if outcome.value > 0 else probability < 0.1


def test_the_figures_tell_each_loss_and_the_languages(backbone):
    learner = Ilql(backbone, planted(), replace(CONFIG, steps=4), seed=1)
    assert learner.steps == 4 + 4, "imitation, then the heads"
    found = advance(learner, learner.steps)
    assert found[0]["data/examples", None] == 4 * (4 - 2)
    assert found[0]["data/held_out", None] == 4 * 2
    for figures in found[:4]:
        assert figures["loss/language_model", None] > 0
        assert ("loss/q", None) not in figures
    for figures in (found[4], found[-1]):
        assert figures["loss/train", None] == pytest.approx(
            figures["loss/q", None] + figures["loss/value", None]
            + CONFIG.conservative * figures["loss/conservative", None]
        )  # fmt: skip
        assert figures["policy/skipped", None] == 0
        assert figures["q/advantage_sd", None] > 0
        assert -1 <= figures["q/held_out_correlation", None] <= 1
        held_out = {language for name, language in figures if name == "loss/held_out_q" and language}
        learned = {language for name, language in figures if name == "loss/q" and language}
        assert len(held_out) == 2
        assert not held_out & learned


def test_states_that_were_kept_give_the_losses_of_fresh_ones(stirred):
    """One answer at a time through the model, against all of them computed at once."""
    backbone, heads, value = stirred.backbone, stirred.heads, stirred.value
    for row in stirred.course.learned:
        losses, mask = stirred.losses([row])
        assert mask.all()
        alone = States.of(backbone, [row], stirred.policy, 0)
        embeddings = backbone.network.head_weight[alone.tokens][:, None]
        with torch.no_grad():
            q, target_q = (one(alone.hidden, embeddings)[..., 0] for one in (heads, stirred.targets))
            values = value(alone.hidden)
        rewards = torch.zeros(len(values))
        rewards[-1] = row.outcome
        config = stirred.config
        fresh = token_losses(
            q[:, None],
            target_q[:, None],
            values[None],
            rewards[None],
            mask,
            config.gamma,
            config.tau,
            config.lam,
            config.value_lam,
        )
        torch.testing.assert_close(losses["loss/q"], fresh.q, **CLOSE)
        torch.testing.assert_close(losses["loss/value"], fresh.value, **CLOSE)
    together = stirred.losses(stirred.course.learned)[0]["loss/q"]
    first = stirred.losses(stirred.course.learned[:1])[0]["loss/q"]
    torch.testing.assert_close(together[:1, : first.shape[1]], first, **CLOSE)


def test_the_drawn_tokens_are_those_that_the_model_would_say(backbone):
    learner = Ilql(backbone, planted(), CONFIG, seed=1)
    row = learner.course.learned[0]
    found = [States.of(backbone, [row], None, seed) for seed in range(300)]
    drawn = torch.cat([one.drawn[0] for one in found])
    with torch.no_grad():
        exact = backbone.network.head.logits(found[0].hidden[:1]).softmax(-1)[0]
    assert len(drawn) == 300 * DRAWS
    counts, expected = torch.bincount(drawn, minlength=len(exact)).float(), exact * len(drawn)
    often = expected > 5
    deviations = (expected * (1 - exact)).sqrt()
    assert often.any()
    assert ((counts - expected).abs() <= 4.5 * deviations)[often].all()
    rare = float(expected[~often].sum())
    assert abs(float(counts[~often].sum()) - rare) <= 4.5 * rare**0.5


def test_without_outcomes_q_is_nothing_and_the_policy_what_it_was(backbone):
    learner = Ilql(backbone, planted(), replace(CONFIG, steps=10, language_model=0.0), seed=1)
    learner.course = replace_outcomes(learner, 0.0)
    for number, figures in enumerate(advance(learner, learner.steps)):
        assert figures["loss/train", None] == 0, number
    prompt = backbone.tokenizer.encode_prompt(prompt_in("en").text)
    with torch.inference_mode():
        before, after = (
            decoder.network.prefill([prompt], torch.tensor([0]), len(prompt) + 1)[0]
            for decoder in (backbone.decoder(), backbone.decoder(learner.result()))
        )
    assert torch.equal(before, after)


def replace_outcomes(learner: Ilql, outcome: float) -> Course:
    """The course of a learner whose answers all came to the same."""

    def alike(rows: list[Row]) -> list[Row]:
        return [dataclasses.replace(row, outcome=outcome) for row in rows]

    learner.batches = [alike(batch) for batch in learner.batches]
    course = learner.course
    return dataclasses.replace(course, learned=alike(course.learned), held_out=alike(course.held_out))


@pytest.mark.parametrize("imitating", [0.0, 1.0], ids=["heads alone", "imitation first"])
def test_going_on_from_a_checkpoint_is_going_on(backbone, tmp_path, imitating):
    config = replace(CONFIG, steps=6, language_model=imitating)
    assert_resumes_exactly(lambda: Ilql(backbone, planted(), config, seed=1), tmp_path / "checkpoint")


def test_a_checkpoint_from_within_imitation_is_gone_on_from_too(backbone, tmp_path):
    def new() -> Ilql:
        return Ilql(backbone, planted(), replace(CONFIG, steps=4), seed=1)

    unbroken, first, second = new(), new(), new()
    figures = advance(unbroken, 6)
    before = advance(first, 2)
    save(tmp_path / "checkpoint", first)
    load(tmp_path / "checkpoint", second)
    assert before + advance(second, 4) == figures
    ours, theirs = state_of(second), state_of(unbroken)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("seed", range(10))
def test_ten_seeds_of_ten_stay_within_bounds(backbone, seed):
    config = replace(IlqlConfig(), minimum=4, batch=8, steps=20, rank=4)
    for figures in advance(Ilql(backbone, planted(), config, seed), 20):
        assert figures["policy/skipped", None] == 0
        assert figures["loss/train", None] < 4, "outcomes have a deviation of 1"
        assert figures.get(("q/advantage_sd", None), 0.0) < 1


def test_nothing_can_go_on_from_an_ilql_version_but_ilql_from_others(backbone):
    learner = Ilql(backbone, planted(), CONFIG, seed=1)
    with pytest.raises(UsageError, match="learned with ILQL") as caught:
        backbone.new_adapter(CONFIG, 1, upper=False).load(learner.result())
    assert "publish its parent" in caught.value.hint
    parent = backbone.new_adapter(CONFIG, 9, upper=False).snapshot()
    child = Ilql(backbone, planted(), CONFIG, 1, parent)
    assert all(torch.equal(child.result().pairs[name][0], down) for name, (down, _) in parent.pairs.items())


def test_too_few_outcomes_and_full_tuning_are_refused(backbone):
    with pytest.raises(UsageError, match="16 rated answers; 20 are needed") as caught:
        Ilql(backbone, planted(), replace(CONFIG, minimum=20), seed=1)
    assert "rate 4 more answers" in caught.value.hint
    with pytest.raises(UsageError, match="low rank") as caught:
        Ilql(backbone, planted(), replace(CONFIG, tuning=Tuning.FULL), seed=1)
    assert "--tuning lora" in caught.value.hint
