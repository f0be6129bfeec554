"""Foreign names of our fields, what a dry run shows, records that are left out, and what `generate` reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from imports import Write
from pyarrow import parquet
from test_layouts import CASES, Case

from storage import conversations
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.exchange.exporting import export_file, records
from storage.exchange.importing import import_file, prompts
from storage.exchange.input_file import InputFile
from storage.exchange.layouts.entries import Defaults, Entry, parse
from storage.exchange.naming import could_be, read_map
from storage.exchange.rows import Row
from storage.exchange.translating import Reading, Record, translated
from storage.feedback import census, log
from storage.workspace import Workspace


def refusal(database: Database, file: str, **more: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        import_file(database, file, **more)
    assert census.summary(database).prompts == 0
    return caught.value


# --map


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ([{"question": "Dew?", "answer": "Water.", "overall": 4.5, "annotator": "ines"}], "a.jsonl"),
        ("question;answer;overall;annotator\nDew?;Water.;4,5;ines\n", "a.csv"),
        ([{"question": "Dew?", "answer": "Water.", "rated": {"overall": 4.5}, "annotator": "ines"}], "nested.jsonl"),
    ],
)
def test_fields_are_read_under_other_names(database: Database, write: Write, content: Any, name: str) -> None:
    overall = "rated.overall" if name.startswith("nested") else "overall"
    names = {"prompt": "question", "response": "answer", "score": overall, "rater": "annotator"}
    done = import_file(database, write(content, name), reading=Reading(names=names))
    (rating,) = log.effective(database)
    assert (rating.value, rating.rater) == (4.5, "ines")
    assert done.ignored_fields == (["rated"] if name.startswith("nested") else [])


def test_an_empty_answer_beside_a_renamed_score_is_rated(database: Database, write: Write) -> None:
    reading = Reading(names={"score": "stars", "response": "answer"})
    import_file(database, write("prompt,answer,stars\nDew?,,1\n", "a.csv"), reading=reading)
    assert [rating.value for rating in log.effective(database)] == [1]


def test_what_is_named_takes_the_place_of_what_stood_there(database: Database, write: Write) -> None:
    record = {"prompt": "<p>Dew?</p>", "plain": "Dew?"}
    import_file(database, write([record]), reading=Reading(names={"prompt": "plain"}))
    assert [prompt.text for prompt in conversations.recent(database)] == ["Dew?"]


def test_fields_of_a_foreign_layout_are_read_under_other_names(database: Database, write: Write) -> None:
    reading = Reading(layout="alpaca", names={"output": "solution"})
    done = import_file(database, write([{"instruction": "Name a rock.", "solution": "Basalt."}]), reading=reading)
    assert (done.kinds, done.layouts, done.ignored_fields) == ({"demonstration": 1}, {"alpaca": 1}, [])


def test_a_name_that_no_record_has_is_refused_with_those_there_are(database: Database, write: Write) -> None:
    told = refusal(database, write([{"prompt": "a", "mood": 1}]), reading=Reading(names={"rater": "anotator"}))
    assert "has the field anotator (--map rater=anotator)" in told.message
    assert "the fields are mood, prompt" in (told.hint or "")


@pytest.mark.parametrize("given", ["score", "=a", "score=", "score=a,score=b"])
def test_a_map_of_another_form_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="--map"):
        read_map(given.split(","))


# What could be one of ours


def test_fields_that_could_be_ours_are_named(database: Database, write: Write) -> None:
    record = {"prompt": "a", "response": "b", "score": 3, "Annotator": "ines", "lang": "de", "colour": 1}
    done = import_file(database, write([record]))
    assert done.could_be == {"Annotator": "rater", "lang": "language"}
    assert could_be(["overall", "worker_id", "mood"]) == {"overall": "score", "worker_id": "rater"}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"question": "a", "answer": "b"}, "prompt: is missing; the record has the fields answer, question: "
         "question could be the prompt (--map prompt=question)"),
        ({"prompt": "a", "response": "b", "overall": 3}, "overall could be the score (--map score=overall)"),
        ({"prompt": "a", "score": 3, "text": "b"}, "text could be the response (--map response=text)"),
        ({"columns": ["prompt"], "index": [0], "data": [["a"]]}, "the record has the fields columns, data, index"),
    ],
)  # fmt: skip
def test_what_is_not_understood_says_which_fields_were_found(
    database: Database, write: Write, record: dict[str, Any], told: str
) -> None:
    assert told in refusal(database, write([record])).message


@pytest.mark.parametrize(
    "columns",
    [
        {"length": {"0": 3, "1": 4}, "words": {"0": 2, "1": 5}},
        {"length": {"x7": 3, "x9": 4}, "score": {"x7": 2, "x9": 5}},
        {"prompt": {"7": "a", "9": "b"}, "label": {"7": 1, "9": 0}},
    ],
)
def test_columns_of_a_data_frame_are_no_table_of_scores(database: Database, write: Write, columns: Any) -> None:
    assert "are columns of numbered rows" in refusal(database, write([columns])).message


def test_a_table_whose_prompts_have_the_same_answers_is_one(database: Database, write: Write) -> None:
    import_file(database, write([{"Is dew wet?": {"yes": 5, "no": 1}, "Is sand wet?": {"yes": 2, "no": 4}}]))
    assert len(log.effective(database)) == 4


# Records that are left out, and what a dry run shows


def test_records_that_cannot_be_imported_are_left_out_when_asked(database: Database, write: Write) -> None:
    file = write([{"prompt": "a"}, {"prompt": 7}, {"prompt": "b", "response": "c"}, {"prompt": "d"}])
    done = import_file(database, file, skip_bad=True)
    assert (done.records, done.prompts, done.skipped) == (2, 2, 2)
    assert [line.split("feedback.jsonl:")[1][:10] for line in done.skipped_because] == ["2: prompt:", "3: score: "]


def test_a_file_of_bad_records_alone_is_refused_all_the_same(database: Database, write: Write) -> None:
    assert "1 record of" in refusal(database, write([{"prompt": 7}]), skip_bad=True).message


def test_a_dry_run_shows_what_three_records_become(database: Database, write: Write) -> None:
    case = next(case for case in CASES if case.layout == "hh")
    own = {"prompt": "Dew?", "response": "Water.", "score": 4, "tags": ["short"], "colour": 1}
    done = import_file(
        database, write([*case.records, own, own, own]), Defaults(language="en", rater="ines"), dry_run=True
    )
    first, second, _ = done.examples
    (pair,) = case.becomes
    assert (first.line, first.layout) == (1, "hh")
    assert first.becomes == [{"kind": "pair", **pair, "language": "en", "rater": "ines"}]
    assert second.becomes == [
        {
            "kind": "score, tags", "prompt": "Dew?", "response": "Water.", "score": 4, "scale": [1, 5],
            "tags": ["short"], "language": "en", "rater": "ines",
        }
    ]  # fmt: skip
    assert census.summary(database).prompts == 0


# Whole files of foreign records


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.layout)
def test_what_generate_asks_is_what_an_import_stores(database: Database, write: Write, case: Case) -> None:
    file = write(case.records)
    asked = list(prompts(file))
    assert all(isinstance(row, Row) for row in asked)
    entries = [parse(row, Defaults())[0] for row in asked if isinstance(row, Row)]
    assert all(isinstance(entry, Entry) for entry in entries)
    import_file(database, file)
    stored = {(prompt.messages, prompt.language) for prompt in conversations.recent(database)}
    told = [(*_messages(entry), entry.language) for entry in entries if isinstance(entry, Entry)]
    assert {one[-1] for one in told} == {language for _, language in stored}
    assert len(told) == len(set(map(str, told))) == len(stored), "each of them once"


def _messages(entry: Entry) -> tuple[Any, ...]:
    return entry.system, entry.earlier, entry.prompt


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_foreign_records_go_out_and_in_again_with_their_models(
    database: Database, write: Write, tmp_path: Path, ending: str
) -> None:
    import_file(database, write([record for case in CASES for record in case.records]))
    with open_database(Workspace(tmp_path / "other")) as other:
        for kind in ("preference", "unpaired", "scores", "sft", "prompts"):
            file = str(tmp_path / f"{kind}.{ending}")
            export_file(database, kind, file)
            import_file(other, file)
            exported, again = (_plain(place, kind) for place in (database, other))
            assert again == exported
    models = [record.get("chosen_model") for record in records(database, "preference")]
    assert {"m-1", "Model-7B", None} <= set(models)


def _plain(place: Database, kind: str) -> list[str]:
    return sorted(json.dumps({**record, "source": ""}, sort_keys=True) for record in records(place, kind))


# A list of texts in a cell could be an answer: only JSON and Parquet tell rankings by lists.
TABLES = [case for case in CASES if not isinstance(case.records[0].get("output"), list)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.layout)
def test_foreign_records_of_a_table_are_read(tmp_path: Path, case: Case, ending: str) -> None:
    """In cells of text, lists and objects are JSON, and numbers and truth values are text."""
    columns = list(dict.fromkeys(name for record in case.records for name in record))
    file = tmp_path / f"table.{ending}"
    if ending == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist([_filled(record, columns) for record in case.records]), file)
    else:
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened, delimiter="," if ending == "csv" else "\t")
            writer.writerow(columns)
            writer.writerows([_cell(record.get(name)) for name in columns] for record in case.records)
    with InputFile(str(file)) as opened_file:
        (record,) = translated(opened_file.rows(), Reading())
    assert isinstance(record, Record), record
    assert record.layout == case.layout
    assert [_told(row.fields) for row in record.rows] == [_told(one) for one in case.becomes]


def _filled(record: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    # Parquet has no empty objects.
    return {name: None if record.get(name) == {} else record.get(name) for name in columns}


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return str(value) if isinstance(value, bool | int | float) else json.dumps(value, ensure_ascii=False)


def _told(record: dict[str, Any]) -> dict[str, Any]:
    """A record, whose score may be 4 or 4.0."""
    return {name: float(value) if name == "score" else value for name, value in record.items()}
