"""Any text is stored, exported and imported to the character."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from storage import conversations, samples
from storage import settings as remembered
from storage.database import Database, open_database
from storage.errors import WorkbenchError
from storage.exchange.exporting import KINDS, export_file
from storage.exchange.importing import import_file
from storage.feedback import log
from storage.records import Choice
from storage.workspace import Workspace

# Half of them the characters that have gone wrong somewhere, in all their neighbourhoods.
ODD = "\x00\x07\t\n\x0b\x0c\r\x1b\x1c\x85\x9b\xa0\u061c\u200b\u200d\u200e\u200f\u2028\u2029\u202e\u2066\ufeff\",;='`"
texts = some.text(
    some.one_of(some.sampled_from(ODD), some.characters(exclude_categories=["Cs"])), min_size=1, max_size=12
).filter(str.strip)
FILES = [
    (kind, form)
    for kind, what in KINDS.items()
    for form in ("jsonl", "json", "csv", "tsv", "parquet")
    if not what.nested or form in ("jsonl", "json")
]


def fill(database: Database, said: list[str]) -> None:
    """A prompt, answers and every kind of rating that holds a text."""
    asked, system, a, b, better, note, outcome = said
    prompt = conversations.add(database, asked, system=system)
    one, two, shown = (
        samples.new(prompt.id, a),
        samples.new(prompt.id, b),
        samples.new(prompt.id, b, origin="demonstration"),
    )
    samples.add(database, [one, two, shown])
    for rating in (
        log.score(one.id, 4, "ana"), log.label(two.id, False, "ana"), log.pair(one.id, two.id, Choice.A, "ana"),
        log.edit(one.id, better, "ana"), log.note(one.id, note, "ana"), log.outcome(two.id, outcome, "ana"),
    ):  # fmt: skip
        log.append(database, rating)


def held(database: Database) -> dict[str, set[str]]:
    """All texts, by what they are."""
    queries = {
        "prompts": "SELECT text FROM prompts", "systems": "SELECT system FROM prompts",
        "answers": "SELECT text FROM samples", "written": "SELECT kind || ' ' || text FROM ratings WHERE text NOT NULL",
    }  # fmt: skip
    return {name: {value for row in database.rows(sql) for value in row.values()} for name, sql in queries.items()}


@settings(max_examples=8, deadline=None)
@given(some.lists(texts, min_size=7, max_size=7, unique=True))
def test_any_text_is_stored_exported_and_imported_to_the_character(said: list[str]):
    with (
        tempfile.TemporaryDirectory() as folder,
        open_database(Workspace(Path(folder) / "a")) as database,
        open_database(Workspace(Path(folder) / "b")) as other,
    ):
        fill(database, said)
        asked, system, a, b, better, note, outcome = said
        everything = held(database)
        assert everything == {
            "prompts": {asked}, "systems": {system}, "answers": {a, b},
            "written": {f"edit {better}", f"note {note}", f"outcome {outcome}"},
        }  # fmt: skip
        for kind, form in sorted(FILES):
            file = Path(folder) / f"{kind}.{form}"
            export_file(database, kind, str(file))
            import_file(other, str(file))
            arrived = held(other)
            assert arrived["prompts"] == {asked}, file.name
            assert arrived["systems"] == {system}, file.name
            assert arrived["answers"] <= {a, b, better}, file.name
            assert arrived["written"] <= everything["written"], file.name
            if kind != "prompts":
                assert arrived["answers"], file.name


@pytest.mark.parametrize("half", ["\ud800", "a\udcffb"])
def test_half_of_a_surrogate_pair_is_refused_before_it_reaches_the_database(database: Database, half: str):
    prompt = conversations.add(database, "What is a delta?")
    sample = samples.new(prompt.id, "Land.")
    samples.add(database, [sample])
    writes = [
        lambda: conversations.add(database, half),
        lambda: conversations.add(database, "a", system=half),
        lambda: samples.add(database, [samples.new(prompt.id, half)]),
        lambda: log.append(database, log.outcome(sample.id, half, "ana")),
        lambda: log.append(database, log.score(sample.id, 3, half)),
        lambda: conversations.recent(database, search=half),
        lambda: remembered.put(database, "draft", {"text": half}),
    ]
    for write in writes:
        with pytest.raises(WorkbenchError, match="half of a surrogate pair"):
            write()
