"""`trainer judge`: by a local model and by endpoints that answer well, badly, late and never."""

from __future__ import annotations

import math
import os
import signal
import time
from typing import Any

import pytest
import torch
from endpoint import KEY, Endpoint, Reply, ask, completion, said_by
from hypothesis import given, settings
from hypothesis import strategies as st
from rated_workspace import LANGUAGES
from tiny_model import CORPUS

from storage.errors import UsageError
from storage.feedback import log
from storage.feedback.unjudged import Item
from storage.records import Choice, Prompt, Sample, Split
from trainer.config import Control
from trainer.examples import Response, Scored, collect
from trainer.judge.local import LocalJudge
from trainer.judge.rubric import SCORES, SIDES, Question, Rubric
from trainer.judge.spending import Purse
from trainer.judge.verdicts import Verdict, preference, score
from trainer.reward.folds import controlled, to_measure
from trainer.reward.regression import Answers, regress

# What answers mean


@given(st.floats(-20, 20), st.floats(-10, 10), st.floats(-300, 300), st.floats(-300, 300))
@settings(max_examples=50)
def test_a_bias_for_what_stands_first_cancels(bias: float, better: float, one: float, other: float) -> None:
    """Logits are known up to a constant each; in either order the first gets the bias."""
    in_order = Verdict.of([one + bias + better, one])
    turned = Verdict.of([other + bias, other + better])
    assert preference(in_order, turned) == pytest.approx(1 / (1 + math.exp(-better)), abs=1e-9)


def test_a_judge_that_always_prefers_the_first_says_a_half() -> None:
    assert preference(Verdict(0), Verdict(0)) == 0.5
    assert preference(Verdict.of([9.0, -9.0]), Verdict.of([9.0, -9.0])) == 0.5
    assert preference(Verdict(0), Verdict(1)) == 1.0


def test_scores_are_expected_ones() -> None:
    assert score(Verdict(3)) == 4
    assert score(Verdict.of([0.0] * 5)) == pytest.approx(3)
    assert score(Verdict.of([math.log(0.25), -900, -900, -900, math.log(0.75)])) == pytest.approx(4)


# What is asked


