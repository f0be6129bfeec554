"""Prompt packs: prompts that come with the program, by language and task, each written in its own language.

A file TAG.toml holds a list of prompts for each task. A pack goes by LANGUAGE/TASK, such as `fr/summary`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import resources

import msgspec

from storage import conversations
from storage.database import Database
from storage.errors import UsageError
from storage.languages import OFFERED, name

ORIGIN = "pack"
EVERYTHING = "all"


class Pack(msgspec.Struct, frozen=True):
    """The prompts of one task in one language."""

    language: str
    task: str
    prompts: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.language}/{self.task}"


class Added(msgspec.Struct, frozen=True):
    """What came of adding packs: how many prompts they hold, and how many of them were new."""

    packs: int
    prompts: int
    new: int


@cache
def every() -> tuple[Pack, ...]:
    """All packs, by language in the order in which the app offers them, and by task."""
    files = {file.name.removesuffix(".toml"): file for file in resources.files(__name__).iterdir()
             if file.name.endswith(".toml")}  # fmt: skip
    order = sorted(files, key=lambda tag: (OFFERED.index(tag) if tag in OFFERED else len(OFFERED), tag))
    return tuple(
        Pack(tag, task, tuple(prompts))
        for tag in order
        for task, prompts in tomllib.loads(files[tag].read_text(encoding="utf-8")).items()
    )


def chosen(names: Iterable[str]) -> list[Pack]:
    """The packs that names stand for, each once: LANGUAGE/TASK, a language, a task, or `all`.

    Raises:
        UsageError: a name stands for none.
    """
    wanted: dict[str, Pack] = {}
    for one in names:
        found = [pack for pack in every() if one in (pack.name, pack.language, pack.task, EVERYTHING)]
        if not found:
            languages = ", ".join(dict.fromkeys(pack.language for pack in every()))
            tasks = ", ".join(dict.fromkeys(pack.task for pack in every()))
            raise UsageError(f"no pack is called {one}", f"languages: {languages}; tasks: {tasks}; fr/summary is one")
        wanted |= {pack.name: pack for pack in found}
    return list(wanted.values())


def held(database: Database) -> dict[str, int]:
    """How many prompts of each pack the workspace holds, by the pack's name."""
    return {
        pack.name: sum(conversations.find(database, text, language=pack.language) is not None for text in pack.prompts)
        for pack in every()
    }


def add(database: Database, packs: Iterable[Pack]) -> Added:
    """Store the prompts of packs that the workspace does not hold yet, in one transaction. A hash of each text decides
    whether it is held out, as for any new prompt."""
    packs = list(packs)
    new = 0
    with database.transaction():
        for pack in packs:
            for text in pack.prompts:
                new += conversations.find(database, text, language=pack.language) is None
                conversations.add(database, text, language=pack.language, task=pack.task, origin=ORIGIN)
    return Added(len(packs), sum(len(pack.prompts) for pack in packs), new)


def title(pack: Pack) -> str:
    """A pack in words: `French: summary`."""
    return f"{name(pack.language)}: {pack.task}"
