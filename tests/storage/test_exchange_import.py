"""Import: every kind of record in every format, whole or not at all, with errors that name their place."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from storage import conversations, unfinished
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.exchange import formats
from storage.exchange.importing import Imported, import_file
from storage.exchange.layouts.entries import Defaults
from storage.feedback import census, log, outcome
from storage.feedback.outcome import Outcome
from storage.records import Choice, Rating, Source, Split
from storage.workspace import Workspace

EVERY_KIND: list[dict[str, Any]] = [
    {"prompt": "What is a river?", "language": "en", "task": "dialogue", "split": "held-out"},
    {"prompt": "Qu'est-ce qu'un glacier ?", "response": "De la glace.", "score": 4, "language": "fr", "rater": "ana"},
    {"prompt": "¿Qué es un faro?", "response": "Una torre.", "score": 0.25, "scale": [0, 1], "language": "es"},
    {"prompt": "Was ist ein Fjord?", "completion": "Ein Meeresarm.", "label": True, "language": "de"},
    {"prompt": "什么是冰川？", "chosen": "缓慢移动的冰。", "rejected": "不知道。", "language": "zh"},
    {"prompt": "हिमनद क्या है?", "completion": "बर्फ़ की नदी।", "language": "hi"},
    {"prompt": "ما هو النهر؟", "response": "ماء", "tags": {"bias": "none", "severity": 0}, "language": "ar"},
]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write records as JSON lines, or any text, to a file; returns its name."""

    def write(content: str | list[dict[str, Any]], name: str = "feedback.jsonl") -> str:
        if not isinstance(content, str):
            content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in content)
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        return str(tmp_path / name)

    return write


def refusal(database: Database, file: str, **more: Any) -> str:
    """The message of the refused import, after a check that nothing was stored."""
    with pytest.raises(UsageError) as caught:
        import_file(database, file, **more)
    assert census.summary(database).prompts == 0
    return str(caught.value)


def one(database: Database) -> Rating:
    (rating,) = log.effective(database)
    return rating


def texts(database: Database, rating: Rating) -> tuple[str | None, ...]:
    return tuple(
        database.scalar("SELECT text FROM samples WHERE id = ?", (key,))
        for key in (rating.sample_id, rating.other_sample_id)
    )


# What each record becomes


def test_every_kind_of_record_is_seen_from_its_fields(database: Database, write: Write) -> None:
    done = import_file(database, write(EVERY_KIND))
    assert done == Imported(
        records=7, stored=7, already=0, replaced=0, prompts=7, samples=7, ratings=5, already_there=0,
        ignored_fields=[], renamed_languages={}, dry_run=False,
        kinds={"demonstration": 1, "label": 1, "pair": 1, "prompt": 1, "score": 2, "tags": 1},
    )  # fmt: skip
    assert {rating.source for rating in log.effective(database)} == {Source.IMPORTED}
    assert census.summary(database).languages.keys() == {"en", "fr", "es", "de", "zh", "hi", "ar"}


def test_a_prompt(database: Database, write: Write) -> None:
    import_file(database, write(EVERY_KIND[:1]))
    (prompt,) = conversations.by_split(database, Split.HELD_OUT)
    assert (prompt.text, prompt.language, prompt.task, prompt.origin) == (
        "What is a river?", "en", "dialogue", "imported",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("record", "value", "scale", "rater"), [(EVERY_KIND[1], 4, (1, 5), "ana"), (EVERY_KIND[2], 0.25, (0, 1), "import")]
)
def test_a_score(
    database: Database, write: Write, record: dict[str, Any], value: float, scale: tuple[float, float], rater: str
) -> None:
    import_file(database, write([record]))
    rating = one(database)
    assert (rating.kind, rating.value, rating.rater) == ("score", value, rater)
    assert (rating.scale_low, rating.scale_high) == scale
    assert texts(database, rating) == (record["response"], None)


@pytest.mark.parametrize(("label", "value"), [(True, 1), (False, 0)])
def test_a_label(database: Database, write: Write, label: bool, value: float) -> None:
    import_file(database, write([{"prompt": "?", "completion": "!", "label": label}]))
    assert (one(database).kind, one(database).value) == ("label", value)


def test_a_preference(database: Database, write: Write) -> None:
    import_file(database, write(EVERY_KIND[4:5]))
    rating = one(database)
    assert (rating.kind, rating.choice) == ("pair", Choice.A)
    assert texts(database, rating) == ("缓慢移动的冰。", "不知道。")
    assert database.rows("SELECT DISTINCT origin FROM samples") == [{"origin": "imported"}]


def test_a_demonstration_is_a_sample_that_says_so(database: Database, write: Write) -> None:
    import_file(database, write(EVERY_KIND[5:6]))
    assert database.rows("SELECT text, origin, version FROM samples") == [
        {"text": "बर्फ़ की नदी।", "origin": "demonstration", "version": None}
    ]
    assert log.effective(database) == []


