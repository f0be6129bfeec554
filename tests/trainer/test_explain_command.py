"""`trainer explain`: its JSON, its lines, its page, and what it refuses."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rated_workspace import fill
from tiny_model import make_adapter

from storage import conversations, samples, versions
from storage.database import Database, open_database
from storage.records import Sample
from storage.workspace import Workspace
from trainer import cli
from trainer.explaining.drawn import heat

HOSTILE = "<script>alert(1)</script> \x1b]52;c;AAAA\x07 \u202e bluu & azul"
FIT = ("--threads", "1", "--dtype", "fp32", "--device", "cpu", "--minimum", "8", "--seed", "1")


@pytest.fixture
def command(workspace: Workspace, monkeypatch, capsys):
    """Run a command; returns its exit code, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trainer", *arguments, "--workspace", str(workspace.root)])
        code = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = ending.code or 0  # type: ignore[assignment]
        out, err = capsys.readouterr()
        return code, out, err

    return call


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
    # By the reference itself nothing does.
    _, out, _ = command(
        "explain", said.id[:13], "--model", str(tiny_model), "--device", "cpu", "--version", "v0", "--json"
    )
    plain = json.loads(out)
    assert {token["kl"] for token in plain["tokens"]} == {0.0}
    assert [token["reward"] for token in plain["tokens"]] == [token["reward"] for token in found["tokens"]]
    difference = [
        mine["logprob"] - other["logprob"] for mine, other in zip(found["tokens"], plain["tokens"], strict=True)
    ]
    assert difference == pytest.approx([token["advantage"] for token in found["tokens"]], abs=1e-4)


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
    assert tags.count("span") == 2 * (len(json.loads(command("explain", said.id, *options, "--json")[1])["tokens"]))
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
        assert "there is no answer 'ffff'" in command("explain", "ffff")[2]


def test_bars_stand_above_what_raises_and_below_what_lowers():
    lines = list(heat(["up ", "none ", "down"], [1.0, 0.01, -0.5], 40))
    assert lines == ["▇▇▇", "up none down", "        ▔▔▔▔"]
    assert list(heat(["aaaa", "bbbb"], [1.0, 1.0], 5)) == ["▇▇▇▇", "aaaa", "▇▇▇▇", "bbbb"]
