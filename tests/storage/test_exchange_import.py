"""Import: what each kind of record becomes, and what a file becomes that comes twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from imports import EVERY_KIND, Write, one, texts

from storage import conversations, unfinished
from storage.database import Database, open_database
from storage.exchange.importing import Imported, import_file
from storage.exchange.layouts.entries import Defaults
from storage.feedback import census, log, outcome
from storage.feedback.outcome import Outcome
from storage.records import Choice, Source, Split
from storage.workspace import Workspace


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
