"""The library: pages of prompts, and what became of everything that was said of an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import conversations, jobs, library, samples, versions
from storage.database import Database, IntegrityError
from storage.errors import UsageError
from storage.exchange.importing import import_file
from storage.feedback import census, log
from storage.forms import search_form
from storage.library import Standing
from storage.records import Choice, Split

TEXTS = ("Why does bread rise?", "¿Por qué sube el pan?", "面包为什么会发起来？", "Kwa nini mkate huumuka?")


def all_pages(database: Database, search: str = "", **only: str) -> list[str]:
    """The texts of all pages, two prompts a page."""
    found: list[library.Shelved] = []
    while page := library.page(database, search, found[-1].sequence if found else None, 2, only):
        found += page
    return [prompt.text for prompt in found]


def test_pages_go_on_where_the_one_before_ended_and_find_what_is_searched_in_any_script(database: Database) -> None:
    for place, text in enumerate(TEXTS):
        split = Split.HELD_OUT if place == 1 else Split.TRAIN
        conversations.add(database, text, language=("en", "es", "zh", "sw")[place], split=split, task="explanation")
    assert all_pages(database) == list(reversed(TEXTS))
    assert all_pages(database, "POR QUE") == [TEXTS[1]]
    assert all_pages(database, "发起来") == [TEXTS[2]]
    assert all_pages(database, "包") == [TEXTS[2]], "shorter than what the index knows"
    assert all_pages(database, split="held-out") == [TEXTS[1]]
    assert all_pages(database, "w", language="sw", task="explanation") == [TEXTS[3]]


def test_a_page_counts_answers_and_the_ratings_that_count(database: Database) -> None:
    asked = conversations.add(database, TEXTS[0], language="en")
    conversations.add(database, TEXTS[1], language="es")
    made = [samples.new(asked.id, text) for text in ("Yeast.", "Magic.")]
    samples.add(database, made)
    log.append(database, log.score(made[0].id, 3, "ana"))
    log.append(database, log.score(made[0].id, 4, "ana"))
    log.append(database, log.note(made[0].id, "brief", "ana"))
    log.append(database, log.pair(made[0].id, made[1].id, Choice.A, "ana"))
    assert [(one.answers, one.ratings) for one in library.page(database)] == [(0, 0), (2, 2)]


def test_each_event_tells_what_has_become_of_it(database: Database) -> None:
    asked = conversations.add(database, TEXTS[0], language="en")
    made = [samples.new(asked.id, text) for text in ("Yeast.", "Magic.", "Gas.")]
    samples.add(database, made)
    log.append(database, log.score(made[0].id, 2, "ana"))
    log.append(database, log.score(made[0].id, 4, "ana"))
    log.gesture(database, log.best_of(made[0].id, [one.id for one in made], "ana"))
    log.undo(database, "ana")
    log.append(database, log.label(made[0].id, True, "bo"))
    log.undo(database, "bo")
    log.redo(database, "bo")
    answered = library.answer(database, asked.id, 3)
    assert answered is not None
    assert (answered.sample, answered.place, answered.count) == (made[0], 0, 3), "round the end"
    assert [(one.rating.kind, one.standing) for one in answered.told] == [
        ("score", Standing.REPLACED), ("score", Standing.COUNTS), ("pair", Standing.TAKEN_BACK),
        ("pair", Standing.TAKEN_BACK), ("undo", Standing.TURN), ("label", Standing.COUNTS), ("undo", Standing.TURN),
        ("redo", Standing.TURN),
    ]  # fmt: skip
    unanswered = conversations.add(database, TEXTS[1], language="es")
    assert library.answer(database, unanswered.id, 0) is None


def test_a_page_costs_the_same_among_few_prompts_and_among_many(database: Database) -> None:
    def steps(search: str) -> int:
        taken = 0

        def step() -> int:
            nonlocal taken
            taken += 1
            return 0

        database.connection.set_progress_handler(step, 100)
        assert len(library.page(database, search, limit=5)) == 5
        database.connection.set_progress_handler(None, 0)
        return taken

    with database.transaction():
        for n in range(200):
            conversations.add(database, f"Why does bread number {n} rise?", language="en")
    few = steps(""), steps("bread")
    with database.transaction():
        for n in range(200, 2000):
            conversations.add(database, f"Why does bread number {n} rise?", language="en")
    many = steps(""), steps("bread")
    assert many[0] <= few[0] + 1, "read by the sequence"
    assert many[1] <= few[1] + 5, "read from the index of three characters, newest first"


def test_a_prompt_put_to_a_stricter_use_takes_along_all_that_open_with_its_text(database: Database) -> None:
    asked = conversations.add(database, TEXTS[0], language="en", split=Split.TRAIN)
    other = conversations.add(database, TEXTS[0], language="sw", split=Split.TRAIN)
    conversations.add(database, TEXTS[1], language="es", split=Split.TRAIN)
    made = samples.new(other.id, "Yeast.")
    samples.add(database, [made])
    log.append(database, log.score(made.id, 3, "ana"))
    log.append(database, log.note(made.id, "brief", "ana"))
    hanging = library.hanging(database, asked.id)
    assert (hanging.prompts, hanging.taught, hanging.answers, hanging.ratings) == (2, 1, 0, 0)
    put = conversations.put_to_use(database, asked.id, Split.HELD_OUT, "baking")
    assert (put.split, put.task) == (Split.HELD_OUT, "baking")
    assert [one.text for one in conversations.by_split(database, Split.TRAIN)] == [TEXTS[1]]
    assert library.prompt(database, other.id).ratings == 1
    with pytest.raises(UsageError, match="never becomes train"):
        conversations.put_to_use(database, asked.id, Split.TRAIN, "baking")


def test_what_hangs_on_a_prompt_names_the_jobs_that_learned_from_it_and_the_versions_that_answered(
    database: Database,
) -> None:
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    asked = conversations.add(database, TEXTS[0], language="en", split=Split.TRAIN)
    made = [samples.new(asked.id, text, version=base.name, finish_reason="eos") for text in ("Yeast.", "Magic.")]
    samples.add(database, made)
    taught = log.append(database, log.pair(made[0].id, made[1].id, Choice.A, "ana"))
    first, second = (jobs.enqueue(database, kind, {}) for kind in ("reward", "ppo"))
    for one in (first, second):
        held = jobs.claim(database, "here", job_id=one.id)
        assert held is not None
        if one is first:
            jobs.link_ratings(database, held, [taught.id])
    later = conversations.add(database, TEXTS[1], language="es", split=Split.TRAIN)
    hanging = library.hanging(database, asked.id)
    assert (hanging.learned, hanging.began, hanging.measured) == ((f"reward {first.id[-8:]}",), 2, ("v0",))
    assert library.hanging(database, later.id) == library.Hanging(1, 0, 0, 0, (), 0, ())


def test_a_prompt_takes_all_that_is_counted_along_to_another_language(database: Database) -> None:
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    asked = conversations.add(database, TEXTS[3], language="und", split=Split.TRAIN)
    other = conversations.add(database, TEXTS[0], language="en", split=Split.TRAIN)
    for prompt in (asked, other):
        made = [samples.new(prompt.id, text, version=base.name, finish_reason="eos") for text in ("Hamira.", "Uchawi.")]
        shown = samples.new(prompt.id, "Hewa.", origin="demonstration")
        samples.add(database, [*made, shown])
        for rating in (
            log.score(made[0].id, 2, "ana"), log.label(made[1].id, True, "bo"), log.edit(made[0].id, "Gesi.", "ana"),
            log.pair(made[0].id, made[1].id, Choice.A, "ana"),
        ):  # fmt: skip
            log.append(database, rating)
    put = conversations.put_to_use(database, asked.id, Split.HELD_OUT, "baking", language="sw", by="ana")
    assert (put.language, put.split, put.task) == ("sw", "held-out", "baking")
    assert log.effects_differ(database) == 0
    found = census.summary(database).languages
    assert {name: (one.prompts, one.samples, one.ratings) for name, one in found.items() if one.prompts} == {
        "en": (1, 3, 4), "sw": (1, 3, 4),
    }  # fmt: skip
    told = [(one.field, one.was, one.became, one.made_by) for one in conversations.changes(database, asked.id)]
    assert told == [
        ("language", "und", "sw", "ana"), ("split", "train", "held-out", "ana"), ("task", "", "baking", "ana"),
    ]  # fmt: skip
    assert conversations.changes(database, other.id) == []
    conversations.put_to_use(database, asked.id, Split.HELD_OUT, "baking", language="sw", by="bo")
    assert len(conversations.changes(database, asked.id)) == 3, "what is so already is no change"


def test_a_prompt_that_is_there_in_a_language_already_takes_no_other_into_it(database: Database) -> None:
    asked = conversations.add(database, TEXTS[0], language="und", split=Split.TRAIN)
    conversations.add(database, TEXTS[0], language="en", split=Split.TRAIN)
    with pytest.raises(UsageError, match="holds this prompt in en already"):
        conversations.put_to_use(database, asked.id, Split.TRAIN, "", language="en")
    assert conversations.get(database, asked.id).language == "und"


def test_changes_are_append_only_and_an_import_is_named_in_them(database: Database, tmp_path: Path) -> None:
    asked = conversations.add(database, TEXTS[0], language="en", split=Split.TRAIN)
    file = tmp_path / "prompts.jsonl"
    record = {"prompt": TEXTS[0], "language": "en", "split": "ethics", "task": "baking"}
    file.write_text(json.dumps(record), encoding="utf-8")
    import_file(database, str(file))
    told = [(one.field, one.was, one.became, one.made_by) for one in conversations.changes(database, asked.id)]
    assert told == [("split", "train", "ethics", "import"), ("task", "", "baking", "import")]
    for statement in (
        "UPDATE prompt_changes SET made_by = 'bo'", "DELETE FROM prompt_changes",
        "INSERT OR REPLACE INTO prompt_changes SELECT * FROM prompt_changes LIMIT 1",
        "UPDATE main.prompts SET text = 'other'",
    ):  # fmt: skip
        with pytest.raises(IntegrityError, match="append-only"):
            database.execute(statement)


def test_a_page_is_narrowed_by_version_kind_tag_and_the_words_of_an_answer(database: Database) -> None:
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    asked = [conversations.add(database, text, language="und", split=Split.TRAIN) for text in TEXTS[:3]]
    texts = (("Yeast 100%", base.name), ("La levadura, ¡sí!", None), ("酵母产生气体。", base.name))
    said = [samples.new(one.id, text, version=version) for one, (text, version) in zip(asked, texts, strict=True)]
    samples.add(database, said)
    log.append(database, log.tags(said[0].id, {"harm": "medical", "severity": 2}, "ana"))
    log.append(database, log.tags(said[1].id, {"wrong language": True}, "ana"))
    log.append(database, log.score(said[2].id, 4, "ana"))
    log.append(database, log.label(said[2].id, True, "ana"))
    log.undo(database, "ana")
    for only, found in (
        ({"version": "v0"}, [2, 0]), ({"kind": "tags"}, [1, 0]), ({"kind": "label"}, []), ({"kind": "score"}, [2]),
        ({"tag": "medical"}, [0]), ({"tag": "wrong language"}, [1]), ({"tag": "%"}, []), ({"answer": "%"}, [0]),
        ({"answer": "SI"}, [1]), ({"answer": "气"}, [2]), ({"answer": "_"}, []),
        ({"version": "v0", "kind": "tags", "answer": "yeast"}, [0]),
    ):  # fmt: skip
        assert all_pages(database, **only) == [TEXTS[place] for place in found], only
    second = samples.new(asked[0].id, "Gas, of course.", version=None)
    samples.add(database, [second])
    log.append(database, log.score(second.id, 4, "ana"))
    for only, place in (
        ({}, 0), ({"language": "und"}, 0), ({"answer": "OF COURSE"}, 1), ({"version": "v0"}, 0), ({"kind": "score"}, 1),
        ({"kind": "pair"}, 0),
    ):  # fmt: skip
        assert library.place_of(database, asked[0].id, only) == place, only


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("سِفْرُ التَّكوين", "سفر التكوين"), ("كتـــاب أحمد", "كتاب احمد"),
        ("שָׁלוֹם עוֹלָם", "שלום עולם"), ("Żółć ÉVIAN", "zołc evian"),
        ("ﬁne Ｗｉｄｅ", "fine wide"), ("STRASSE", "straße"), ("が ガ", "が"), ("100% sure_thing", "0% sure_"),
        ("电", "电"), ("电影院", "影院"), ("हिन्दी", "हिन्दी"), ('say "x" AND y', '"x" and'), ("İstanbul", "istanbul"),
        ("👩‍🔬 and 🇲🇽", "🇲🇽"),
    ],
)  # fmt: skip
def test_a_text_is_found_as_people_write_it(database: Database, text: str, search: str) -> None:
    conversations.add(database, "something else", language="und")
    conversations.add(database, text, language="und")
    assert all_pages(database, search) == [text]
    assert search_form(search_form(text)) == search_form(text)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_form_of_a_form_is_the_form_itself(text: str) -> None:
    assert search_form(search_form(text)) == search_form(text)
