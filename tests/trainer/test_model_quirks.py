"""Model folders as they come: prompted, rated and trained on for a step, or refused in one line before any work."""

from __future__ import annotations

import json
import queue
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from rated_workspace import LENIENT
from safetensors.torch import load_file, save_file
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
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n"
SHORT, GREEDY = Sampling(max_new_tokens=3), Sampling(temperature=0.0, max_new_tokens=12)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPS = TEMPLATE.replace(
    "{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}"
)
NAMED = [{"name": "rag", "template": "rag {{ messages[0]['content'] }}"}, {"name": "default", "template": TEMPLATE}]


def stated(folder: Path, name: str, **values: Any) -> None:
    """Change what a JSON file of the folder says; None takes a field away."""
    file = folder / name
    said = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({key: value for key, value in (said | values).items() if value is not None}))


def ends(folder: Path, *, generation: Any, config: Any = 2, tokenizer: Any = "<|im_end|>") -> None:
    """Say in each place which tokens end an answer. Where `generation` is None there is no such file."""
    stated(folder, "config.json", eos_token_id=config)
    stated(folder, "tokenizer_config.json", eos_token=tokenizer)
    (folder / "generation_config.json").unlink()
    if generation is not None:
        stated(folder, "generation_config.json", eos_token_id=generation)


def template(folder: Path, whole: str | None = None, *, config: Any = None, old: str = "", **more: str) -> None:
    """Put chat templates where they may stand: `whole` is chat_template.jinja, `more` stand in the folder beside it."""
    (folder / "chat_template.jinja").unlink()
    if whole is not None:
        (folder / "chat_template.jinja").write_text(whole)
    if config is not None:
        stated(folder, "tokenizer_config.json", chat_template=config)
    if old:
        stated(folder, "chat_template.json", chat_template=old)
    for name, text in more.items():
        (folder / "additional_chat_templates").mkdir(exist_ok=True)
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(text)


def begins(folder: Path, *, added: bool, written: bool) -> None:
    """Give the tokenizer a token of beginning, which it may put before each text itself, and the template too."""
    stated(folder, "tokenizer_config.json", bos_token="<|endoftext|>")
    template(folder, "{{ bos_token }}" + TEMPLATE if written else None)
    if added:
        words = json.loads((folder / "tokenizer.json").read_text())
        one = {"Sequence": {"id": "A", "type_id": 0}}
        words["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [one, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
        }
        (folder / "tokenizer.json").write_text(json.dumps(words))


def pads_beyond(folder: Path) -> None:
    """A token of padding was added to the tokenizer, and no row of the embedding with it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert tokenizer.pad_token_id == rows
    for name in ("config.json", "generation_config.json"):
        stated(folder, name, pad_token_id=rows)


def ends_beyond(folder: Path) -> None:
    """A token of the end was added to the tokenizer alone; the template closes turns with the one that is known."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"eos_token": "[END]"})
    tokenizer.save_pretrained(folder)
    assert tokenizer.eos_token_id == 384


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None], **config: Any) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    stated(folder, "config.json", **config)


