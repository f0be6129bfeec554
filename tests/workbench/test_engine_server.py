"""The engine's inside: a real decoder on a tiny random llama, driven by requests, watched through its events."""

from __future__ import annotations

import json
import queue
import shutil
import time

import pytest
from engine_talk import LONG, SHORT, Talk, add_version, serve
from tiny_model import CONTEXT, CORPUS, make_tiny_model

from storage import versions
from storage.database import open_database
from storage.records import Message, Sampling
from workbench.engine.protocol import (
    Answer,
    Cancel,
    Done,
    Failed,
    Generate,
    Load,
    Ready,
    Text,
)
from workbench.engine.server import failure

# Loading


def test_loading_records_the_base_and_says_what_is_served(workspace, tiny_model):
    *before, ready = Talk(workspace).load(tiny_model)
    assert before, "loading took its time without a word"
    assert isinstance(ready, Ready)
    assert (ready.model, ready.version, ready.device, ready.dtype) == ("tiny", "v0", "cpu", "fp32")
    assert ready.context == CONTEXT
    assert ready.parameters > 50_000
    with open_database(workspace) as database:
        base = versions.served(database)
    assert base is not None
    assert (base.name, base.kind, base.base_model) == ("v0", "base", "tiny")


@pytest.mark.parametrize("model", ["no-such-model", "./missing/folder", "pyproject.toml"])
def test_a_model_that_is_not_there_is_a_failure_with_a_hint(workspace, model):
    talk = Talk(workspace)
    talk.say(Load(model))
    failed = talk.until(Failed)[-1]
    assert failed.during == "load"
    assert failed.hint