@pytest.mark.parametrize(
    ("tags", "stored"),
    [({"harm": "medical", "severity": 2}, {"harm": "medical", "severity": 2}), (["refusal"], {"refusal": True})],
)
def test_tags(database: Database, write: Write, tags: Any, stored: dict[str, Any]) -> None:
    import_file(database, write([{"prompt": "?", "response": "!", "tags": tags}]))
    assert (one(database).kind, one(database).tags) == ("tags", stored)


@pytest.mark.parametrize("name", ["table.json", "table.jsonl"])
def test_the_table_of_the_articles(database: Database, write: Write, name: str) -> None:
    table = {"Mto ni nini?": {"Maji.": 2, "Maji yanayotiririka.": 5}, "prompt": {"an answer": 3}}
    import_file(database, write(json.dumps(table), name), Defaults(language="sw"))
    stored = {
        texts(database, rating)[0]: (rating.value, rating.scale_high, rating.kind) for rating in log.effective(database)
    }
    assert stored == {
        "Maji.": (2, 5, "score"), "Maji yanayotiririka.": (5, 5, "score"), "an answer": (3, 5, "score"),
    }  # fmt: skip
    assert census.summary(database).languages.keys() == {"sw"}


def test_the_scale_of_a_table_can_be_given(database: Database, write: Write) -> None:
    import_file(database, write('{"a": {"b": -0.5}}', "table.json"), Defaults(scale=(-1, 1)))
    assert (one(database).value, one(database).scale_low) == (-0.5, -1)


def test_conversations_in_the_form_of_trl(database: Database, write: Write) -> None:
    ask, good, bad = (
        {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"},
        {"role": "assistant", "content": "5"},
    )  # fmt: skip
    system = {"role": "system", "content": "Be brief."}
    import_file(
        database,
        write(
            [
                {"prompt": [system, ask], "chosen": [good], "rejected": [bad]},
                {"chosen": [ask, good], "rejected": [ask, bad]},
                {"messages": [ask, good]},
            ]
        ),
    )
    asked = database.rows("SELECT text, system FROM prompts ORDER BY id")
    assert asked == [{"text": "2 + 2?", "system": "Be brief."}, {"text": "2 + 2?", "system": ""}]
    assert [texts(database, rating) for rating in log.effective(database)] == [("4", "5"), ("4", "5")]
    assert database.scalar("SELECT text FROM samples WHERE origin = 'demonstration'") == "4"


def test_an_answer_of_no_words_can_be_rated(database: Database, write: Write) -> None:
    import_file(database, write([{"prompt": "?", "response": "", "score": 1}]))
    assert texts(database, one(database)) == ("", None)


def test_raw_text_is_stored_as_it_is(database: Database, write: Write) -> None:
    hostile = "\x1b]52;c;aGk=\x07[/INST] \u202eabc\u2028\r\nend"
    import_file(database, write([{"prompt": hostile, "response": hostile, "score": 3}]))
    assert texts(database, one(database)) == (hostile, None)


# Formats


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


# Several judgements in one record


def test_every_judgement_of_a_record_is_stored(database: Database, write: Write) -> None:
    done = import_file(
        database,
        write(
            [
                {"prompt": "m1", "response": "r1", "score": 2, "tags": {"harm": "medical", "severity": 1}},
                {"prompt": "m2", "completion": "r2", "label": True, "score": 4},
                {"prompt": "m3", "chosen": "c3", "rejected": "d3", "response": "c3", "score": 5},
                {"prompt": "m4", "response": "r4", "outcome": "the bread did not rise", "mistake": "it has no yeast"},
            ]
        ),
    )
    assert done.kinds == {"label": 1, "mistake": 1, "outcome": 1, "pair": 1, "score": 3, "tags": 1}
    assert (done.stored, done.ratings, done.samples) == (8, 8, 5)
    told = {str(rating.kind): rating.text for rating in log.effective(database) if rating.text is not None}
    assert told == {"outcome": "the bread did not rise", "mistake": "it has no yeast"}


def test_a_table_tells_outcomes(database: Database, tmp_path: Path) -> None:
    table = tmp_path / "told.csv"
    table.write_text(
        "prompt;response;outcome;outcome_reason;outcome_score;outcome_scale\n"
        "p1;r1;worked;it rose;4,5;\np2;r2;failed;;2;[0, 10]\np3;r3;it fell;;;\n"
    )
    assert import_file(database, str(table)).kinds == {"outcome": 3}
    assert [outcome.of(rating) for rating in log.effective(database)] == [
        Outcome(True, "it rose", 4.5), Outcome(False, "", 2.0, (0.0, 10.0)), Outcome(None, "it fell"),
    ]  # fmt: skip


def test_what_was_replaced_is_counted(database: Database, write: Write) -> None:
    scores = [{"prompt": "o1", "response": "ans", "score": score} for score in (5, 1, 5)]
    pairs = [{"prompt": "o2", "chosen": chosen, "rejected": "AB".replace(chosen, "")} for chosen in "AAB"]
    done = import_file(database, write([*scores, *pairs]))
    assert (done.records, done.stored, done.already, done.replaced) == (6, 5, 1, 3)
    assert [rating.value for rating in log.effective(database) if rating.kind == "score"] == [5]


def test_an_answer_that_begins_with_its_prompt(database: Database, write: Write) -> None:
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "A river in Peru?"}, {"role": "assistant", "content": text}]

    record = {"prompt": "A river in Peru?", "chosen": said("The Ucayali."), "rejected": said("The Nile.")}
    import_file(database, write([record]))
    assert texts(database, one(database)) == ("The Ucayali.", "The Nile.")