def no_head(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["lm_head.weight"]


def same_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


def unchanged(tensors: dict[str, torch.Tensor]) -> None:
    """Leave them as they are."""


def sharded(folder: Path, *, index: bool = True, without: str = "") -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {name: SHARDS[place >= len(names) // 2] for place, name in enumerate(names)}
    for shard in SHARDS:
        part = {name: tensors[name] for name in names if where[name] == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    if index:
        stated(folder, "model.safetensors.index.json", metadata={}, weight_map=where)
    if without:
        (folder / without).unlink()


def beside(folder: Path) -> None:
    """As Mistral publishes: the same weights once more, in another layout."""
    sharded(folder)
    save_file({"other.name": torch.zeros(3)}, folder / "consolidated.safetensors")


def as_neox(folder: Path) -> None:
    """An architecture that transformers computes, with the same tokenizer."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = GPTNeoXConfig(
        vocab_size=rows, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=256, eos_token_id=2,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder)


def neox_with(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        as_neox(folder)
        change(folder)

    return spoil


def text(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


@dataclass(frozen=True)
class Quirk:
    """What makes a folder odd, and what comes of it: it is refused with such words, or answers end at these tokens."""

    make: Callable[[Path], Any]
    refused: str = ""
    ends: frozenset[int] = frozenset({2})


QUIRKS = {
    # the tokens are 0 <|endoftext|>, 1 <|im_start|>, 2 <|im_end|>
    "ends: a list in generation_config": Quirk(lambda f: ends(f, generation=[0, 2]), ends=frozenset({0, 2})),
    "ends: generation_config goes before config": Quirk(
        lambda f: ends(f, generation=[2, 5], config=7), ends=frozenset({2, 5})
    ),
    "ends: config alone": Quirk(lambda f: ends(f, generation=None, config=5, tokenizer=None), ends=frozenset({2, 5})),
    "ends: a list in config": Quirk(lambda f: ends(f, generation=None, config=[5, 6]), ends=frozenset({2, 5, 6})),
    "ends: the tokenizer alone": Quirk(lambda f: ends(f, generation=None, config=None)),
    "ends: the tokenizer's, in full": Quirk(
        lambda f: ends(f, generation=None, config=None, tokenizer={"content": "<|im_end|>", "__type": "AddedToken"})
    ),
    "ends: beyond the table": Quirk(lambda f: ends(f, generation=[2, 9999], config=9999)),
    "ends: the tokenizer's is beyond the table": Quirk(ends_beyond),
    "ends: nowhere": Quirk(
        lambda f: (ends(f, generation=None, config=None, tokenizer=None), template(f, "{{ messages[0]['content'] }}")),
        refused="no end-of-text token",
    ),
    "template: one of a list": Quirk(lambda f: template(f, config=NAMED)),
    "template: the file goes before the config": Quirk(lambda f: template(f, TEMPLATE, config="{{ 'no' }}")),
    "template: files with names": Quirk(lambda f: template(f, TEMPLATE, rag="{{ 'no' }}")),
    "template: one file with a name": Quirk(lambda f: template(f, chatml=TEMPLATE)),
    "template: none is the default": Quirk(
        lambda f: template(f, config=[{"name": "one", "template": "x"}, {"name": "two", "template": "y"}]),
        refused="called one, two, and none that is the default",
    ),
    "template: the older file": Quirk(lambda f: template(f, old=TEMPLATE)),
    "template: none": Quirk(template),
    "template: refuses the system role": Quirk(lambda f: template(f, NO_SYSTEM + TEMPLATE)),
    "template: drops the system role": Quirk(lambda f: template(f, DROPS)),
    "template: refuses everything": Quirk(
        lambda f: template(f, "{{ raise_exception('not today') }}"), refused="refuses the conversation .*not today"
    ),
    "template: is none": Quirk(lambda f: template(f, "{% for %}"), refused="refuses the conversation"),
    "template: writes what the model does not know": Quirk(
        lambda f: (pads_beyond(f), template(f, "[PAD]" + TEMPLATE)), refused=r"the tokenizer writes '\[PAD\]'"
    ),
    "pad: is the end": Quirk(lambda f: stated(f, "tokenizer_config.json", pad_token="<|im_end|>")),
    "pad: none": Quirk(lambda f: stated(f, "tokenizer_config.json", pad_token=None)),
    "pad: beyond the table": Quirk(pads_beyond),
    "pad: beyond the table, not a llama": Quirk(neox_with(pads_beyond)),
    "begin: added and written": Quirk(lambda f: begins(f, added=True, written=True)),
    "begin: added": Quirk(lambda f: begins(f, added=True, written=False)),
    "begin: neither": Quirk(lambda f: begins(f, added=False, written=False)),
    "head: tied": Quirk(lambda f: weights(f, no_head, tie_word_embeddings=True)),
    "head: tied, and stored": Quirk(lambda f: weights(f, same_head, tie_word_embeddings=True)),
    "head: tied, and another one is stored": Quirk(
        lambda f: weights(f, unchanged, tie_word_embeddings=True), refused="an output head of their own"
    ),
    "head: missing": Quirk(lambda f: weights(f, no_head), refused="lack an output head"),
    "head: missing, not a llama": Quirk(
        neox_with(lambda f: weights(f, lambda tensors: tensors.pop("embed_out.weight"))), refused="lack '.*lm_head"
    ),
    "vocabulary: other than stated": Quirk(
        lambda f: stated(f, "config.json", vocab_size=400), refused="embeddings of 384 tokens.*states 400"
    ),
    "shards: with an index": Quirk(sharded),
    "shards: with another layout beside": Quirk(beside),
    "shards: one missing": Quirk(lambda f: sharded(f, without=SHARDS[1]), refused=f"lacks 1 of .*{SHARDS[1]}"),
    "shards: one missing, without an index": Quirk(
        lambda f: sharded(f, index=False, without=SHARDS[0]), refused=f"lacks 1 of .*{SHARDS[0]}"
    ),
    "pointer: weights": Quirk(text("model.safetensors", POINTER), refused=r"model\.safetensors is a Git LFS pointer"),
    "pointer: tokenizer": Quirk(text("tokenizer.json", POINTER), refused=r"tokenizer\.json is a Git LFS pointer"),
    "pointer: config": Quirk(text("config.json", POINTER), refused=r"config\.json is a Git LFS pointer"),
    "pointer: template": Quirk(text("chat_template.jinja", POINTER), refused="is a Git LFS pointer"),
    "damaged: generation_config": Quirk(text("generation_config.json", "{half"), refused="cannot be read"),
    "damaged: tokenizer": Quirk(text("tokenizer.json", "{half"), refused="the tokenizer .* cannot be loaded"),
    "an adapter's configuration beside": Quirk(
        text("adapter_config.json", "{}"), refused="holds a model and the configuration of an adapter"
    ),
    "quantised": Quirk(
        lambda f: stated(f, "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        refused=r"are quantised \(gptq\)",
    ),
}  # fmt: skip
WORK = [name for name, quirk in QUIRKS.items() if not quirk.refused]
REFUSED = [name for name, quirk in QUIRKS.items() if quirk.refused]


def make(name: str, tiny_model: Path, folder: Path) -> Path:
    shutil.copytree(tiny_model, folder)
    QUIRKS[name].make(folder)
    return folder


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
