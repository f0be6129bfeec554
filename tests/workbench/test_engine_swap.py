"""Hot swap: new weights beside the old, a bad file never live, and every answer true to its version."""

from __future__ import annotations

import pytest
import torch
from engine_talk import SHORT, Talk, add_full_version, add_version
from safetensors.torch import load_file, save_file
from tiny_model import CORPUS, make_adapter, make_tiny_model

from storage import versions
from storage.database import open_database
from storage.records import Sampling, Version
from storage.workspace import Workspace
from workbench.engine.protocol import (
    Answer,
    Done,
    Failed,
    Generate,
    Swap,
    Swapped,
    Text,
)


def test_a_swap_changes_what_is_said_and_a_swap_back_restores_it(talk, endless_model, workspace):
    version = add_version(workspace, endless_model)
    ask = Generate("r", CORPUS[0], seed=3, sampling=SHORT, stream=False)
    (before,) = talk.answers(ask)
    talk.say(Swap(version.name))
    swapped = talk.until(Swapped, Failed)[-1]
    assert (swapped.version, swapped.previous) == (version.name, "v0")
    (after,) = talk.answers(ask)
    assert after.version == version.name
    assert after.token_ids != before.token_ids
    talk.say(Swap("v0"))
    assert talk.until(Swapped, Failed)[-1].previous == version.name
    assert talk.answers(ask) == [before]


def test_swapping_and_loading_the_same_version_say_the_same(talk, endless_model, workspace):
    first, second = add_version(workspace, endless_model, 1), add_version(workspace, endless_model, 2)
    ask = Generate("r", CORPUS[1], seed=3, sampling=SHORT, stream=False)
    talk.say(Swap(first.name), Swap(second.name))
    talk.until(Swapped)
    talk.until(Swapped)
    by_swap = talk.answers(ask)
    fresh = Talk(workspace)
    fresh.load(endless_model, version=second.name)
    assert fresh.answers(ask) == by_swap


def test_a_generation_under_way_finishes_on_the_weights_it_began_with(talk, endless_model, workspace):
    version = add_version(workspace, endless_model)
    ask = Generate("old", CORPUS[2], seed=5, sampling=Sampling(max_new_tokens=1500))
    talk.say(ask)
    talk.until(Text)
    talk.say(Swap(version.name), Generate("new", CORPUS[2], sampling=SHORT))
    events = talk.until(Done, request="new")
    kinds = [type(event) for event in events if not isinstance(event, Text)]
    assert kinds == [Swapped, Answer, Done, Answer, Done], "the swap did not happen beside the generation"
    old, new = (event for event in events if isinstance(event, Answer))
    assert (old.version, new.version) == ("v0", version.name)
    talk.say(Swap("v0"))
    talk.until(Swapped)
    (again,) = talk.answers(Generate("again", CORPUS[2], seed=5, sampling=ask.sampling))
    assert again.token_ids == old.token_ids


def truncate(workspace: Workspace, version: Version) -> None:
    path = workspace.root / version.file
    path.write_bytes(path.read_bytes()[:-100])


def remove(workspace: Workspace, version: Version) -> None:
    (workspace.root / version.file).unlink()


def flip_one_bit(workspace: Workspace, version: Version) -> None:
    path = workspace.root / version.file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def record(workspace: Workspace, version: Version) -> None:
    """Make the database agree with the file, so that only its content can give it away."""
    digest = versions.sha256_of(workspace.root / version.file)
    with open_database(workspace) as database, database.transaction():
        database.execute("UPDATE versions SET sha256 = ? WHERE name = ?", (digest, version.name))


def wrong_shape(workspace: Workspace, version: Version) -> None:
    other = make_tiny_model(workspace.root / "other", hidden=32)
    make_adapter((workspace.root / version.file).parent, other)
    record(workspace, version)


def hashed_rubbish(workspace: Workspace, version: Version) -> None:
    (workspace.root / version.file).write_bytes(b"\x80\x04\x95 this is no safetensors file")
    record(workspace, version)


def not_finite(workspace: Workspace, version: Version) -> None:
    path = workspace.root / version.file
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt", "r": "4", "lora_alpha": "8.0"})
    record(workspace, version)


@pytest.mark.parametrize("damage", [truncate, remove, flip_one_bit, wrong_shape, hashed_rubbish, not_finite])
def test_a_bad_file_never_goes_live(talk, endless_model, workspace, damage):
    version = add_version(workspace, endless_model)
    ask = Generate("r", CORPUS[3], seed=2, sampling=SHORT, stream=False)
    before = talk.answers(ask)
    damage(workspace, version)
    talk.say(Swap(version.name))
    failed = talk.until(Swapped, Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.during == "swap"
    assert failed.error
    assert failed.hint
    assert talk.answers(ask) == before


def other_embedding(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()


def small_vocabulary(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:100].contiguous()


def no_final_norm(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.norm.weight"]


def not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = float("nan")


@pytest.mark.parametrize("damage", [small_vocabulary, no_final_norm, not_a_number])
def test_bad_weights_of_a_whole_model_never_go_live(talk, endless_model, workspace, damage):
    version = add_full_version(workspace, endless_model, damage)
    talk.say(Swap(version.name))
    failed = talk.until(Swapped, Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.during == "swap"
    assert failed.hint
    assert talk.answers(Generate("r", CORPUS[4], sampling=SHORT))[0].version == "v0"


def test_nothing_of_a_whole_model_stays_behind_after_the_next_swap(talk, endless_model, workspace):
    lora, full = add_version(workspace, endless_model), add_full_version(workspace, endless_model, other_embedding)
    ask = Generate("r", CORPUS[5], seed=6, sampling=SHORT, stream=False)
    said = {}
    for name in (lora.name, full.name, lora.name, full.name, "v0"):
        talk.say(Swap(name))
        assert isinstance(talk.until(Swapped, Failed)[-1], Swapped)
        (answer,) = talk.answers(ask)
        assert said.setdefault(name, answer.token_ids) == answer.token_ids
    assert len({tuple(ids) for ids in said.values()}) == 3


def test_an_unknown_version_or_one_of_another_model_is_refused(talk, tiny_model, endless_model):
    talk.say(Swap("v99"))
    assert "v99" in talk.until(Failed)[-1].error
    talk.load(tiny_model)
    talk.load(endless_model)
    talk.say(Swap("v0-tiny"))
    failed = talk.until(Swapped, Failed)[-1]
    assert failed.during == "swap"
    assert "tiny" in failed.error
