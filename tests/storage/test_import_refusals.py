"""Import: a bad record is refused with its place, and keeps all others out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from imports import EVERY_KIND, Write, refusal

from storage.database import Database
from storage.exchange.importing import import_file


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"response": "b", "score": 3}, "prompt: is missing"),
        ({"prompt": "  "}, "prompt: must not be empty"),
        ({"prompt": "a", "response": "b"}, "score: is missing"),
        ({"prompt": "a", "score": 3}, "response: is missing"),
        ({"prompt": "a", "response": "b", "score": 7}, "score: 7 lies outside the scale [1, 5]"),
        ({"prompt": "a", "response": "b", "score": "3"}, "score: must be a number, not '3'"),
        ({"prompt": "a", "response": "b", "score": True}, "score: must be a number, not True"),
        ({"prompt": "a", "response": "b", "score": 3, "scale": [5, 1]}, "scale: its low end 5 must lie below"),
        ({"prompt": "a", "response": "b", "score": 3, "scale": 5}, "scale: must be [low, high], not 5"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "label: must be true or false, not 'yes'"),
        ({"prompt": "a", "completion": "b", "label": 2}, "label: must be true or false, not 2"),
        ({"prompt": "a", "chosen": "b"}, "rejected: is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "rejected: is the same text as chosen"),
        ({"prompt": "a", "completion": ""}, "completion: must not be empty"),
        ({"prompt": "a", "response": "b", "tags": "rude"}, "tags: must be an object"),
        ({"prompt": "a", "split": "test"}, "split: must be train, held-out or ethics, not 'test'"),
        ({"prompt": "a", "language": "Deutsch, oder?"}, "language: must be a language tag"),
        ({"prompt": "a", "rater": 7}, "rater: must be text, not 7"),
        ({"prompt": "a", "id": 1.5}, "id: must be text or a whole number"),
        ({"prompt": "half \ud800"}, "prompt: holds half of a surrogate pair"),
        ({"question": {"answer": "good"}}, "'question' -> 'answer': must be a number"),
        ({"prompt": [{"role": "assistant", "content": "a"}]}, "prompt: ends with a message of the assistant: a"),
        ({"prompt": [{"role": "tool", "content": "a"}]}, "prompt: message 1 has the role 'tool'"),
        ({"prompt": "a", "completion": [{"role": "user", "content": "b"}]}, "completion: must be one message of the"),
        ({"length": {"0": 3, "1": 4}, "score": {"0": 2, "1": 5}}, "'length', 'score': are columns of numbered rows"),
        ({"prompt": "a", "language": "xx"}, "language: must be a registered language tag"),
        ({"event": "score", "id": "1"}, "created_at: Object missing required field"),
    ],
)  # fmt: skip
def test_a_bad_record_is_told_with_line_field_and_reason(
    database: Database, write: Write, record: dict[str, Any], told: str
) -> None:
    file = write("".join(json.dumps(line) + "\n" for line in ({"prompt": "fine"}, record)))
    message = refusal(database, file)
    assert f"feedback.jsonl:2: {told}" in message or ("created_at" in told and "created_at" in message)
    assert "nothing was imported" in message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{oops}", "not JSON"),
        ('{"prompt": NaN}', "NaN is no JSON number"),
        ('{"prompt": "a", "prompt": "b"}', "the key 'prompt' stands twice"),
        ('["prompt"]', "a record must be a JSON object"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_told(database: Database, write: Write, line: str, told: str) -> None:
    assert f"feedback.jsonl:3: {told}" in refusal(database, write(f'{{"prompt": "fine"}}\n\n{line}\n')).replace(
        "not JSON: N", "N").replace("not JSON: the", "the").replace("not JSON that can be read: ", "")  # fmt: skip


def test_bytes_that_are_no_utf8_are_told_with_their_line(database: Database, tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "fine"}\n{"prompt": "\xe9t\xe9"}\n')
    assert "latin.jsonl:2: not UTF-8: the byte 0xe9" in refusal(database, str(tmp_path / "latin.jsonl"))


def test_a_file_whose_name_is_no_utf8_is_imported(database: Database, write: Write) -> None:
    assert import_file(database, write([{"prompt": "fine"}], os.fsdecode(b"\xe9t\xe9.jsonl"))).stored == 1


def test_twenty_problems_are_told_and_the_rest_counted(database: Database, write: Write) -> None:
    told = refusal(database, write([{"prompt": ""}] * 33 + [{"prompt": "fine"}]))
    assert told.startswith("33 records of ")
    assert told.count("must not be empty") == 20
    assert "and 13 more" in told


def test_one_bad_record_keeps_all_others_out(database: Database, write: Write) -> None:
    told = refusal(database, write([*EVERY_KIND, {"prompt": "a", "score": 3}]))
    assert "1 record of " in told
    assert f":{len(EVERY_KIND) + 1}: response: is missing" in told, "which one it is, and what is wrong with it"


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(database: Database, write: Write, content: str) -> None:
    assert "holds no records" in refusal(database, write(content))


def test_a_missing_file_is_refused(database: Database) -> None:
    assert "cannot read nowhere.jsonl" in refusal(database, "nowhere.jsonl")
