"""A written answer ends as the model itself ends one: with the token by which its chat template closes a turn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import CORPUS, TEMPLATE

from storage.records import Sampling
from trainer.policy.chat import PLAIN_TEMPLATE, ChatTokenizer
from trainer.policy.decoding import Decoder

SPECIAL = ("<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|begin_of_text|>",
           "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|assistant|>")  # fmt: skip
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{{ '<|begin_of_text|>' + content }}"
    "{% else %}{{ content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# It begins the next turn whether it is asked to or not.
HASTY = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}<|assistant|>\n"
FAILING = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ raise_exception('users only') }}{% endif %}"
    "{{ message['content'] }}<|im_end|>{% endfor %}"
)
BROKEN = "{% for message in %}"
SHOUTING = "{% for message in messages %}{{ message['content'] | upper }}<|im_end|>{% endfor %}"
# template -> the token that ends a written answer
ENDS = {
    "chatml": (TEMPLATE, "<|im_end|>"),
    "gemma": (GEMMA, "<end_of_turn>"),
    "llama 3": (LLAMA3, "<|eot_id|>"),
    "llama 2": (LLAMA2, "<eos>"),
    "plain": (PLAIN_TEMPLATE, "<eos>"),
    "none": (None, "<eos>"),
    "begins the next turn": (HASTY, "<eos>"),
    "refuses": (FAILING, "<eos>"),
    "no template": (BROKEN, "<eos>"),
    "changes what was said": (SHOUTING, "<eos>"),
}


def tokenizer_with(template: str | None, eos_ids: frozenset[str] = frozenset({"<eos>"})) -> ChatTokenizer:
    """A byte-level tokenizer that knows the special tokens of several families."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=384, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=pieces, bos_token="<bos>", eos_token="<eos>", chat_template=template
    )
    return ChatTokenizer(made, frozenset(made.convert_tokens_to_ids(list(eos_ids))))


@pytest.mark.parametrize("family", ENDS)
def test_a_written_answer_ends_as_the_template_closes_a_turn(family):
    template, expected = ENDS[family]
    chat = tokenizer_with(template)
    end = chat.tokenizer.convert_tokens_to_ids(expected)
    ids = chat.encode_response("La luz del sol")
    assert ids[-1] == chat.eos_id == end
    assert chat.tokenizer.decode(ids[:-1]) == "La luz del sol", "nothing else is learned, no line break after the end"
    assert chat.encode_response("La luz del sol", end=False) == ids[:-1]
    assert chat.eos_ids == {end, chat.tokenizer.convert_tokens_to_ids("<eos>")}, "sampling stops at both"


def test_the_answer_and_its_end_stand_in_the_rendered_conversation_as_they_are_learned():
    for template in (TEMPLATE, GEMMA, LLAMA3):
        chat = tokenizer_with(template)
        turns = [{"role": "user", "content": "¿Por qué?"}, {"role": "assistant", "content": "La luz"}]
        whole = chat.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
        learned = [*chat.encode_prompt("¿Por qué?"), *chat.encode_response("La luz")]
        assert whole[: len(learned)] == learned
        assert chat.tokenizer.decode(whole[len(learned) :]).strip() == ""


def test_a_token_that_is_known_to_end_answers_is_taken_though_the_template_is_hasty():
    hasty = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}<|assistant|>"
    assert tokenizer_with(hasty).eos_id == tokenizer_with(None).eos_id
    chat = tokenizer_with(hasty, frozenset({"<eos>", "<|im_end|>"}))
    assert chat.eos_id == chat.tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.model
def test_the_bundled_model_ends_its_answers_with_the_token_that_written_ones_get(converted_models: Path):
    folder = next(path for path in converted_models.iterdir() if path.name.startswith("smollm2") and path.is_dir())
    chat = ChatTokenizer.load(folder)
    decoder = Decoder.load(folder, torch.device("cpu"), torch.bfloat16)
    asked = [chat.encode_prompt("Say yes.")]
    (answer,) = decoder.generate(asked, Sampling(temperature=0.0, max_new_tokens=96), [1], chat.eos_ids)
    assert answer.finish_reason == "eos"
    assert answer.token_ids[-1] == chat.encode_response("yes")[-1]
