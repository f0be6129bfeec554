"""Import: every format, known by its content, with errors that name their place."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pytest
from imports import EVERY_KIND, Write, one, refusal, texts
from pyarrow import parquet

from storage import conversations
from storage.database import Database
from storage.exchange import formats
from storage.exchange.importing import import_file
from storage.feedback import log


def test_csv(database: Database, write: Write) -> None:
    content = (
        "prompt,language,response,score,scale,completion,label,tags,chosen,rejected,id\r\n"
        '"Wie geht, es?",de,gut,4,,,,,,,1\r\n'
        '"zwei\nZeilen",de,ja,0.5,"[0, 1]",,,,,,2\r\n'
        "Ca va ?,fr,,,,oui,true,,,,3\r\n"
        'Hola,es,ay,,,,,"{""bias"": ""gender""}",,,4\r\n'
        "Habari?,sw,,,,,,,Nzuri,,5\r\n"
    )
    import_file(database, write("\ufeff" + content, "feedback.csv"))
    found = [(rating.kind, rating.value, texts(database, rating)[0]) for rating in log.effective(database)]
    assert found == [
        ("score", 4, "gut"), ("score", 0.5, "ja"), ("label", 1, "oui"), ("tags", None, "ay"), ("pair", None, "Nzuri"),
    ]  # fmt: skip


def test_a_row_that_is_cut_off_is_refused(database: Database, write: Write) -> None:
    told = refusal(database, write("prompt,chosen,rejected\nq15,good\n", "short.csv"))
    assert "short.csv:2: 2 cells under 3 columns" in told


def test_csv_errors_name_the_line_on_which_the_record_begins(database: Database, write: Write) -> None:
    told = refusal(database, write('prompt,response,score\n"a\nb",c,3\nd,e,many\nf,g,4,h\n', "bad.csv"))
    assert "bad.csv:4: score: must be a number, not 'many'" in told
    assert "bad.csv:5: 4 cells under 3 columns" in told


def test_a_json_array_names_lines(database: Database, write: Write) -> None:
    told = refusal(database, write('[\n {"prompt": "a"},\n\n {"prompt": 7}\n]', "list.json"))
    assert "list.json:4: prompt: must be text, not 7" in told


@pytest.mark.parametrize(
    "broken", ['[{"prompt": "a"}', '[{"prompt": "a"} {"prompt": "b"}]', '[{"prompt": "a"}] more', '[{"prompt": ']
)
def test_broken_json_is_refused(database: Database, write: Write, broken: str) -> None:
    assert "broken.json:1:" in refusal(database, write(broken, "broken.json"))


def test_json_lines_in_a_json_file_are_read_too(database: Database, write: Write) -> None:
    assert import_file(database, write('{"prompt": "a"}\n{"prompt": "b"}\n', "list.json")).prompts == 2


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ('{"prompt": "a"}\n{"prompt": "b"}\n', 2),
        ('[{"prompt": "a"}, {"prompt": "b"}]', 2),
        ('{\n "a": {"b": 3}\n}', 1),
        ("prompt,language\na,en\nb,de\n", 2),
    ],
)
def test_standard_input_is_read_by_its_content(
    database: Database, monkeypatch: pytest.MonkeyPatch, content: str, count: int
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content.encode())))
    assert import_file(database, "-").prompts == count


def test_parquet(database: Database, tmp_path: Path) -> None:
    flat = [{**record, "tags": None} for record in EVERY_KIND[:6]]
    parquet.write_table(pyarrow.Table.from_pylist(flat), tmp_path / "feedback.parquet")
    assert import_file(database, str(tmp_path / "feedback.parquet")).records == 6


def test_parquet_without_pyarrow_says_what_to_install(
    database: Database, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install pyarrow" in refusal(database, write("PAR1", "feedback.parquet"))


@pytest.mark.parametrize(
    ("data", "name", "text"),
    [
        (gzip.compress(b'{"prompt": "n28"}\n', mtime=0), "feedback.jsonl.gz", "n28"),
        (gzip.compress(b"prompt,language\nn29,en\n", mtime=0), "feedback", "n29"),
        ("prompt,language\r\nq8 \u00e4,de\r\n".encode("utf-16"), "utf16.csv", "q8 \u00e4"),
        (b"prompt;language\nWas ist Tau?;de\n", "semicolon.csv", "Was ist Tau?"),
        (b"prompt\tlanguage\nWhat, then?\ten\n", "tabs.tsv", "What, then?"),
        (b"\xef\xbb\xbf" + b'{"prompt": "Hi"}\n', "marked.jsonl", "Hi"),
        (b"prompt,language\nq1,en\n,\n,\n", "blank-rows.csv", "q1"),
    ],
)
def test_a_file_is_read_as_what_it_is(database: Database, tmp_path: Path, data: bytes, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert import_file(database, str(tmp_path / name)).records == 1
    assert [prompt.text for prompt in conversations.recent(database)] == [text]


def test_a_decimal_comma_between_semicolons(database: Database, write: Write) -> None:
    import_file(database, write('prompt;response;score\n"Was ist Tau?";"Wasser, kalt";4,5\n', "scores.csv"))
    assert one(database).value == 4.5
    assert texts(database, one(database)) == ("Wasser, kalt", None)


def test_every_format_is_found_by_being_there() -> None:
    modules = {path.stem for path in Path(formats.__file__).parent.glob("*.py")} - {"__init__"}
    assert len(formats.every()) == len(modules)
    assert {".csv", ".json", ".jsonl", ".parquet", ".tsv"} == set(formats.endings())
    assert all(formats.by_name(f"any{ending}.gz") is one for one in formats.every() for ending in one.endings)
