"""`workbench chat` as a command: a real engine on a tiny random llama, line by line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect

from storage import conversations, samples
from storage.database import open_database
from storage.workspace import Workspace


def arguments(workspace: Workspace, model: Path, *more: str) -> list[str]:
    fixed = ["--workspace", str(workspace.root), "--model", str(model), "--device", "cpu", "--dtype", "fp32"]
    return [sys.executable, "-c", "from workbench.cli import main; main()", "chat", *fixed, *more]


def test_lines_become_turns_as_they_were_asked_and_the_first_are_left_out_for_want_of_room(
    workspace: Workspace, tiny_model: Path
):
    lines = [
        "¿Qué es un glaciar?",
        "",
        "y un fiordo? \x1b[31m",
        "/again",
        "/nonsense",
        "/new",
        "//etc?",
        *["why " * 400] * 5,
    ]
    options = ["--language", "es", "--system", "Breve.", "--seed", "5", "--max-new-tokens", "8", "--json"]
    done = subprocess.run(
        arguments(workspace, tiny_model, *options), input="\n".join(lines).encode(), capture_output=True, timeout=90
    )
    assert done.returncode == 1, done.stderr  # for the command that there is none of
    assert b"\x1b" not in done.stdout
    told: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.decode().splitlines()]
    streamed, answered = "", []
    for event in told:
        match event["event"]:
            case "text":
                streamed += event["text"]
            case "answer":
                assert event["text"] == streamed
                streamed, _ = "", answered.append(event)
    assert [event["event"] for event in told if event["event"] not in ("text", "answer", "note")] == [
        "ready", "error", "new",
    ]  # fmt: skip
    assert [(one["prompt"], one["turn"], one["language"], one["seed"]) for one in answered[:4]] == [
        (lines[0], 1, "es", 5), (lines[2], 2, "es", 6), (lines[2], 2, "es", 7), ("/etc?", 1, "es", 8),
    ]  # fmt: skip
    with open_database(workspace) as database:
        *_, last, second, first = conversations.recent(database)
        assert [message.content for message in second.messages] == [
            "Breve.", lines[0], answered[0]["text"], lines[2],
        ]  # fmt: skip
        assert (last.earlier, last.system, first.text) == ((), "Breve.", lines[0])
        assert [one.id for one in samples.of_prompt(database, second.id)] == [one["sample"] for one in answered[1:3]]
        assert [one.left_out for one in reversed(samples.recent(database))] == [one["left_out"] for one in answered]
    assert answered[4]["left_out"] == 0
    assert answered[-1]["left_out"] > answered[-2]["left_out"] > 0
    assert any("the earliest" in event["text"] for event in told if event["event"] == "note")
    assert "the earliest" not in done.stderr.decode()  # it is an event


def test_an_interrupt_stops_the_answer_and_the_talk_goes_on(workspace: Workspace, endless_model: Path):
    child = pexpect.spawn(
        *(lambda line: (line[0], line[1:]))(arguments(workspace, endless_model, "--max-new-tokens", "3000")),
        timeout=60, encoding="utf-8", codec_errors="replace", env=os.environ | {"TERM": "dumb"},
    )  # fmt: skip
    child.expect("/again")
    child.sendline("one")
    child.expect("one\r\n")
    child.expect(r"\S")
    child.kill(signal.SIGINT)
    child.expect("cancelled")
    child.sendline("/new")
    child.sendline("two")
    child.expect("two\r\n")
    child.expect(r"\S")
    child.kill(signal.SIGINT)
    child.expect("cancelled")
    child.kill(signal.SIGINT)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    with open_database(workspace) as database:
        assert [prompt.text for prompt in conversations.recent(database)] == ["two", "one"]
        assert {sample.finish_reason for sample in samples.recent(database)} == {"cancelled"}
