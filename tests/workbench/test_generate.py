"""`workbench generate` as a command: a real engine on a tiny random llama."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import psutil
import pytest
from tiny_model import CORPUS, make_adapter

from storage import conversations, samples, versions
from storage.database import open_database
from storage.errors import UsageError
from storage.records import Split
from storage.workspace import Workspace
from workbench.cli import cli, run_command
from workbench.commands.generate import Ask, read_asks


def arguments(workspace: Workspace, model: Path, *more: str) -> list[str]:
    fixed = ["--workspace", str(workspace.root), "--model", str(model), "--device", "cpu", "--dtype", "fp32"]
    return [sys.executable, "-c", "from workbench.cli import main; main()", "generate", *fixed, *more]


def run(command: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=90)


def stored_samples(workspace: Workspace) -> list:
    with open_database(workspace) as database:
        return samples.recent(database)


def test_a_file_of_prompts_becomes_json_and_stored_samples(workspace, endless_model, tmp_path):
    lines = [
        {"prompt": "¿Qué es un glaciar?", "language": "es", "task": "explain", "split": "held-out"},
        {"prompt": "氷河とは何ですか。", "language": "ja", "system": "短く答えて。", "score": 3},
        {"prompt": "Barafu ni nini?", "seed": 70},
        {"prompt": [{"role": "user", "content": "Barafu?"}, {"role": "assistant", "content": "Maji."},
                    {"role": "user", "content": "Kwa nini?"}], "chosen": "Baridi.", "rejected": "Joto."},
    ]  # fmt: skip
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    options = ["--from", str(file), "--language", "sw", "--system", "Jibu kwa ufupi."]
    sampling = ["--count", "2", "--seed", "11", "--max-new-tokens", "9", "--temperature", "0.5", "--top-p", "0.9"]
    done = run(arguments(workspace, endless_model, *options, *sampling, "--top-k", "50", "--json"))
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [(answer["prompt"], answer["language"], answer["seed"]) for answer in printed] == [
        (line["prompt"], line.get("language", "sw"), line.get("seed", 11) + place) for line in lines for place in (0, 1)
    ]
    assert {(answer["version"], answer["tokens"], answer["finish_reason"]) for answer in printed} == {
        ("v0", 9, "length")
    }
    with open_database(workspace) as database:
        for answer in printed:
            sample = samples.get(database, answer["sample"])
            prompt = conversations.get(database, sample.prompt_id)
            said = answer["prompt"] if isinstance(answer["prompt"], str) else answer["prompt"][-1]["content"]
            assert (sample.text, sample.seed, prompt.text) == (answer["text"], answer["seed"], said)
            assert (sample.sampling.temperature, sample.sampling.top_p, sample.sampling.top_k) == (0.5, 0.9, 50)
            assert len(samples.of_group(database, sample.group_id)) == 2
        (spanish,) = conversations.by_split(database, Split.HELD_OUT)
        assert (spanish.language, spanish.task, spanish.system) == ("es", "explain", "Jibu kwa ufupi.")
        assert {prompt.system for prompt in conversations.by_split(database, Split.TRAIN)} == {
            "短く答えて。",
            "Jibu kwa ufupi.",
        }
        (conversation,) = (prompt for prompt in conversations.recent(database) if prompt.earlier)
        assert [message.content for message in conversation.messages] == [
            "Jibu kwa ufupi.", "Barafu?", "Maji.", "Kwa nini?",
        ]  # fmt: skip


def test_lines_from_standard_input_are_answered_in_readable_text_with_narration_apart(workspace, endless_model):
    done = run(arguments(workspace, endless_model, "-", "--max-new-tokens", "5"), "Was ist Eis?\n\nO que é gelo?\n")
    assert done.returncode == 0, done.stderr
    assert "und ▸ Was ist Eis?" in done.stdout
    assert "und ▸ O que é gelo?" in done.stdout
    assert done.stdout.count("[v0 · 5 tokens · length · seed 0]") == 2
    assert "loading" in done.stderr
    assert "loading" not in done.stdout
    assert len(stored_samples(workspace)) == 2


def test_a_version_can_be_sampled_without_being_served(workspace, endless_model):
    ask = ["--prompt", "Qu'est-ce que la glace ?", "--max-new-tokens", "8", "--json"]
    (before,) = json.loads(run(arguments(workspace, endless_model, *ask)).stdout)
    with open_database(workspace) as database:
        base = versions.served(database)
        file = make_adapter(workspace.versions / "v1", endless_model)
        versions.add_candidate(
            database, base=base, parent="v0", file="versions/v1/" + file.name, sha256=versions.sha256_of(file)
        )
    done = run(arguments(workspace, endless_model, *ask, "--version", "v1"))
    (after,) = json.loads(done.stdout)
    assert (before["version"], after["version"]) == ("v0", "v1")
    assert before["text"] != after["text"]
    with open_database(workspace) as database:
        assert versions.served(database).name == "v0"
    unknown = run(arguments(workspace, endless_model, *ask, "--version", "v9"))
    assert unknown.returncode == 2
    assert "v9" in unknown.stderr
    file.unlink()
    missing = run(arguments(workspace, endless_model, *ask, "--version", "v1"))
    assert missing.returncode == 1
    assert "v1" in missing.stderr
    assert missing.stdout == ""


def test_one_prompt_that_is_too_long_does_not_lose_the_others(workspace, endless_model):
    ask = ["--prompt", "天 " * 5000, "--prompt", "Hallo?", "--max-new-tokens", "5", "--json"]
    done = run(arguments(workspace, endless_model, *ask))
    assert done.returncode == 1
    assert [answer["prompt"] for answer in json.loads(done.stdout)] == ["Hallo?"]
    assert "tokens" in done.stderr
    assert len(stored_samples(workspace)) == 1


def test_ctrl_c_keeps_what_was_finished_and_exits_130(workspace, endless_model):
    command = arguments(
        workspace, endless_model, "--prompt", "mfupi", "--prompt", "mrefu", "--max-new-tokens", "400", "--count", "64",
        "--json",
    )  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while not stored_samples(workspace):
            assert running.poll() is None, running.stderr.read()
        os.kill(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 130, err
    assert "stored" in err
    assert "Traceback" not in err
    answers = json.loads(out)
    assert {answer["prompt"] for answer in answers} == {"mfupi"}
    assert {sample.id for sample in stored_samples(workspace)} == {answer["sample"] for answer in answers}


def test_an_engine_that_dies_is_started_again_and_no_prompt_is_lost(workspace, endless_model):
    asked = ["--prompt", "mfupi", "--prompt", "mrefu", "--max-new-tokens", "400", "--count", "64", "--json"]
    command = arguments(workspace, endless_model, *asked)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while not stored_samples(workspace):
            assert running.poll() is None, running.stderr.read()
        (engine,) = psutil.Process(running.pid).children()
        engine.kill()
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "started again" in err
    told = [(answer["prompt"], answer["tokens"]) for answer in json.loads(out)]
    assert told == [("mfupi", 400)] * 64 + [("mrefu", 400)] * 64


def test_no_control_character_reaches_a_terminal(workspace, endless_model):
    hostile = "\x1b]52;c;aGk=\x07 \x9b31m \u202e fine"
    model_says = arguments(workspace, endless_model, "--max-new-tokens", "300", "--temperature", "3")
    for form in ([], ["--json"]):
        child = pexpect.spawn(model_says[0], [*model_says[1:], *form, "--prompt", hostile], timeout=60)
        shown = child.read().decode("utf-8").replace("\r\n", "\n").replace("\r", "")
        child.close()
        assert child.exitstatus == 0
        assert "fine" in shown
        unsafe = {char for char in shown if ord(char) < 32 and char not in "\n\t"} | set("\x7f\x9b\u202e") & set(shown)
        assert not unsafe
    texts = "".join(sample.text for sample in stored_samples(workspace))
    assert any(ord(char) < 32 and char not in "\n\t" for char in texts), "the model said nothing to be cleaned"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "where are the prompts"),
        (["--prompt", "a", "-"], "where are the prompts"),
        (["sentence"], "where are the prompts"),
        (["--prompt", "  "], "empty"),
        (["--from", "/no/such/file.jsonl"], "/no/such/file.jsonl"),
        (["--prompt", "a", "--temperature", "-1"], "temperature must be 0"),
        (["--prompt", "a", "--count", "0"], "count must lie"),
        (["--prompt", "a", "--seed", "-5"], "seed must be"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(workspace, options, says):
    done = run(arguments(workspace, Path("smollm2"), *options))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"not json", "line 2"),
        (b'{"text": "x"}', "prompt"),
        (b'{"prompt": ""}', "empty"),
        (b'{"prompt": "x", "split": "test"}', "test"),
        (b'{"prompt": "\xff"}', "line 2"),
    ],
)
def test_a_bad_line_is_named_by_file_line_and_reason(tmp_path, line, says):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'{"prompt": "ok"}\n' + line + b"\n")
    with pytest.raises(UsageError) as raised:
        read_asks(None, (), str(file))
    assert f"{file}, line 2" in raised.value.message
    assert says in raised.value.message


def test_prompts_from_the_command_line_are_kept_as_typed():
    assert read_asks(None, ("  नमस्ते ", CORPUS[0]), None) == [Ask("  नमस्ते "), Ask(CORPUS[0])]


@pytest.mark.parametrize(("line", "told"), [('{"prompt": "Jambo"}', True), ('{"a": "Jambo"}', False), ("Jambo", False)])
def test_a_line_is_asked_as_it_stands_and_what_looks_like_a_record_is_told(
    line: str, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{line}\n".encode())))
    assert read_asks("-", (), None) == [Ask(line)]
    assert ("--from -" in capsys.readouterr().err) is told


def test_a_prompt_file_is_read_as_an_import_is(tmp_path):
    file = tmp_path / "prompts.csv"
    file.write_bytes("prompt;language;seed\nOlá?;pt_br;7\n".encode("utf-16"))
    (ask,) = read_asks(None, (), str(file))
    assert (ask.prompt, ask.language, ask.seed) == ("Olá?", "pt-BR", 7)
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "Hi"}\n')
    assert [ask.prompt for ask in read_asks(None, (), str(file))] == ["Hi"]
    file.write_bytes(b'{"prompt": "Hi", "language": "xx"}\n')
    with pytest.raises(UsageError, match="line 1: language: must be a registered language tag"):
        read_asks(None, (), str(file))


ASKED = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
SAID = [{"role": "assistant", "content": "d"}]


@pytest.mark.parametrize(
    ("record", "given"),
    [
        ({"prompt": ASKED}, ASKED),
        ({"prompt": ASKED, "chosen": SAID, "rejected": "e"}, ASKED),
        ({"messages": ASKED}, ASKED),
        ({"chosen": [*ASKED, *SAID], "rejected": [*ASKED, {"role": "assistant", "content": "e"}]}, ASKED),
        ({"prompt": "c", "chosen": [*ASKED, *SAID], "rejected": [*ASKED, {"role": "assistant", "content": "e"}]}, None),
    ],
)
def test_a_file_of_conversations_asks_their_last_message_after_the_turns_before(tmp_path, record, given):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps(record))
    (ask,) = read_asks(None, [], str(file))
    assert (ask.prompt, [message.content for message in ask.earlier], ask.given) == ("c", ["a", "b"], given)


def test_a_table_of_scores_asks_its_prompts(tmp_path):
    file = tmp_path / "table.json"
    file.write_text('{"a": {"b": 3}, "c": {"d": 2, "e": 1}}')
    assert [ask.prompt for ask in read_asks(None, [], str(file))] == ["a", "c"]


def test_what_is_no_prompt_is_told_with_its_line(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "a"}) + "\n" + json.dumps({"prompt": ASKED[:2]}))
    with pytest.raises(UsageError, match=r"line 2: prompt: ends with a message of the assistant"):
        read_asks(None, [], str(file))


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("more", [{}, {"prompt": "a"}])
def test_messages_that_end_with_an_answer_are_refused_before_anything_is_done(tmp_path, capsys, turns, more):
    file = tmp_path / "prompts.jsonl"
    record = {"messages": [*ASKED[:turns], *SAID], **more}
    file.write_text(json.dumps({"prompt": "first"}) + "\n" + json.dumps(record))
    assert run_command(cli, ["generate", "--from", str(file), "--workspace", str(tmp_path / "w")]) == 2
    told = capsys.readouterr().err
    assert f"{file}, line 2: messages: end with a message of the assistant" in told
    assert "nothing was generated" in told
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "record", [{"completion": "d"}, {"response": "d", "score": 3}, {"chosen": SAID, "rejected": "e"}, {}]
)
def test_an_answer_beside_a_prompt_is_told_of(tmp_path, record):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": ASKED, **record}))
    (ask,) = read_asks(None, [], str(file))
    assert ask.answered == bool(record)
