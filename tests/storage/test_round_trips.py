"""Every layout and every kind, out and in again to the character, from one workspace that holds all of them; and what
the `datasets` library makes of each file, where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_layouts import CASES, OWN

from storage import conversations, samples
from storage.database import Database, open_database
from storage.exchange import formats, layouts
from storage.exchange.exporting import KINDS, export_file, records
from storage.exchange.importing import import_file
from storage.feedback import kinds, log
from storage.records import Choice, Message, Rating, RatingKind, Sample, Source, Split
from storage.workspace import Workspace

HARD = ("null", "NA", "007", "1e5", "true", "[1, 2]", '{"a": 1}', "a\rb\r\nc\n", '"', "\u2028\u200f", "=1+1", "  x  ")


def every_kind(a: Sample, b: Sample) -> Iterator[Rating]:
    """A rating of each kind that can be said of two answers."""
    yield log.score(a.id, 0.0, "ana", (0, 10), attribute="fluency")
    yield log.label(b.id, False, "bo", source=Source.AI)
    for choice in Choice:
        yield log.pair(a.id, b.id, choice, f"rater {choice}", shown_order="ba", blind=True, duration_ms=1234)
    yield log.edit(a.id, "better\rthan that", "ana")
    yield log.tags(b.id, {"harm": "medical", "severity": 2}, "ana")
    yield log.tags(a.id, {"wrong language": True}, "ana")
    for kind in (RatingKind.OUTCOME, RatingKind.MISTAKE, RatingKind.NOTE):
        yield log.in_words(kind, a.id, "said\nof it", "ana")
    yield log.skip(a.id, "bo")
    yield log.skip(b.id, "bo", cannot_judge=True)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A workspace with every layout imported, every kind of rating given, some taken back, and conversations."""
    folder = tmp_path_factory.mktemp("full")
    with open_database(Workspace(folder / "workspace")) as database:
        for n, name in enumerate(layouts.every()):
            file = folder / f"{n}.jsonl"
            file.write_text("\n".join(json.dumps(one) for case in CASES if case.layout == name for one in case.records))
            import_file(database, str(file))
        for record in OWN[:-3]:
            file = folder / "own.jsonl"
            file.write_text(json.dumps({**record, "language": "sw", "split": "ethics", "model": "m-2"}))
            import_file(database, str(file))
        earlier = (Message("user", "Habari?"), Message("assistant", "Nzuri.\r"))
        for n, text in enumerate(HARD):
            prompt = conversations.add(
                database, f"{text} {n}" if n % 2 else text, language=("ar", "hi", "zh")[n % 3], task="odd" * (n % 2),
                system="Be brief." * (n == 3), earlier=earlier * (n == 4), split=list(Split)[n % 3],
            )  # fmt: skip
            made = [samples.new(prompt.id, one) for one in (text, f"{text}!")]
            samples.add(database, [*made, samples.new(prompt.id, f"{text}?", origin="demonstration")])
            for rating in every_kind(*made):
                log.append(database, rating)
            if n % 2:
                log.undo(database, "ana")
                log.undo(database, "ana")
                log.redo(database, "ana")
        yield database


def plain(place: Database, kind: str) -> list[str]:
    """The records of a kind, without what an import changes: who entered them."""
    return sorted(json.dumps({**one, "source": ""}, sort_keys=True) for one in records(place, kind))


def test_the_workspace_holds_every_kind_and_every_layout(full: Database) -> None:
    held = {row["kind"] for row in full.rows("SELECT DISTINCT kind FROM ratings")}
    assert held == {str(kind) for kind in kinds.KINDS}
    assert {case.layout for case in CASES} == layouts.every().keys()
    assert all(list(records(full, kind)) for kind in KINDS)


@pytest.mark.parametrize("ending", [*(ending[1:] for ending in formats.endings()), "csv.gz"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].nested])
def test_every_kind_goes_out_and_in_through_every_format(
    full: Database, tmp_path: Path, kind: str, ending: str
) -> None:
    file = tmp_path / f"{kind}.{ending}"
    written = export_file(full, kind, str(file))
    with open_database(Workspace(tmp_path / "other")) as other:
        assert import_file(other, str(file)).records == written.records
        assert plain(other, kind) == plain(full, kind)


def test_the_whole_log_goes_out_and_in(full: Database, tmp_path: Path) -> None:
    file = str(tmp_path / "events.jsonl")
    export_file(full, "events", file)
    with open_database(Workspace(tmp_path / "other")) as other:
        import_file(other, file)
        again = str(tmp_path / "again.jsonl")
        export_file(other, "events", again)
        assert Path(again).read_bytes() == Path(file).read_bytes()
        assert log.effects_differ(other) == 0
        of = "SELECT count(*) FROM counted"
        assert other.scalar(of) == full.scalar(of)


# The `datasets` library

BUILDERS = {"jsonl": "json", "json": "json", "parquet": "parquet", "csv": "csv", "tsv": "csv"}


@pytest.mark.parametrize(("kind", "ending"), [
    *((kind, ending) for kind in KINDS if not KINDS[kind].nested for ending in BUILDERS), ("events", "jsonl"),
    ("events", "json"),
])  # fmt: skip
def test_datasets_loads_each_export_unchanged(full: Database, tmp_path: Path, kind: str, ending: str) -> None:
    """Needs `pip install datasets`, which the project does not: it is skipped without."""
    datasets = pytest.importorskip("datasets")
    file = tmp_path / f"{kind}.{ending}"
    export_file(full, kind, str(file))
    more: dict[str, Any] = {}
    if ending in ("csv", "tsv"):  # what looks like a number, or like nothing, is a text all the same: it must be told
        names = dict.fromkeys(KINDS[kind].columns, datasets.Value("string"))
        more = {"keep_default_na": False, "features": datasets.Features(names), "sep": "\t" if ending == "tsv" else ","}
    loaded = datasets.load_dataset(BUILDERS[ending], data_files=str(file), cache_dir=str(tmp_path / "cache"), **more)
    found = [_bare(row) for row in loaded["train"].to_list()]
    messages = formats.by_name(file.name).typed  # type: ignore[union-attr]
    expected = [_bare(one) for one in records(full, kind, messages=messages)]
    if ending in ("csv", "tsv"):
        expected = [{name: _cell(value) for name, value in one.items()} for one in expected]
        found = [{name: value for name, value in one.items() if value != ""} for one in found]
        expected = [{name: value for name, value in one.items() if value != ""} for one in expected]
    assert found == expected


def _bare(value: Any) -> Any:
    """A value without the absent fields that a table adds."""
    if isinstance(value, dict):
        return {name: _bare(one) for name, one in value.items() if one is not None}
    return [_bare(one) for one in value] if isinstance(value, list) else value


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
