"""A swap proves itself: the engine answers fixed prompts as the version did when it was published, or does not swap."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from engine_talk import SHORT, Talk, add_full_version, add_version, serve
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import CORPUS

from storage import jobs, versions
from storage.database import open_database
from storage.records import Version
from storage.workspace import Workspace
from trainer.evaluation.gate import GateReport
from trainer.evaluation.seen import Side
from trainer.job import HeldJob
from trainer.policy import probe
from trainer.policy.backbone import Backbone
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.models import ModelFolder
from trainer.policy_config import PpoConfig
from trainer.publishing import finish
from trainer.setting import Setting
from workbench.engine.protocol import Failed, Generate, Ready, Swap, Swapped

Known = tuple[Workspace, Version]


def path_of(workspace: Workspace, version: Version) -> Path:
    return workspace.root / version.file


def store_probe(workspace: Workspace, version: Version, model: Path) -> None:
    """What the trainer stores beside the weights."""
    path = path_of(workspace, version)
    decoder = Decoder.load(model, torch.device("cpu"), torch.float32, path)
    answer = probe.take(decoder, ChatTokenizer.load(model))
    assert answer is not None
    probe.write(path.parent, answer)


def edit_probe(workspace: Workspace, version: Version, **environment: object) -> None:
    """As if it had been taken elsewhere."""
    path = path_of(workspace, version).with_name(probe.FILE_NAME)
    stored = json.loads(path.read_text())
    stored["environment"] |= environment
    path.write_text(json.dumps(stored))


def rewrite(workspace: Workspace, version: Version, *, alpha: float = 1.0, first: float = 1.0) -> None:
    """Scale alpha or the first matrix of an adapter's file, and make the database agree with the file."""
    path = path_of(workspace, version)
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(path)
    tensors[min(tensors)] = tensors[min(tensors)] * first
    save_file(tensors, path, metadata=metadata | {"lora_alpha": repr(float(metadata["lora_alpha"]) * alpha)})
    record(workspace, version)


def record(workspace: Workspace, version: Version) -> None:
    with open_database(workspace) as database:
        digest = versions.sha256_of(path_of(workspace, version))
        database.execute("UPDATE versions SET sha256 = ? WHERE name = ?", (digest, version.name))


def swap(talk: Talk, name: str) -> Swapped | Failed:
    talk.say(Swap(name))
    event = talk.until(Swapped, Failed)[-1]
    assert isinstance(event, Swapped | Failed)
    return event


def one_matrix_scaled(workspace: Workspace, version: Version) -> None:
    rewrite(workspace, version, first=1.05)


def alpha_halved(workspace: Workspace, version: Version) -> None:
    rewrite(workspace, version, alpha=0.5)


def the_file_of_another_version(workspace: Workspace, version: Version) -> None:
    other = workspace.versions / "lora-2" / path_of(workspace, version).name
    shutil.copy(other, path_of(workspace, version))
    record(workspace, version)


@pytest.fixture
def proven(talk, endless_model, workspace) -> Version:
    """A version with a probe; there is another one, with the seed 2."""
    version = add_version(workspace, endless_model, 1)
    add_version(workspace, endless_model, 2)
    store_probe(workspace, version, endless_model)
    return version


def test_the_bits_are_the_same_where_they_are_computed_alike(talk, proven):
    swapped = swap(talk, proven.name)
    assert isinstance(swapped, Swapped)
    assert swapped.proof == "exact"
    assert swap(talk, proven.name).proof == "exact", "it is what serves already"
    assert swap(talk, "v0").proof == "the base model"


def test_elsewhere_they_agree_to_rounding(talk, proven, workspace):
    edit_probe(workspace, proven, threads=64)
    swapped = swap(talk, proven.name)
    assert isinstance(swapped, Swapped)
    assert swapped.proof == "within 0.0001 nats"


def test_a_version_without_a_probe_is_swapped_and_said_not_to_be_proven(talk, endless_model, workspace):
    swapped = swap(talk, add_version(workspace, endless_model).name)
    assert isinstance(swapped, Swapped)
    assert swapped.proof == "not proven: published without a probe"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same environment", "another environment"])
