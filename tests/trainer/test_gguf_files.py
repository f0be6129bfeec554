"""A version as GGUF files: transformers reads from them what we computed, and llama.cpp says what we say."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tiny_gguf import make_tiny_gguf
from tiny_model import make_tiny_model
from transformers import AutoModelForCausalLM

from storage import versions
from storage.database import Database, open_database
from storage.records import Sampling, Version
from storage.workspace import Workspace
from trainer import adopting
from trainer.policy import models
from trainer.policy.adapters import Adapter, read_adapter
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.full import FullWeights
from workbench.cli import cli, run_command

CPU = torch.device("cpu")


def recorded(
    workspace: Workspace, database: Database, base: models.ModelFolder, changes: Adapter | FullWeights
) -> Version:
    folder = workspace.versions / "made"
    folder.mkdir()
    file = changes.write(folder, base.reference)
    root = adopting.root_of(database, workspace, base)
    return versions.add_candidate(
        database, base=root, parent=root.name, kind=changes.kind, file=str(file.relative_to(workspace.root)),
        sha256=versions.sha256_of(file),
    )  # fmt: skip


def updates(folder: Path, size: float = 0.2, ranks: tuple[int, ...] = (2, 3)) -> Adapter:
    """Updates of more than one rank to every linear layer."""
    generator = torch.Generator().manual_seed(5)
    pairs = {}
    for place, (name, shape) in enumerate(sorted(models.folder.shapes_of(folder).items())):
        if ".layers." in name and len(shape) == 2:
            rank = ranks[place % len(ranks)]
            down = torch.randn(rank, shape[1], generator=generator) / shape[1] ** 0.5
            pairs[name] = (down, size * torch.randn(shape[0], rank, generator=generator))
    return Adapter(pairs, 1.5)


def export(workspace: Workspace, target: Path) -> int:
    return run_command(cli, ["export", "model", "v1", str(target), "--as", "gguf", "--workspace", str(workspace.root)])


def test_transformers_reads_the_merged_weights_and_everything_else_is_the_source_to_the_byte(
    workspace, database, tiny_model, tmp_path
):
    source = make_tiny_gguf(tmp_path / "model.gguf", tiny_model)
    base = models.resolve(str(source), workspace)
    changes = updates(base.path)
    recorded(workspace, database, base, changes)
    assert export(workspace, tmp_path / "out") == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"README.md", "v1.gguf", "v1-lora.gguf"}
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file="v1.gguf", dtype=torch.float32).state_dict()
    for name in models.folder.shapes_of(base.path):
        merged = changes.merge(name, models.folder.tensor_of(base.path, name).float())
        expected = merged.half().float() if name in changes.names else merged
        torch.testing.assert_close(read[name], expected, rtol=0, atol=1e-2 if name not in changes.names else 0)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "out" / "v1.gguf")
    kept = [tensor for tensor in before.tensors if tensor.name.endswith(("norm.weight", "embd.weight"))]
    written = {tensor.name: tensor for tensor in after.tensors}
    assert len(written) == len(before.tensors)
    for tensor in kept:
        assert np.array_equal(tensor.data, written[tensor.name].data), tensor.name
    words = "tokenizer.ggml.tokens"
    assert before.fields[words].contents() == after.fields[words].contents()


def test_an_adapter_file_holds_the_same_updates_whatever_their_ranks(workspace, database, tiny_model, tmp_path):
    base = models.resolve(str(make_tiny_gguf(tmp_path / "model.gguf", tiny_model)), workspace)
    changes = updates(base.path)
    recorded(workspace, database, base, changes)
    assert export(workspace, tmp_path / "out") == 0
    reader = gguf.GGUFReader(tmp_path / "out" / "v1-lora.gguf")
    found = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    alpha = reader.fields["adapter.lora.alpha"].contents()
    name = "model.layers.1.mlp.down_proj.weight"  # its rows are not reordered
    down, up = found["blk.1.ffn_down.weight.lora_a"], found["blk.1.ffn_down.weight.lora_b"]
    expected_up, expected_down = changes.update(name, models.folder.shapes_of(base.path)[name])[::-1]
    torch.testing.assert_close(alpha / down.shape[0] * up @ down, expected_up @ expected_down)


def test_a_model_that_came_as_a_folder_gives_an_adapter_alone(workspace, database, tiny_model, tmp_path, capsys):
    base = models.resolve(str(tiny_model), workspace)
    recorded(workspace, database, base, updates(base.path))
    command = ["export", "model", "v1", str(tmp_path / "out"), "--as", "gguf", "--model", str(tiny_model)]
    assert run_command(cli, [*command, "--workspace", str(workspace.root)]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"README.md", "v1-lora.gguf"}
    assert "did not come as a GGUF file" in capsys.readouterr().err


def test_what_no_gguf_file_can_hold_is_refused_with_what_can(workspace, database, tmp_path, capsys):
    folder = make_tiny_model(tmp_path / "base")
    base = models.resolve(str(folder), workspace)
    name = "model.layers.1.mlp.up_proj.weight"
    recorded(workspace, database, base, FullWeights({name: models.folder.tensor_of(folder, name) + 1}, folder))
    command = ["export", "model", "v1", str(tmp_path / "out"), "--as", "gguf", "--model", str(folder)]
    assert run_command(cli, [*command, "--workspace", str(workspace.root)]) == 2
    said = capsys.readouterr().err
    assert "no adapter can hold it" in said
    assert "--as merged" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.model
def test_llama_cpp_says_what_we_say_with_the_adapter_and_with_the_whole_model(bundled_model_workspace, tmp_path):
    xllamacpp = pytest.importorskip("xllamacpp")
    workspace, database = bundled_model_workspace, open_database(bundled_model_workspace)
    base = models.resolve("smollm2", workspace)
    changes = updates(base.path, 0.1, (8,))  # no token of what it says is nearly another: by 0.27 nats at least
    version = recorded(workspace, database, base, changes)
    assert export(workspace, tmp_path / "out") == 0
    tokenizer = ChatTokenizer.load(base.path)
    prompt = tokenizer.encode_prompt("Name three colours.")
    greedy = Sampling(max_new_tokens=8, temperature=0)

    def ours(file: Path | None) -> str:
        (said,) = Decoder.load(base.path, CPU, torch.float32, file).generate([prompt], greedy, [0], frozenset())
        return tokenizer.decode(said.token_ids)

    def theirs(model: Path, adapter: Path | None = None) -> str:
        parameters = xllamacpp.CommonParams()
        parameters.model.path, parameters.n_ctx, parameters.n_parallel = str(model), 256, 1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 2
        parameters.verbosity = 0
        if adapter is not None:
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        server = xllamacpp.Server(parameters)
        asked = {"prompt": prompt, "max_tokens": 8, "temperature": 0.0, "ignore_eos": True}
        return server.handle_completions(asked)["choices"][0]["text"]

    (source,) = models.bundled_parts("smollm2")
    expected = ours(workspace.root / version.file)
    assert read_adapter(workspace.root / version.file).names == changes.names
    assert expected != ours(None), "the version answers as its base does: nothing would be shown"
    assert theirs(source, tmp_path / "out" / "v1-lora.gguf") == expected
    assert theirs(tmp_path / "out" / "v1.gguf") == expected


def test_the_card_says_what_the_version_was_made_from(workspace, database, tiny_model, tmp_path):
    base = models.resolve(str(make_tiny_gguf(tmp_path / "model.gguf", tiny_model)), workspace)
    version = recorded(workspace, database, base, updates(base.path))
    gate = {"gate": "reward gain", "passed": False, "value": 0.1, "bound": 0.2, "detail": "+0.10 [-0.10, 0.30] | n 12"}
    versions.record_gates(database, version.name, [gate], {})
    assert export(workspace, tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nbase_model: model\n")
    for expected in (
        base.digest,
        str(version.sha256),
        "| failed | reward gain | +0.10 [-0.10, 0.30] \\| n 12 |",
        "v1-lora.gguf",
    ):
        assert expected in card
    assert str(tmp_path) not in card
