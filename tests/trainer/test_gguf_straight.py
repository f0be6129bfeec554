"""A llama's GGUF file is read where it lies: as transformers unpacks it, and without a copy until one is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_gguf import make_tiny_gguf
from tiny_model import CORPUS
from transformers import AutoConfig, AutoTokenizer

from storage import converted, digests
from storage.errors import WorkbenchError
from storage.records import Sampling
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.linear import GridLinear
from trainer.policy.models import gguf, resolve
from trainer.policy.models.bundles import BUNDLES, bundled_parts
from trainer.policy.models.config import Config, read_config
from trainer.policy.models.gguf_file import GgufFile, GgufWeights, digest_of
from trainer.policy.models.gguf_model import is_read
from trainer.policy.models.gguf_unpacking import unpack
from workbench.commands.doctor import model_copies

CPU = torch.device("cpu")
FORMATS = ("Q4_0", "Q4_1", "Q8_0", "F16")


@pytest.fixture(scope="module", params=FORMATS)
def file(request, tiny_model, tmp_path_factory) -> Path:
    """A tiny model's GGUF file with its matrices in that format."""
    path = tmp_path_factory.mktemp("gguf") / f"{request.param}.gguf"
    return make_tiny_gguf(path, tiny_model, form=request.param, pre="llama-bpe", add_bos_token=request.param == "Q8_0")


def test_weights_words_and_configuration_are_those_that_transformers_unpacks(file, workspace, tmp_path):
    unpack(file, tmp_path / "theirs", lambda text, fraction: None)
    ours, theirs = resolve(str(file), workspace), tmp_path / "theirs"
    assert ours.source == file
    assert ours.path.joinpath("model.safetensors").read_bytes() == theirs.joinpath("model.safetensors").read_bytes()
    assert ours.digest == digests.of_all([theirs / "model.safetensors"], None) == digest_of(GgufWeights(file))
    said = json.loads((ours.path / "tokenizer.json").read_text())
    assert said == json.loads((theirs / "tokenizer.json").read_text())
    assert (ours.path / "chat_template.jinja").read_text() == (theirs / "chat_template.jinja").read_text()
    mine, config = read_config(ours.path), AutoConfig.from_pretrained(theirs)
    assert {name: getattr(mine, name) for name in Config.__dataclass_fields__ if name != "sliding_window"} == {
        name: getattr(config, name) for name in Config.__dataclass_fields__ if name != "sliding_window"
    }
    words, other = ChatTokenizer.load(ours.path), AutoTokenizer.from_pretrained(theirs)
    assert words.eos_ids == ChatTokenizer.load(theirs).eos_ids
    for text in (*CORPUS, "<|im_start|>x 123456"):
        assert words.tokenizer(text)["input_ids"] == other(text)["input_ids"]


def test_to_prompt_it_no_copy_is_written_and_what_needs_one_writes_it(file, workspace):
    prompted = resolve(str(file), workspace, whole=False)
    assert not list(prompted.path.glob("*.safetensors"))
    assert prompted.source == file
    assert [finding.status for finding in model_copies(workspace)] == ["ok"]
    assert resolve(str(prompted.path), workspace, whole=False).source == file, "by the name of its folder too"
    straight = Decoder.load(prompted.path, CPU, torch.float32, source=prompted.source)
    whole = resolve(str(file), workspace)
    assert (whole.path, whole.digest) == (prompted.path, prompted.digest)
    assert digests.of_all([whole.path / "model.safetensors"], None) == whole.digest
    copied = Decoder.load(whole.path, CPU, torch.float32)
    assert straight.parameters == copied.parameters
    prompts = [[5, 9, 17, 200], [7, 7]]
    assert straight.next_logprobs(prompts).equal(copied.next_logprobs(prompts))


def test_codes_of_four_bits_are_those_of_the_file(file):
    weights = GgufWeights(file)
    name = "model.layers.0.self_attn.q_proj.weight"
    weight, grid = weights.get_tensor(name), weights.grid(name)
    assert (grid is not None) == file.stem.startswith("Q4")
    if grid is not None:
        layer = GridLinear.of(weight, None, grid)
        assert layer is not None
        ones = layer(torch.eye(weight.shape[1], dtype=torch.bfloat16)).T.float()
        assert (ones - weight.float()).norm() <= 0.004 * weight.float().norm(), "rounding of steps alone"


