"""`trainer explain`: its JSON, its lines, its page, and what it refuses."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rated_workspace import fill
from tiny_model import make_adapter

from storage import conversations, jobs, samples, settings, versions
from storage.database import Database, open_database
from storage.feedback import log
from storage.records import Sample
from storage.workspace import Workspace
from trainer.explaining.answer import Token
from trainer.explaining.drawn import heat, whole

HOSTILE = "<script>alert(1)</script> \x1b]52;c;AAAA\x07 \u202e bluu & azul"
FIT = ("--threads", "1", "--dtype", "fp32", "--device", "cpu", "--minimum", "8", "--seed", "1")


@pytest.fixture
def rated(workspace: Workspace, tiny_model: Path, command) -> Database:
    """A workspace with ratings, a reward model fitted to them, and a version that is an adapter."""
    with open_database(workspace) as database:
        fill(database)
        code, _, err = command("reward", "--model", str(tiny_model), *FIT, "--json")
        assert code == 0, err
        base = versions.base_of(database, versions.get(database, "v0"))
        file = make_adapter(workspace.versions / "one", tiny_model)
        versions.add_candidate(database, base=base, parent="v0", file=str(file.relative_to(workspace.root)),
                               sha256=versions.sha256_of(file))  # fmt: skip
        yield database


def answer(database: Database, text: str, version: str | None = "v1") -> Sample:
    prompt = conversations.add(database, f"Kwa nini? {text}", language="sw")
    made = samples.new(prompt.id, text, version=version)
    samples.add(database, [made])
    return made


def test_an_answer_as_json(command, rated, tiny_model):
    said = answer(rated, "Kwa nini anga ni la bluu?")
    code, out, err = command("explain", said.id, "--model", str(tiny_model), "--device", "cpu", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["sample"], found["version"], found["reference"], found["reward_model"]) == (
        said.id,
        "v1",
        "v0",
        "rm1",
    )
    assert "".join(token["text"] for token in found["tokens"]) == said.text + "<|im_end|>"
    total = sum(token["reward"] for token in found["tokens"])
    assert total == pytest.approx(found["reward"] - found["baseline"], abs=1e-6)
    assert sum(found["parts"].values()) == pytest.approx(found["reward"], abs=1e-3)
    # The adapter is a large one: all places differ from the reference, and the advantage is what KL averages.
    assert min(token["kl"] for token in found["tokens"]) > 0
    assert any(token["advantage"] < 0 for token in found["tokens"])
    # The base model that the app answers with need not be named. By the reference itself nothing differs.
    settings.put(rated, "session", {"model": str(tiny_model)})
    code, out, err = command("explain", said.id[:13], "--device", "cpu", "--version", "v0", "--json")
    assert code == 0, err
    plain = json.loads(out)
    assert {token["kl"] for token in plain["tokens"]} == {0.0}
    assert [token["reward"] for token in plain["tokens"]] == [token["reward"] for token in found["tokens"]]
    difference = [
        mine["logprob"] - other["logprob"] for mine, other in zip(found["tokens"], plain["tokens"], strict=True)
    ]
    assert difference == pytest.approx([token["advantage"] for token in found["tokens"]], abs=1e-4)


def test_the_value_of_each_token_is_shown_where_the_run_of_a_version_had_one(command, rated, tiny_model, tmp_path):
    options = ("--model", str(tiny_model), "--device", "cpu", "--dtype", "fp32")
    code, out, err = command(
        "ppo", *options, "--threads", "1", "--reward-model", "latest", "--steps", "2", "--batch", "8", "--answers", "2",
        "--minibatch", "4", "--max-new-tokens", "8", "--rank", "4", "--gate-prompts", "4", "--json",
    )  # fmt: skip
    assert code == 0, err
    made = json.loads(out)["version"]
    said = answer(rated, "Kwa nini anga ni la bluu?", made)
    page = tmp_path / "answer.html"
    code, out, err = command("explain", said.id, *options, "--html", str(page), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["value_unknown"] == ""
    rises = sum(token["value_advantage"] for token in found["tokens"])
    assert rises == pytest.approx(found["reward"] - found["tokens"][0]["value"], abs=1e-3)
    assert len({token["value"] for token in found["tokens"]}) > 1
    assert "Value by token" in page.read_text(encoding="utf-8")
    shown = command("explain", said.id, *options)[1]
    assert "value by token: what" in shown
    assert "advantage by token" in shown
    other = json.loads(command("explain", said.id, *options, "--version", "v1", "--json")[1])
    assert "no value was kept" in other["value_unknown"]
    assert {token["value"] for token in other["tokens"]} == {None}


def test_hostile_answers_reach_neither_terminal_nor_page(command, rated, tiny_model, tmp_path):
    said, page = answer(rated, HOSTILE), tmp_path / "answer.html"
    options = ("--model", str(tiny_model), "--device", "cpu")
    code, out, err = command("explain", said.id, *options, "--html", str(page))
    assert code == 0, err
    assert not set("\x1b\x07\u202e") & set(out + err)
    assert "reward by token" in out
    text = page.read_text(encoding="utf-8")
    assert not set("\x1b\x07\u202e") & set(text)
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(text)
    assert "script" not in tags
    tokens = json.loads(command("explain", said.id, *options, "--json")[1])["tokens"]
    # Reward, log-probability and KL; of a version from outside no value is known.
    assert tags.count("span") == 3 * sum(bool(token["text"]) for token in tokens)
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert command("explain", said.id, *options, "--html", str(page))[0] == 2, "what exists is not replaced unasked"


def test_what_cannot_be_explained_says_why(command, workspace, tiny_model):
    with open_database(workspace) as database:
        said = answer(database, "anga", version=None)
        code, out, err = command("explain", said.id)
        assert (code, out) == (2, "")
        assert "no version is known" in err
        versions.ensure_base(database, "tiny", "digest")
        assert "no reward model was fitted for tiny yet" in command("explain", said.id)[2]
        assert "there is no answer, version or rating 'ffff'" in command("explain", "ffff")[2]


def test_bars_stand_above_what_raises_and_below_what_lowers():
    lines = list(heat(["up ", "none ", "down"], [1.0, 0.01, -0.5], 40))
    assert lines == ["▇▇▇", "up none down", "        ▔▔▔▔"]
    begun = [Token(text, 1.0, None, 0.0, 0.0, 0.0) for text in ("a", "", "", "空", "")]
    assert whole(begun, lambda token: token.reward) == (["a", "空"], [1.0, 4.0])
    assert list(heat(["aaaa", "bbbb"], [1.0, 1.0], 5)) == ["▇▇▇▇", "aaaa", "▇▇▇▇", "bbbb"]


@pytest.fixture
def made(workspace: Workspace, rated: Database) -> Database:
    """v2 of a job that learned against rm1 and from two ratings of its own, and v3 that goes on from it."""
    base, file = versions.get(rated, "v0"), versions.get(rated, "v1").file
    first = jobs.every(rated)[0]
    queued = jobs.enqueue(rated, "ppo", {"reward_model": "latest"})
    held = jobs.claim(rated, "a test", job_id=queued.id)
    assert held is not None
    jobs.link_ratings(rated, held, jobs.ratings_of(rated, first.id)[:2])
    for parent, job in (("v0", held.id), ("v2", None)):
        versions.add_candidate(rated, base=base, parent=parent, file=str(file), sha256="", job_id=job)
    return rated


def test_the_ratings_behind_a_version(command, made, tiny_model):
    options = ("--model", str(tiny_model), "--device", "cpu", "--dtype", "fp32", "--json")
    code, out, err = command("explain", "v3", *options)
    assert code == 0, err
    found = json.loads(out)
    newer, older = (job.id for job in jobs.every(made))
    assert (found["lineage"], found["jobs"], found["reward_model"]) == (["v3", "v2", "v0"], [newer, older], "rm1")
    linked = jobs.ratings_of(made, older)
    assert found["ratings"] == len(linked) == sum(found["by"]["language"].values())
    assert found["by"]["kind"] == {"score": len(linked)}
    assert found["by"]["rater"] == {"amina": len(linked)}
    # The reward was fitted to some of them, the judge to the others; made again it is the stored one.
    assert 0 < found["taught"] < len(linked)
    assert found["refit_apart"] < 1e-3
    moved = [one["influence"] for one in found["influential"]]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 0
    assert all(one["said"].startswith("score") and one["answer"] for one in found["influential"])
    assert set(found["weighs"]["raters"]) == {"amina"}
    assert found["weighs"]["length_doubled_error"] > 0
    assert sum(one["n"] for one in found["weighs"]["languages"].values()) == found["taught"]
    same = json.loads(command("explain", "rm1", *options)[1])
    assert (same["version"], same["weighs"], same["influential"]) == ("rm1", found["weighs"], found["influential"])
    shown = command("explain", "v3", *options[:-1])[1]
    assert "± standard errors" in shown
    assert "v3 ← v2 ← v0" in shown
    assert found["influential"][0]["rating"] in shown
    counted = json.loads(command("explain", "v3", "--no-influence", "--json")[1])
    assert (counted["ratings"], counted["influential"]) == (found["ratings"], [])
    assert json.loads(command("explain", "v1", "--json")[1])["ratings"] == 0, (
        "nothing is known of an adapter from outside"
    )


def test_the_versions_that_a_rating_shaped(command, made):
    both = jobs.ratings_of(made, jobs.every(made)[0].id)[0]
    found = json.loads(command("explain", both, "--json")[1])
    shaped = [(one["version"], one["through"]) for one in found["versions"]]
    assert (found["rater"], found["counts"], shaped) == ("amina", True, [("v2", "v2"), ("v3", "v2")])
    assert "v3" in command("explain", both)[1]
    log.undo(made, "amina")
    last = [rating.id for rating in log.effective(made)][-1]
    later = log.append(made, log.score(log.get(made, last).sample_id or "", 2, "badru"))
    assert "no version has learned from it" in command("explain", later.id)[1]
