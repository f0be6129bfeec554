"""What methods declare: read without torch, complete, and told to other programs."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from trainer.cli import cli
from trainer.declared import settings_of
from trainer.lazily import lazily
from trainer.methods import METHODS


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("trainer.cli, trainer.methods", {"torch", "transformers", "numpy", "scipy", "sqlite_utils"}),
        (
            "workbench.shell.app, workbench.training.recipes, workbench.training.boards",
            {"torch", "transformers", "scipy", "trainer.learner"},
        ),
    ],
)
def test_what_methods_declare_is_read_without_anything_heavy(modules, unwanted):
    program = (
        f"import sys, {modules}\n"
        f"heavy = {unwanted} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_module_comes_with_the_first_thing_that_is_asked_of_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    module = lazily("this")
    assert "this" not in sys.modules
    assert module.d["a"] == "n"
    assert "this" in sys.modules
    with pytest.raises(AttributeError):
        _ = module.nothing


def test_a_program_is_told_every_method_with_its_settings_and_what_it_changes_in_them(monkeypatch, capsys, workspace):
    monkeypatch.setattr(sys, "argv", ["trainer"])
    cli.main(["methods", "--json", "--workspace", str(workspace.root)], standalone_mode=False)
    told = {one["name"]: one for one in msgspec.json.decode(capsys.readouterr().out)}
    assert list(told) == list(METHODS)
    reinforce = {setting["path"]: setting for setting in told["reinforce"]["settings"]}
    assert reinforce["ppo.epochs"]["default"] == 1
    assert reinforce["ppo.advantage"]["choices"] == ["gae", "reinforce", "rloo", "grpo"]
    assert all(setting["description"] for one in told.values() for setting in one["settings"])
    assert told["run"]["recipes"][0]["needs"] == {"ratings": 20}
    assert not told["reward"]["makes_version"]


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_a_command_has_every_setting_of_its_method_and_its_help(method):
    command = cli.commands[method.name]
    options = {parameter.name for parameter in command.params}
    assert {path.replace(".", "__") for path in settings_of(method.settings, method.defaults)} <= options
    assert command.help == method.manual
    assert method.summary in cli.help