def test_the_rubric_speaks_at_least_ten_languages_and_holds_the_texts_as_they_are() -> None:
    rubric = Rubric.own()
    assert set(LANGUAGES) | {"it", "ru"} <= set(rubric.texts)
    seen = set()
    for language in rubric.texts:
        prompt = Prompt("p", "{answer} {a}?", language, "")
        one, other = (Sample(text, "p", text, "") for text in ("{prompt} {b}", "%s \\1"))
        (alone,) = rubric.questions(Item(prompt, (one,), False))
        assert alone.labels == SCORES
        assert alone.text.count("{answer} {a}?") == alone.text.count("{prompt} {b}") == 1
        assert all(label in alone.text for label in SCORES)
        pair, turned = rubric.questions(Item(prompt, (one, other), False))
        assert pair.labels == SIDES
        assert pair.text.index("{prompt} {b}") < pair.text.index("%s \\1")
        assert turned.text.index("{prompt} {b}") > turned.text.index("%s \\1")
        seen |= {alone.text, pair.text}
    assert len(seen) == 2 * len(rubric.texts)
    assert [rubric.language(tag, "pair") for tag in ("pt-BR", "cmn-Hant", "eu")] == ["pt", "zh", "en"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("score = 'how good is {answer}?'", "lacks {prompt}"), ("[en]\nscores = 'x'", "no part of a rubric"),
        ("score = ", "is no TOML"), ("", "has no rubric"), ("[en]\npair = '{prompt} {a}'", "[en]: `pair` lacks {b}"),
    ],
)  # fmt: skip
def test_a_rubric_that_cannot_be_used_is_told(tmp_path, text: str, told: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        Rubric.read(file)
    assert told in error.value.message


# A local model


def test_a_local_judge_reads_the_likelihood_of_each_label(backbone) -> None:
    purse = Purse()
    judge = LocalJudge(backbone, purse)
    questions = [Question(text, labels) for text in CORPUS[:3] for labels in (SCORES, SIDES)]
    together = judge.ask(questions)
    assert purse.total == purse.prompt + len(questions) == sum(map(judge.tokens, questions))
    for question, verdict in zip(questions, together, strict=True):
        (alone,) = judge.ask([question])
        assert isinstance(verdict, Verdict)
        assert isinstance(alone, Verdict)
        assert verdict.logits == pytest.approx(alone.logits, abs=1e-4), "whatever else is asked at once"
    # One label after the other, as an answer of its own: the same differences of log-probability.
    prompt = judge._encoded(questions[0])
    layout = backbone.layout([prompt] * 5, [[backbone.tokenizer.encode_response(label)[0]] for label in SCORES])
    expected = backbone.logprobs(backbone.hidden(layout, None), layout, 1.0).chosen[:, 0]
    own = together[0]
    assert isinstance(own, Verdict)
    assert [one - own.logits[0] for one in own.logits] == pytest.approx((expected - expected[0]).tolist(), abs=1e-4)
    (much_too_long,) = judge.ask([Question("x " * 5000, SIDES)])
    assert much_too_long is None


def test_a_local_run_judges_each_once_and_calibrates_itself(judge, database, tiny_model, one_thread) -> None:
    for language in LANGUAGES:
        ask(database, language, f"{language} one two", f"{language} three")
        (rated,) = ask(database, language, f"{language} rated")
        log.append(database, log.score(rated.id, 4, "ana"))
    ask(database, "en", "held out", split=Split.HELD_OUT)
    local = ("--model", str(tiny_model), "--dtype", "fp32", "--device", "cpu")
    code, plan, _ = judge(*local, "--dry-run")
    assert code == 0
    assert plan["would_judge"] == {"score": 30, "pair": 10}
    assert (plan["calibrating"], plan["already"], plan["questions"], plan["rater"]) == (10, 0, 50, "ai:tiny")
    code, spent, _ = judge(*local, "--max-tokens-spent", "3000")
    assert code == 0
    assert "--max-tokens-spent" in spent["stopped"]
    assert 0 < spent["tokens"]["total"] <= 3000
    assert 0 < sum(spent["judged"].values()) < 40
    code, found, _ = judge(*local)
    assert code == 0
    assert found["already"] == sum(spent["judged"].values())
    assert found["already"] + sum(found["judged"].values()) == 40
    (agreement,) = [one for one in found["agreement"] if one["kind"] == "score" and one["language"] is None]
    assert agreement["n"] == 10
    assert judge(*local)[1]["judged"] == {}
    said = said_by(database, "ai:tiny")
    assert {rating.source for rating in said} == {"ai"}
    assert all(rating.value is not None and rating.guideline.startswith("rubric helpful ") for rating in said)
    assert sum(rating.kind == "pair" for rating in said) == 10
    taught = collect(database, "d")
    judged = [one for one in taught.every() if one.by_judge]
    assert {round(one.weight, 9) for one in judged} == {round(found["weight"], 9)}, "too few in any language"
    assert {one.first_wins for one in taught.pairs} == {rating.value for rating in said if rating.kind == "pair"}
    assert not any(one.by_judge for one in to_measure(taught).every()), "people's ratings alone measure a reward"
    shuffled = controlled(taught, Control.SHUFFLED, 1)
    assert all(one.by_judge == (one.habit.rater == "ai:tiny") for one in shuffled.scores)


# An endpoint


def test_an_endpoint_judges_with_its_logits_in_both_orders(judge, database) -> None:
    good, bad = ask(database, "sw", "jibu zuri", "jibu baya")

    def reply(body: dict[str, Any], number: int) -> Reply:
        text = body["messages"][0]["content"]
        if "Jibu A:" not in text:
            return completion("4", {"4": math.log(0.5), "5": math.log(0.5), "x": -30.0})
        first = text.rindex("jibu zuri") < text.rindex("jibu baya")
        # It prefers A by 3 whatever that is, and the good answer by 1.
        return completion("A", {" A": 3.0 + (1 if first else 0), "B": 0.0 if first else 1.0})

    with Endpoint(reply).serving() as endpoint:
        code, found, _ = judge("--endpoint", endpoint.url, "--endpoint-model", "m")
        assert code == 0
        assert found["judged"] == {"score": 2, "pair": 1}
        assert found["tokens"] == {"prompt": 400, "completion": 4, "estimated": 0, "total": 404}
        assert endpoint.keys == {f"Bearer {KEY}"}
        assert {body["model"] for body in endpoint.asked} == {"m"}
    *scores, pair = sorted(said_by(database, "ai:m"), key=lambda rating: rating.kind == "pair")
    assert {rating.value for rating in scores} == {4.5}
    assert (pair.sample_id, pair.other_sample_id, pair.choice) == (good.id, bad.id, Choice.A)
    assert pair.value == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)


