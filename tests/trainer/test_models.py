"""Finding a model, refusing what is none, and choosing where to compute."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from architectures import make_model
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from storage.errors import UsageError, WorkbenchError
from trainer.policy import devices
from trainer.policy.backbone import Backbone
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.models import ModelFolder, resolve
from trainer.policy.models.module import load_module

CPU = torch.device("cpu")


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_a_folder_is_used_where_it_lies_and_its_digest_follows_its_weights(copy, workspace):
    found = resolve(str(copy), workspace)
    assert (found.name, found.path) == ("copy", copy)
    assert resolve(str(copy), workspace) == found
    file = copy / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    assert resolve(str(copy), workspace).digest != found.digest


@pytest.mark.parametrize("reference", ["smolm2", "./nowhere", "/no/such/folder", "a/b/c"])
def test_a_reference_to_nothing_names_what_there_is(reference, workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        resolve(reference, workspace)
    assert reference in caught.value.message
    assert "smollm2" in caught.value.hint


def test_a_file_that_is_no_model_is_refused(workspace, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match="is not a model"):
        resolve(str(tmp_path / "model.pt"), workspace)


def test_a_folder_without_weights_or_without_configuration_is_refused(copy, workspace):
    (copy / "model.safetensors").unlink()
    with pytest.raises(WorkbenchError, match="no safetensors weights"):
        resolve(str(copy), workspace)
    (copy / "config.json").write_text("{half")
    with pytest.raises(WorkbenchError, match=r"config\.json cannot be read"):
        resolve(str(copy), workspace)
    (copy / "config.json").unlink()
    with pytest.raises(WorkbenchError, match=r"config\.json cannot be read"):
        resolve(str(copy), workspace)


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_weights_are_named_and_never_opened(copy, workspace, tmp_path):
    (copy / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(WorkbenchError, match=r"found pytorch_model\.bin, which can run code") as caught:
        resolve(str(copy), workspace)
    assert "safetensors" in caught.value.hint
    assert not canary.exists()
    pickle.loads((copy / "pytorch_model.bin").read_bytes())
    assert canary.exists(), "opening it would have shown"


def test_a_model_that_brings_code_is_refused(copy, workspace, tmp_path):
    canary = tmp_path / "canary"
    (copy / "modeling_own.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n")
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "modeling_own.Config"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError, match="auto_map") as caught:
        resolve(str(copy), workspace)
    assert "never run" in caught.value.hint
    assert not canary.exists()


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_called_damaged(copy, workspace, kept):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(WorkbenchError, match="cannot be read") as caught:
        Decoder.load(resolve(str(copy), workspace).path, CPU, torch.float32)
    assert "model.safetensors" in caught.value.message
    with pytest.raises(WorkbenchError, match="cannot be read"):
        Backbone(ModelFolder("copy", copy, ""), CPU, torch.float32)


def test_a_missing_weight_is_named(copy):
    file = copy / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    for load in (
        lambda: Backbone(ModelFolder("copy", copy, ""), CPU, torch.float32),
        lambda: Decoder.load(copy, CPU, torch.float32),
    ):
        with pytest.raises(WorkbenchError, match=r"lack .*layers\.1\.mlp\.up_proj"):
            load()


def test_a_damaged_gguf_file_leaves_no_half_made_model(workspace, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(WorkbenchError, match="cannot be unpacked"):
        resolve(str(tmp_path / "broken.gguf"), workspace)
    assert not [path for path in workspace.models.iterdir() if path.is_dir()]


def test_nothing_is_drawn_among_what_the_program_says(tmp_path, capfd):
    """No bar of transformers' own."""
    logging.enable_progress_bar()
    folder = make_model(tmp_path / "gpt2", "gpt2")
    capfd.readouterr()
    load_module(folder, torch.float32)
    assert "it/s" not in capfd.readouterr().err


def test_a_tokenizer_that_ends_no_answer_is_refused(copy):
    for name in ("generation_config.json", "special_tokens_map.json"):
        (copy / name).unlink(missing_ok=True)
    for name, key in (("tokenizer_config.json", "eos_token"), ("config.json", "eos_token_id")):
        config = json.loads((copy / name).read_text())
        del config[key]
        (copy / name).write_text(json.dumps(config))
    with pytest.raises(WorkbenchError, match="no end-of-text token"):
        ChatTokenizer.load(copy)


def test_a_base_model_without_a_template_gets_a_plain_one(copy):
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    file = copy / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("chat_template", None)
    file.write_text(json.dumps(config))
    tokenizer = ChatTokenizer.load(copy)
    assert tokenizer.decode(tokenizer.encode_prompt("Pourquoi ?", "Sois bref.")) == (
        "Sois bref.\n\nQuestion: Pourquoi ?\nAnswer:"
    )


@pytest.mark.parametrize("text", ["空が青い", "السماء زرقاء", "आसमान", "¡Hola! <b>", ""])
def test_a_written_answer_comes_back_as_it_was_and_ends(copy, text):
    tokenizer = ChatTokenizer.load(copy)
    ids = tokenizer.encode_response(text)
    assert ids[-1] in tokenizer.eos_ids
    assert tokenizer.decode(ids) == text


# --- devices ---------------------------------------------------------------------------------------------------------


def test_auto_takes_what_is_there():
    device, dtype = devices.choose()
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert dtype == (torch.bfloat16 if devices.has_native_bf16(device) else torch.float32)


@pytest.mark.parametrize(
    ("device", "native", "stored", "dtype"),
    [
        ("cpu", True, 270_000_000, torch.bfloat16),
        ("cpu", False, 270_000_000, torch.float32),
        ("cuda", True, 270_000_000, torch.float32),
        ("cuda", True, 14_000_000_000, torch.bfloat16),
        ("cuda", True, None, torch.bfloat16),
        ("cuda", False, 14_000_000_000, torch.float32),
    ],
)
def test_a_small_model_is_spared_the_rounding_where_that_costs_nothing(device, native, stored, dtype):
    assert devices.usual_dtype(device, native, stored) == dtype


def test_a_named_device_and_format_are_taken():
    assert devices.choose("cpu", "fp16") == (CPU, torch.float16)
    assert devices.short_name(torch.bfloat16) == "bf16"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "hpu", ""])
def test_a_device_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(UsageError, match=f"device '{name}' cannot be used") as caught:
        devices.choose(name)
    assert "\n" not in caught.value.message
    assert "auto, cpu or cuda" in caught.value.hint


def test_an_unknown_number_format_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="unknown number format 'int4'") as caught:
        devices.choose("cpu", "int4")
    assert "bf16, fp16, fp32" in caught.value.hint
