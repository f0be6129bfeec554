"""A version handed to other programs: peft and transformers open what `workbench export model` writes."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from architectures import make_model, reference_logits, reference_model, tokens
from peft import AutoPeftModelForCausalLM
from tiny_gguf import make_tiny_gguf
from tiny_model import TEMPLATE, make_adapter
from transformers import AutoTokenizer

from storage import versions
from storage.database import Database
from storage.records import Version
from storage.workspace import Workspace
from trainer import adopting
from trainer.policy import models
from trainer.policy.adapters import FILE_NAME, Adapter, read_adapter, write_adapter
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.full import FullWeights
from workbench.cli import cli, run_command

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def export(workspace: Workspace, capsys):
    """Run the command; returns its exit code and what it said."""

    def call(*arguments: str) -> tuple[int, str]:
        code = run_command(cli, ["export", "model", *arguments, "--workspace", str(workspace.root)])
        return code, capsys.readouterr().err

    return call


def record(workspace: Workspace, database: Database, base: models.ModelFolder, file: Path, kind: str) -> Version:
    """The version of a file in a folder of the workspace."""
    root = adopting.root_of(database, workspace, base)
    return versions.add_candidate(
        database, base=root, parent=root.name, kind=kind, file=str(file.relative_to(workspace.root)),
        sha256=versions.sha256_of(file),
    )  # fmt: skip


def said(folder: Path, file: Path, ids: list[int]) -> torch.Tensor:
    """What we compute of a version after a prompt."""
    decoder = Decoder.load(folder, CPU, torch.float32, file)
    with torch.inference_mode():
        return decoder.network.prefill([ids], torch.tensor([0]), len(ids) + 1)[0][0]


def opened_by_peft(folder: Path, ids: list[int]) -> torch.Tensor:
    with warnings.catch_warnings(record=True) as told, torch.no_grad():
        warnings.simplefilter("always")
        found = reference_logits(AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32), ids)[-1]
    assert not [warning for warning in told if "missing" in str(warning.message)]
    return found


def every_weight(shapes: dict[str, list[int]]) -> list[str]:
    return [name for name in shapes if "_proj" in name]


def the_upper_layer(shapes: dict[str, list[int]]) -> list[str]:
    return [name for name in shapes if "layers.2." in name and "_proj" in name]


def queries_and_the_head(shapes: dict[str, list[int]]) -> list[str]:
    return [*(name for name in shapes if "q_proj" in name), "lm_head.weight"]


@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied head"])
@pytest.mark.parametrize("chosen", [every_weight, the_upper_layer, queries_and_the_head])
def test_peft_and_transformers_compute_what_we_do(chosen, tied, workspace, database, tmp_path, export, tiny_model):
    folder = make_model(tmp_path / "base", "llama", tie_word_embeddings=tied)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)  # it has more tokens than the model
    base = models.resolve(str(folder), workspace)
    shapes = {"lm_head.weight": [97, 32], **models.folder.shapes_of(folder)}
    generator = torch.Generator().manual_seed(1)
    pairs = {
        name: (torch.randn(3, into, generator=generator) / 5, torch.randn(out, 3, generator=generator) / 5)
        for name, (out, into) in ((name, shapes[name]) for name in chosen(shapes))
    }
    (workspace.versions / "made").mkdir()
    file = Adapter(pairs, 1.5).write(workspace.versions / "made", "gone")
    record(workspace, database, base, file, "lora")
    (ids,) = tokens(1, 9)
    expected = said(folder, file, ids)
    assert export("v1", str(tmp_path / "adapter"), "--model", str(folder))[0] == 0
    torch.testing.assert_close(opened_by_peft(tmp_path / "adapter", ids), expected, **CLOSE)
    assert export("v1", str(tmp_path / "whole"), "--as", "merged", "--model", str(folder))[0] == 0
    with torch.no_grad():
        merged = reference_logits(reference_model(tmp_path / "whole"), ids)[-1]
    torch.testing.assert_close(merged, expected, **CLOSE)
    assert models.resolve(str(tmp_path / "whole"), workspace).digest != base.digest
    assert models.resolve(str(tmp_path / "adapter"), workspace).digest == base.digest


@pytest.mark.parametrize("kind", ["adapter", "merged", "gguf"])
def test_a_version_of_a_base_model_takes_along_how_it_was_asked(
    kind, workspace, database, tiny_model, tmp_path, export
):
    """Without a chat template of its own it learned in plain lines; whoever opens it gets the same tokens."""
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    base = models.resolve(str(folder), workspace)
    record(workspace, database, base, make_adapter(workspace.versions / "made", folder), "lora")
    assert export("v1", str(tmp_path / "out"), "--as", kind, "--model", str(folder))[0] == 0
    template = (tmp_path / "out" / "chat_template.jinja").read_text(encoding="utf-8")
    ours = ChatTokenizer.load(folder)
    theirs = AutoTokenizer.from_pretrained(folder if kind == "gguf" else tmp_path / "out")
    asked = [{"role": "user", "content": "What is rain?"}]
    found = theirs.apply_chat_template(asked, chat_template=template, add_generation_prompt=True)["input_ids"]
    assert list(found) == ours.encode_prompt("What is rain?")
    assert "Question: What is rain?" in theirs.decode(found)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "has no chat template" in card
    assert "feedback" not in card


def test_the_base_of_a_converted_file_is_found_by_itself(workspace, database, tiny_model, tmp_path, export):
    base = models.resolve(str(make_tiny_gguf(tmp_path / "model.gguf", tiny_model)), workspace)
    version = record(workspace, database, base, make_adapter(workspace.versions / "made", base.path), "lora")
    code, told = export("v1", str(tmp_path / "out"))
    assert (code, str(base.path) in told) == (0, True)
    ids = [5, 7, 9]
    expected = said(base.path, workspace.root / version.file, ids)
    torch.testing.assert_close(opened_by_peft(tmp_path / "out", ids), expected, **CLOSE)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == TEMPLATE
    written = read_adapter(tmp_path / "out" / FILE_NAME)
    assert written.scale == read_adapter(workspace.root / version.file).scale


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_all_files_of_an_export_are_for_the_same_readers(kind, workspace, database, tiny_model, tmp_path, export):
    base = models.resolve(str(tiny_model), workspace)
    record(workspace, database, base, make_adapter(workspace.versions / "made", base.path), "lora")
    assert export("v1", str(tmp_path / "out"), "--as", kind, "--model", str(tiny_model))[0] == 0
    (tmp_path / "other").touch()
    modes = {file.stat().st_mode for file in (tmp_path / "out").iterdir()}
    assert modes == {(tmp_path / "other").stat().st_mode}


def test_a_fully_tuned_version_is_a_model_and_no_adapter(workspace, database, tmp_path, export):
    folder = make_model(tmp_path / "base", "qwen3")
    base = models.resolve(str(folder), workspace)
    name = "model.layers.1.mlp.up_proj.weight"
    changed = FullWeights({name: torch.randn(models.folder.shapes_of(folder)[name])}, folder)
    (workspace.versions / "made").mkdir()
    file = changed.write(workspace.versions / "made", "base")
    record(workspace, database, base, file, "full")
    code, told = export("v1", str(tmp_path / "out"), "--model", str(folder))
    assert (code, "no adapter can hold it" in told, "--as merged" in told) == (2, True, True)
    assert export("v1", str(tmp_path / "out"), "--model", str(folder), "--as", "merged")[0] == 0
    (ids,) = tokens(4, 6)
    with torch.no_grad():
        merged = reference_logits(reference_model(tmp_path / "out"), ids)[-1]
    torch.testing.assert_close(merged, said(folder, file, ids), **CLOSE)


def test_what_cannot_be_handed_over_is_told_in_one_line(
    workspace, database, tiny_model, endless_model, tmp_path, export
):
    base = models.resolve(str(tiny_model), workspace)
    folder = workspace.versions / "made"
    folder.mkdir()
    weight = "model.layers.0.self_attn.q_proj.weight"
    pair = (torch.ones(2, 64), torch.ones(64, 2))
    write_adapter(folder / FILE_NAME, {weight: pair}, alpha=2, base=str(tmp_path / "gone"))
    record(workspace, database, base, folder / FILE_NAME, "lora")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    out = str(tmp_path / "out")
    for arguments, told in (
        (("v0", out), "nothing to export"),
        (("v9", out), "there is no version 'v9'"),
        (("v1", out), "is not where it was"),
        (("v1", out, "--model", str(endless_model)), "is not the model that v1 was trained from"),
        (("v1", str(tmp_path / "full"), "--model", str(tiny_model)), "exists already"),
    ):
        code, error = export(*arguments)
        assert (code in (1, 2), told in error, "hint:" in error) == (True, True, True), error
        assert "Traceback" not in error
    (folder / FILE_NAME).write_bytes((folder / FILE_NAME).read_bytes()[:-4])
    code, error = export("v1", out, "--model", str(tiny_model))
    assert (code, "is not the file that was published" in error) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "workspace"], "nothing half-made is left"