def test_a_model_with_code_of_its_own_is_refused_and_the_code_does_not_run(workspace, tiny_model, tmp_path):
    hostile, canary = tmp_path / "hostile", tmp_path / "canary"
    shutil.copytree(tiny_model, hostile)
    config = json.loads((hostile / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (hostile / "config.json").write_text(json.dumps(config))
    (hostile / "evil.py").write_text(f"open({str(canary)!r}, 'w').write('ran')\nclass Config: ...\nclass Model: ...\n")
    talk = Talk(workspace)
    talk.say(Load(str(hostile)))
    failed = talk.until(Ready, Failed)[-1]
    assert isinstance(failed, Failed)
    assert "auto_map" in failed.error
    assert not canary.exists()


def test_a_failed_load_leaves_the_model_that_was_serving(talk):
    talk.say(Load("no-such-model"))
    assert talk.until(Failed)[-1].during == "load"
    assert len(talk.answers(Generate("r", CORPUS[0], sampling=SHORT))) == 1


def test_without_a_model_a_prompt_is_refused(workspace):
    talk = Talk(workspace)
    talk.say(Generate("r", CORPUS[0]))
    failed = talk.until(Failed)[-1]
    assert (failed.during, failed.request) == ("generate", "r")
    assert "no model" in failed.error


def test_the_served_version_is_loaded_again_and_a_named_one_instead_when_asked(talk, endless_model, workspace):
    first, second = add_version(workspace, endless_model, 1), add_version(workspace, endless_model, 2)
    serve(workspace, first)
    assert talk.load(endless_model)[-1].version == first.name
    assert talk.load(endless_model, version=second.name)[-1].version == second.name
    with open_database(workspace) as database:
        assert versions.served(database).name == first.name


def test_a_damaged_served_version_gives_way_to_the_base_and_says_so(talk, endless_model, workspace):
    version = add_version(workspace, endless_model)
    serve(workspace, version)
    (workspace.root / version.file).write_bytes(b"not weights")
    events = talk.load(endless_model)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.during == "swap"
    assert version.name in failed.error
    assert events[-1].version == "v0"
    assert talk.answers(Generate("r", CORPUS[1], sampling=SHORT))[0].version == "v0"


def test_a_damaged_version_that_was_asked_for_by_name_is_never_replaced_by_another(talk, endless_model, workspace):
    version = add_version(workspace, endless_model)
    (workspace.root / version.file).unlink()
    failed = talk.load(endless_model, version=version.name)[-1]
    assert isinstance(failed, Failed)
    assert failed.during == "load"


def test_each_base_model_goes_back_to_its_own_served_version(talk, endless_model, tiny_model, workspace):
    version = add_version(workspace, endless_model)
    serve(workspace, version)
    assert talk.load(tiny_model)[-1].version == "v0-tiny"
    assert talk.load(endless_model)[-1].version == version.name


# Generating


def test_the_same_seed_says_the_same_alone_or_among_others(talk):
    alone = talk.answers(Generate("a", CORPUS[2], seed=8, sampling=SHORT))
    among = talk.answers(Generate("b", CORPUS[2], seed=7, count=3, sampling=SHORT))
    assert [answer.seed for answer in among] == [7, 8, 9]
    assert [answer.candidate for answer in among] == [0, 1, 2]
    assert among[1].token_ids == alone[0].token_ids
    assert len({tuple(answer.token_ids) for answer in among}) == 3
    assert all(answer.finish_reason == "length" and len(answer.token_ids) == 12 for answer in among)


def test_greedy_answers_do_not_depend_on_the_seed(talk):
    greedy = Sampling(temperature=0, max_new_tokens=12)
    first, second = talk.answers(Generate("a", CORPUS[3], seed=1, count=2, sampling=greedy))
    assert first.token_ids == second.token_ids


@pytest.mark.parametrize("prompt", CORPUS)
def test_streamed_text_adds_up_to_the_answer(talk, prompt):
    talk.say(Generate("r", prompt, count=2, sampling=Sampling(max_new_tokens=60)))
    events = talk.until(Done)
    for answer in (event for event in events if isinstance(event, Answer)):
        pieces = [event for event in events if isinstance(event, Text) and event.candidate == answer.candidate]
        assert "".join(piece.text for piece in pieces) == answer.text
        assert pieces[-1].tokens == len(answer.token_ids) == 60
    assert events[-1].tokens == 120
    assert events[-1].tokens_per_second == pytest.approx(120 / events[-1].seconds)


def test_without_streaming_only_the_whole_answer_comes(talk):
    talk.say(Generate("r", CORPUS[4], sampling=SHORT, stream=False))
    assert [type(event) for event in talk.until(Done)] == [Answer, Done]


def test_an_answer_ends_at_the_end_of_text_token_and_keeps_it(workspace, tiny_model, tmp_path):
    folder = tmp_path / "talkative"
    shutil.copytree(tiny_model, folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    generation["eos_token_id"] = list(range(3, 200))  # about half of what it can say
    (folder / "generation_config.json").write_text(json.dumps(generation))
    talk = Talk(workspace)
    talk.load(folder)
    (answer,) = talk.answers(Generate("r", CORPUS[5], sampling=Sampling(max_new_tokens=200)))
    assert answer.finish_reason == "eos"
    assert 3 <= answer.token_ids[-1] < 200
    assert not any(3 <= token < 200 for token in answer.token_ids[:-1])


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(talk):
    talk.say(Generate("r", "ni hao " * CONTEXT))
    failed = talk.until(Failed)[-1]
    assert failed.request == "r"
    assert str(CONTEXT) in failed.error
    assert failed.hint


def test_an_answer_stops_where_the_context_is_full(talk):
    talk.say(Generate("r", "天" * 1300, sampling=Sampling(max_new_tokens=100_000), stream=False))
    answer, done = talk.until(Done)
    assert answer.finish_reason == "length"
    assert 50 < done.tokens < CONTEXT - 1300


def test_prompts_are_answered_in_their_order(talk):
    talk.say(*(Generate(f"r{n}", CORPUS[n], sampling=SHORT, stream=False) for n in range(4)))
    ended = [talk.until(Done)[-1].request for _ in range(4)]
    assert ended == ["r0", "r1", "r2", "r3"]


def test_a_request_under_way_cannot_be_sent_twice(talk):
    talk.say(Generate("r", CORPUS[0], sampling=LONG), Generate("r", CORPUS[1]))
    assert talk.until(Failed)[-1].during == "protocol"
    talk.say(Cancel("r"))
    assert talk.until(Done)[-1].request == "r"


# Cancelling


def test_cancelling_stops_at_once_and_keeps_what_was_said(talk):
    talk.say(Generate("r", CORPUS[6], count=2, sampling=LONG))
    talk.until(Text)
    asked = time.monotonic()
    talk.say(Cancel("r"))
    events = talk.until(Done)
    assert time.monotonic() - asked < 0.5
    answers = [event for event in events if isinstance(event, Answer)]
    assert len(answers) == 2
    for answer in answers:
        assert answer.finish_reason == "cancelled"
        assert 0 < len(answer.token_ids) < LONG.max_new_tokens


def test_cancelling_a_waiting_request_ends_it_at_once_and_it_never_runs(talk):
    talk.say(
        Generate("runs", CORPUS[7], sampling=LONG),
        Generate("waits", CORPUS[8]),
        Generate("last", CORPUS[9], sampling=SHORT),
    )
    talk.until(Text, request="runs")
    talk.say(Cancel("waits"))
    ended = talk.until(Done)[-1]
    assert (ended.request, ended.tokens) == ("waits", 0)
    talk.say(Cancel("runs"))
    rest = talk.until(Done, request="last")
    assert all(getattr(event, "request", "") != "waits" for event in rest)
    assert [event.request for event in rest if isinstance(event, Done)] == ["runs", "last"]


def test_cancelling_what_is_over_or_unknown_does_nothing(talk):
    talk.answers(Generate("r", CORPUS[0], sampling=SHORT))
    talk.say(Cancel("r"), Cancel("never"))
    (answer,) = talk.answers(Generate("next", CORPUS[0], sampling=SHORT))
    assert answer.finish_reason == "length"


def test_finishing_stops_what_runs_and_drops_what_waits(talk):
    talk.say(Generate("runs", CORPUS[1], sampling=LONG), Generate("waits", CORPUS[2], sampling=LONG))
    talk.until(Text)
    asked = time.monotonic()
    talk.engine.finish()
    assert time.monotonic() - asked < 1.5
    assert talk.until(Done)[-1].request == "runs"
    with pytest.raises(queue.Empty):
        talk.events.get(timeout=0.2)


# Failing


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_running_out_of_memory_says_what_to_do(error):
    said = failure("generate", error, "r")
    assert said.error == "out of memory"
    assert "fewer answers" in said.hint
    assert said.request == "r"


def test_a_template_that_refuses_a_prompt_fails_one_request_and_the_engine_goes_on(workspace, tiny_model, tmp_path):
    folder = tmp_path / "strict"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(
        "{% if 'boom' in messages[0]['content'] %}{{ raise_exception('no such words here') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    talk = Talk(workspace)
    talk.load(folder)
    talk.say(Generate("bad", "boom", sampling=SHORT))
    failed = talk.until(Failed, Done)[-1]
    assert isinstance(failed, Failed)
    assert (failed.during, failed.request) == ("generate", "bad")
    assert "the model's chat template refuses the conversation (user): no such words here" in failed.error
    assert len(talk.answers(Generate("good", CORPUS[0], sampling=SHORT))) == 1


def heard(talk: Talk, request: Generate) -> tuple[list[int], str]:
    """The tokens of the answer to a request, and the note of what was not asked as it stands."""
    talk.say(request)
    *_, answer, done = talk.until(Done, request=request.request)
    assert isinstance(answer, Answer)
    assert isinstance(done, Done)
    return answer.token_ids, done.note


def test_what_a_template_without_a_system_role_is_told_stands_in_the_users_turn(workspace, tiny_model, tmp_path):
    folder = tmp_path / "strict"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    talk = Talk(workspace)
    talk.load(folder)
    folded, note = heard(talk, Generate("folded", CORPUS[0], "Sé breve.", sampling=SHORT))
    assert "no such system message" in note
    assert (folded, "") == heard(talk, Generate("as one", f"Sé breve.\n\n{CORPUS[0]}", sampling=SHORT))


def test_a_conversation_too_long_loses_its_first_turns_and_that_is_said(workspace, tmp_path):
    talk = Talk(workspace)
    talk.load(make_tiny_model(tmp_path / "short", context=256))
    turns = [Message(role, f"{place} {CORPUS[0]}") for place in range(8) for role in ("user", "assistant")]
    cut, note = heard(talk, Generate("cut", "And?", sampling=SHORT, earlier=tuple(turns)))
    lost = int(note.split("the earliest ")[1].split()[0])
    assert 0 < lost < len(turns)
    assert lost % 2 == 0
    assert (cut, "") == heard(talk, Generate("short", "And?", sampling=SHORT, earlier=tuple(turns[lost:])))
