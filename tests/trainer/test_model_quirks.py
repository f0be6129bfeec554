"""Model folders as they come: prompted, rated and trained on for a step, or refused in one line before any work."""

from __future__ import annotations

import json
import queue
import re
import shutil
import sys
from pathlib import Path

import pytest
from odd_folders import QUIRKS, REFUSED, WORK, make
from peft import AutoPeftModelForCausalLM
from rated_workspace import LENIENT
from tiny_model import CORPUS, TEMPLATE, save_adapter
from transformers import AutoModelForCausalLM, AutoTokenizer

from storage import conversations, samples, versions
from storage.database import Database
from storage.feedback import log
from storage.records import Message, Sampling, Split
from storage.workspace import Workspace
from trainer import cli
from trainer.policy.chat import ChatTokenizer
from workbench.engine.protocol import Answer, Done, Event, Failed, Generate, Load, Ready, Swap, Swapped
from workbench.engine.server import Engine

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT, GREEDY = Sampling(max_new_tokens=3), Sampling(temperature=0.0, max_new_tokens=12)


class Talk:
    """An engine in this process."""

    def __init__(self, workspace: Workspace) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.engine = Engine(workspace, self.events.put)

    def load(self, model: Path, version: str | None = None) -> Event:
        self.engine.handle(Load(str(model), version, device="cpu", dtype="fp32"))
        return self.until(Ready, Failed)

    def ask(self, prompt: str, system: str = "", sampling: Sampling = SHORT) -> Answer:
        self.engine.handle(Generate("r", prompt, system, sampling=sampling, stream=False))
        answer = self.until(Answer, Failed)
        assert isinstance(answer, Answer), answer
        self.until(Done)
        return answer

    def until(self, *kinds: type) -> Event:
        while not isinstance(event := self.events.get(timeout=60), kinds):
            pass
        return event


@pytest.fixture
def talk(workspace: Workspace):
    made = Talk(workspace)
    yield made
    made.engine.finish()


@pytest.fixture
def train(workspace: Workspace, database: Database, monkeypatch, capsys):
    """Take one step on demonstrations; returns the exit code and the JSON document."""
    for number in range(12):
        split = Split.HELD_OUT if number > 9 else Split.TRAIN
        prompt = conversations.add(
            database, f"Say {number}", language="en", split=split, system="Be brief." * (number % 2)
        )
        samples.add(database, [samples.new(prompt.id, CORPUS[number % 3][: 9 + number], origin="demonstration")])

    def step(model: Path, *more: str):
        options = ["--steps", "1", "--batch", "2", "--rank", "4", "--gate-prompts", "2", "--gate-max-new-tokens", "3"]
        where = ["--workspace", str(workspace.root), "--dtype", "fp32", "--device", "cpu", "--threads", "1", "--json"]
        line = ["trainer", "sft", "--model", str(model), *options, *where, *LENIENT, "--no-publish", *more]
        monkeypatch.setattr(sys, "argv", line)
        code = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = ending.code or 0
        return code, json.loads(capsys.readouterr().out)

    return step


@pytest.mark.parametrize("name", WORK)
def test_an_odd_folder_is_prompted_rated_and_trained_on(name, tiny_model, tmp_path, talk, train, workspace, database):
    folder = make(name, tiny_model, tmp_path / "odd")
    assert isinstance(ready := talk.load(folder), Ready), ready
    answer = talk.ask("Why?", "Be brief.")
    prompt = conversations.add(database, "Why?", language="en", system="Be brief.")
    said = samples.new(prompt.id, answer.text, version=answer.version, token_ids=answer.token_ids)
    samples.add(database, [said])
    log.append(database, log.score(said.id, 4, "amina"))
    code, done = train(folder)
    assert (code, done["state"], done["version"]) == (0, "done", "v1"), done["error"]
    assert isinstance(ready := talk.load(folder, "v1"), Ready), ready
    assert talk.ask("Why?").version == "v1"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_in_one_line_before_any_work(name, tiny_model, tmp_path, talk, train, database):
    folder = make(name, tiny_model, tmp_path / "odd")
    failed = talk.load(folder)
    assert isinstance(failed, Failed)
    code, done = train(folder)
    assert code in (1, 2)
    for told in (failed.error, done["error"]):
        assert "\n" not in told
        assert re.search(QUIRKS[name].refused, told), told
    assert failed.hint
    assert not versions.find(database, "v1")


