"""docs/learning.md says what holds: its tables have every setting with its default, and its commands are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from trainer.cli import cli
from trainer.config import DeviceConfig, ModelConfig
from trainer.methods import METHODS
from trainer.policy_config import AdapterConfig, PolicyConfig
from trainer.supervised_config import SupervisedConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "learning.md").read_text(encoding="utf-8")
TABLE = re.compile(r"^Settings of `(\w+)`:\n\n\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
ROWS = re.search(r"^\| to learn from .*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
TABLES = {name: {setting: default for setting, default, _ in ROW.findall(rows)} for name, rows in TABLE.findall(PAGE)}


SHARED = [DeviceConfig, ModelConfig, AdapterConfig, PolicyConfig, SupervisedConfig]
SECTIONS = {
    type(getattr(method.settings(), field.name))
    for method in METHODS.values()
    for field in msgspec.structs.fields(method.settings)
    if isinstance(getattr(method.settings(), field.name), msgspec.Struct)
}
CLASSES = {kind.__name__: kind for kind in (*SHARED, *SECTIONS)}


def declared(kind: type[Any]) -> dict[str, str]:
    """The settings that a class adds to the one it comes from or says anew, with their defaults as they are printed."""
    parents = [parent for parent in kind.__mro__[1:] if issubclass(parent, msgspec.Struct)]
    inherited = {(field.name, field.default) for parent in parents for field in msgspec.structs.fields(parent)}
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return {
        field.name: _printed(field.default)
        for field in found.fields
        if (field.name, field.default) not in inherited and not isinstance(field.type, inspect.StructType)
    }


def _printed(value: Any) -> str:
    if value in ((), "", None):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_has_every_setting_with_the_default_of_the_trainer(name: str):
    assert TABLES[name] == declared(CLASSES[name])


def test_every_section_of_the_configuration_has_a_table():
    assert set(CLASSES) == set(TABLES)


def test_the_list_of_methods_has_each_with_its_command_and_its_letters():
    rows = ROWS[1].splitlines()
    for method in METHODS.values():
        own = [row for row in rows if re.search(rf"`(trainer )?{method.name}\b", row)]
        assert own, method.name
        letters = {letter for row in own for letter in row.split("|")[4].replace(" ", "").split(",")}
        assert letters >= {recipe.key for recipe in method.recipes}, method.name
    listed = {letter for row in rows for letter in row.split("|")[4].replace(" ", "").split(",")}
    assert listed - {""} == {recipe.key for method in METHODS.values() for recipe in method.recipes}


def test_every_command_on_the_page_can_be_given():
    commands = re.findall(r"`trainer ([a-z-]+)((?: --[a-z-]+(?: [\w.]+)?)*)`", PAGE)
    assert {name for name, _ in commands} >= set(METHODS)
    for name, options in commands:
        known = {option for parameter in cli.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known, name


def test_every_stage_has_a_section():
    titles = {title.lower() for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    wanted = {"sft", "reward model", "table reward", "ppo", "reinforce", "rloo", "grpo", "ilql"}
    assert wanted | {"hindsight by instruction", "chain of hindsight", "guards", "gate"} <= titles


def test_the_links_within_the_page_lead_somewhere():
    anchors = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
