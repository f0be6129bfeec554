"""Remapped keys: read from a file, checked, and used."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import UsageError
from storage.workspace import Workspace
from workbench.shell import keymap


@pytest.fixture(autouse=True)
def no_keymap_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write(workspace: Workspace, text: str) -> Path:
    path = workspace.root / "keymap.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_nothing_is_remapped(workspace: Workspace):
    assert keymap.load(workspace) == {}


def test_a_key_or_a_list_of_keys(workspace: Workspace):
    write(workspace, '"review.skip" = "z"\n"prompt.send" = ["ctrl+j", "f8"]\n[review]\nundo = "!"\n')
    assert keymap.load(workspace) == {
        "review.skip": ("z",), "prompt.send": ("ctrl+j", "f8"), "review.undo": ("exclamation_mark",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"review.fly" = "z"', ["review.fly", "no such action"]),
        ('"review.skip" = "hyperspace"', ["review.skip", "hyperspace"]),
        ('"review.skip" = 3', ["review.skip", "a key or a list of keys"]),
        ('"review.skip" = []', ["review.skip", "a key or a list of keys"]),
        ('"review.skip" = "u"', ["review.skip", "'u'", "review.undo"]),
        ('"review.skip" = "ctrl+p"', ["review.skip", "app.palette"]),
        ("review.skip = ", ["keymap.toml"]),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_key(workspace: Workspace, text: str, names: list[str]):
    path = write(workspace, text)
    with pytest.raises(UsageError) as caught:
        keymap.load(workspace)
    assert str(path) in caught.value.message
    assert caught.value.hint
    for name in names:
        assert name in caught.value.message


def test_two_actions_may_swap_their_keys(workspace: Workspace):
    write(workspace, '"review.skip" = "u"\n"review.undo" = "s"')
    keys = keymap.effective(keymap.load(workspace))
    assert (keys["review.skip"], keys["review.undo"]) == (("u",), ("s",))


def test_a_shared_key_stays_with_the_action_that_was_not_remapped(workspace: Workspace):
    write(workspace, '"review.bad" = "z"')
    bound = keymap.bindings("review", keymap.load(workspace)).key_to_bindings
    assert [binding.id for binding in bound["z"]] == ["review.bad"]
    assert [binding.id for binding in bound["x"]] == ["review.both-bad", "review.none-good"]


def test_the_workspace_wins_over_the_configuration_folder(workspace: Workspace):
    keymap.config_file().parent.mkdir(parents=True)
    keymap.config_file().write_text('"review.skip" = "z"\n"review.note" = "w"\n', encoding="utf-8")
    write(workspace, '"review.skip" = "ctrl+y"')
    assert keymap.load(workspace) == {"review.skip": ("ctrl+y",), "review.note": ("w",)}
