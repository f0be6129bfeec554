"""A judge's work as a job: kept in the database, gone on with, cancelled, and never with a key in it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from endpoint import KEY, Endpoint, Reply, ask, completion, said_by
from rated_workspace import LANGUAGES

from storage import jobs, metrics
from storage.database import Database
from storage.feedback.unjudged import shared
from storage.records import JobState
from trainer.judge.asked import KEYRING, key_of
from trainer.judge.rubric import Rubric
from trainer.reward.language import is_in


def asked_of(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("--endpoint", endpoint.url, "--endpoint-model", "m", *more)


def test_what_was_judged_is_a_job_with_its_figures_and_its_result(judge, database) -> None:
    ask(database, "sw", "moja", "mbili")
    with Endpoint(lambda body, number: completion("A" if "Jibu A:" in str(body) else "4")).serving() as endpoint:
        code, found, _ = judge(*asked_of(endpoint, "--max-tokens-spent", "5000"))
    assert code == 0
    job = jobs.get(database, found["job"])
    assert (job.kind, job.state, job.step, job.steps) == ("judge", JobState.DONE, 3, 3)
    assert job.result is not None
    assert job.result["judged"] == found["judged"] == {"score": 2, "pair": 1}
    assert job.result["sentence"].startswith("ai:m judged 1 pair, 2 scores, with 404 tokens")
    assert (found["state"], found["version"], found["metrics"]["judge/tokens"]) == ("done", None, 404)
    assert metrics.newest(database, job.id, "judge/first") == 1, "it says A in both orders"
    assert metrics.series(database, job.id, "judge/score", "sw") == [(3, 4.0)]
    assert job.config["judge"]["key_env"] == "OPENAI_API_KEY"
    (listed,) = judge(command="jobs")[1]
    assert (listed["kind"], listed["state"]) == ("judge", "done")


def test_a_job_that_failed_goes_on_with_what_is_left_of_its_limit_and_of_its_tokens(judge, database) -> None:
    for number in range(20):
        ask(database, "en", f"answer {number}")
    broken = True

    def reply(body: dict[str, Any], number: int) -> Reply:
        return (400, {}, b"no") if broken and number > 8 else completion("3")

    with Endpoint(reply).serving() as endpoint:
        wanted = ("--limit", "12", "--max-tokens-spent", "2000", "--parallel", "1")
        code, found, err = judge(*asked_of(endpoint, *wanted))
        assert (code, found["state"]) == (1, "failed")
        assert "refused the question (400)" in err
        assert len(said_by(database, "ai:m")) == 8
        broken, before = False, len(endpoint.asked)
        code, found, _ = judge(found["job"], command="resume")
        assert (code, found["state"], found["judged"], found["already"]) == (0, "done", {"score": 12}, 0)
        assert len(endpoint.asked) - before == 4, "of 20, 12 were asked for"
        assert found["tokens"]["total"] == 12 * 101
    assert len(said_by(database, "ai:m")) == 12


def test_what_was_answered_before_a_cancel_is_kept(judge, database) -> None:
    """In the midst of a batch: the others of it are still waited for."""
    for number in range(8):
        ask(database, "en", f"answer {number}")

    def reply(body: dict[str, Any], number: int) -> Reply | None:
        if number <= 3:
            return completion("3")
        os.kill(os.getpid(), signal.SIGINT)
        return None

    with Endpoint(reply).serving() as endpoint:
        code, found, err = judge(*asked_of(endpoint, "--parallel", "1"))
        assert (code, found["state"]) == (130, "paused"), err
    assert len(said_by(database, "ai:m")) == 3
    assert found["metrics"]["judge/tokens"] >= 303
    with Endpoint(lambda body, number: completion("2")).serving() as endpoint:
        code, found, _ = judge(*asked_of(endpoint))
        assert (found["judged"], found["already"], len(endpoint.asked)) == ({"score": 5}, 3, 5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--key-env", KEY), "name of a variable"),
        (("--endpoint", f"http://127.0.0.1:1/v1?api-key={KEY}", "--endpoint-model", "m"), "without a name"),
        (("--endpoint", f"http://name:{KEY}@127.0.0.1/v1", "--endpoint-model", "m"), "without a name"),
        (("--endpoint", "http://127.0.0.1/v1"), "go together"), (("--endpoint-model", "m"), "go together"),
        (("--language", "no language"), "language"), (("--max-tokens-spent", "0"), "--max-tokens-spent"),
        (("--rubric", "nowhere.toml"), "nowhere.toml"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_wrong_usage_before_anything_is_stored(judge, database, options, told) -> None:
    """Nor is what may be a key repeated (the fixture looks for it in all that is told)."""
    ask(database, "en", "this")
    code, found, err = judge(*options)
    assert (code, found) == (2, None)
    assert told in err
    assert jobs.every(database) == []


def test_a_rubric_is_found_from_everywhere(judge, database, tmp_path: Path, monkeypatch) -> None:
    ask(database, "en", "this")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "polite.toml").write_text("score = 'Polite? {prompt} {answer} 1 to 5'")
    with Endpoint(lambda body, number: completion("3")).serving() as endpoint:
        code, found, _ = judge(*asked_of(endpoint, "--rubric", "polite.toml", "--name", "polite"))
    assert (code, found["rater"]) == (0, "ai:polite")
    assert found["rubric"].startswith("rubric polite ")
    assert jobs.get(database, found["job"]).config["judge"]["rubric"] == str(tmp_path / "polite.toml")
    assert endpoint.asked[0]["messages"][0]["content"].startswith("Polite?")


def test_each_prompt_is_judged_in_its_own_language(judge, database) -> None:
    """What reaches the endpoint, told apart by a detector of languages; and the rubric's own texts likewise."""
    for language in LANGUAGES:
        ask(database, language, f"[{language}] 1", f"[{language}] 2")
    with Endpoint(lambda body, number: completion("3 A")).serving() as endpoint:
        code, found, _ = judge(*asked_of(endpoint))
    assert code == 0
    assert found["judged"] == {"score": 2 * len(LANGUAGES), "pair": len(LANGUAGES)}
    for language in LANGUAGES:
        own = [text for body in endpoint.asked if f"[{language}] 1" in (text := body["messages"][0]["content"])]
        assert len(own) == 4, "two answers, and the pair in both orders"
        assert all(is_in(text, language) for text in own), language
    for language, texts in Rubric.own().texts.items():
        assert all(is_in(text, language) for text in texts.values()), language