@pytest.mark.parametrize("name", [name for name in WORK if name.startswith("ends")])
def test_an_answer_ends_where_transformers_ends_it(name, tiny_model, tmp_path):
    folder = make(name, tiny_model, tmp_path / "odd")
    ours = ChatTokenizer.load(folder).eos_ids
    assert ours == QUIRKS[name].ends
    theirs = AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id
    known = {token for token in (theirs if isinstance(theirs, list) else [theirs]) if token is not None and token < 384}
    assert known <= ours


@pytest.mark.parametrize("name", WORK)
def test_a_prompt_is_written_as_transformers_writes_it(name, tiny_model, tmp_path):
    folder = make(name, tiny_model, tmp_path / "odd")
    ours, theirs = ChatTokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "Why?"}]
    ids = ours.encode_prompt("Why?")
    if "older file" in name or "one file" in name:  # of a processor, or by a name that has to be said
        theirs.chat_template = TEMPLATE
    if theirs.chat_template is not None:
        assert ids == theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    else:
        assert ids == theirs("Question: Why?\nAnswer:")["input_ids"], (
            "with what the tokenizer itself puts before a text"
        )
    assert ids.count(0) == (name.startswith("begin: added")), "one token of beginning, where there is one"


@pytest.mark.parametrize("name", ["template: refuses the system role", "template: drops the system role"])
def test_what_a_system_message_says_is_not_lost(name, tiny_model, tmp_path):
    chat = ChatTokenizer.load(make(name, tiny_model, tmp_path / "odd"))
    ids = chat.encode_messages([Message("system", "Be brief."), Message("user", "Why?")])
    assert ids == chat.encode_prompt("Be brief.\n\nWhy?")


def test_a_text_with_a_token_that_the_model_does_not_know_is_refused(tiny_model, tmp_path, talk):
    folder = make("pad: beyond the table", tiny_model, tmp_path / "odd")
    assert isinstance(talk.load(folder), Ready)
    talk.engine.handle(Generate("r", "What is [PAD]?", sampling=Sampling(max_new_tokens=3), stream=False))
    failed = talk.until(Failed, Answer)
    assert isinstance(failed, Failed)
    assert "'[PAD]' (384)" in failed.error


def test_an_adapter_answers_with_its_own_template_and_is_trained_on(
    tiny_model, tmp_path, talk, train, database, workspace
):
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    adapter = save_adapter(tmp_path / "adapter", base, r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    own = "{{ '<|im_start|>' + messages[-1]['content'] + '<|im_end|>' }}"
    words = AutoTokenizer.from_pretrained(base, chat_template=own)
    words.save_pretrained(adapter)

    def said_by_peft(folder: Path) -> list[int]:
        asked = AutoTokenizer.from_pretrained(adapter).apply_chat_template(
            [{"role": "user", "content": "Why?"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        model = AutoPeftModelForCausalLM.from_pretrained(folder)
        return model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :].tolist()

    assert isinstance(ready := talk.load(adapter), Ready)
    assert (ready.model, ready.version) == ("base", "v1")
    answer = talk.ask("Why?", sampling=GREEDY)
    assert answer.token_ids == said_by_peft(adapter)
    version = versions.get(database, "v1")
    assert said_by_peft(workspace.root / Path(version.file).parent) == answer.token_ids, "the version opens in peft"

    talk.engine.handle(Swap("v0"))
    talk.until(Swapped)
    untouched = talk.ask("Why?", sampling=GREEDY).token_ids
    assert isinstance(talk.load(base), Ready)
    assert talk.ask("Why?", sampling=GREEDY).token_ids == untouched, "the base with its own template again"

    code, done = train(adapter)
    assert (code, done["version"]) == (0, "v2"), done["error"]
    trained = versions.get(database, "v2")
    assert (trained.parent, trained.base_digest) == ("v1", version.base_digest)
    assert isinstance(talk.load(adapter, "v2"), Ready)
    again = talk.ask("Why?", sampling=GREEDY)
    assert again.version == "v2"
    assert said_by_peft(workspace.root / Path(trained.file).parent) == again.token_ids
    versions.publish(database, workspace, "v2")
    assert talk.load(adapter).version == "v2", "the version that was served last of those that go back to the adapter"
