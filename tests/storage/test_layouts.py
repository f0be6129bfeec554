"""Foreign layouts: each record of each becomes what the table in docs/data-formats.md says, and no other layout's."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.database import Database
from storage.errors import UsageError
from storage.exchange import layouts
from storage.exchange.importing import import_file
from storage.exchange.layouts.entries import Defaults, Entry, parse
from storage.exchange.rows import Problem, Row
from storage.exchange.translating import OURS, Reading, Record, translated

DOCS = Path(__file__).parents[2] / "docs" / "data-formats.md"
NAMED = {
    "hh", "sharegpt", "oasst", "ultrafeedback", "helpsteer", "shp", "pku", "kto", "alpaca", "ranking", "arena",
    "argilla",
}  # fmt: skip


class Case(NamedTuple):
    """Records of one layout that are one thing together, and the records of our own that they become."""

    layout: str
    records: list[dict[str, Any]]
    becomes: list[dict[str, Any]]


# In sentences of our own, in the shapes that the data sets' pages show.
CASES = [
    Case(file.stem, **case)
    for file in sorted((Path(__file__).parent / "layouts").glob("*.json"))
    for case in json.loads(file.read_text(encoding="utf-8"))
]
OWN = [
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"prompt": "a", "response": "b", "score": 3, "tags": ["x"]},
    {
        "prompt": [{"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "b"}],
        "label": True,
    },
    {"prompt": "a", "response": "b", "other_response": "c", "choice": "tie"},
    {"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "a"}]},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"Mto ni nini?": {"Maji.": 2}},
]


def rows(records: list[dict[str, Any]]) -> list[Row | Problem]:
    return [Row(line, record) for line, record in enumerate(records, start=1)]


def read(records: list[dict[str, Any]], reading: Reading = Reading()) -> list[Record]:  # noqa: B008
    found = []
    for record in translated(rows(records), reading):
        assert isinstance(record, Record), record
        found.append(record)
    return found


def of(case: Case) -> str:
    return case.layout


@pytest.mark.parametrize("case", CASES, ids=of)
def test_a_record_becomes_what_it_says(case: Case) -> None:
    (record,) = read(case.records)
    assert record.layout == case.layout
    assert [row.fields for row in record.rows] == case.becomes
    entries = [entry for row in record.rows for entry in parse(row, Defaults())]
    assert all(isinstance(entry, Entry) for entry in entries), entries


@pytest.mark.parametrize("case", CASES, ids=of)
def test_a_layout_that_is_named_reads_the_same(case: Case) -> None:
    (record,) = read(case.records, Reading(layout=case.layout))
    assert [row.fields for row in record.rows] == case.becomes


@pytest.mark.parametrize("case", CASES, ids=of)
def test_no_two_layouts_know_one_record(case: Case) -> None:
    for record in case.records:
        assert [name for name, layout in layouts.every().items() if layout.recognises(record)] == [case.layout]


def test_records_of_our_own_are_of_no_foreign_layout() -> None:
    assert [record.layout for record in read(OWN)] == [OURS] * len(OWN)


def test_a_record_that_two_layouts_know_is_refused() -> None:
    both = {"instruction": "a", "output": "b", "history": "c", "human_ref_A": "d", "human_ref_B": "e", "labels": 1}
    (problem,) = translated(rows([both]), Reading())
    assert isinstance(problem, Problem)
    assert "could be of the layouts alpaca and shp: name one with --as" in problem.reason
    assert read([both], Reading(layout="shp"))[0].rows[0].fields["chosen"] == "d"


def test_layouts_follow_one_another_in_a_file() -> None:
    told = [case for case in CASES if case.layout in ("hh", "oasst", "pku")]
    found = read([record for case in told for record in case.records])
    assert [row.fields for record in found for row in record.rows] == [one for case in told for one in case.becomes]


def test_every_layout_has_its_records_here() -> None:
    assert NAMED < layouts.every().keys() == {case.layout for case in CASES}


# The table in the documentation


def test_the_table_says_what_the_layouts_say() -> None:
    page = DOCS.read_text(encoding="utf-8")
    table = page.split("## Foreign layouts")[1].split("\n## ")[0]
    found = [line for line in table.split("\n") if line.startswith("| `")]
    assert found == [layout.row() for layout in layouts.every().values()]


@pytest.mark.parametrize("name", list(layouts.every()))
def test_every_field_of_the_table_is_read_and_no_other(name: str) -> None:
    layout = layouts.every()[name]
    cases = [case for case in CASES if case.layout == name]
    mine = [field for case in cases for record in case.records for field in _names(record)]
    told = {field for field in layout.becomes if "QUESTION" not in field}
    assert told - set(mine) <= {"prompt", "completion"} if name == "kto" else told <= set(mine)
    for case in cases:
        (record,) = read(case.records)
        carried = {"rater", "language", "split", "task"}
        for field in record.fields:
            if layout.reads is None:
                assert (field in record.unread) == (field not in layout.becomes and field not in carried)


def _names(value: Any) -> list[str]:
    """The names of fields, at every depth."""
    if isinstance(value, dict):
        return [*value, *(name for one in value.values() for name in _names(one))]
    return [name for one in value for name in _names(one)] if isinstance(value, list) else []


# What cannot be read

_BASIL = "\n\nHuman: Basil?\n\nAssistant: {}\n\nHuman: Dry.\n\nAssistant: {}"
_SIDES = {"prompt": "a", "response_a": "b", "response_b": "c"}
_BOTH = {"winner_model_a": 1, "winner_model_b": 1, "winner_tie": 0}
_ORPHAN = {"message_tree_id": "t", "message_id": "2", "parent_id": "1", "role": "assistant", "text": "a"}
_ODD = {"fields": {"prompt": "a", "text-1": "b"}, "responses": {"q": [{"value": {"x": 1}}]}}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"chosen": _BASIL.format("a", "b"), "rejected": _BASIL.format("c", "d")}, "parts from chosen before the last"),
        ({"chosen": "Yes.", "rejected": "No."}, "rejected: does not begin as chosen does"),
        ({"conversations": [{"from": "tool", "value": "{}"}]}, "which is neither user, assistant nor system"),
        ({"conversations": []}, "conversations: must be a list of messages"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "history[0]: expected `array` of length 2"),
        ({"kto_tag": "so so", "instruction": "a", "output": "b"}, "kto_tag: must be true or false, not 'so so'"),
        ({"history": "a", "human_ref_A": "b", "human_ref_B": "c", "labels": 2}, "labels: must be true or false"),
        ({"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 4}, "must be 0 or 1, not 4"),
        ({"prompt": "a", "response": "b", "helpfulness": 7}, "7 lies outside the scale [0, 4] (read as helpsteer)"),
        (
            {"instruction": "a", "completions": [{"model": "m"}]},
            "completions[0]: object missing required field `response`",
        ),
        (_ORPHAN, "parent_id: names no message of this tree here"),
        ({**_SIDES, **_BOTH}, "2 of them are true, and one must be"),
        ({**_SIDES, "winner": "nobody"}, "winner: must be one of model_a"),
        ({**_SIDES, "winner": "tie", "language": "Qwxyz"}, "no language goes by the tag or the name 'Qwxyz'"),
        (_ODD, "q: is answered with neither a number"),
        ({"fields": {"colour": "a"}, "responses": {}}, "hold no prompt (prompt, instruction, question"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_fields_that_were_found(
    database: Database, tmp_path: Path, record: dict[str, Any], told: str
) -> None:
    file = tmp_path / "foreign.jsonl"
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        import_file(database, str(file))
    message = str(caught.value)
    assert told in message
    assert "foreign.jsonl:1: " in message
    assert "read as helpsteer" in message or all(name in message for name in record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def _places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, one in inner for way in [(*before, key), *_places(one, (*before, key))]]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_a_field_is_read_or_told(data: st.DataObject) -> None:
    """No value, of whatever type at whatever depth, is anything but read or refused in words."""
    case = data.draw(st.sampled_from([*CASES, *(Case(OURS, [record], []) for record in OWN)]))
    records = deepcopy(case.records)
    way = data.draw(st.sampled_from(_places(records)))
    at: Any = records
    for step in way[:-1]:
        at = at[step]
    at[way[-1]] = data.draw(JSON)
    whole = [record for record in records if isinstance(record, dict)]
    layout = data.draw(st.sampled_from([None, case.layout])) if case.layout != OURS else None
    cleaned = [{name: value for name, value in record.items() if value is not None} for record in whole]
    for found in translated(rows(cleaned), Reading(layout=layout)):
        if isinstance(found, Record):
            assert all(isinstance(one, Entry | Problem) for row in found.rows for one in parse(row, Defaults()))
