"""Model folders with quirks: what makes each odd, and what is right to come of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_model import TEMPLATE
from transformers import AutoTokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n"
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
