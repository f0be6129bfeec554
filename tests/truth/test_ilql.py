"""ILQL: its decoder draws from `log pi + beta (Q - V)`, and what it learned is what is served."""

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
from storage.records import Sampling
from trainer.algorithms.ilql import Ilql
from trainer.algorithms.q_values import DRAWS, States, token_losses
from trainer.algorithms.supervised import Course, Row
from trainer.checkpoints import load, save
from trainer.outcomes import Outcome
from trainer.policy.adapters import CONFIG_NAME, FILE_NAME, HEAD, Adapter, read_adapter
from trainer.policy.backbone import Backbone
from trainer.policy.decoding import Decoder
from trainer.policy.models import ModelFolder, weight_files
from trainer.policy.transformers_network import TransformersNetwork
from trainer.policy.weights import Weights
from trainer.policy_config import Tuning
from trainer.supervised_config import IlqlConfig

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


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
