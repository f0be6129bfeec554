"""Which weights these are: by their content, wherever they lie and whatever they are called."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_gguf import make_tiny_gguf

from storage import converted, digests
from storage.errors import WorkbenchError
from storage.workspace import Workspace
from trainer.policy.models import gguf, resolve
from workbench.commands.doctor import model_copies


@pytest.fixture(autouse=True)
def any_file_is_settled(monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", -1.0)


@pytest.fixture
def hashed(monkeypatch) -> list[Path]:
    """The files that are read to be hashed, in turn."""
    seen: list[Path] = []
    read = digests.sha256_of
    monkeypatch.setattr(digests, "sha256_of", lambda path: (seen.append(path), read(path))[1])
    return seen


@pytest.fixture(scope="module")
def two_files(tiny_model, tmp_path_factory) -> tuple[Path, Path]:
    """Two GGUF files of one name and size, in different folders, whose weights differ."""
    root = tmp_path_factory.mktemp("gguf")
    for name in "ab":
        (root / name).mkdir()
    first = make_tiny_gguf(root / "a" / "model.gguf", tiny_model)
    second = make_tiny_gguf(root / "b" / "model.gguf", tiny_model, shift=1.0)
    assert first.stat().st_size == second.stat().st_size
    return first, second


def final_norm(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["model.norm.weight"].float()


def test_two_gguf_files_of_one_name_and_size_are_two_models(two_files, workspace, tiny_model):
    one, other = (resolve(str(file), workspace) for file in two_files)
    assert one.path != other.path
    assert one.digest != other.digest
    assert torch.equal(final_norm(one.path) + 1, final_norm(other.path))
    assert resolve(str(one.path), workspace) == one, "a copy that is named by its place is that model"
    mine = load_file(tiny_model / "model.safetensors")
    for name, value in load_file(one.path / "model.safetensors").items():
        assert torch.equal(value, mine[name].to(torch.bfloat16)), name


def test_a_file_is_read_once_and_again_only_when_it_changes(two_files, workspace, tmp_path, hashed):
    file = Path(shutil.copy(two_files[0], tmp_path / "mine.gguf"))
    first = resolve(str(file), workspace)
    assert hashed.count(file) == 1
    assert resolve(str(file), workspace) == first
    assert hashed.count(file) == 1, "a later start looks at no byte of it"
    before = file.stat()
    shutil.copy(two_files[1], file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = resolve(str(file), workspace)
    assert hashed.count(file) == 2
    assert second.digest != first.digest
    moved = file.rename(tmp_path / "moved.gguf")
    assert resolve(str(moved), workspace).path == second.path, "the content has a copy already"
    assert len(list(converted.every(workspace))) == 2


def test_what_has_just_changed_is_not_remembered(tmp_path, workspace, hashed, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 60.0)
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    one = digests.remembered(workspace, file)
    file.write_bytes(b"other")  # the file system's clock may not have moved since
    assert digests.remembered(workspace, file) != one
    assert hashed == [file, file]


def test_a_damaged_memory_costs_one_reading(tmp_path, workspace, hashed):
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    memory = workspace.models / digests.FILE_NAME
    for damaged in ("", "{half", "[1]", json.dumps({str(file): []}), json.dumps({str(file): "x"})):
        memory.write_text(damaged)
        hashed.clear()
        for _ in range(2):
            assert digests.remembered(workspace, file) == digests.sha256_of(file)
        assert hashed == [file] * 3, damaged


def test_a_file_that_changes_while_it_is_converted_is_told(two_files, workspace, tmp_path, monkeypatch):
    file = Path(shutil.copy(two_files[0], tmp_path / "mine.gguf"))
    write = gguf.write_model
    monkeypatch.setattr(gguf, "write_model", lambda *given: (write(*given), shutil.copy(two_files[1], file)))
    with pytest.raises(WorkbenchError, match="changed while it was being read"):
        resolve(str(file), workspace)
    assert not list(converted.every(workspace)), "nothing goes by the name of what it is not"


def test_a_folder_is_left_as_it_is_and_read_once(tiny_model, tmp_path, workspace, hashed):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "mine"))
    names = sorted(folder.iterdir())
    first = resolve(str(folder), workspace)
    assert hashed == [folder / "model.safetensors"]
    assert resolve(str(folder), Workspace(workspace.root)) == first
    assert len(hashed) == 1
    assert sorted(folder.iterdir()) == names, "nothing is written into a folder that is not ours"


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "model.gguf", "Git LFS pointer"),
        (b"PK\x03\x04", "model.gguf", "does not begin as one"),
        (b"GGUF", "model-00001-of-00002.gguf", "one of several parts"),
    ],
)
def test_what_is_no_whole_gguf_file_is_refused_in_one_line(content, name, told, tmp_path, workspace):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WorkbenchError, match=told) as caught:
        resolve(str(tmp_path / name), workspace)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_folder_of_gguf_files_asks_for_one(two_files, workspace):
    with pytest.raises(WorkbenchError, match="holds GGUF files") as caught:
        resolve(str(two_files[0].parent), workspace)
    assert str(two_files[0]) in caught.value.hint


def test_the_doctor_finds_copies_whose_source_changed(two_files, workspace, tmp_path):
    file = Path(shutil.copy(two_files[0], tmp_path / "mine.gguf"))
    made = resolve(str(file), workspace).path

    def findings() -> list[tuple[str, str]]:
        return [(one.status, one.detail) for one in model_copies(workspace)]

    assert findings() == [("ok", "1 converted model, all as they were made")]
    shutil.copy(two_files[1], file)
    assert findings() == [("warn", f"{file} has changed since {made} was made of it")]
    file.unlink()
    assert findings()[0][0] == "ok", "the copy is all that is needed"
    (made / "model.safetensors").write_bytes((made / "model.safetensors").read_bytes()[:-2] + b"xx")
    assert findings() == [("warn", f"{made} is not the copy that was made: its weights changed")]
    manifest = converted.read(made)
    converted.write(made, converted.Manifest(manifest.source, digests.of_all([made / "model.safetensors"], None)))
    assert findings() == [("warn", f"{made} was made by an earlier release and is no longer used")]