def test_a_key_comes_from_the_environment_else_from_the_keyring(tmp_path: Path, monkeypatch) -> None:
    """With a module of that name and interface on the path, since the package is the user's choice."""
    (tmp_path / "keyring.py").write_text(
        "class errors:\n    class KeyringError(Exception): pass\n"
        "def get_password(service, name):\n    return f'{name} of {service}'\n"
    )
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert key_of("SOME_KEY") == ""
    monkeypatch.syspath_prepend(tmp_path)
    assert key_of("SOME_KEY") == f"SOME_KEY of {KEYRING}"
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    assert key_of("SOME_KEY") == KEY


def test_runs_of_a_judge_and_of_other_kinds_can_be_compared(judge, database: Database) -> None:
    ask(database, "en", "this")
    with Endpoint(lambda body, number: completion("3")).serving() as endpoint:
        first = judge(*asked_of(endpoint))[1]["job"]
        second = judge(*asked_of(endpoint, "--name", "other"))[1]["job"]
    code, found, err = judge(first, second, command="compare")
    assert code == 0, err
    assert "judge.name" in found["settings"]


@pytest.mark.parametrize(
    ("many", "there", "shares"),
    [(12, [20, 0], [12, 0]), (12, [4, 20], [4, 8]), (5, [9, 9], [3, 2]), (9, [2, 3], [2, 3]), (0, [4, 4], [0, 0])],
)
def test_what_one_kind_has_not_is_left_to_the_other(many: int, there: list[int], shares: list[int]) -> None:
    assert shared(many, there) == shares
