"""docs/learning.md says what holds: its tables have every setting with its default, and its commands are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from trainer import config
from trainer.cli import STAGES, cli

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "learning.md").read_text(encoding="utf-8")
TABLE = re.compile(r"^Settings of `(\w+)`:\n\n\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
TABLES = {name: {setting: default for setting, default, _ in ROW.findall(rows)} for name, rows in TABLE.findall(PAGE)}


def declared(kind: type[Any]) -> dict[str, str]:
    """The settings that a class adds to the one it comes from, with their defaults as they are printed."""
    parents = [parent for parent in kind.__mro__[1:] if parent.__module__ == config.__name__]
    inherited = {field.name for parent in parents for field in msgspec.structs.fields(parent)}
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return {
        field.name: _printed(field.default)
        for field in found.fields
        if field.name not in inherited and not isinstance(field.type, inspect.StructType)
    }


def _printed(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_has_every_setting_with_the_default_of_the_trainer(name: str):
    assert TABLES[name] == declared(getattr(config, name))


def test_every_section_of_the_configuration_has_a_table():
    sections = {
        type(getattr(stage.config(), field.name)).__name__
        for stage in STAGES.values()
        for field in msgspec.structs.fields(stage.config)
        if isinstance(getattr(stage.config(), field.name), msgspec.Struct)
    }
    assert sections | {"ModelConfig", "AdapterConfig", "PolicyConfig", "SupervisedConfig"} == set(TABLES)


def test_every_command_on_the_page_can_be_given():
    commands = re.findall(r"`trainer ([a-z]+)((?: --[a-z-]+(?: [\w.]+)?)*)`", PAGE)
    assert {name for name, _ in commands} >= set(STAGES)
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