def test_one_that_always_prefers_the_first_ties_without_logits(judge, database) -> None:
    ask(database, "en", "this", "that")

    def reply(body: dict[str, Any], number: int) -> Reply:
        if "logprobs" in body:
            return 400, {}, b'{"error": {"message": "logprobs are not supported"}}'
        return completion("The letter is A.", usage=False)

    with Endpoint(reply).serving() as endpoint:
        code, found, _ = judge("--endpoint", endpoint.url, "--endpoint-model", "m", "--kind", "pair", "--parallel", "1")
    assert code == 0
    assert found["judged"] == {"pair": 1}
    assert found["tokens"]["estimated"] == found["tokens"]["total"] > 0
    (pair,) = said_by(database, "ai:m")
    assert (pair.choice, pair.value) == (Choice.TIE, 0.5)
    assert len(endpoint.asked) == 3, "what it does not know is asked of it once"


def test_a_busy_and_a_failing_endpoint_are_asked_again_when_they_say(judge, database) -> None:
    ask(database, "en", "this")
    times: list[float] = []

    def reply(body: dict[str, Any], number: int) -> Reply:
        times.append(time.monotonic())
        return [(429, {"Retry-After": "1"}, b"slow down"), (500, {}, b"oh"), completion("5")][number - 1]

    with Endpoint(reply).serving() as endpoint:
        code, found, _ = judge("--endpoint", endpoint.url, "--endpoint-model", "m")
    assert code == 0
    assert found["judged"] == {"score": 1}
    assert times[1] - times[0] >= 1
    assert found["tokens"]["total"] == 101, "a refusal costs nothing"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (None, "gave no answer within 0.2 s"),
        ((200, {}, b"<html>nonsense \x1b[31m " + KEY.encode()), "what is no chat completion: <html>nonsense"),
        ((200, {}, b'{"choices": [{"message": 7}]}'), "what is no chat completion"),
        ((200, {}, b" " * (2 << 20)), "more than a mebibyte"),
        ((429, {"Retry-After": "7200"}, b""), "asks to wait 7200 s (429)"),
        ((503, {}, b"down"), "failed (503): down"),
        ((401, {}, b"bad key " + KEY.encode()), "refuses the key (401)"),
        ((404, {}, b"no"), "no such address or model (404)"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "refused the question (302)"),
    ],
)  # fmt: skip
def test_an_endpoint_that_fails_is_told_in_a_line_and_what_was_judged_stays(judge, database, reply, told) -> None:
    for number in range(9):
        ask(database, "en", f"answer {number}")
    with Endpoint(lambda body, number: completion("3") if number <= 8 else reply).serving() as endpoint:
        arguments = ("--endpoint", endpoint.url, "--endpoint-model", "m", "--timeout", "0.2", "--attempts", "2")
        code, found, err = judge(*arguments)
        assert code in (1, 2)
        assert (found["state"], told in found["error"]) == ("failed", True)
        assert told in err
        assert "\x1b" not in err
        assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
        assert len(said_by(database, "ai:m")) == 8
        asked = len(endpoint.asked)
    with Endpoint(lambda body, number: completion("3")).serving() as endpoint:
        code, found, _ = judge("--endpoint", endpoint.url, *arguments[2:])
        assert (code, found["already"], found["judged"], len(endpoint.asked)) == (0, 8, {"score": 1}, 1)
    assert asked <= 10


def test_what_reaches_no_endpoint_costs_nothing(judge, database) -> None:
    ask(database, "en", "this")
    with Endpoint(lambda body, number: completion("3")).serving() as endpoint:
        gone = endpoint.url
    code, found, err = judge("--endpoint", gone, "--endpoint-model", "m", "--attempts", "2")
    assert code == 1
    assert "cannot reach" in err
    assert found["metrics"]["judge/tokens"] == 0


def test_one_that_gives_no_verdict_is_ended_and_one_that_sometimes_gives_none_is_not(judge, database) -> None:
    for number in range(20):
        ask(database, "en", f"answer {number}")
    with Endpoint(lambda body, number: completion("I would say 12 of 15, ABBA")).serving() as endpoint:
        code, _, err = judge("--endpoint", endpoint.url, "--endpoint-model", "m")
        assert code == 1
        assert "no verdict on any of 16 items" in err
        assert len(endpoint.asked) == 16
    with Endpoint(lambda body, number: completion("2" if number % 4 else "")).serving() as endpoint:
        code, found, _ = judge("--endpoint", endpoint.url, "--endpoint-model", "m")
    assert (code, found["judged"], found["unreadable"], found["left"]) == (0, {"score": 15}, 5, 0)


