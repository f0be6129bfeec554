"""Prompts of many turns: whatever list of messages comes in goes out again, and one-turn prompts are as they were."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import earlier as earlier_schemas
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import conversations, samples, unfinished, versions
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.exchange import formats
from storage.exchange.exporting import KINDS, export_file, records
from storage.exchange.importing import import_file
from storage.exchange.importing import prompts as rows
from storage.exchange.layouts.entries import Defaults, parse
from storage.feedback import log, projection, queue
from storage.forms import opening_key, prompt_key, search_form
from storage.records import Message, Prompt, Split, messages_of, parts_of
from storage.schema.migrations import CURRENT
from storage.workspace import Workspace

BASIL = [
    {"role": "system", "content": "Be short."}, {"role": "user", "content": "How do I dry basil?"},
    {"role": "assistant", "content": "Hang it or use an oven?"}, {"role": "user", "content": "Oven."},
]  # fmt: skip
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Low heat, two hours.", "I do not know."))

Import = Callable[[Any], list[Prompt]]


@pytest.fixture
def imported(database: Database, tmp_path: Path) -> Import:
    """Import one record; returns the prompts of the workspace, the newest first."""

    def imported(record: Any) -> list[Prompt]:
        file = tmp_path / "record.jsonl"
        file.write_text(json.dumps(record), encoding="utf-8")
        import_file(database, str(file))
        return conversations.recent(database)

    return imported


def plain(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def answers(database: Database) -> list[str]:
    return [row["text"] for row in database.rows("SELECT text FROM samples ORDER BY sequence")]


# Any list of messages

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['[{"role": "user", "content": "a"}]', "\r", "a\rb", "\u200f\u202e", "\x1b[2J", "=1+1", "\ufeff", " ", "[]", "null"]
)
WORDS = TEXTS.filter(str.strip)  # a prompt and a demonstration say something
TURNS = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXTS)
CONVERSATIONS = st.builds(lambda turns, last: (*turns, Message("user", last)), st.lists(TURNS, max_size=5), WORDS)


def key(messages: tuple[Message, ...]) -> tuple[str, str]:
    text, system, earlier = parts_of(messages)
    return prompt_key(text, earlier), system


@given(
    st.lists(CONVERSATIONS, min_size=1, max_size=10, unique_by=key),
    st.lists(WORDS, min_size=2, max_size=2, unique=True),
)
@settings(max_examples=8)
def test_any_list_of_messages_goes_in_and_out_to_the_character(
    asked: list[tuple[Message, ...]], said: list[str]
) -> None:
    good, bad = said
    with tempfile.TemporaryDirectory() as name, open_database(Workspace(Path(name) / "one")) as database:
        file = Path(name) / "in.jsonl"
        lines = []
        for messages in asked:
            shared = {"prompt": [{"role": one.role, "content": one.content} for one in messages], "language": "sw"}
            lines += [
                {**shared, "chosen": good, "rejected": bad, "id": 1}, {**shared, "completion": good},
                {**shared, "response": bad, "score": 2}, {**shared, "completion": bad, "label": False},
            ]  # fmt: skip
        file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
        import_file(database, str(file))
        assert {prompt.messages for prompt in conversations.recent(database)} == set(asked)
        expected = {
            "preference": {(messages, good, bad) for messages in asked},
            "unpaired": {(messages, bad, "") for messages in asked},
            "sft": {(messages, good, "") for messages in asked},
            "scores": {(messages, bad, "") for messages in asked},
            "prompts": {(messages, "", "") for messages in asked},
        }
        for kind, texts in expected.items():
            for ending in (*formats.endings(), ".csv.gz"):
                out = f"{name}/{kind}{ending}"
                export_file(database, kind, out)
                assert read_again(out) == texts, (kind, ending)
        events = f"{name}/events.jsonl"
        export_file(database, "events", events)
        with open_database(Workspace(Path(name) / "other")) as other:
            import_file(other, events)
            import_file(other, f"{name}/sft.csv")
            assert {prompt.messages for prompt in conversations.recent(other)} == set(asked)
            assert [told(record) for record in records(other, "events")] == [
                told(record) for record in records(database, "events")
            ]


def read_again(file: str) -> set[tuple[tuple[Message, ...], str, str]]:
    entries = [entry for row in rows(file) for entry in parse(row, Defaults())]
    return {(messages_of(entry.prompt, entry.system, entry.earlier), entry.response, entry.other) for entry in entries}


def told(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["event"], record["id"], record["prompt"], record["response"], record.get("other_response")


# What records may look like


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": BASIL, "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": BASIL, "chosen": GOOD["content"], "rejected": [*BASIL, BAD]},
        {"chosen": [*BASIL, GOOD], "rejected": [*BASIL, BAD]},
        {"prompt": BASIL[:2], "chosen": [*BASIL[2:], GOOD], "rejected": [*BASIL[2:], BAD]},
        {"prompt": BASIL[:2], "chosen": [*BASIL, GOOD], "rejected": [*BASIL, BAD]},
        {"prompt": "Oven.", "chosen": [*BASIL, GOOD], "rejected": [*BASIL, BAD]},
        {"prompt": BASIL[1]["content"], "chosen": [*BASIL, GOOD], "rejected": [*BASIL, BAD], "messages": BASIL},
        {"prompt": BASIL[1:], "system": "Be short.", "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": BASIL, "system": "Be short.", "chosen": [GOOD], "rejected": [BAD]},
    ],
)  # fmt: skip
def test_a_preference_between_ends_of_a_conversation(database: Database, imported: Import, record: Any) -> None:
    assert [plain(prompt) for prompt in imported(record)] == [BASIL]
    assert answers(database) == [GOOD["content"], BAD["content"]]
    assert [rating.choice for rating in log.effective(database)] == ["a"]


@pytest.mark.parametrize(
    ("record", "kinds"),
    [
        ({"messages": [*BASIL, GOOD]}, []),
        ({"messages": BASIL, "completion": [GOOD]}, []),
        ({"prompt": BASIL[:2], "completion": [*BASIL[2:], GOOD]}, []),
        ({"prompt": "How do I dry basil?", "messages": [*BASIL, GOOD]}, []),
        ({"messages": [*BASIL, GOOD], "score": 4}, ["score"]),
        ({"messages": [*BASIL, GOOD], "label": True, "tags": ["kind"]}, ["label", "tags"]),
    ],
)
def test_the_last_turn_of_messages_is_the_answer(
    database: Database, imported: Import, record: Any, kinds: list[str]
) -> None:
    assert [plain(prompt) for prompt in imported(record)] == [BASIL]
    assert answers(database) == [GOOD["content"]]
    assert sorted(rating.kind for rating in log.effective(database)) == kinds
    assert database.scalar("SELECT origin FROM samples") == ("imported" if kinds else "demonstration")


def test_messages_that_end_with_the_user_are_a_prompt(database: Database, imported: Import) -> None:
    assert [plain(prompt) for prompt in imported({"messages": BASIL})] == [BASIL]
    assert answers(database) == []


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"prompt": BASIL[:3]}, "prompt: ends with a message of the assistant: a prompt ends with the user's"),
        ({"prompt": BASIL[:1], "completion": "a"}, "prompt: ends with a message of the system"),
        ({"messages": [GOOD]}, "messages: has no message before the answer"),
        ({"chosen": [*BASIL, GOOD], "rejected": [BASIL[1], BAD]}, "chosen: must be one message of the assistant where"),
        ({"prompt": "Name a river.", "completion": [*BASIL, GOOD]}, "completion: must be one message of the assistant"),
        ({"prompt": BASIL, "completion": [GOOD, GOOD]}, "completion: must be one message of the assistant after"),
        ({"prompt": BASIL[:2], "chosen": [*BASIL[2:], GOOD], "rejected": [BAD]}, "chosen: must be one message of the"),
        ({"prompt": BASIL[3:], "chosen": [*BASIL, GOOD], "rejected": [*BASIL, BAD]}, "chosen: must be one message of"),
        ({"prompt": BASIL, "system": "Be long."}, "system: says something else than the system message"),
        ({"prompt": [{"role": "user", "content": ["a"]}]}, 'prompt: every message must be {"role"'),
        ({"prompt": [{"role": "user", "content": "\ud800"}]}, "prompt: holds half of a surrogate pair"),
        ({"prompt": [{"role": "user", "content": " "}]}, "prompt: must not be empty"),
    ],
)
def test_what_is_no_prompt_is_refused(database: Database, imported: Import, record: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        imported(record)
    assert told in str(caught.value)
    assert conversations.recent(database) == []


def test_what_is_not_read_of_messages_is_named(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"
    named = [{**message, "name": "ana", "weight": None} for message in BASIL]
    file.write_text(json.dumps({"prompt": named, "completion": "a", "messages": BASIL}), encoding="utf-8")
    assert import_file(database, str(file)).ignored_fields == ["messages", "prompt[].name"]


# How they go out


def test_one_turn_goes_out_as_a_text_and_any_other_prompt_as_messages(database: Database, imported: Import) -> None:
    imported({"prompt": BASIL, "chosen": [GOOD], "rejected": [BAD]})
    imported({"prompt": "Why?", "chosen": "So.", "rejected": "No."})
    imported({"prompt": "Why?", "system": "Be short.", "completion": "So.", "label": True})
    shown = [
        {name: record[name] for name in ("prompt", "chosen", "rejected")} for record in records(database, "preference")
    ]
    assert shown == [
        {"prompt": BASIL, "chosen": [GOOD], "rejected": [BAD]}, {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
    ]  # fmt: skip
    (label,) = records(database, "unpaired")
    assert label["prompt"] == [BASIL[0], {"role": "user", "content": "Why?"}]
    assert label["completion"] == [{"role": "assistant", "content": "So."}]
    assert all("system" not in record for kind in KINDS for record in records(database, kind))
    (always, _) = records(database, "preference", messages=True)
    assert always["prompt"] == BASIL


# What is the same, and which split it has


def test_a_conversation_is_known_by_all_its_turns(database: Database) -> None:
    said = (Message("user", "How do I dry basil?"), Message("assistant", "Hang it?"))
    one = conversations.add(database, "Yes.", earlier=said)
    assert conversations.add(database, " Yes.\n", earlier=said) == one
    other = conversations.add(database, "Yes.", earlier=(said[0], Message("assistant", "Use an oven?")))
    alone = conversations.add(database, "Yes.")
    assert len({one.id, other.id, alone.id}) == 3
    assert conversations.find(database, "Yes.", earlier=said) == one
    # A text that looks like the key of a conversation is none.
    assert conversations.add(database, prompt_key("Yes.", said)).earlier == ()


def test_what_opens_alike_has_one_split(database: Database, imported: Import) -> None:
    """What one conversation teaches may stand among the earlier turns of another."""
    alone = conversations.add(database, "How do I dry basil?", language="en", split=Split.TRAIN)
    assert [prompt.split for prompt in imported({"prompt": BASIL, "split": "held-out"})] == [Split.HELD_OUT] * 2
    assert conversations.get(database, alone.id).split == Split.HELD_OUT
    said = (Message("user", " How do I dry basil?"), Message("assistant", "Fast."))
    assert conversations.add(database, "Why?", earlier=said, split=Split.TRAIN).split == Split.HELD_OUT
    assert conversations.add(database, "Oven.", split=Split.TRAIN).split == Split.TRAIN


@given(CONVERSATIONS)
def test_parts_put_together_are_the_messages(messages: tuple[Message, ...]) -> None:
    assert messages_of(*parts_of(messages)) == messages
    text, _, earlier = parts_of(messages)
    assert earlier or prompt_key(text) == opening_key(text) == conversations.text_key(text)


def test_a_conversation_that_an_import_has_hidden_is_asked_once(database: Database) -> None:
    said = (Message("user", "a"), Message("assistant", "b"))
    with unfinished.turn(database):
        unfinished.begin(database, "file", 1)
        hidden = conversations.new(
            "c", Split.TRAIN, language="und", system="", task="", origin="imported", earlier=said
        )
        with unfinished.storing(database, unfinished.Pace()):
            database.insert("prompts", conversations.row_of(hidden))
        with open_database(Workspace(database.path.parent)) as app:
            assert conversations.find(app, "c", earlier=said) is None
            assert conversations.add(app, "c", earlier=said).id == hidden.id
        unfinished.sweep(database)
    assert conversations.find(database, "c", earlier=said) == hidden


# Where they are read


@pytest.mark.parametrize("search", ["hang it", "OVEN", "basil?\nhang"])
def test_a_conversation_is_found_by_any_of_its_turns(database: Database, imported: Import, search: str) -> None:
    imported({"prompt": BASIL})
    conversations.add(database, "Something else")
    assert [plain(prompt) for prompt in conversations.recent(database, search=search)] == [BASIL]


def test_the_queue_asks_about_conversations(database: Database) -> None:
    text, system, said = parts_of([Message(**message) for message in BASIL])
    versions.ensure_base(database, "m", "d" * 64)
    asked = conversations.add(database, text, system=system, earlier=said, split=Split.TRAIN)
    samples.add(database, [samples.new(asked.id, answer, version="v0", finish_reason="eos") for answer in "ab"])
    assert [plain(item.prompt) for item in queue.next_items(database, "ana") if item.kind == "pair"] == [BASIL]


def test_messages_are_never_changed(database: Database, imported: Import) -> None:
    imported({"prompt": BASIL})
    for column in ("earlier", "opening"):
        with pytest.raises(Exception, match="append-only"):
            database.execute(f"UPDATE main.prompts SET {column} = '[1]'")


# Workspaces of before


def test_prompts_of_the_schema_before_are_as_they_were(workspace: Workspace) -> None:
    texts = ["Évian, où est-ce ?", " How do I dry basil? ", '[{"role": "user", "content": "a"}]']
    with earlier_schemas.open_earlier(workspace, 9) as database:
        for number, text in enumerate(texts):
            earlier_schemas.ask(
                database, text, "held-out" if number == 1 else "train", "fr", search_form=search_form(text),
                system="Be short." if number == 0 else "",
            )  # fmt: skip
        key = earlier_schemas.answer(
            database, database.scalar("SELECT id FROM prompts"), "Là.", version=None, finish_reason="eos"
        )
        rating = msgspec.to_builtins(log.score(key, 4, "ana"))
        del rating["slice"]  # which ratings did not have
        database.insert("ratings", rating)
        projection.settle(database, [rating["id"]])
        names = "id, text, text_key, search_form, system, language, task, split, origin, created_at, sequence"
        before = database.rows(f"SELECT {names} FROM prompts ORDER BY sequence")
    with open_database(workspace) as database:
        assert database.scalar("PRAGMA user_version") == CURRENT
        assert database.rows(f"SELECT {names} FROM prompts ORDER BY sequence") == before
        for row, text in zip(before, texts, strict=True):
            again = conversations.add(database, text, language="fr", system=row["system"])
            assert (again.id, again.text, again.earlier) == (row["id"], row["text"], ())
        assert log.effects_differ(database) == 0
        assert [rating.value for rating in log.effective(database)] == [4]
        # A conversation that opens with a held-out text is held out, before the step or after it.
        said = (Message("user", "How do I dry basil?"), Message("assistant", "Hang it."))
        assert conversations.add(database, "Why?", earlier=said).split == Split.HELD_OUT
        assert [one.text for one in conversations.recent(database, search="evian")] == [texts[0]]
        assert database.rows("PRAGMA foreign_key_check") == []


def test_how_a_prompt_is_written_and_read() -> None:
    text, system, said = parts_of([Message(**message) for message in BASIL])
    whole = Prompt("p", text, "en", "", system=system, earlier=said)
    assert whole.written == BASIL
    assert Prompt("p", text, "en", "", system=system).written == [BASIL[0], BASIL[3]]
    assert Prompt("p", text, "en", "").written == text
    assert whole.transcript == ("user: How do I dry basil?\n\nassistant: Hang it or use an oven?\n\nuser: Oven.")
    assert Prompt("p", text, "en", "", system=system).transcript == text
