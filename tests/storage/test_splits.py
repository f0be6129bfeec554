"""Held out once, held out for ever: a text's split is decided when it is first stored, by the text alone."""

from __future__ import annotations

import json
import random
import unicodedata
from contextlib import suppress
from pathlib import Path

import earlier
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as rules
from hypothesis import strategies as st

from storage import clock, conversations, jobs, splits
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.exchange.importing import import_file
from storage.records import Split
from storage.schema.migrations import CURRENT
from storage.workspace import Workspace

SECRET, OPEN = "Mto ni nini?", "¿Qué es un faro?"
TEXTS = st.sampled_from([f"{text} {number}" for text in ("Qu'est-ce ?", "यह क्या है?", "é") for number in range(8)])
STEPS = st.lists(
    st.tuples(
        TEXTS, st.sampled_from(["NFC", "NFD"]), st.sampled_from(["und", "fr", "hi"]), st.sampled_from(["", "Brief."]),
        st.sampled_from([None, None, 0.0, 0.15, 0.5, 0.9]),
    ),
    max_size=40,
)  # fmt: skip


class _RolledBack(Exception):
    """Ends an example, so that the next one begins with an empty workspace."""


def test_the_number_of_a_text_is_fixed_and_lies_from_0_to_below_1() -> None:
    assert splits.fraction(SECRET) == 0.06199612092441342
    assert splits.fraction(OPEN) == 0.38922871370434076
    assert all(0 <= splits.fraction(str(number)) < 1 for number in range(1000))


