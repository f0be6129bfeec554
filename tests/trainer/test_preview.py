"""`--show`: what each method would learn from, word for word, before anything is learned."""

from __future__ import annotations

import json

import pytest
from rated_workspace import fill

from storage import jobs, samples
from storage.database import Database, open_database
from storage.feedback import log
from storage.workspace import Workspace
from trainer.algorithms.hindsight import for_told
from trainer.methods import METHODS

HOSTILE = "<b>\x1b]52;c;AAAA\x07 \u202e</b>"


@pytest.fixture
def rated(workspace: Workspace) -> Database:
    with open_database(workspace) as database:
        fill(database)
        yield database


def test_every_method_shows_what_it_would_learn_from_and_does_nothing_else(command, rated):
    keys = [row["id"] for row in rated.rows("SELECT id FROM samples ORDER BY sequence LIMIT 30")]
    log.append_all(rated, [log.edit(key, f"{HOSTILE} {place}", "amina") for place, key in enumerate(keys)])
    for name in (name for name, method in METHODS.items() if method.learns):
        code, out, err = command(name, "--show", "3", "--json")
        assert code == 0, (name, err)
        found = json.loads(out)
        assert found["method"] == name
        assert found["count"] == sum(found["languages"].values()) >= len(found["shown"]) == 3, name
        assert all(one["messages"][-1]["role"] == "user" for one in found["shown"])
    for loss, name in (("dpo", "dpo"), ("kto", "KTO")):
        _, out, _ = command("dpo", "--loss", loss, "--show", "1")
        assert out.startswith(f"{name} learns from ")
    code, out, _ = command("sft", "--show", "30")
    assert code == 0
    assert not set("\x1b\x07\u202e") & set(out)
    assert "imitated" in out
    assert jobs.every(rated) == []


def test_hindsight_shows_what_was_told_of_an_answer_as_it_will_be_asked_for(command, rated):
    first, second, third = [row["id"] for row in rated.rows(
        "SELECT samples.id FROM samples JOIN prompts ON prompts.id = prompt_id WHERE split = 'train' "
        "ORDER BY samples.sequence LIMIT 3")]  # fmt: skip
    log.append_all(
        rated,
        [
            log.outcome(first, "the bread rose", "amina", worked=True, score=5),
            log.outcome(second, "", "amina", worked=False),
            log.outcome(third, "", "amina", score=1),
        ],
    )
    code, out, err = command("hindsight", "--show", "1000", "--json")
    assert code == 0, err
    shown = json.loads(out)["shown"]
    answers = {key: samples.get(rated, key).text for key in (first, second, third)}

    def asked(key: str) -> list[str]:
        return [one["messages"][-1]["content"] for one in shown if one["answer"] == answers[key]]

    assert any(text.endswith("Answer so that it works, and this happens: the bread rose") for text in asked(first))
    assert any(text.endswith("Answer so that it fails.") for text in asked(second))
    assert not any(sentence in text for text in asked(third) for sentence in ("works", "fails", "happens"))
    text = command("hindsight", "--show", "2")[1]
    assert "of each language in turn" in text
    assert "answer ▸" in text
    assert for_told("", None) == ""


def test_too_little_is_refused_as_it_would_be_by_the_method(command, rated):
    code, _, err = command("sft", "--show", "1")
    assert code == 2
    assert "too few answers to imitate" in err
