"""Full fine-tuning: the gradients of transformers, versions that come back as they were, and the base left alone."""

from __future__ import annotations

import pytest
import torch
from architectures import reference_logits, reference_model, tokens
from rated_workspace import LANGUAGES
from safetensors.torch import load_file
from tiny_model import CORPUS

from storage.errors import UsageError
from storage.records import Prompt, Sampling
from trainer.algorithms.ppo import Ppo
from trainer.checkpoints import load, save
from trainer.config import RewardConfig
from trainer.policy.backbone import Backbone
from trainer.policy.decoding import Decoder
from trainer.policy.full import FILE_NAME, FullUpdate, read_version
from trainer.policy.layout import TokenLayout
from trainer.policy.models import ModelFolder
from trainer.policy_config import PpoConfig, Tuning
from trainer.reward.model import RewardModel

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
FULL = PpoConfig(
    rank=4, batch=4, answers=2, minibatch=2, epochs=2, warmup=0, max_new_tokens=6, learning_rate=1e-3,
    tuning=Tuning.FULL,
)  # fmt: skip
# Biases, norms of queries and keys, tied embeddings; the last three are transformers' own modules.
KINDS = ["llama", "llama-biased", "qwen2", "qwen3", "gpt2", "gemma3_text", "opt"]


@pytest.fixture(params=KINDS)
def folder(request, model_of):
    return model_of(request.param)


@pytest.fixture
def backbone(folder, monkeypatch) -> Backbone:
    monkeypatch.setattr("trainer.policy.backbone.ChatTokenizer.load", lambda *_: None)  # these models have none
    return Backbone(ModelFolder(folder.name, folder, "digest"), CPU, torch.float32)


def shaken(policy: FullUpdate, seed: int = 1) -> FullUpdate:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return policy


def logprobs(backbone: Backbone, layout: TokenLayout, policy: FullUpdate | None) -> torch.Tensor:
    return backbone.log_likelihood(backbone.hidden(layout, policy), layout, 0.7)[layout.mask]