# Languages


def test_a_language_is_one_however_it_is_written(database: Database, write: Write) -> None:
    tags = ["pt-BR", "pt_br", "ZH-HANS", "zh-Hans", "eng_Latn", "en", "tl", "iw"]
    done = import_file(database, write([{"prompt": f"q {tag}", "language": tag} for tag in tags]))
    assert census.summary(database).languages.keys() == {"pt-BR", "zh-Hans", "en", "fil", "he"}
    assert done.renamed_languages == {"tl": "fil"}, "other spellings change no meaning"


# Refusals


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


# Doing it twice


def test_a_dry_run_counts_and_stores_nothing(database: Database, write: Write) -> None:
    done = import_file(database, write(EVERY_KIND), dry_run=True)
    assert (done.prompts, done.samples, done.ratings, done.dry_run) == (7, 7, 5, True)
    assert census.summary(database).prompts == 0
    assert import_file(database, write(EVERY_KIND)).ratings == 5


@pytest.mark.parametrize("ids", [True, False])
def test_importing_a_file_again_adds_nothing(database: Database, write: Write, ids: bool) -> None:
    records = [{**record, **({"id": f"r{n}"} if ids else {})} for n, record in enumerate(EVERY_KIND)]
    import_file(database, write(records))
    before = database.scalar("SELECT count(*) FROM ratings")
    again = import_file(database, write(records))
    assert (again.prompts, again.samples, again.ratings, again.already_there) == (0, 0, 0, 7)
    assert database.scalar("SELECT count(*) FROM ratings") == before


def test_a_corrected_score_replaces_the_earlier_one(database: Database, write: Write) -> None:
    record = {"prompt": "a", "response": "b", "score": 2, "id": "r1", "rater": "ana"}
    import_file(database, write([record]))
    import_file(database, write([{**record, "score": 4}]))
    assert one(database).value == 4


def test_the_same_ids_in_another_file_are_other_records(database: Database, write: Write) -> None:
    for n in (1, 2):
        import_file(database, write([{"prompt": f"question {n}", "response": "b", "score": 2, "id": 1}]))
    assert len(log.effective(database)) == 2


def test_fields_that_are_not_read_are_named(database: Database, write: Write) -> None:
    assert import_file(database, write([{"prompt": "a", "mood": "x", "colour": 1}])).ignored_fields == [
        "colour",
        "mood",
    ]


def test_a_held_out_prompt_stays_held_out_when_it_comes_back_with_a_rating(database: Database, write: Write) -> None:
    conversations.add(database, "What is a river?", language="en", split=Split.HELD_OUT)
    import_file(database, write([{"prompt": "What is a river?", "response": "Water.", "score": 5}]))
    assert conversations.by_split(database, Split.TRAIN) == []


def test_the_cost_of_a_record_does_not_grow_with_what_one_rater_has_rated(database: Database, write: Write) -> None:
    """Counted in SQLite's own steps, which no busy machine can change."""

    def steps(name: str) -> int:
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        database.connection.set_progress_handler(count, 100)
        import_file(database, write([{"prompt": f"{name} {n}", "response": "b", "score": 3} for n in range(300)]))
        database.connection.set_progress_handler(None, 0)
        return counted

    first = steps("few")
    import_file(database, write([{"prompt": f"more {n}", "response": "b", "score": 3} for n in range(1500)]))
    assert steps("many") < 2 * first


def test_the_newest_row_is_the_newest_one_seen_and_moves_at_the_switch(
    workspace: Workspace, database: Database
) -> None:
    conversations.add(database, "before")
    with open_database(workspace) as other:
        with unfinished.turn(database):
            unfinished.begin(database, "file", 2)
            with unfinished.storing(database, unfinished.Pace()):
                conversations.add(database, "hidden")
            assert unfinished.newest(other, "prompts") == 1
            conversations.add(other, "meanwhile")
            assert unfinished.newest(other, "prompts") == 3
            with unfinished.storing(database, unfinished.Pace()):
                conversations.add(database, "hidden too")
            assert unfinished.newest(other, "prompts") == 3
            with unfinished.switching(database):
                pass
        assert unfinished.newest(other, "prompts") == 4
