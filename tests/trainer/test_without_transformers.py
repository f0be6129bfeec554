"""Configuration, tokenizer and templates are read as transformers reads them, and without it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from architectures import COMMON, LLAMA_FAMILY, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from odd_folders import stated
from tiny_model import CORPUS
from transformers import AutoConfig, AutoTokenizer
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from storage.errors import WorkbenchError
from trainer.policy.elementwise import frequencies
from trainer.policy.models.config import Config, read_config
from trainer.policy.models.rendering import render
from trainer.policy.models.words import Words, read_words

# --- configuration ---------------------------------------------------------------------------------------------------

LLAMA3 = {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
OLD = {**COMMON, "model_type": "llama", "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 5e5}
# What older files say, and what the classes have for what they do not say.
WRITTEN = {
    "of old": OLD,
    "linear": {**OLD, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama3": {**OLD, "rope_scaling": LLAMA3, "head_dim": 16},
    "no key heads": {**OLD, "num_key_value_heads": None},
    "qwen2": {**OLD, "model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False},
    "qwen3": {**OLD, "model_type": "qwen3", "head_dim": 16},
}
LEFT = {
    "no theta": {key: value for key, value in OLD.items() if key != "rope_theta"},
    "no key heads": {key: value for key, value in OLD.items() if key != "num_key_value_heads"},
    "qwen3 without a head size": {**OLD, "model_type": "qwen3"},
    "mistral without a window": {**OLD, "model_type": "mistral"},
    "yarn": {**OLD, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
    "half a head": {**OLD, "partial_rotary_factor": 0.5},
}


def assert_same(ours: Any, theirs: Any) -> None:
    for name in Config.__dataclass_fields__:
        expected = getattr(theirs, name, getattr(Config, name, None))
        if name == "head_dim" and expected is None:
            expected = theirs.hidden_size // theirs.num_attention_heads
        if name == "rope_parameters":
            expected = {key: value for key, value in expected.items() if key != "type"}
            assert {key: value for key, value in ours.rope_parameters.items() if key != "type"} == expected
        else:
            assert getattr(ours, name) == expected, name


@pytest.mark.parametrize("name", LLAMA_FAMILY)
def test_a_saved_configuration_is_read_as_transformers_reads_it(name, tmp_path):
    folder = make_model(tmp_path / name, name)
    ours, theirs = read_config(folder), AutoConfig.from_pretrained(folder)
    assert isinstance(ours, Config)
    assert_same(ours, theirs)
    assert frequencies(ours).equal(LlamaRotaryEmbedding(theirs).inv_freq)


@pytest.mark.parametrize("name", WRITTEN)
def test_an_older_configuration_is_read_as_transformers_reads_it(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(WRITTEN[name]))
    ours, theirs = read_config(tmp_path), AutoConfig.from_pretrained(tmp_path)
    assert isinstance(ours, Config)
    assert_same(ours, theirs)
    assert frequencies(ours).equal(LlamaRotaryEmbedding(theirs).inv_freq)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_stated_in_full_is_left_to_transformers(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LEFT[name]))
    assert type(read_config(tmp_path)) is type(AutoConfig.from_pretrained(tmp_path))


# --- templates -------------------------------------------------------------------------------------------------------

TEMPLATES = {
    "plain": "{% for m in messages %}{{ m.role + ': ' + m['content'] }}\n{% endfor %}",
    "blocks": "{%- for m in messages %}\n  {% if not loop.last -%}\n {{ m.content | trim }}|\n  {% endif %}\n"
    "{% endfor -%}",
    "tokens": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}{{ sep_token }}",
    "json": "{{ messages | tojson }}{{ messages | tojson(indent=2, ensure_ascii=true) }}"
    "{{ {'b': '<&>', 'a': 1} | tojson(sort_keys=true) }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}",
    "loops": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{{ m.content }}{% break %}{% endfor %}",
    "namespace": "{% set ns = namespace(last='', n=0) %}{% for m in messages %}"
    "{% set ns.last = m.role %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.last }}{{ ns.n }}",
    "dict": "{{ dict(a=1, b=messages[0].content) | tojson }}{{ dict.fromkeys(['x'], 2) }}",
    "day": "{{ strftime_now('%Y') }}",
    "tools": "{{ tools is none }}{{ documents }}{% if tools %}never{% endif %}"
    "{{ add_generation_prompt }}{{ undefined_name }}",
    "macro": "{% macro turn(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}"
    "{% for m in messages %}{{ turn(m) }}{% endfor %}",
    "slices": "{% for m in messages[1:] %}{{ m['content'].split('\n')[0].strip().startswith('a') }}{% endfor %}"
    "{{ messages[-1].content[:3] }}",
    "refuses": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ messages[0].content }}",
    "reaches": "{{ messages.__class__.__mro__ }}",
    "changes": "{% set _ = messages.append({'role': 'user', 'content': 'x'}) %}{{ messages | length }}",
    "hides": "{% set ns = namespace(_x=1) %}{{ ns._x }}",
    "formats": "{{ '{0.__class__}'.format(messages) }}",
    "breaks off": "{% for m in messages %}{{ m.",
}
CONVERSATIONS = [
    [{"role": "user", "content": "Why is the sky blue?\n  "}],
    [{"role": "system", "content": "Sé breve."}, {"role": "user", "content": "<b>天空</b> & {x}"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "  آسمان\n\nआसमान"},
        {"role": "user", "content": "'\"\\ {{ 7 * 7 }}"},
    ],
]


@pytest.fixture(scope="module")
def theirs(tiny_model) -> Any:
    loaded = AutoTokenizer.from_pretrained(tiny_model)
    loaded.bos_token = "<|endoftext|>"
    return loaded


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("begin", [False, True])
def test_a_template_is_rendered_as_transformers_renders_it(name, begin, theirs):
    """What it refuses is refused by the same kind of error, in the same words where they are the template's own."""
    tokens = theirs.special_tokens_map

    def expected(messages: list[dict[str, str]]) -> str:
        return theirs.apply_chat_template(
            messages, chat_template=TEMPLATES[name], add_generation_prompt=begin, tokenize=False
        )

    for messages in CONVERSATIONS:
        refused, told = _refusal(lambda messages=messages: expected(messages))
        if refused is None:
            assert render(TEMPLATES[name], messages, begin=begin, tokens=tokens) == expected(messages)
        else:
            again = _refusal(lambda messages=messages: render(TEMPLATES[name], messages, begin=begin, tokens=tokens))
            assert again[0] is refused
            assert name != "refuses" or again[1] == told == "no system"


