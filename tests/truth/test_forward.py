"""Our forward passes say what transformers and peft say, alone and in any company."""

from __future__ import annotations

import pytest
import torch
from architectures import LLAMA_FAMILY, OTHERS, reference_logits, reference_model, tokens
from census import Census, waits
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans, integers, permutations, sampled_from
from transformers import AutoConfig

from storage.records import Sampling
from trainer.policy import attention, decoding
from trainer.policy.decoding import MEMORY_SHARE, ROWS, Decoder, row_bytes
from trainer.policy.layout import TokenLayout
from trainer.policy.llama import LlamaNetwork, supports
from trainer.policy.logprobs import CHUNK, OutputHead
from trainer.policy.lora import LoraAdapter
from trainer.policy.stepping import POLL, Batch
from trainer.policy.transformers_network import TransformersNetwork
from trainer.policy.weights import Weights

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
NO_STOP: frozenset[int] = frozenset()


@pytest.fixture(params=LLAMA_FAMILY)
def llama(request, model_of):
    """The folder of each architecture of the fast path."""
    return model_of(request.param)


def trainable(folder) -> LlamaNetwork:
    return LlamaNetwork(AutoConfig.from_pretrained(folder), Weights.open(folder, None), CPU, torch.float32)


def random_adapter(network: LlamaNetwork, first_layer: int = 0) -> LoraAdapter:
    """An adapter of rank 4 that changes every linear layer."""
    generator = torch.Generator().manual_seed(7)
    adapter = LoraAdapter(network.adaptable(first_layer), 4, 8.0, generator)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return adapter


# --- sampling: prefill and steps -------------------------------------------------------------------------------------


def test_prefill_and_steps_equal_the_plain_forward_pass(llama):
    decoder, model = Decoder.load(llama, CPU, torch.float32), reference_model(llama)
    assert isinstance(decoder.network, LlamaNetwork)
    prompts = tokens(1, 3, 11, 6)
    rows = torch.tensor([1, 0, 2, 1])  # two rows share a prompt, and lengths differ
    said = tokens(2, 5, 5, 5, 5)
    found = [[], [], [], []]
    with torch.inference_mode():
        logits, cache = decoder.network.prefill(prompts, rows, 16)
        for step in range(6):
            for row in range(4):
                found[row].append(logits[row])
            if step < 5:
                logits = decoder.network.step(torch.tensor([said[row][step] for row in range(4)]), cache)
        for row in range(4):
            prompt = prompts[rows[row]]
            expected = reference_logits(model, prompt + said[row])[len(prompt) - 1 :]
            torch.testing.assert_close(torch.stack(found[row]), expected, **CLOSE)


def test_rows_that_end_leave_and_the_others_go_on_unchanged(llama):
    decoder, model = Decoder.load(llama, CPU, torch.float32), reference_model(llama)
    prompts, said = tokens(3, 9, 2, 5), tokens(4, 4, 4, 4)
    with torch.inference_mode():
        _, cache = decoder.network.prefill(prompts, torch.arange(3), 16)
        decoder.network.step(torch.tensor([ids[0] for ids in said]), cache)
        cache.keep(torch.tensor([1, 2]))
        decoder.network.step(torch.tensor([said[1][1], said[2][1]]), cache)
        cache.keep(torch.tensor([1]))
        last = decoder.network.step(torch.tensor([said[2][2]]), cache)
        torch.testing.assert_close(last[0], reference_logits(model, prompts[2] + said[2][:3])[-1], **CLOSE)


def test_what_a_row_says_does_not_depend_on_its_company(llama):
    decoder = Decoder.load(llama, CPU, torch.float32)
    prompts = tokens(5, 4, 13, 7, 4, 1)
    sampling = Sampling(max_new_tokens=12)
    together = decoder.generate([*prompts, prompts[0]], sampling, range(6), NO_STOP)
    for row, prompt in enumerate([*prompts, prompts[0]]):
        (alone,) = decoder.generate([prompt], sampling, [row], NO_STOP)
        assert alone.token_ids == together[row].token_ids
        assert alone.logprobs == pytest.approx(together[row].logprobs, abs=1e-4)
    backwards = decoder.generate(prompts[::-1], sampling, range(5)[::-1], NO_STOP)
    assert [answer.token_ids for answer in backwards[::-1]] == [answer.token_ids for answer in together[:5]]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=integers(1, 7), order=permutations(range(9)), static=booleans(), ends=sampled_from([0, 4, 40]))