def test_an_interrupt_ends_it_at_once_and_what_was_judged_stays(judge, database) -> None:
    for number in range(12):
        ask(database, "en", f"answer {number}")

    def reply(body: dict[str, Any], number: int) -> Reply | None:
        if number > 8:
            os.kill(os.getpid(), signal.SIGINT)
            return None
        return completion("3")

    with Endpoint(reply).serving() as endpoint:
        start = time.monotonic()
        code, found, err = judge("--endpoint", endpoint.url, "--endpoint-model", "m", "--parallel", "1")
        assert (code, found["state"]) == (130, "paused"), err
        assert time.monotonic() - start < 20, "the endpoint hangs for 30 seconds"
    assert len(said_by(database, "ai:m")) == 8


def test_what_may_be_spent_is_not_gone_beyond(judge, database) -> None:
    for number in range(20):
        ask(database, "en", f"answer {number}")
    with Endpoint(lambda body, number: completion("3")).serving() as endpoint:
        code, found, _ = judge("--endpoint", endpoint.url, "--endpoint-model", "m", "--max-tokens-spent", "700")
    assert code == 0
    assert found["tokens"]["total"] <= 700
    assert found["judged"]["score"] == found["tokens"]["total"] / 101 == len(endpoint.asked)
    assert found["left"] == 20 - found["judged"]["score"]


def test_a_key_is_stored_nowhere(judge, database, workspace) -> None:
    ask(database, "en", "this")
    with Endpoint(lambda body, number: completion("3")).serving() as endpoint:
        assert judge("--endpoint", endpoint.url, "--endpoint-model", "m")[0] == 0
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("url", ["ftp://x/v1", "nonsense", "http://name:secret@127.0.0.1/v1"])
def test_an_address_that_is_none_is_wrong_usage_and_not_repeated(judge, database, url: str) -> None:
    ask(database, "en", "this")
    code, _, err = judge("--endpoint", url, "--endpoint-model", "m")
    assert code == 2
    assert "secret" not in err


# What it is worth to a reward model


@pytest.mark.parametrize(("weight", "least", "most"), [(0.002, 0.8, 1.0), (1.0, -1.0, 0.7)])
def test_a_judge_that_contradicts_people_is_not_heard_at_its_weight(weight: float, least: float, most: float) -> None:
    """People's 80 scores follow a direction; a judge's 400 follow the opposite one."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(480, 6, generator=generator, dtype=torch.float64)
    truth = features[:, 0]
    answers = [Response(Prompt(f"p{place}", "?", "en", ""), str(place), None, None) for place in range(480)]
    examples = [
        Scored(answer, float(value if place < 80 else -value), "ana" if place < 80 else "ai:j",
               weight=1.0 if place < 80 else weight, by_judge=place >= 80)
        for place, (answer, value) in enumerate(zip(answers, truth, strict=True))
    ]  # fmt: skip
    rows = {answer: place for place, answer in enumerate(answers)}
    rewards = regress(Answers(rows, [5] * 480, features, (6,)), examples).rewards(features)
    assert least <= float(torch.corrcoef(torch.stack([rewards, truth]))[0, 1]) <= most


def test_what_a_judge_says_weighs_by_language_in_what_is_learned_from(database) -> None:
    """It says what people say in English, and the opposite in Swahili."""
    for language, sign in (("en", 1), ("sw", -1)):
        for place in range(30):
            (sample,) = ask(database, language, f"{language} {place}")
            said = place % 5 - 2
            log.append_all(database, [log.score(sample.id, 3 + said, "ana"),
                                      log.score(sample.id, 3 + sign * said, "ai:j", source="ai")])  # fmt: skip
    weights = {one.prompt.language: one.weight for one in collect(database, "d").every() if one.by_judge}
    assert weights["en"] > 0.8
    assert weights["sw"] == 0
    told = collect(database, "d").judges()
    assert told["ai:j"]["en"] == (30, weights["en"])
    assert told["ai:j"]["sw"] == (30, 0.0)
