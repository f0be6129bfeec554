"""The languages of the demo, a file each: how the simulated rater knows the language, and what is asked in it.

A file TAG.toml says `common_words`, of a language in Latin letters, or `scripts`, the beginnings of the Unicode names
of its letters, with a `density` (about how many letters of an alphabet one is worth); and for the splits `train` and
`held-out` the prompts of each task.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from storage.languages import OFFERED
from storage.records import Split


@dataclass(frozen=True)
class Asked:
    """A prompt of the demo."""

    text: str
    language: str
    task: str
    split: Split


@dataclass(frozen=True)
class Spoken:
    """What there is of one language in the demo."""

    tag: str
    common_words: frozenset[str]
    scripts: tuple[str, ...]
    density: float
    prompts: tuple[Asked, ...]


@cache
def spoken() -> dict[str, Spoken]:
    """All languages by their tags, in the order in which the app offers them."""
    files = {file.name.removesuffix(".toml"): file for file in resources.files(__name__).iterdir()
             if file.name.endswith(".toml")}  # fmt: skip
    order = sorted(files, key=lambda tag: (OFFERED.index(tag) if tag in OFFERED else len(OFFERED), tag))
    return {tag: _read(tag, files[tag].read_text(encoding="utf-8")) for tag in order}


def prompts() -> list[Asked]:
    """All prompts of all languages, in one order that never changes but by what is added."""
    return [asked for language in spoken().values() for asked in language.prompts]


def _read(tag: str, text: str) -> Spoken:
    fields = tomllib.loads(text)
    words, scripts = frozenset(fields.get("common_words", "").split()), tuple(fields.get("scripts", ()))
    return Spoken(tag, words, scripts, fields.get("density", 1.0), tuple(_prompts(tag, fields)))


def _prompts(tag: str, fields: dict[str, dict[str, list[str]]]) -> Iterator[Asked]:
    for split in (Split.TRAIN, Split.HELD_OUT):
        for task, texts in fields[split].items():
            for text in texts:
                yield Asked(text, tag, task, split)
