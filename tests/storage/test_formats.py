"""File formats: what we write is read to the character by us and by other tools, and what these write by us."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv
from pyarrow import json as arrow_json
from pyarrow import parquet

from storage import conversations
from storage.database import Database
from storage.errors import UsageError
from storage.exchange import formats
from storage.exchange.exporting import export_file
from storage.exchange.importing import import_file
from storage.exchange.input_file import InputFile
from storage.exchange.rows import Row

NAMES = ("prompt", "completion")
COLUMNS: dict[str, type] = dict.fromkeys(NAMES, str)
# Whatever UTF-8 can hold, and often what readers trip over.
ODD = st.sampled_from(
    ["\r", "\n", "\r\n", '"', ",", ";", "\t", "\0", "\u2028", "\u200f", "\u0085", "[", "=", " ", "e\u0301"]
)
TEXTS = st.lists(ODD | st.text(max_size=3), min_size=1, max_size=6).map("".join).filter(bool)
RECORDS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)
HARD = [("a\rb", "c\r"), ("\r", "\n"), ("x\r\ny", '"'), ("\0", "\u2028")]


def written(ending: str, records: list[tuple[str, str]]) -> bytes:
    form = formats.by_name(f"any.{ending}")
    assert form is not None
    file = io.BytesIO()
    form.write((dict(zip(NAMES, record, strict=True)) for record in records), file, COLUMNS)
    return file.getvalue()


def ours(data: bytes, ending: str) -> list[tuple[str, ...]]:
    form = formats.by_name(f"any.{ending}")
    assert form is not None
    found = list(form.read(io.BytesIO(data)))
    assert all(isinstance(row, Row) for row in found), found
    return [tuple(row.fields.get(name, "") for name in NAMES) for row in found if isinstance(row, Row)]


def of_table(table: Any) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in NAMES) for row in table.to_pylist()]


def by_csv(data: bytes, separator: str = ",") -> list[tuple[str, ...]]:
    header, *rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True, delimiter=separator)
    assert tuple(header) == NAMES
    return [tuple(row) for row in rows]


def by_arrow_csv(data: bytes) -> list[tuple[str, ...]]:
    texts = arrow_csv.ConvertOptions(column_types=dict.fromkeys(NAMES, pyarrow.string()), strings_can_be_null=False)
    lines = arrow_csv.ParseOptions(newlines_in_values=True)
    return of_table(arrow_csv.read_csv(io.BytesIO(data), convert_options=texts, parse_options=lines))


def by_pandas(data: bytes) -> list[tuple[str, ...]]:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    return [tuple(row) for row in table.itertuples(index=False)]


READERS: list[tuple[str, Callable[[bytes], list[tuple[str, ...]]]]] = [
    ("csv", by_csv),
    ("csv", by_arrow_csv),
    ("csv", by_pandas),
    ("tsv", lambda data: by_csv(data, "\t")),
    ("json", lambda data: [tuple(row.values()) for row in json.loads(data)]),
    ("jsonl", lambda data: [tuple(json.loads(line).values()) for line in data.split(b"\n")[:-1]]),
    ("jsonl", lambda data: of_table(arrow_json.read_json(io.BytesIO(data)))),
    ("parquet", lambda data: of_table(parquet.read_table(io.BytesIO(data)))),
]


@pytest.mark.parametrize("ending", [ending[1:] for ending in formats.endings()])
@settings(max_examples=60, deadline=None)
@example(HARD)
@given(records=RECORDS)
def test_what_we_write_we_read(ending: str, records: list[tuple[str, str]]) -> None:
    assert ours(written(ending, records), ending) == records


@pytest.mark.parametrize(("ending", "reader"), READERS)
@settings(max_examples=40, deadline=None)
@example([record for record in HARD if record[0] != "\0"])
@given(records=RECORDS)
def test_what_we_write_others_read(
    ending: str, reader: Callable[[bytes], list[tuple[str, ...]]], records: list[tuple[str, str]]
) -> None:
    assert reader(written(ending, records)) == records


def to_csv(separator: str, end: str) -> Callable[[list[tuple[str, str]]], bytes]:
    def write(records: list[tuple[str, str]]) -> bytes:
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=separator, lineterminator=end).writerows([NAMES, *records])
        return file.getvalue().encode()

    return write


def arrow_table(records: list[tuple[str, str]]) -> Any:
    return pyarrow.table({name: [record[place] for record in records] for place, name in enumerate(NAMES)})


def to_file(write: Callable[[Any, BinaryIO], None]) -> Callable[[list[tuple[str, str]]], bytes]:
    def to_bytes(records: list[tuple[str, str]]) -> bytes:
        file = io.BytesIO()
        write(arrow_table(records), file)
        return file.getvalue()

    return to_bytes


def to_json(records: list[tuple[str, str]]) -> bytes:
    return json.dumps([dict(zip(NAMES, record, strict=True)) for record in records], indent=1).encode()


WRITERS: list[tuple[str, Callable[[list[tuple[str, str]]], bytes]]] = [
    *(("csv", to_csv(separator, end)) for separator in ",;\t" for end in ("\n", "\r\n")),
    ("csv", to_file(arrow_csv.write_csv)),
    ("parquet", to_file(parquet.write_table)),
    ("json", to_json),
]


@pytest.mark.parametrize(("ending", "writer"), WRITERS)
@settings(max_examples=40, deadline=None)
@example(HARD)
@given(records=RECORDS)
def test_what_others_write_we_read(
    ending: str, writer: Callable[[list[tuple[str, str]]], bytes], records: list[tuple[str, str]]
) -> None:
    assert ours(writer(records), ending) == records


# Files as they come

_LINE = '{"prompt": "Grüße"}\n'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("utf16-without-mark.jsonl", _LINE.encode("utf-16-le")),
        ("utf16-without-mark.csv", "prompt\nGrüße\n".encode("utf-16-be")),
        ("utf32.jsonl", _LINE.encode("utf-32")),
        ("mark.csv", b"\xef\xbb\xbf" + "prompt\r\nGrüße\r\n".encode()),
        ("excel.csv", "sep=;\r\nprompt;language\r\nGrüße;de\r\n".encode()),
        ("old-mac.csv", "prompt,language\rGrüße,de\r".encode()),
        ("table.tsv.gz", gzip.compress("prompt\tlanguage\nGrüße\tde\n".encode(), mtime=0)),
        ("blank.jsonl", f"\n\n{_LINE}\r\n \n".encode()),
        ("no-ending", f"\n{_LINE}".encode()),
    ],
)
def test_a_file_is_read_as_what_its_bytes_say(database: Database, tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    import_file(database, str(tmp_path / name))
    assert [prompt.text for prompt in conversations.recent(database)] == ["Grüße"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PK\x03\x04 and more", "it is a zip archive, or a spreadsheet"),
        (b"feedback.jsonl".ljust(257, b"\0") + b"ustar\x0000", "it is a tar archive"),
        (b"BZh91AY&SY", "it is compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd..", "it is compressed with zstd"),
        (b"SQLite format 3\0", "it is an SQLite database"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_name(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "feedback.csv").write_bytes(data)
    with pytest.raises(UsageError, match=told):
        InputFile(str(tmp_path / "feedback.csv"))


def test_an_open_file_is_written_where_it_stands(database: Database, tmp_path: Path) -> None:
    """`workbench export prompts /dev/fd/3 3>>file` appends."""
    conversations.add(database, "What is dew?")
    file = tmp_path / "log.jsonl"
    file.write_text("before\n", encoding="utf-8")
    with file.open("ab") as opened:
        export_file(database, "prompts", f"/dev/fd/{opened.fileno()}")
        opened.write(b"after\n")
    before, record, after, _ = file.read_text(encoding="utf-8").split("\n")
    assert (before, json.loads(record)["prompt"], after) == ("before", "What is dew?", "after")


def test_a_link_to_itself_is_refused(database: Database, tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    with pytest.raises(UsageError, match="cannot write"):
        export_file(database, "prompts", str(tmp_path / "loop.jsonl"))


def test_a_link_to_a_file_that_is_not_there_yet_makes_it(database: Database, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to("made.jsonl")
    export_file(database, "prompts", str(tmp_path / "link.jsonl"))
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "made.jsonl").is_file()


def test_a_pipe_is_read(database: Database, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"open({str(pipe)!r}, 'wb').write({gzip.compress(_LINE.encode())!r})"
    with subprocess.Popen([sys.executable, "-c", code]):
        assert import_file(database, str(pipe)).prompts == 1
