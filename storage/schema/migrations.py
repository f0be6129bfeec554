"""The schema, as numbered steps: one .sql file each, beside this one. A released step is never edited: add the next.

The statements of a step may call the functions of :data:`FUNCTIONS`. A file whose first line is `-- needs fts5` is
passed over where SQLite has no full-text search: what it makes is quicker, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from storage.feedback.kinds import examples_taught
from storage.forms import answer_number, search_form
from storage.splits import fraction

FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "text_fraction": (1, fraction),
    "search_form": (1, search_form),
    "answer_number": (3, answer_number),
    "examples_taught": (3, examples_taught),
}


@dataclass(frozen=True)
class Migration:
    """One step of the schema; `number` is the `user_version` it leaves behind."""

    number: int
    name: str
    sql: str

    @property
    def needs_search(self) -> bool:
        """Whether the step is for an SQLite with full-text search alone."""
        return self.sql.startswith("-- needs fts5\n")


def _read() -> tuple[Migration, ...]:
    """The steps, by the numbers that their files begin with."""
    folder = resources.files("storage.schema")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    steps = []
    for file in files:
        number, _, name = file.name.removesuffix(".sql").partition("-")
        steps.append(Migration(int(number), name.replace("-", " "), file.read_text(encoding="utf-8")))
    assert [step.number for step in steps] == list(range(1, len(steps) + 1)), "steps are numbered without gaps"
    return tuple(steps)


MIGRATIONS = _read()
CURRENT = MIGRATIONS[-1].number