@pytest.mark.parametrize("damage", [one_matrix_scaled, alpha_halved, the_file_of_another_version])
def test_other_weights_than_were_published_are_caught(talk, proven, workspace, damage, elsewhere):
    ask = Generate("r", CORPUS[3], seed=2, sampling=SHORT, stream=False)
    before = talk.answers(ask)
    damage(workspace, proven)
    if elsewhere:
        edit_probe(workspace, proven, torch="another")
    failed = swap(talk, proven.name)
    assert isinstance(failed, Failed)
    assert failed.during == "swap"
    assert "when it was published" in failed.error
    assert failed.hint
    assert talk.answers(ask) == before


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same environment", "another environment"])
@pytest.mark.parametrize("strength", [1.0, 0.003], ids=["versions far apart", "versions nearer than rounding explains"])
def test_an_engine_that_goes_on_with_the_old_weights_is_caught(
    talk, endless_model, workspace, monkeypatch, strength, elsewhere
):
    version = add_version(workspace, endless_model, strength=strength)
    store_probe(workspace, version, endless_model)
    if elsewhere:
        edit_probe(workspace, version, dtype="bf16")
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "with_version", lambda decoder, path: decoder)
        failed = swap(talk, version.name)
    assert isinstance(failed, Failed)
    assert "when it was published" in failed.error
    (answer,) = talk.answers(Generate("r", CORPUS[3], sampling=SHORT))
    assert answer.version == "v0"
    assert isinstance(swap(talk, version.name), Swapped), "it was not the version's fault"


def test_a_load_proves_what_it_serves_and_falls_back_to_the_base(talk, proven, endless_model, workspace):
    serve(workspace, proven)
    good = Talk(workspace)
    ready = good.load(endless_model)[-1]
    assert isinstance(ready, Ready)
    assert (ready.version, ready.proof) == (proven.name, "exact")
    alpha_halved(workspace, proven)
    bad = Talk(workspace)
    *_, failed, ready = bad.load(endless_model)
    assert isinstance(failed, Failed)
    assert failed.during == "swap"
    assert isinstance(ready, Ready)
    assert (ready.version, ready.proof) == ("v0", "the base model")
    named = Talk(workspace).load(endless_model, version=proven.name)[-1]
    assert isinstance(named, Failed)
    assert named.during == "load"


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04\x95"])
def test_a_damaged_probe_is_refused_and_the_way_out_is_told(talk, proven, workspace, content):
    path = path_of(workspace, proven).with_name(probe.FILE_NAME)
    path.write_bytes(content)
    failed = swap(talk, proven.name)
    assert isinstance(failed, Failed)
    assert "probe.json cannot be used" in failed.error
    assert "remove this file" in failed.hint
    path.unlink()
    assert isinstance(swap(talk, proven.name), Swapped)


def test_prompts_that_are_not_for_this_model_are_refused(talk, proven, workspace):
    path = path_of(workspace, proven).with_name(probe.FILE_NAME)
    stored = json.loads(path.read_text())
    stored["prompts"][0][0] = 10**6
    path.write_text(json.dumps(stored))
    failed = swap(talk, proven.name)
    assert isinstance(failed, Failed)
    assert "not in the vocabulary" in failed.error


def test_a_version_with_all_weights_of_its_own_is_proven_too(talk, endless_model, workspace):
    def quieter(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.down_proj.weight"] *= 0.5

    version = add_full_version(workspace, endless_model, quieter)
    store_probe(workspace, version, endless_model)
    assert swap(talk, version.name).proof == "exact"
    other = add_version(workspace, endless_model)
    store_probe(workspace, other, endless_model)
    assert swap(talk, other.name).proof == "exact"


def test_what_the_trainer_publishes_the_engine_proves(talk, endless_model, workspace):
    backbone = Backbone(ModelFolder("endless", endless_model, "digest"), torch.device("cpu"), torch.float32)
    adapter = backbone.new_adapter(PpoConfig(rank=4), seed=1, upper=False)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(7))
    candidate = adapter.snapshot()
    answer = probe.take(backbone.decoder(candidate), backbone.tokenizer)
    report = GateReport([{"gate": "finite", "passed": True}], 0.5, Side([], None), Side([], None), 2)
    with open_database(workspace) as database:
        base = versions.served(database)
        assert base is not None
        job = jobs.claim(database, "this test", job_id=jobs.enqueue(database, "run", {}).id)
        assert job is not None
        setting = Setting(backbone, base, base, None, None, None, None, None, 8)  # type: ignore[arg-type]
        version = finish(
            HeldJob(workspace, database, job, quiet=True),
            candidate,
            report,
            setting,
            1,
            answer,
            lambda *_: None,
            publish=True,
        )
    swapped = swap(talk, version.name)
    assert isinstance(swapped, Swapped)
    assert swapped.proof in ("exact", "within 0.0001 nats")