def _refusal(work: Callable[[], Any]) -> tuple[type | None, str]:
    try:
        work()
    except Exception as error:
        return type(error), str(error)
    return None, ""


def test_a_template_cannot_leave_its_sandbox_or_change_what_it_is_given():
    for name in ("reaches", "changes", "hides"):
        with pytest.raises(TemplateError):
            render(TEMPLATES[name], CONVERSATIONS[0], begin=True, tokens={})


# --- tokens ----------------------------------------------------------------------------------------------------------

# Letters and signs of many scripts, what joins and breaks them, and texts that look like special tokens.
PIECES = (
    "<|im_start|>", "<|im_end|>x", "<|endoftext|>", "<s>", "\r\n", "  \n", "\u200d", "1234567890", "👩‍🚀🏽"
)  # fmt: skip
TEXTS = st.lists(
    st.one_of(
        st.sampled_from([*CORPUS, *PIECES]),
        st.text(max_size=12),
        st.text(st.characters(min_codepoint=0x300, max_codepoint=0x1FFF, exclude_categories=("Cs",)), max_size=12),
        st.text(st.characters(min_codepoint=0x2E80, max_codepoint=0x9FFF), max_size=12),
    ),
    max_size=6,
).map("".join)  # fmt: skip


def assert_reads_alike(folder: Path, texts: list[str]) -> None:
    ours, theirs = read_words(folder), AutoTokenizer.from_pretrained(folder)
    assert isinstance(ours, Words)
    assert len(ours) == len(theirs)
    assert (ours.eos_token_id, ours.bos_token_id) == (theirs.eos_token_id, theirs.bos_token_id)
    assert set(ours.all_special_tokens) == set(theirs.all_special_tokens)
    assert {token.content: number for number, token in ours.added_tokens_decoder.items() if token.special} == {
        token.content: number for number, token in theirs.added_tokens_decoder.items() if token.special
    }
    for text in texts:
        for special in (False, True):
            ids = ours(text, add_special_tokens=special)["input_ids"]
            assert ids == theirs(text, add_special_tokens=special)["input_ids"], repr(text)
        for skip in (False, True):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
    for messages in CONVERSATIONS:
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        ours.chat_template = theirs.chat_template
        assert ours.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == expected