@given(steps=STEPS)
@rules(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_prompt_that_is_added_moves_an_earlier_one(database: Database, steps: list[tuple]) -> None:
    """In any order, again, in other languages and forms, and whatever the share became since."""
    decided: dict[str, Split] = {}
    with suppress(_RolledBack), database.transaction():
        for text, form, language, system, share in steps:
            if share is not None:
                conversations.set_held_out_share(database, share)
            key = conversations.text_key(text)
            decided.setdefault(key, splits.by_hash(key, conversations.held_out_share(database)))
            conversations.add(database, f" {unicodedata.normalize(form, text)}\n", language=language, system=system)
            stored = {row["text_key"]: row["split"] for row in database.rows("SELECT text_key, split FROM prompts")}
            assert stored == decided
        raise _RolledBack
    assert database.scalar("SELECT count(*) FROM prompts") == 0


def test_about_fifteen_of_a_hundred_texts_are_held_out_in_every_language(database: Database) -> None:
    words = {"en": "Why {}?", "zh": "为什么{}？", "ar": "لماذا {}؟", "sw": "Kwa nini {}?"}
    with database.transaction():
        for language, text in words.items():
            for number in range(500):
                conversations.add(database, text.format(number), language=language)
    for language in words:
        # The share of 500 has a standard deviation of 1.6%.
        assert 0.10 < len(conversations.by_split(database, Split.HELD_OUT, language)) / 500 < 0.20
    assert 0.13 < len(conversations.by_split(database, Split.HELD_OUT)) / 2000 < 0.17
    assert conversations.by_split(database, Split.ETHICS) == []


def test_the_order_of_arrival_makes_no_difference(workspace: Workspace) -> None:
    texts = [f"Pourquoi {number} ?" for number in range(60)]
    found = []
    for turn in range(2):
        place = Workspace(workspace.root / f"turn {turn}")
        with open_database(place) as database, database.transaction():
            for text in random.Random(turn).sample(texts, len(texts)):
                conversations.add(database, text)
            found.append({prompt.text for prompt in conversations.by_split(database, Split.HELD_OUT)})
    assert found[0] == found[1] != set()


def test_a_split_that_is_named_decides_about_a_new_text(database: Database) -> None:
    assert conversations.add(database, SECRET, split=Split.TRAIN).split is Split.TRAIN
    assert conversations.add(database, OPEN, split=Split.HELD_OUT).split is Split.HELD_OUT
    assert conversations.add(database, SECRET, language="sw").split is Split.TRAIN, "its text is known"
    assert conversations.add(database, OPEN, language="es").split is Split.HELD_OUT


def test_a_new_share_holds_for_new_prompts_alone(database: Database) -> None:
    assert conversations.held_out_share(database) == splits.DEFAULT_SHARE
    before = conversations.add(database, SECRET, language="sw")
    conversations.set_held_out_share(database, 0)
    assert conversations.get(database, before.id).split is Split.HELD_OUT
    assert conversations.add(database, SECRET).split is Split.HELD_OUT, "the same text in another language"
    assert conversations.add(database, f"{SECRET} 2").split is Split.TRAIN
    conversations.set_held_out_share(database, 0.85)
    assert conversations.add(database, f"{SECRET} 2", language="es").split is Split.TRAIN
    assert conversations.add(database, OPEN).split is Split.HELD_OUT


@pytest.mark.parametrize("share", [-0.1, 1, float("nan"), float("inf")])
def test_a_share_out_of_bounds_is_refused(database: Database, share: float) -> None:
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        conversations.set_held_out_share(database, share)
    assert conversations.held_out_share(database) == splits.DEFAULT_SHARE


def test_an_import_without_a_split_leaves_it_to_the_hash_and_one_with_a_split_does_not(
    database: Database, tmp_path: Path
) -> None:
    texts = [f"Was ist {n}?" for n in range(60)]
    records = [{"prompt": text, "response": "b", "score": 3, "split": None} for text in texts[:40]]
    records += [{"prompt": text, "split": "train"} for text in texts]
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    for _ in range(2):
        import_file(database, str(file))
        held_out = {prompt.text for prompt in conversations.by_split(database, Split.HELD_OUT)}
        assert held_out == {text for text in texts[:40] if splits.fraction(text) < 0.15} != set()


# Workspaces from before: prompts that nobody marked were all for training


@pytest.fixture
def before(workspace: Workspace) -> Database:
    """An empty workspace of the first schema."""
    return earlier.open_earlier(workspace, 1)


def add_train(database: Database, name: str, count: int = 40, **more: str) -> list[str]:
    """Prompts as they were all stored then; about six of forty are to be held out."""
    with database.transaction():
        found = [earlier.ask(database, f"{name} {n}", **more) for n in range(count)]
    assert any(splits.by_hash(f"{name} {n}", 0.15) is Split.HELD_OUT for n in range(count))
    return found


def migrated(database: Database, workspace: Workspace) -> Database:
    database.close()
    opened = open_database(workspace)
    assert opened.scalar("PRAGMA user_version") == CURRENT
    return opened


def held_out(database: Database) -> set[str]:
    return {prompt.text for prompt in conversations.by_split(database, Split.HELD_OUT)}


def by_threshold(name: str, count: int = 40) -> set[str]:
    return {text for n in range(count) if splits.fraction(text := f"{name} {n}") < 0.15}


def test_prompts_of_before_that_nothing_learned_from_fall_by_the_same_threshold(
    before: Database, workspace: Workspace
) -> None:
    add_train(before, "typed")
    add_train(before, "imported", origin="imported")
    add_train(before, "of the demo", origin="demo")
    earlier.begin(before, "ppo", started_at=None, state="queued")
    earlier.begin(before, "reward")  # learned from what it is linked to alone
    earlier.ask(before, "typed 0", "ethics", "en")
    before.execute("UPDATE main.prompts SET split = 'ethics' WHERE text = 'typed 0'")
    with migrated(before, workspace) as database:
        typed = by_threshold("typed") - {"typed 0"}
        assert held_out(database) == typed | by_threshold("imported")
        assert {prompt.text for prompt in conversations.by_split(database, Split.ETHICS)} == {"typed 0"}
        again = {conversations.add(database, f"typed {n}", language="de").split for n in range(1, 40)}
        assert again == {Split.TRAIN, Split.HELD_OUT}
        assert held_out(database) == typed | by_threshold("imported"), "and stay where they fell"


@pytest.mark.parametrize("kind", ["run", "ppo", "sft", "ilql", "hindsight"])
def test_what_was_there_when_a_policy_began_to_learn_stays_for_training(
    before: Database, workspace: Workspace, kind: str
) -> None:
    add_train(before, "early")
    earlier.begin(before, kind)
    add_train(before, "late")
    earlier.ask(before, "early 1", language="fr")  # a text that was there, in another language
    with migrated(before, workspace) as database:
        assert held_out(database) == by_threshold("late")


def test_what_a_reward_model_learned_from_stays_for_training(before: Database, workspace: Workspace) -> None:
    keys = add_train(before, "rated")
    job = earlier.begin(before, "reward")
    secret = sorted(by_threshold("rated"))
    chosen = [key for key, n in zip(keys, range(40), strict=True) if f"rated {n}" in secret[:3]]
    made = [earlier.answer(before, key, text) for key in chosen for text in ("a", "b")]
    scored = earlier.rate(before, made[0], "score")
    # A pair whose second answer alone is of another prompt: both were learned from.
    pair = earlier.rate(before, made[2], "pair", other_sample_id=made[4], choice="a")
    before.execute("INSERT INTO job_ratings SELECT ?, id FROM ratings WHERE id IN (?, ?)", (job, scored, pair))
    with migrated(before, workspace) as database:
        assert held_out(database) == set(secret[3:])
        assert jobs.ratings_of(database, job)


def test_held_out_prompts_of_before_stay_held_out(before: Database, workspace: Workspace) -> None:
    earlier.ask(before, OPEN, "held-out")
    earlier.begin(before, "ppo")
    moment = clock.now()
    with migrated(before, workspace) as database:
        (prompt,) = conversations.by_split(database, Split.HELD_OUT)
        assert prompt.text == OPEN
        assert prompt.created_at < moment
