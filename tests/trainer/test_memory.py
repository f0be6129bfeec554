"""What does not fit is refused before any weight is read; layers computed again take less memory, to the same end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from architectures import make_model, tokens
from transformers import AutoConfig

from storage.errors import UsageError
from trainer import heap
from trainer.config import PpoStage, RewardConfig, RewardStage, RunConfig, SftStage
from trainer.policy import memory
from trainer.policy.full import FullUpdate
from trainer.policy.layout import TokenLayout
from trainer.policy.llama import LlamaNetwork
from trainer.policy.lora import LoraAdapter
from trainer.policy.memory import Need, Shape, check_fits, need_of
from trainer.policy.models import ModelFolder
from trainer.policy.trainable_transformers import TrainableTransformers
from trainer.policy.weights import Weights
from trainer.policy_config import Advantage, PpoConfig, Reference, Tuning
from trainer.supervised_config import SftConfig

CPU = torch.device("cpu")
NEED = Need(rows=16, minibatch=8, prompt_tokens=40, response_tokens=48, rank=16)
WIDE = {"hidden_size": 128, "intermediate_size": 384}


@pytest.fixture(params=["llama", "qwen3", "phi", "gemma3_text"])
def network(request, tmp_path):
    """A network wide enough for its activations to outweigh the rest; the first two are the fused ones."""
    folder = make_model(tmp_path / request.param, request.param, **WIDE)
    if request.param in ("llama", "qwen3"):
        return LlamaNetwork(AutoConfig.from_pretrained(folder), Weights.open(folder, None), CPU, torch.float32), folder
    return TrainableTransformers(folder, CPU, torch.float32), folder


def saved_bytes(network, layout, update) -> tuple[torch.Tensor, int]:
    """The hidden states, and how many bytes their graph keeps for the backward pass beside what stays anyway."""
    resident = {value.data_ptr() for value in vars(network).values() if isinstance(value, torch.Tensor)}
    resident |= {value.untyped_storage().data_ptr() for value in _weights(network)}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in resident:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = network.run(network.embed(layout), layout, update)
    return hidden, sum(storage.nbytes() for storage in kept.values())


def _weights(network) -> list[torch.Tensor]:
    if isinstance(network, TrainableTransformers):
        return list(network.model.parameters())
    return [value for layer in network.layers for value in vars(layer).values() if isinstance(value, torch.Tensor)]


def new_update(network, folder, tuning: Tuning):
    if tuning == Tuning.FULL:
        return FullUpdate(folder, network.layer_weights(), torch.float32)
    adapter = LoraAdapter(network.adaptable(), 4, 8.0, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    return adapter


@pytest.mark.parametrize("tuning", Tuning)
def test_recomputed_layers_give_the_same_gradients_in_less_memory(network, tuning):
    network, folder = network
    layout = TokenLayout.build(tokens(1, 9, 12, 4), tokens(2, 20, 11, 28), CPU)
    found = {}
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        update = new_update(network, folder, tuning)
        hidden, kept = saved_bytes(network, layout, update)
        hidden.square().mean().backward()
        found[checkpointing] = hidden.detach(), kept, [parameter.grad for parameter in update.parameters()]
    (plain, much, slopes), (same, little, others) = found[False], found[True]
    assert torch.equal(plain, same)
    assert all(one is not None and torch.equal(one, other) for one, other in zip(slopes, others, strict=True))
    assert little < much / 3


def test_the_estimate_of_activations_holds_what_the_backward_pass_keeps(network):
    network, folder = network
    need = Need(rows=0, minibatch=8, prompt_tokens=37, response_tokens=48, rank=4)
    layout = TokenLayout.build(tokens(1, *[37] * 8), tokens(2, *[48] * 8), CPU)
    _, kept = saved_bytes(network, layout, new_update(network, folder, Tuning.LORA))
    shape = Shape.read(folder)
    assert 0.85 * kept < memory.kept_bytes(shape, 4, need) < 2.8 * kept


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="only there memory is told apart from pages of files")
def test_what_is_told_of_the_bundled_model_is_what_rounds_of_ppo_take(converted_models):
    (folder,) = (path for path in converted_models.iterdir() if path.is_dir())
    script = Path(__file__).with_name("round_of_ppo.py")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder), "lora", "2", "2", "8"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    least, most = memory.TOLERANCE
    assert least * found["taken"] < found["estimated"] < most * found["taken"], found


def test_sizes_are_read_from_the_headers(tiny_model):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    shape = Shape.read(tiny_model)
    assert shape.total == sum(parameter.numel() for parameter in model.parameters())
    assert shape.layers == sum(parameter.numel() for parameter in model.model.layers.parameters())
    linear = [value for value in model.model.layers.parameters() if value.ndim == 2]
    assert shape.borders == sum(sum(value.shape) for value in linear)
    assert (shape.depth, shape.hidden, shape.vocabulary, shape.fast) == (2, 64, model.config.vocab_size, True)


def test_a_job_that_fits_is_let_through_and_one_that_does_not_is_told_what_to_change(tiny_model, monkeypatch):
    folder = ModelFolder("tiny", tiny_model, "digest")
    parts = check_fits(folder, CPU, torch.float32, NEED)
    monkeypatch.setattr(memory, "available", lambda device: memory.total(parts))
    check_fits(folder, CPU, torch.float32, NEED)
    monkeypatch.setattr(memory, "available", lambda device: memory.total(parts) - 1)
    with pytest.raises(UsageError, match=r"tiny needs about .* GB for this, and cpu has .* GB free") as caught:
        check_fits(folder, CPU, torch.float32, NEED)
    for option in ("smaller model", "--gradient-checkpointing", "--minibatch", "--accumulation"):
        assert option in caught.value.hint
    assert "--tuning" not in caught.value.hint


def test_nothing_but_headers_is_read(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    file = copy / "model.safetensors"
    length = int.from_bytes(file.read_bytes()[:8], "little")
    with open(file, "r+b") as opened:  # zeros where the weights were
        size = file.stat().st_size
        opened.truncate(8 + length)
        opened.truncate(size)
    assert check_fits(ModelFolder("copy", copy, ""), CPU, torch.float32, NEED)


def test_a_stage_needs_what_its_method_holds_at_once():
    ppo = PpoConfig(batch=32, minibatch=16, accumulation=4, rank=7, tuning=Tuning.FULL, value_adapter=True)
    found = need_of(RunConfig(ppo=ppo, gradient_checkpointing=True, upper_share=0.5), 20, 30, 99)
    assert found == Need(
        32, 4, 20, 99, 7, Tuning.FULL, value=True, optimised=True, reference=True, upper_share=0.5, checkpointing=True
    )
    assert not need_of(PpoStage(ppo=PpoConfig(reference=Reference.BASE)), 20, 30, 99).reference
    assert not need_of(PpoStage(ppo=PpoConfig(advantage=Advantage.RLOO, value_adapter=True)), 20, 30, 99).value
    own = need_of(SftStage(sft=SftConfig(batch=5, rank=3)), 20, 30, 99)
    assert (own.minibatch, own.response_tokens, own.rank, own.tuning) == (5, 30, 3, Tuning.LORA)
    assert need_of(RewardStage(reward=RewardConfig(batch=6, rank=2)), 20, 30, 99).minibatch == 6


def test_each_choice_moves_the_estimate_its_way(tiny_model):
    shape = Shape.read(tiny_model)

    def total(**changes) -> float:
        dtype = changes.pop("dtype", torch.float32)
        return memory.total(memory.estimate(shape, CPU, dtype, dataclasses.replace(NEED, **changes)))

    usual = total()
    assert total(tuning=Tuning.FULL) > usual
    kept = total(tuning=Tuning.FULL, reference=True) - total(tuning=Tuning.FULL)
    assert kept == pytest.approx(memory.MARGIN * 4 * shape.layers), "a copy of the version it is held near, in fp32"
    assert total(checkpointing=True) < usual
    assert total(minibatch=16) > usual
    assert total(response_tokens=200) > usual
    assert total(dtype=torch.bfloat16) < usual
    assert total(value=False) < usual


def test_answers_longer_than_the_context_are_refused(tiny_model):
    folder = ModelFolder("tiny", tiny_model, "digest")
    for need in (
        Need(rows=1, minibatch=1, prompt_tokens=10, response_tokens=4096, rank=4),
        Need(rows=1, minibatch=1, prompt_tokens=4096, response_tokens=10, rank=4),
    ):
        with pytest.raises(UsageError, match="tiny reads 4096 tokens at once") as caught:
            check_fits(folder, CPU, torch.float32, need)
        assert "--max-new-tokens" in caught.value.hint


# --- the limit of a control group ------------------------------------------------------------------------------------


def group(folder, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def test_the_tightest_limit_among_the_groups_above_counts(tmp_path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    group(root, {})
    group(root / "outer", {"memory.max": 8000, "memory.current": 5000, "memory.stat": "anon 4000\ninactive_file 700"})
    group(root / "outer/inner", {"memory.max": "max", "memory.current": 4000, "memory.stat": "inactive_file 0"})
    assert heap.cgroup_room(root, own) == 8000 - 5000 + 700


def test_version_1_limits_count_as_well(tmp_path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/box\n4:memory:/box\n")
    stat = "inactive_file 1\ntotal_inactive_file 100"
    files = {"memory.limit_in_bytes": 9000, "memory.usage_in_bytes": 2000, "memory.stat": stat}
    group(root / "memory/box", files)
    assert heap.cgroup_room(root, own) == 9000 - 2000 + 100


def test_without_any_limit_the_machine_is_the_limit(tmp_path):
    assert heap.cgroup_room(tmp_path, tmp_path / "none") == math.inf
    (tmp_path / "own").write_text("0::/\n")
    assert heap.cgroup_room(tmp_path, tmp_path / "own") == math.inf
    assert 0 < heap.available(CPU) < math.inf
