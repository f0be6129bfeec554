"""Adapter folders as peft saves them: loaded on the base model that they name, or refused in one line."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import LLAMA_FAMILY, make_model, reference_logits, reference_model, tokens
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from tiny_model import save_adapter

from storage import versions
from storage.database import open_database
from storage.errors import UsageError, WorkbenchError
from trainer import adopting
from trainer.policy import models
from trainer.policy.decoding import Decoder
from trainer.policy.lora import LoraAdapter

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
PLAIN: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
# What a LoRA adapter can be beside the plainest one; each changes what is computed.
KINDS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "every linear layer": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "rank-stabilised": {**PLAIN, "use_rslora": True},
    "ranks of their own": {**PLAIN, "rank_pattern": {"v_proj": 2, r"layers.1.self_attn.q_proj": 6}},
    "alphas of their own": {**PLAIN, "alpha_pattern": {"v_proj": 32, "0.self_attn.q_proj": 2}},
    "both": {**PLAIN, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 1}},
    "the output head": {**PLAIN, "target_modules": ["q_proj", "lm_head"]},
    "some layers": {**PLAIN, "layers_to_transform": [1]},
}
MORE: dict[str, tuple[dict[str, Any], str]] = {
    "weight-decomposed": ({**PLAIN, "use_dora": True}, "no plain LoRA adapter"),
    "whole weights": ({**PLAIN, "modules_to_save": ["lm_head"]}, "more than low-rank updates"),
    "embeddings": ({**PLAIN, "target_modules": ["embed_tokens"]}, "more than low-rank updates"),
    "new tokens": ({**PLAIN, "trainable_token_indices": [5]}, "no plain LoRA adapter"),
    "biases": ({**PLAIN, "lora_bias": True}, "more than low-rank updates"),
    "another start": ({**PLAIN, "init_lora_weights": "pissa"}, "changed base model"),
}


def adopted(workspace, database, folder: Path) -> tuple[models.ModelFolder, Path]:
    """What an adapter folder is loaded as: its base model, and the file of the version that it became."""
    found = models.resolve(str(folder), workspace)
    version = adopting.root_of(database, workspace, found)
    path = versions.path_of(workspace, version)
    assert path is not None
    return found, path


def last_logits(decoder: Decoder, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return decoder.network.prefill([ids], torch.tensor([0]), len(ids) + 1)[0][0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied head"])
def test_an_adapter_on_the_base_that_it_names_computes_what_peft_does(kind, tied, workspace, database, tmp_path):
    base = make_model(tmp_path / "base", "llama", tie_word_embeddings=tied)
    folder = save_adapter(tmp_path / "adapter", base, **KINDS[kind])
    (ids,) = tokens(1, 10)
    with torch.no_grad():
        expected = reference_logits(PeftModel.from_pretrained(reference_model(base), folder), ids)
        plain = reference_logits(reference_model(base), ids)
    found, file = adopted(workspace, database, folder)
    assert (found.path, found.adapter) == (base, folder)
    torch.testing.assert_close(last_logits(Decoder.load(base, CPU, torch.float32, file), ids), expected[-1], **CLOSE)
    assert (plain[-1] - expected[-1]).abs().max() > 0.05, "the adapter changes something"
    with torch.no_grad():
        ours = reference_logits(AutoPeftModelForCausalLM.from_pretrained(file.parent), ids)
    torch.testing.assert_close(ours, expected, **CLOSE)


@pytest.mark.parametrize("architecture", [*LLAMA_FAMILY, "gpt_neox", "gemma"])
def test_so_it_does_for_every_family(architecture, workspace, database, tmp_path):
    base = make_model(tmp_path / "base", architecture)
    folder = save_adapter(tmp_path / "adapter", base, r=2, lora_alpha=4, target_modules="all-linear")
    (ids,) = tokens(2, 7)
    with torch.no_grad():
        expected = reference_logits(PeftModel.from_pretrained(reference_model(base), folder), ids)[-1]
    _, file = adopted(workspace, database, folder)
    torch.testing.assert_close(last_logits(Decoder.load(base, CPU, torch.float32, file), ids), expected, **CLOSE)


def test_it_is_one_version_however_often_and_from_wherever_it_is_named(workspace, database, tiny_model, tmp_path):
    folder = save_adapter(tmp_path / "adapter", tiny_model, **PLAIN)
    found, file = adopted(workspace, database, folder)
    moved = folder.rename(tmp_path / "moved")
    assert adopted(workspace, database, moved)[1] == file
    assert [version.name for version in versions.every(database)] == ["v1", "v0"]
    version = versions.get(database, "v1")
    assert (version.parent, version.kind, version.metrics["adopted_from"]) == ("v0", "lora", str(folder))
    assert versions.served(database).name == "v0", "naming a folder publishes nothing"
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 16}))
    assert adopted(workspace, database, moved)[1] != file, "a stronger one is another"
    assert not list(workspace.versions.glob(f"{adopting.PARTIAL}*"))
    assert adopted(workspace, database, file.parent)[1] == file, "the folder of a version is that version"
    assert found.digest == version.base_digest


def test_two_programs_that_name_it_at_once_make_one_version(workspace, database, tiny_model, tmp_path):
    found = models.resolve(str(save_adapter(tmp_path / "adapter", tiny_model, **PLAIN)), workspace)
    versions.ensure_base(database, found.name, found.digest)
    both = threading.Barrier(4)

    def name_it(_: int) -> str:
        with open_database(workspace) as mine:
            both.wait(timeout=60)
            return adopting.root_of(mine, workspace, found).name

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(name_it, range(4))) == {"v1"}
    assert [path.name for path in workspace.versions.iterdir() if path.is_dir()] == ["v1"]


@pytest.mark.parametrize("kind", MORE)
def test_what_does_more_than_low_rank_updates_is_refused_before_any_work(kind, workspace, database, tmp_path):
    base = make_model(tmp_path / "base", "llama")
    options, told = MORE[kind]
    refused(lambda: adopted(workspace, database, save_adapter(tmp_path / "adapter", base, **options)), told)
    assert not versions.find(database, "v1")


def refused(load: Callable[[], Any], told: str) -> None:
    with pytest.raises(WorkbenchError, match=told) as caught:
        load()
    assert "\n" not in caught.value.message
    assert caught.value.hint


def changed(folder: Path, **config: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


def another_rank(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: torch.cat([value, value], -1) for name, value in load_file(file).items()}, file)


def other_names(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name.replace("layers", "blocks"): value for name, value in load_file(file).items()}, file)


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no base": (lambda folder: changed(folder, base_model_name_or_path=None), "does not name the model"),
    "a base that is gone": (lambda folder: changed(folder, base_model_name_or_path="/gone/base"), "/gone/base"),
    "itself": (lambda folder: changed(folder, base_model_name_or_path="."), "an adapter itself"),
    "another kind": (lambda folder: changed(folder, peft_type="IA3"), r"no plain LoRA adapter .*\(IA3\)"),
    "no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{half"), "cannot be read"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
    "pickled": (pickled, "never read"),
    "cut off": (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\x08\0\0"), "cannot be read"),
    "a pointer": (
        lambda folder: (folder / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS pointer",
    ),
    "another size": (another_rank, "does not fit"),
    "other weights": (other_names, "changes weights that .* lacks"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_folder_is_told_in_one_line(wrong, workspace, database, tiny_model, tmp_path):
    folder = save_adapter(tmp_path / "adapter", tiny_model, **PLAIN)
    spoil, told = WRONG[wrong]
    spoil(folder)
    refused(lambda: adopted(workspace, database, folder), told)
    assert not versions.find(database, "v1"), "nothing is recorded"


def test_a_base_beside_the_adapter_is_found_by_its_relative_name(workspace, tiny_model, tmp_path, monkeypatch):
    folder = save_adapter(tmp_path / "adapter", tiny_model, **PLAIN)
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    changed(folder, base_model_name_or_path="../base")
    monkeypatch.chdir("/")
    assert models.resolve(str(folder), workspace).path.resolve() == base


def test_an_adapter_of_another_adapter_is_refused(workspace, tiny_model, tmp_path):
    first = save_adapter(tmp_path / "first", tiny_model, **PLAIN)
    second = save_adapter(tmp_path / "second", tiny_model, **PLAIN)
    changed(second, base_model_name_or_path=str(first))
    with pytest.raises(UsageError, match="is an adapter itself"):
        models.resolve(str(second), workspace)


def test_a_head_that_is_not_the_bases_is_refused(workspace, database, tmp_path):
    base = make_model(tmp_path / "base", "llama", tie_word_embeddings=False)
    folder = save_adapter(tmp_path / "adapter", base, **KINDS["the output head"])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    (brought,) = (name for name in tensors if name.endswith("base_layer.weight"))
    tensors[brought] = tensors[brought] * 1.5
    save_file(tensors, file)
    refused(lambda: adopted(workspace, database, folder), r"another lm_head\.weight")


def test_a_run_goes_on_from_an_adapter_of_fewer_weights_and_a_lower_rank():
    shapes = {"a.weight": (6, 5), "b.weight": (4, 5)}
    wide = LoraAdapter(shapes, 4, 8.0, torch.Generator().manual_seed(0))
    narrow = LoraAdapter({"a.weight": (6, 5)}, 2, 1.0, torch.Generator().manual_seed(1))
    with torch.no_grad():
        narrow.up["a|weight"].normal_()
        wide.up["b|weight"].normal_()
    wide.load(narrow.snapshot())
    base = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, weight in base.items():
        torch.testing.assert_close(wide.snapshot().merge(name, weight), narrow.snapshot().merge(name, weight))
    with pytest.raises(UsageError, match="of rank 4") as caught:
        narrow.load(LoraAdapter({"a.weight": (6, 5)}, 4, 8.0, torch.Generator()).snapshot())
    assert caught.value.hint == "use --rank 4"
    with pytest.raises(UsageError, match="does not learn, such as b"):
        narrow.load(wide.snapshot())
