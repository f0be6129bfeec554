"""Every released schema comes up to date with nothing lost, and goes on as if it had been made today."""

from __future__ import annotations

import hashlib

import earlier
import pytest

from storage import conversations, jobs, samples, versions
from storage.database import Database, IntegrityError, open_database
from storage.feedback import census, log, queue
from storage.feedback.stock import take_stock
from storage.records import Choice, Split
from storage.schema.migrations import CURRENT, MIGRATIONS
from storage.workspace import Workspace

# Of released steps, what was released: a step is never edited, the next one is added.
RELEASED = {
    1: "b0d6736b",
    2: "01b93ee1",
    3: "9df4f8cc",
}


def test_released_steps_say_what_they_said() -> None:
    statements = {
        step.number: "".join(line for line in step.sql.splitlines() if line[:2] != "--") for step in MIGRATIONS
    }
    found = {number: hashlib.sha256(statements[number].encode()).hexdigest()[:8] for number in RELEASED}
    assert found == RELEASED


def fill(database: Database) -> dict[str, str]:
    """Some of everything, as a program of the third schema left it. Returns keys by name."""
    keys = {"prompt": earlier.ask(database, "Évian, où est-ce ?", language="fr")}
    keys["apart"] = earlier.ask(database, "秘密は何ですか", "held-out", "ja")
    for name in ("v0", "v1"):
        row = {"kind": "base"} if name == "v0" else {"kind": "lora", "file": "v1", "sha256": "e" * 64, "parent": "v0"}
        earlier.insert(database, "versions", name=name, base_model="m", base_digest="d" * 64, state="published", **row)
        earlier.insert(database, "version_events", version=name, action="publish")
    for name in "abc":
        keys[name] = earlier.answer(database, keys["prompt"], f"answer {name}", version="v0", finish_reason="eos")
    keys["secret"] = earlier.answer(database, keys["apart"], "秘密", version="v1", finish_reason="eos")
    database.execute("INSERT INTO expectations VALUES (?, 0.5, 0.25)", (keys["secret"],))
    keys["replaced"] = earlier.rate(database, keys["a"], "score", counts=False)
    keys["score"] = earlier.rate(database, keys["a"], "score", value=5.0, supersedes=keys["replaced"])
    keys["queued"] = earlier.begin(database, "reward", state="queued", started_at=None)
    keys["job"] = earlier.begin(database, "ppo")
    keys["undone"] = earlier.rate(database, keys["b"], "label", counts=False, value=0.0)
    earlier.rate(database, None, "undo", supersedes=keys["undone"])
    keys["pair"] = earlier.rate(database, keys["c"], "pair", other_sample_id=keys["b"], choice="a")
    earlier.rate(database, keys["secret"], "tags", tags='{"harm": "insult"}')
    earlier.rate(database, keys["c"], "note", text="hm")
    keys["edit"] = earlier.rate(database, keys["b"], "edit", text="better", rater="li")
    database.execute("INSERT INTO job_ratings VALUES (?, ?)", (keys["job"], keys["score"]))
    return keys


@pytest.fixture
def keys(workspace: Workspace) -> dict[str, str]:
    with earlier.open_earlier(workspace, 3) as database:
        return fill(database)


def test_all_of_it_is_there_and_sound(workspace: Workspace, keys: dict[str, str]) -> None:
    with open_database(workspace) as database:
        assert database.scalar("PRAGMA user_version") == CURRENT
        assert database.rows("PRAGMA foreign_key_check") == []
        assert database.scalar("PRAGMA integrity_check") == "ok"
        assert database.scalar("PRAGMA foreign_keys") == 1
        assert log.effects_differ(database) == 0
        ratings = log.effective(database)
        assert [rating.kind for rating in ratings] == ["score", "pair", "tags", "note", "edit"]
        assert [event.kind for event in log.history(database, keys["b"])] == ["label", "undo", "pair", "edit"]
        found = census.summary(database)
        assert (found.prompts, found.samples, found.ratings) == (2, 4, 4)
        assert found.kinds == {"edit": 1, "pair": 1, "score": 1, "tags": 1}
        stock = take_stock(database, "d" * 64)
        assert (stock.prompts, stock.held_out, stock.examples, stock.imitable) == (1, 1, 3, 1)
        assert (stock.rated, stock.compared, stock.scored) == (4, 1, 1)
        assert [version.name for version in versions.every(database)] == ["v1", "v0"]
        assert versions.served(database) == versions.get(database, "v1")
    assert len(list(workspace.backups.glob("before-schema-4-*.db"))) == 1


def test_it_goes_on_from_there(workspace: Workspace, keys: dict[str, str]) -> None:
    with open_database(workspace) as database:
        again = log.append(database, log.score(keys["a"], 1, "ana"))
        assert again.supersedes == keys["score"]
        turned = log.append(database, log.pair(keys["b"], keys["c"], Choice.A, "ana"))
        assert turned.supersedes == keys["pair"]
        for expected in (turned, again):
            assert log.undo(database, "ana") == expected
        assert log.redo(database, "ana") == again
        assert [prompt.text for prompt in conversations.recent(database, search="evian")] == ["Évian, où est-ce ?"]
        assert [prompt.text for prompt in conversations.recent(database, search="秘密")] == ["秘密は何ですか"]
        assert len(conversations.by_split(database, Split.TRAIN)) == 1
        assert {len(item.samples) for item in queue.next_items(database, "new")} == {1, 2}
        assert samples.get(database, keys["a"]).text == "answer a"
        assert log.effects_differ(database) == 0


def test_a_job_that_had_begun_learns_from_what_was_there_then(workspace: Workspace, keys: dict[str, str]) -> None:
    with open_database(workspace) as database:
        job = jobs.get(database, keys["job"])
        assert job.begun is not None
        assert [rating.id for rating in log.effective_at(database, job.feedback_sequence or 0)] == [keys["score"]]
        assert jobs.ratings_of(database, job.id) == [keys["score"]]
        assert jobs.get(database, keys["queued"]).begun is None


def test_without_full_text_search_prompts_are_found_all_the_same(
    workspace: Workspace, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database.has_full_text_search", lambda connection: False)
    with open_database(workspace) as database:
        assert not database.has_table("prompt_search")
        conversations.add(database, "Wo liegt Évian?", language="de")
        assert len(conversations.recent(database, search="ÉVIAN")) == 2


def test_prompts_of_before_are_found_without_their_vowel_marks_and_stay_unchangeable(workspace: Workspace) -> None:
    text = "سِفْرُ التَّكوين"
    with earlier.open_earlier(workspace, 10) as database:
        earlier.ask(database, text, language="ar", search_form=text, opening=text)
        earlier.ask(database, "Mto ni nini?", language="sw", search_form="mto ni nini?", opening="Mto ni nini?")
    with open_database(workspace) as database:
        assert [prompt.text for prompt in conversations.recent(database, search="سفر التكوين")] == [text]
        assert [prompt.text for prompt in conversations.recent(database, search="nini")] == ["Mto ni nini?"]
        with pytest.raises(IntegrityError, match="append-only"):
            database.execute("UPDATE main.prompts SET search_form = 'other'")
        found = conversations.recent(database, search="nini")[0]
        assert conversations.put_to_use(database, found.id, found.split, "", language="en").language == "en"
        assert log.effects_differ(database) == 0