@settings(max_examples=40)
@given(st.lists(TEXTS, max_size=4))
def test_texts_in_many_scripts_become_the_same_tokens(tiny_model, texts):
    assert_reads_alike(tiny_model, texts)


@pytest.mark.model
@settings(max_examples=8)
@given(st.lists(TEXTS, min_size=20, max_size=40))
def test_texts_in_many_scripts_become_the_same_tokens_of_the_bundled_model(converted_models, texts):
    (folder,) = (found for found in converted_models.glob("smollm2-*") if found.is_dir())
    assert_reads_alike(folder, texts)


def as_qwen(folder: Path) -> None:
    """Qwen's tokenizer, with this vocabulary."""
    from transformers import Qwen2Tokenizer

    words = json.loads((folder / "tokenizer.json").read_text())
    made = Qwen2Tokenizer(vocab=words["model"]["vocab"], merges=[tuple(merge) for merge in words["model"]["merges"]])
    made.add_special_tokens({"eos_token": "<|im_end|>", "extra_special_tokens": ["<|im_start|>"]})
    (folder / "tokenizer_config.json").unlink()
    made.save_pretrained(folder)
    stated(folder, "config.json", model_type="qwen2")


READ = {
    "as it is saved": lambda folder: None,
    "an older class": lambda folder: stated(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast"),
    "llama's": lambda folder: stated(folder, "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast"),
    "its special tokens elsewhere": lambda folder: (
        stated(folder, "tokenizer_config.json", eos_token=None),
        stated(folder, "special_tokens_map.json", eos_token={"content": "<|im_end|>"}, bos_token="<|im_start|>"),
    ),
    "more special tokens": lambda folder: stated(
        folder, "tokenizer_config.json", additional_special_tokens=["<|im_start|>"], image_token="<|im_start|>"
    ),
    "qwen's": as_qwen,
}
ASKED_OF_TRANSFORMERS = {
    "a token that the file lacks": lambda folder: stated(folder, "tokenizer_config.json", bos_token="<s>"),
    "a token that is no special one": lambda folder: stated(folder, "tokenizer_config.json", bos_token="blue"),
    "a class that builds its own": lambda folder: stated(
        folder, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer"
    ),
    "tokens beside the file": lambda folder: stated(folder, "added_tokens.json", **{"<new>": 384}),
    "special tokens that are split": lambda folder: stated(folder, "tokenizer_config.json", split_special_tokens=True),
    "another architecture": lambda folder: stated(folder, "config.json", model_type="gpt_neox"),
}


@pytest.mark.parametrize("name", READ)
def test_a_tokenizer_that_is_as_its_file_states_is_read_without_transformers(name, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    READ[name](folder)
    assert_reads_alike(folder, [*CORPUS, "<|im_start|>user\n1234 x<|im_end|>", "<|endoftext|>"])


@pytest.mark.parametrize("name", ASKED_OF_TRANSFORMERS)
def test_a_tokenizer_that_is_more_than_its_file_is_left_to_transformers(name, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    ASKED_OF_TRANSFORMERS[name](folder)
    assert not isinstance(read_words(folder), Words)


def test_a_damaged_tokenizer_is_told_in_a_sentence(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(WorkbenchError, match=r"the tokenizer in .* cannot be loaded"):
        read_words(folder)


# --- the engine ------------------------------------------------------------------------------------------------------

ASKED = """
import sys, queue
from pathlib import Path
from storage.records import Sampling
from storage.workspace import Workspace
from workbench.engine.protocol import Done, Failed, Generate, Load, Ready
from workbench.engine.server import Engine

events = queue.SimpleQueue()
engine = Engine(Workspace(Path(sys.argv[1])).prepare(), events.put)
engine.handle(Load(sys.argv[2], device="cpu"))
engine.handle(Generate("r", "Why?", sampling=Sampling(max_new_tokens=3)))
while not isinstance(event := events.get(timeout=120), (Done, Failed)):
    pass
assert isinstance(event, Done), event
print([name for name in ("transformers", "sympy", "torch._dynamo", "scipy", "peft") if name in sys.modules])
"""


@pytest.mark.model
@pytest.mark.parametrize("model", ["smollm2", "tiny"])
def test_the_engine_answers_without_importing_transformers(model, workspace, tiny_model):
    """The first time in an empty workspace too, where it writes no copy of the bundled model."""
    command = [sys.executable, "-c", ASKED, str(workspace.root)]
    done = subprocess.run(
        [*command, str(tiny_model) if model == "tiny" else model], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list(workspace.models.rglob("*.safetensors"))
