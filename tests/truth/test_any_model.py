"""Models beyond the llama family train as transformers and peft would train them, and say what was sampled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from architectures import OTHERS, UNTRAINABLE, make_model, reference_logits, reference_model, tokens
from rated_workspace import LANGUAGES
from tiny_model import CORPUS

from storage.errors import UsageError
from storage.records import Prompt, Sampling
from trainer.algorithms.ppo import Ppo
from trainer.config import RewardConfig
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.backbone import Backbone
from trainer.policy.chat import PLAIN_TEMPLATE
from trainer.policy.decoding import Decoder
from trainer.policy.layout import TokenLayout
from trainer.policy.lora import LoraAdapter
from trainer.policy.models import ModelFolder
from trainer.policy.trainable_transformers import TrainableTransformers
from trainer.policy_config import PpoConfig
from trainer.reward.model import RewardModel

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
TEMPERATURE = 0.7


@pytest.fixture(params=OTHERS)
def folder(request, model_of) -> Path:
    """The folder of each architecture that the fast path leaves to transformers."""
    return model_of(request.param)


@pytest.fixture
def network(folder) -> TrainableTransformers:
    return TrainableTransformers(folder, CPU, torch.float32)


def random_adapter(network: TrainableTransformers, first_layer: int = 0) -> LoraAdapter:
    """An adapter of rank 4 that changes every linear layer."""
    generator = torch.Generator().manual_seed(7)
    adapter = LoraAdapter(network.adaptable(first_layer), 4, 8.0, generator)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return adapter


def logprobs(network: TrainableTransformers, layout: TokenLayout, adapter: LoraAdapter | None):
    """Log-probabilities and entropies of the response tokens, in reading order."""
    hidden = network.run(network.embed(layout), layout, adapter)
    before = hidden[layout.predictors[layout.mask]]
    return network.head.chosen(before, layout.targets[layout.mask], TEMPERATURE)


def expected_logprobs(model, prompts, said):
    """The same from transformers, one sequence at a time: (tokens, vocabulary) of each."""
    return [
        (reference_logits(model, prompt + answer)[len(prompt) - 1 : -1] / TEMPERATURE).log_softmax(-1)
        for prompt, answer in zip(prompts, said, strict=True)
    ]


def picked(rows, said):
    return torch.cat(
        [row.gather(-1, torch.tensor(answer)[:, None])[:, 0] for row, answer in zip(rows, said, strict=True)]
    )


def test_log_probabilities_and_entropies_equal_those_of_transformers(folder, network):
    prompts, said = tokens(8, 6, 6, 2, 9), tokens(9, 4, 1, 7, 3)
    prompts[1] = prompts[0]  # shared tokens
    with torch.no_grad():
        found, entropy = logprobs(network, TokenLayout.build(prompts, said, CPU), None)
        rows = expected_logprobs(reference_model(folder), prompts, said)
    torch.testing.assert_close(found, picked(rows, said), **CLOSE)
    torch.testing.assert_close(entropy, torch.cat([-(row.exp() * row).sum(-1) for row in rows]), **CLOSE)


def test_adapter_gradients_equal_those_of_peft_and_the_model_gets_none(folder, network):
    from peft import LoraConfig, get_peft_model

    adapter = random_adapter(network)
    targets = [name.removesuffix(".weight") for name in adapter.names]
    peft = get_peft_model(reference_model(folder), LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    theirs = {name: value for name, value in peft.named_parameters() if ".lora_" in name}
    assert len(theirs) == 2 * len(adapter.names)
    key = "base_model.model.{}.lora_{}.default.weight"
    with torch.no_grad():
        for name in adapter.names:
            for letter, value in zip("AB", adapter.pair(name), strict=True):
                theirs[key.format(name.removesuffix(".weight"), letter)].copy_(value)

    prompts, said = tokens(12, 5, 3, 5), tokens(13, 6, 2, 4)
    prompts[2] = prompts[0]
    weight = torch.randn(12, generator=torch.Generator().manual_seed(3))
    found, _ = logprobs(network, TokenLayout.build(prompts, said, CPU), adapter)
    (found * weight).sum().backward()
    expected = picked(expected_logprobs(peft, prompts, said), said)
    (expected * weight).sum().backward()
    torch.testing.assert_close(found, expected, **CLOSE)
    for name in adapter.names:
        for letter, value in zip("AB", adapter.pair(name), strict=True):
            slope = theirs[key.format(name.removesuffix(".weight"), letter)].grad
            torch.testing.assert_close(value.grad, slope, rtol=1e-3, atol=1e-3)
    assert max(float(adapter.pair(name)[1].grad.abs().max()) for name in adapter.names) > 1e-2
    assert all(parameter.grad is None for parameter in network.model.parameters())


def test_recomputed_log_probabilities_equal_those_sampled_from_merged_weights(folder, network):
    adapter = random_adapter(network)
    base = Decoder.load(folder, CPU, torch.float32)
    prompts = tokens(16, 4, 9, 4, 6)
    prompts[2] = prompts[0]
    sampling = Sampling(temperature=TEMPERATURE, max_new_tokens=14)
    before = base.generate(prompts, sampling, range(4), frozenset(range(10)))
    answers = base.with_version(adapter.snapshot()).generate(prompts, sampling, range(4), frozenset(range(10)))
    said = [answer.token_ids for answer in answers]
    sampled = torch.tensor([value for answer in answers for value in answer.logprobs])
    with torch.no_grad():
        found, _ = logprobs(network, TokenLayout.build(prompts, said, CPU), adapter)
        unadapted, _ = logprobs(network, TokenLayout.build(prompts, said, CPU), None)
    torch.testing.assert_close(found, sampled, **CLOSE)
    assert (unadapted - sampled).abs().max() > 0.05, "the adapter changes something"
    again = base.generate(prompts, sampling, range(4), frozenset(range(10)))
    assert [answer.logprobs for answer in again] == [answer.logprobs for answer in before], "the base stays as it was"


def test_versions_share_one_module_and_may_be_sampled_from_at_the_same_time(network, folder):
    base, adapter = Decoder.load(folder, CPU, torch.float32), random_adapter(network).snapshot()
    other = Adapter({name: (down, -up) for name, (down, up) in adapter.pairs.items()}, adapter.scale)
    decoders = [base, base.with_version(adapter), base.with_version(other)]
    assert len({id(one.network.model) for one in decoders}) == 1

    def said(decoder: Decoder) -> list[list[float]]:
        sampling = Sampling(temperature=TEMPERATURE, max_new_tokens=8)
        return [answer.logprobs for answer in decoder.generate(tokens(16, 4, 9), sampling, range(2), frozenset())]

    alone = [said(decoder) for decoder in decoders]
    assert alone[0] != alone[1] != alone[2]
    with ThreadPoolExecutor(3) as pool:
        for one, other_one in zip(alone, pool.map(said, decoders), strict=True):
            torch.testing.assert_close(torch.tensor(other_one), torch.tensor(one), **CLOSE)


def test_a_version_that_changes_the_output_head_leaves_the_embedding_alone(folder):
    base, model = Decoder.load(folder, CPU, torch.float32), reference_model(folder)
    head = model.get_output_embeddings()
    generator = torch.Generator().manual_seed(4)
    pair = torch.randn(2, head.weight.shape[1], generator=generator), torch.randn(97, 2, generator=generator)
    head.weight = torch.nn.Parameter(head.weight + 0.5 * pair[1] @ pair[0])
    (ids,) = tokens(5, 8)
    with torch.inference_mode():
        found, _ = base.with_version(Adapter({HEAD: pair}, 0.5)).network.prefill([ids], torch.tensor([0]), 9)
        torch.testing.assert_close(found[0], reference_logits(model, ids)[-1], **CLOSE)


def test_padding_and_company_change_neither_log_probabilities_nor_gradients(network):
    prompts, said = tokens(14, 6, 2, 15), tokens(15, 3, 4, 12)

    def of_first(rows):
        adapter = random_adapter(network)
        layout = TokenLayout.build([prompts[row] for row in rows], [said[row] for row in rows], CPU)
        hidden = network.run(network.embed(layout), layout, adapter)
        place = rows.index(0)
        before = hidden[layout.predictors[place][layout.mask[place]]]
        chosen, _ = network.head.chosen(before, torch.tensor(said[0]), TEMPERATURE)
        chosen.sum().backward()
        return chosen.detach(), [parameter.grad for parameter in adapter.parameters()]

    alone, slopes = of_first([0])
    for company in ([0, 1, 2], [2, 0]):
        chosen, others = of_first(company)
        torch.testing.assert_close(chosen, alone, **CLOSE)
        for one, other in zip(slopes, others, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


def test_an_adapter_of_the_upper_layers_goes_on_from_the_trunk(network):
    last = len(network.layers) - 1
    adapter = random_adapter(network, last)
    assert 0 < len(adapter.names) < len(network.adaptable())
    layout = TokenLayout.build(tokens(18, 4, 7), tokens(19, 3, 2), CPU)
    trunk = network.run(network.embed(layout), layout, None, 0, last)
    found = network.run(trunk, layout, adapter, last)
    assert torch.equal(found, network.run(network.embed(layout), layout, adapter))
    assert found.shape == (len(layout.ids), network.hidden_size)
    assert not torch.allclose(found, network.run(trunk, layout, None, last))


@pytest.mark.parametrize("name", UNTRAINABLE)
def test_a_model_that_computes_what_training_would_not_is_refused(name, model_of):
    with pytest.raises(UsageError, match=rf"{name} cannot be trained here: .* nats") as caught:
        TrainableTransformers(model_of(name), CPU, torch.float32)
    assert "prompted and rated" in caught.value.hint


# --- whole rounds of PPO ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("templated", [True, False], ids=["chat", "base"])
@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text"])
def test_models_with_and_without_a_chat_template_learn(kind, templated, tiny_model, tmp_path):
    folder = with_tokenizer(tmp_path / kind, kind, tiny_model, templated=templated)
    backbone = Backbone(ModelFolder(kind, folder, "digest"), CPU, torch.float32)
    assert (backbone.tokenizer.template == PLAIN_TEMPLATE) is not templated
    reward_model = RewardModel(backbone, RewardConfig(rank=4), seed=5)
    with torch.no_grad():
        reward_model.head.weight.normal_(generator=torch.Generator().manual_seed(6))
    prompts = [Prompt(f"p{place}", CORPUS[place], language, "") for place, language in enumerate(LANGUAGES)]
    config = PpoConfig(rank=4, batch=4, answers=2, minibatch=2, epochs=2, warmup=0, max_new_tokens=6)
    run = Ppo(backbone, reward_model, prompts, config, seed=3)
    before = [parameter.detach().clone() for parameter in run.policy.parameters()]
    first, second = run.advance().figures, run.advance().figures  # each checks that its ratio begins at 1
    assert first["objective/kl", None] == pytest.approx(0, abs=1e-4)
    assert second["objective/kl", None] > 0
    assert any(not torch.equal(*pair) for pair in zip(before, run.policy.parameters(), strict=True))


def with_tokenizer(folder: Path, kind: str, source: Path, *, templated: bool) -> Path:
    """A random model of some kind that reads and writes what the tiny model's tokenizer knows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    if not templated:
        tokenizer.chat_template = None
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    make_model(folder, kind, vocab_size=len(tokenizer), max_position_embeddings=512, **ends)
    tokenizer.save_pretrained(folder)
    return folder