def test_a_copy_that_can_no_longer_be_written_is_told_and_prompting_asks_for_the_file(tiny_model, workspace, tmp_path):
    file = make_tiny_gguf(tmp_path / "mine.gguf", tiny_model)
    made = resolve(str(file), workspace, whole=False)
    moved = file.rename(tmp_path / "moved.gguf")
    with pytest.raises(WorkbenchError, match="has no weights"):
        resolve(str(made.path), workspace)
    assert resolve(str(moved), workspace, whole=False).source == moved
    assert resolve(str(made.path), workspace).path == made.path, "where it lies now is known"


def test_weights_that_change_while_they_are_copied_leave_none(tiny_model, workspace, tmp_path, monkeypatch):
    file = make_tiny_gguf(tmp_path / "mine.gguf", tiny_model)
    made = resolve(str(file), workspace, whole=False)
    other = GgufWeights(make_tiny_gguf(tmp_path / "other.gguf", tiny_model, shift=1.0))
    monkeypatch.setattr(gguf, "open_weights", lambda path: other)
    with pytest.raises(WorkbenchError, match="changed while it was being read"):
        resolve(str(file), workspace)
    assert not list(made.path.glob("*.safetensors*"))


LEFT = {
    "another architecture": {"general.architecture": "gemma"},
    "scaled rotations": {"llama.rope.scaling.type": "linear"},
    "experts": {"llama.expert_count": 4},
    "another tokenizer": {"tokenizer.ggml.model": "llama"},
    "another way of splitting": {"tokenizer.ggml.pre": "qwen2"},
    "an end that is a word": {"tokenizer.ggml.eos_token_id": 300},
    "tokens of the user's": {"tokenizer.ggml.token_type": [4] * 384},
    "what nobody knows": {"other.key": 1},
}


@pytest.mark.parametrize("name", LEFT)
def test_what_states_more_than_is_read_is_left_to_transformers(name, tiny_model, tmp_path):
    read = GgufFile(make_tiny_gguf(tmp_path / "mine.gguf", tiny_model))
    assert is_read(read)
    read.stated |= LEFT[name]
    assert not is_read(read)


@pytest.mark.parametrize("end", [1, 10, 100, -1])
def test_a_file_that_breaks_off_is_told_in_a_line(end, tiny_model, tmp_path, workspace):
    file = make_tiny_gguf(tmp_path / "mine.gguf", tiny_model)
    (tmp_path / "short.gguf").write_bytes(file.read_bytes()[: end * 1024 if end > 0 else end])
    with pytest.raises(WorkbenchError, match="cannot be unpacked"):
        resolve(str(tmp_path / "short.gguf"), workspace, whole=False)
    assert not list(converted.every(workspace))


@pytest.mark.model
def test_the_bundled_model_is_the_one_whose_digest_is_known(workspace):
    """That of the copy that transformers made of it in earlier releases: versions of before stay its versions."""
    (part,) = bundled_parts("smollm2")
    assert digests.sha256_of(part) == BUNDLES["smollm2"].sha256
    assert digest_of(GgufWeights(part)) == BUNDLES["smollm2"].digest
    made = resolve("smollm2", workspace, whole=False)
    assert not list(made.path.glob("*.safetensors"))
    decoder = Decoder.load(made.path, CPU, torch.bfloat16, four_bit=True, source=made.source)
    words = ChatTokenizer.load(made.path)
    asked = words.encode_prompt("What is the capital of France?")
    (said,) = decoder.generate([asked], Sampling(max_new_tokens=12, temperature=0.1), [0], words.eos_ids)
    assert "Paris" in words.decode(said.token_ids)


def test_a_copy_of_an_earlier_release_is_used_and_its_file_read_again(tiny_model, workspace, tmp_path, monkeypatch):
    file = make_tiny_gguf(tmp_path / "mine.gguf", tiny_model)
    made = resolve(str(file), workspace)
    manifest = json.loads((made.path / "manifest.json").read_text())
    del manifest["straight"]
    (made.path / "manifest.json").write_text(json.dumps(manifest))
    again = resolve(str(file), workspace, whole=False)
    assert (again.path, again.digest, again.source) == (made.path, made.digest, None)
    assert load_file(again.path / "model.safetensors")