def test_gradients_equal_those_of_transformers(folder, backbone):
    policy, model = backbone.new_policy(FULL, seed=1), reference_model(folder)
    assert isinstance(policy, FullUpdate)
    prompts, said = tokens(12, 5, 3, 5), tokens(13, 6, 2, 4)
    prompts[2] = prompts[0]
    weight = torch.randn(12, generator=torch.Generator().manual_seed(3))
    found = logprobs(backbone, backbone.layout(prompts, said), policy)
    (found * weight).sum().backward()
    rows = [
        (reference_logits(model, prompt + answer)[len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
        .gather(-1, torch.tensor(answer)[:, None])[:, 0]
        for prompt, answer in zip(prompts, said, strict=True)
    ]  # fmt: skip
    (torch.cat(rows) * weight).sum().backward()
    torch.testing.assert_close(found, torch.cat(rows), **CLOSE)
    theirs = {name: value.grad for name, value in model.named_parameters() if "layers." in name or ".h." in name}
    assert set(policy.names) == set(theirs), "every weight of the layers, and no other"
    for name, key in policy.names.items():
        expected = theirs[name] if theirs[name] is not None else torch.zeros_like(policy.weights[key])
        ours = policy.weights[key].grad
        torch.testing.assert_close(
            ours if ours is not None else torch.zeros_like(expected), expected, rtol=1e-3, atol=1e-3, msg=name
        )


def test_what_is_sampled_is_what_is_trained_in_memory_and_from_the_file(folder, backbone, tmp_path):
    policy = shaken(backbone.new_policy(FULL, seed=1))
    snapshot = policy.snapshot()
    written = snapshot.write(tmp_path, "tiny")
    assert written.name == FILE_NAME
    sampling, prompts = Sampling(temperature=0.7, max_new_tokens=10), tokens(3, 4, 8, 4)
    answers = backbone.decoder(snapshot).generate(prompts, sampling, range(3), frozenset())
    reloaded = Decoder.load(folder, CPU, torch.float32, written).generate(prompts, sampling, range(3), frozenset())
    assert [answer.token_ids for answer in reloaded] == [answer.token_ids for answer in answers]
    for one, other in zip(reloaded, answers, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    layout = backbone.layout(prompts, [answer.token_ids for answer in answers])
    sampled = torch.tensor([value for answer in answers for value in answer.logprobs])
    with torch.no_grad():
        torch.testing.assert_close(logprobs(backbone, layout, policy), sampled, **CLOSE)
        assert (logprobs(backbone, layout, None) - sampled).abs().max() > 0.02, "the reference is another"


def test_a_version_is_gone_on_from(folder, backbone, tmp_path):
    policy = shaken(backbone.new_policy(FULL, seed=1))
    written = policy.snapshot().write(tmp_path, "tiny")
    other = backbone.new_policy(FULL, seed=2)
    other.load(read_version(written, folder))
    for one, two in zip(policy.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    adapter = backbone.new_adapter(FULL, 1, upper=False)
    with pytest.raises(UsageError, match="no adapter can hold"):
        adapter.load(read_version(written, folder))


def test_the_file_is_a_whole_model_of_which_only_the_layers_changed(model_of, tmp_path):
    folder = model_of("llama")
    names = [f"model.layers.1.self_attn.{name}_proj.weight" for name in "qv"]
    written = shaken(FullUpdate(folder, names, torch.float32)).snapshot().write(tmp_path, "tiny")
    before, after = load_file(folder / "model.safetensors"), load_file(written)
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(names)


def test_full_tuning_starts_from_an_adapter_merged_into_the_base(model_of, monkeypatch):
    monkeypatch.setattr("trainer.policy.backbone.ChatTokenizer.load", lambda *_: None)
    backbone = Backbone(ModelFolder("llama", model_of("llama"), "digest"), CPU, torch.float32)
    adapter = backbone.new_adapter(FULL, 1, upper=False)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    policy = backbone.new_policy(FULL, seed=1)
    policy.load(adapter.snapshot())
    layout = backbone.layout(tokens(1, 5, 7), tokens(2, 3, 6))
    with torch.no_grad():
        torch.testing.assert_close(backbone.hidden(layout, policy), backbone.hidden(layout, adapter), **CLOSE)


def test_weights_that_the_files_call_otherwise_are_refused(model_of, monkeypatch):
    monkeypatch.setattr("trainer.policy.backbone.ChatTokenizer.load", lambda *_: None)
    backbone = Backbone(ModelFolder("qwen2_moe", model_of("qwen2_moe"), "digest"), CPU, torch.float32)
    with pytest.raises(UsageError, match=r"no weight called .*mlp\.experts\.gate_up_proj") as caught:
        backbone.new_policy(FULL, seed=1)  # the files hold each expert apart, the model all of them as one
    assert "--tuning lora" in caught.value.hint


# --- PPO -------------------------------------------------------------------------------------------------------------


def new_run(backbone: Backbone) -> Ppo:
    prompts = [Prompt(f"p{place}", CORPUS[place], language, "") for place, language in enumerate(LANGUAGES)]
    reward_model = RewardModel(backbone, RewardConfig(rank=4), seed=5)
    with torch.no_grad():
        reward_model.head.weight.normal_(generator=torch.Generator().manual_seed(6))
    return Ppo(backbone, reward_model, prompts, FULL, seed=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_ppo_learns_all_weights_and_resumes_exactly(dtype, tiny_model, tmp_path):
    backbone = Backbone(ModelFolder("tiny", tiny_model, "digest"), CPU, dtype)
    frozen = backbone.network.layers[0].qkv.dense().clone()
    unbroken = new_run(backbone)
    start = [parameter.detach().clone() for parameter in unbroken.policy.parameters()]
    figures = [unbroken.advance().figures for _ in range(4)]  # each checks that its ratio begins at 1
    assert figures[0]["objective/kl", None] == pytest.approx(0, abs=1e-4 if dtype == torch.float32 else 1e-2)
    assert figures[3]["objective/kl", None] > 1e-3
    assert all(not torch.equal(*pair) for pair in zip(start, unbroken.policy.parameters(), strict=True))
    assert torch.equal(backbone.network.layers[0].qkv.dense(), frozen), "the reference stays the base"

    first, second = new_run(backbone), new_run(backbone)
    for _ in range(2):
        first.advance()
    save(tmp_path / "checkpoint", first)
    load(tmp_path / "checkpoint", second)
    for _ in range(2):
        second.advance()
    for one, two in zip(second.policy.parameters(), unbroken.policy.parameters(), strict=True):
        assert torch.equal(one, two)