def test_an_answer_is_of_its_prompt_and_seed_however_many_are_sampled_at_once(model_of, rows, order, static, ends):
    """Rows of answers that have ended are given to prompts that wait: others go on, new ones begin, none notices."""
    decoder = Decoder.load(model_of("llama"), CPU, torch.float32)
    prompts = tokens(5, 4, 13, 7, 4, 1, 9, 3, 6)
    prompts.append(prompts[2])
    sampling, stops = Sampling(temperature=0.9, max_new_tokens=23), frozenset(range(ends))
    expected = [decoder.generate([prompts[one]], sampling, [one], stops)[0] for one in range(9)]
    decoder.static = static
    heard: list[list[int | None]] = []
    asked = [prompts[one] for one in order]
    found = decoder.generate(asked, sampling, order, stops, on_tokens=heard.append, rows=rows)
    for place, one in enumerate(order):
        assert (found[place].token_ids, found[place].finish_reason) == (
            expected[one].token_ids,
            expected[one].finish_reason,
        )
        assert found[place].logprobs == pytest.approx(expected[one].logprobs, abs=1e-4)
        assert [said[place] for said in heard if said[place] is not None] == found[place].token_ids


def test_the_batch_stays_full_while_prompts_wait(model_of, monkeypatch):
    decoder = Decoder.load(model_of("llama"), CPU, torch.float32)
    stepped: list[int] = []
    own = LlamaNetwork.step
    monkeypatch.setattr(
        LlamaNetwork, "step", lambda self, said, cache: (stepped.append(len(said)), own(self, said, cache))[1]
    )
    prompts = [tokens(31, 5)[0]] * 60
    answers = decoder.generate(prompts, Sampling(max_new_tokens=40), range(60), frozenset(range(20)), rows=8)
    count = sum(len(one.token_ids) for one in answers)
    lengths = sorted(len(one.token_ids) for one in answers)
    assert lengths[0] * 5 < lengths[-1], "answers of many lengths"
    assert set(stepped[: len(stepped) // 2]) == {8}
    batches = sum(max(len(one.token_ids) for one in answers[start : start + 8]) for start in range(0, 60, 8))
    assert len(stepped) < 0.7 * batches, "one batch after the other waits for its longest answers"
    assert count > 0.8 * sum(stepped), "nearly every row of every step is an answer that goes on"


def test_a_long_prompt_shortens_no_other_answer(model_of):
    decoder = Decoder.load(model_of("llama"), CPU, torch.float32)
    decoder.context = 40
    answers = decoder.generate(tokens(33, 5, 36), Sampling(max_new_tokens=20), [1, 2], NO_STOP)
    assert [len(one.token_ids) for one in answers] == [20, 4]


def test_fewer_rows_are_sampled_at_once_where_memory_is_short(model_of, monkeypatch):
    decoder = Decoder.load(model_of("llama"), CPU, torch.float32)
    assert decoder.rows_at_once(100, 20, 40) == ROWS
    assert decoder.rows_at_once(9, 20, 40) == 9
    each = row_bytes(decoder.config, 20, 40, torch.float32)
    monkeypatch.setattr(decoding, "available", lambda device: 11 * each / MEMORY_SHARE)
    assert decoder.rows_at_once(100, 20, 40) == 11
    assert decoder.rows_at_once(100, 20, 400) < 11
    monkeypatch.setattr(decoding, "available", lambda device: 0.0)
    assert decoder.rows_at_once(100, 20, 40) == 2


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_go_through_transformers_and_say_the_same(name, model_of):
    folder = model_of(name)
    decoder, model = Decoder.load(folder, CPU, torch.float32), reference_model(folder)
    assert isinstance(decoder.network, TransformersNetwork)
    prompts = tokens(6, 3, 9, 5)
    answers = decoder.generate([*prompts, prompts[1]], Sampling(max_new_tokens=16), range(4), frozenset(range(12)))
    assert len({len(answer.token_ids) for answer in answers}) > 1, "some rows leave the batch early"
    with torch.inference_mode():
        for prompt, answer in zip([*prompts, prompts[1]], answers, strict=True):
            before = reference_logits(model, prompt + answer.token_ids)[len(prompt) - 1 : -1]
            chosen = before.log_softmax(-1).gather(-1, torch.tensor(answer.token_ids)[:, None])[:, 0]
            assert answer.logprobs == pytest.approx(chosen.tolist(), abs=1e-4)


def test_the_fast_path_refuses_what_it_does_not_compute(model_of):
    for name in OTHERS:
        assert not supports(AutoConfig.from_pretrained(model_of(name)))
    config = AutoConfig.from_pretrained(model_of("llama"))
    config.hidden_act = "gelu"
    assert not supports(config)


# --- training --------------------------------------------------------------------------------------------------------


def test_hidden_states_log_probabilities_and_entropies_equal_those_of_transformers(llama):
    network, model = trainable(llama), reference_model(llama)
    prompts, said = tokens(8, 6, 6, 2, 9), tokens(9, 4, 1, 7, 3)
    prompts[1] = prompts[0]  # shared tokens
    layout = TokenLayout.build(prompts, said, CPU)
    assert len(layout.ids) == 6 + 2 + 9 + 4 + 1 + 7 + 3, "the shared prompt is computed once"
    temperature = 0.7
    with torch.no_grad():
        hidden = network.run(network.embed(layout), layout, None)
        before, targets = hidden[layout.predictors[layout.mask]], layout.targets[layout.mask]
        found, entropy = OutputHead(network.head_weight).chosen(before, targets, temperature)
        place = 0
        for prompt, answer in zip(prompts, said, strict=True):
            logits = reference_logits(model, prompt + answer)[len(prompt) - 1 : -1] / temperature
            logprobs = logits.log_softmax(-1)
            here = slice(place, place + len(answer))
            chosen = logprobs.gather(-1, torch.tensor(answer)[:, None])[:, 0]
            torch.testing.assert_close(found[here], chosen, **CLOSE)
            torch.testing.assert_close(entropy[here], -(logprobs.exp() * logprobs).sum(-1), **CLOSE)
            place += len(answer)
        for row, (prompt, answer) in enumerate(zip(prompts, said, strict=True)):
            states = model.model(torch.tensor([prompt + answer])).last_hidden_state[0]
            torch.testing.assert_close(hidden[layout.last[row]], states[-1], **CLOSE)


def test_lower_and_upper_part_together_equal_the_whole(llama):
    network = trainable(llama)
    layout = TokenLayout.build(tokens(10, 5, 3), tokens(11, 2, 6), CPU)
    adapter = random_adapter(network, first_layer=2)
    with torch.no_grad():
        whole = network.run(network.embed(layout), layout, adapter)
        trunk = network.run(network.embed(layout), layout, None, 0, 2)
        torch.testing.assert_close(network.run(trunk, layout, adapter, 2), whole)


@pytest.mark.parametrize("fused", [False, True], ids=["short", "long"])
def test_adapter_gradients_equal_those_of_peft(llama, fused, monkeypatch):
    if fused:
        monkeypatch.setattr(attention, "SHORT", 0)
    from peft import LoraConfig, get_peft_model

    network = trainable(llama)
    adapter = random_adapter(network)
    targets = sorted({name.split(".")[-2] for name in adapter.names})
    peft = get_peft_model(reference_model(llama), LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    theirs = {name: value for name, value in peft.named_parameters() if ".lora_" in name}
    assert len(theirs) == 2 * len(adapter.names)
    key = "base_model.model.{}.lora_{}.default.weight"
    with torch.no_grad():
        for name in adapter.names:
            for letter, value in zip("AB", adapter.pair(name), strict=True):
                theirs[key.format(name.removesuffix(".weight"), letter)].copy_(value)

    prompts, said = tokens(12, 5, 3, 5), tokens(13, 6, 2, 4)
    prompts[2] = prompts[0]
    layout = TokenLayout.build(prompts, said, CPU)
    weight = torch.randn(layout.mask.shape, generator=torch.Generator().manual_seed(3))
    hidden = network.run(network.embed(layout), layout, adapter)
    head = OutputHead(network.head_weight)
    chosen, _ = head.chosen(hidden[layout.predictors[layout.mask]], layout.targets[layout.mask], 0.7)
    ours = (chosen * weight[layout.mask]).sum()
    ours.backward()
    expected = torch.zeros(())
    for row, (prompt, answer) in enumerate(zip(prompts, said, strict=True)):
        logprobs = (reference_logits(peft, prompt + answer)[len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
        picked = logprobs.gather(-1, torch.tensor(answer)[:, None])[:, 0]
        expected = expected + (picked * weight[row, : len(answer)]).sum()
    expected.backward()
    torch.testing.assert_close(ours, expected, **CLOSE)
    for name in adapter.names:
        for letter, value in zip("AB", adapter.pair(name), strict=True):
            slope = theirs[key.format(name.removesuffix(".weight"), letter)].grad
            assert slope.abs().max() > 1e-3
            torch.testing.assert_close(value.grad, slope, rtol=1e-3, atol=1e-3)


def test_padding_and_company_change_neither_log_probabilities_nor_gradients(llama):
    network = trainable(llama)
    prompts, said = tokens(14, 6, 2, 15), tokens(15, 3, 4, 12)

    def of_first(rows):
        adapter = random_adapter(network)
        layout = TokenLayout.build([prompts[row] for row in rows], [said[row] for row in rows], CPU)
        hidden = network.run(network.embed(layout), layout, adapter)
        place = rows.index(0)
        before = hidden[layout.predictors[place][layout.mask[place]]]
        chosen, _ = OutputHead(network.head_weight).chosen(before, torch.tensor(said[0]), 1.0)
        chosen.sum().backward()
        return chosen.detach(), [parameter.grad for parameter in adapter.parameters()]

    alone, slopes = of_first([0])
    for company in ([0, 1, 2], [2, 0], [1, 0]):
        chosen, others = of_first(company)
        torch.testing.assert_close(chosen, alone, **CLOSE)
        for one, other in zip(slopes, others, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


def test_log_probabilities_in_chunks_equal_those_in_one_piece():
    generator = torch.Generator().manual_seed(0)
    n = 2 * CHUNK + 5
    hidden = torch.randn(n, 8, generator=generator, requires_grad=True)
    weight, targets = torch.randn(19, 8, generator=generator), torch.randint(19, (n,), generator=generator)
    found, entropy = OutputHead(weight).chosen(hidden, targets, 0.7)
    logprobs = (hidden @ weight.T / 0.7).log_softmax(-1)
    expected = logprobs.gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(entropy, -(logprobs.exp() * logprobs).sum(-1), **CLOSE)
    scale = torch.randn(n, generator=generator)
    (ours,) = torch.autograd.grad((found * scale).sum(), hidden)
    (theirs,) = torch.autograd.grad((expected * scale).sum(), hidden)
    torch.testing.assert_close(ours, theirs)


# --- the two agree ---------------------------------------------------------------------------------------------------


def test_recomputed_log_probabilities_equal_the_sampled_ones_at_a_temperature(llama):
    """What PPO's ratio rests on: temperature, positions and the adapter enter both sides alike."""
    network = trainable(llama)
    adapter = random_adapter(network)
    decoder = Decoder.load(llama, CPU, torch.float32).with_version(adapter.snapshot())
    prompts = tokens(16, 4, 9, 4, 6)
    prompts[2] = prompts[0]
    answers = decoder.generate(prompts, Sampling(temperature=0.7, max_new_tokens=14), range(4), frozenset(range(10)))
    assert len({len(answer.token_ids) for answer in answers}) > 1, "some rows leave the batch early"
    layout = TokenLayout.build(prompts, [answer.token_ids for answer in answers], CPU)
    with torch.no_grad():
        hidden = network.run(network.embed(layout), layout, adapter)
        before, targets = hidden[layout.predictors[layout.mask]], layout.targets[layout.mask]
        found, _ = OutputHead(network.head_weight).chosen(before, targets, 0.7)
        ignored, _ = OutputHead(network.head_weight).chosen(before, targets, 1.0)
    sampled = torch.tensor([value for answer in answers for value in answer.logprobs])
    torch.testing.assert_close(found, sampled, **CLOSE)
    assert (ignored - sampled).abs().max() > 0.05, "the test would notice a temperature that is ignored"


# --- static shapes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, max_new_tokens=37),
        Sampling(temperature=0.0, max_new_tokens=5),
        Sampling(top_k=7, top_p=0.9, repetition_penalty=1.3, max_new_tokens=21),
    ],
    ids=["temperature", "likeliest", "cut"],
)
def test_sampling_with_static_shapes_says_the_same(llama, sampling):
    decoder, static = (Decoder.load(llama, CPU, torch.float32) for _ in range(2))
    static.static = True
    prompts = tokens(21, 4, 9, 4, 6)
    prompts[2] = prompts[0]
    for ends in (NO_STOP, frozenset(range(10))):
        expected = decoder.generate(prompts, sampling, range(4), ends)
        heard: list[list[int | None]] = []
        found = static.generate(prompts, sampling, range(4), ends, on_tokens=heard.append)
        for one, other in zip(found, expected, strict=True):
            assert (one.token_ids, one.finish_reason) == (other.token_ids, other.finish_reason)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert [[step[row] for step in heard if step[row] is not None] for row in range(4)] == [
            one.token_ids for one in found
        ]


def test_every_step_with_static_shapes_does_the_same_and_looks_at_no_value(llama):
    """What a CUDA graph asks for, counted where there is no GPU: it may replay one step as any other, and after a
    prompt has taken the row of another, which changes what stands in the same tensors."""
    decoder = Decoder.load(llama, CPU, torch.float32)
    prompts = tokens(22, 5, 3, 7)
    sampling = Sampling(temperature=0.7, repetition_penalty=1.2)
    batch = Batch(decoder.network, sampling, 16, POLL, decoder.vocabulary, CPU, static=True)
    censuses = []
    with torch.inference_mode():
        batch.admit([prompts[0], prompts[1], prompts[1]], range(3))
        places = [one.data_ptr() for one in (batch.tokens, batch.at, batch.uniforms, batch.seen, batch.cache.mask)]
        for step in range(5):
            with Census() as census:
                batch._step()
            censuses.append(census.seen)
            if step == 2:
                batch.admit([prompts[2]], [9], [1])
    assert all(one == censuses[0] for one in censuses[1:])
    assert len(censuses[0]) > 50
    assert not waits(censuses[0])
    held = (batch.tokens, batch.at, batch.uniforms, batch.seen, batch.cache.mask)
    assert places == [one.data_ptr() for one in held]
