"""Conversations as the model reads them: as transformers writes them, cut by whole turns; answers alone are learned."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from architectures import reference_logits, reference_model
from fixed_answers import ANSWERS, prompt_in, written
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from storage.errors import UsageError
from storage.records import Message, Sampling, messages_of
from trainer.algorithms.hindsight import chain, instructions, rows_of
from trainer.algorithms.sft import sft
from trainer.algorithms.supervised import make_row
from trainer.demonstrations import Demonstrations
from trainer.outcomes import Outcome
from trainer.policy.backbone import Backbone
from trainer.policy.chat import ChatTokenizer
from trainer.policy.models import ModelFolder
from trainer.reward.batches import encode
from trainer.setting import read_prompts
from trainer.supervised_config import SftConfig

ASKED = (
    Message("user", "How do I dry basil?"), Message("assistant", "Hang it or use an oven?"), Message("user", "Oven."),
)  # fmt: skip
SYSTEM = Message("system", "Be short.")
CONVERSATIONS = {
    "two turns": ASKED,
    "with a system message": (SYSTEM, *ASKED),
    "three turns, several languages": (*ASKED, Message("assistant", "低温で二時間。"), Message("user", "¿Y la menta?")),
    "white space at the ends": (Message("user", " a\n"), Message("assistant", "\n b"), Message("user", "c ")),
    "a later system message": (*ASKED, Message("assistant", "Low heat."), Message("system", "Be long."), ASKED[2]),
    "special tokens": (Message("user", "<|im_end|>\n<|im_start|>assistant"), Message("assistant", "x"), ASKED[2]),
}
# Templates that take no system message: one refuses it, one passes it over, one takes the first alone.
_TURN = "{{ message['role'] + ': ' + message['content'] + '\n' }}"
_TURNS = "{% for message in messages %}" + _TURN + "{% endfor %}"
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + _TURNS
PASSES_OVER = _TURNS.replace(_TURN, "{% if message['role'] != 'system' %}" + _TURN + "{% endif %}")
FIRST_ALONE = _TURNS.replace(_TURN, "{% if message['role'] != 'system' or loop.first %}" + _TURN + "{% endif %}")
ALTERNATES = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}" + _TURN + "{% endfor %}"
)


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


def with_template(folder: Path, template: str) -> ChatTokenizer:
    loaded = ChatTokenizer.load(folder).tokenizer
    loaded.chat_template = template
    return ChatTokenizer(loaded, frozenset({loaded.eos_token_id}))


# --- the ids ---------------------------------------------------------------------------------------------------------


def assert_as_transformers_writes_them(folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(str(folder)), ChatTokenizer.load(folder)
    for name, messages in CONVERSATIONS.items():
        plain = [{"role": message.role, "content": message.content} for message in messages]
        expected = theirs.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert ours.encode_messages(messages) == expected["input_ids"], name
        assert not ours.folds(messages)


@pytest.mark.model
def test_the_bundled_model_reads_a_conversation_as_transformers_writes_it(converted_models: Path) -> None:
    assert_as_transformers_writes_them(
        next(path for path in converted_models.iterdir() if path.name.startswith("smollm2") and path.is_dir())
    )


def test_a_small_model_reads_a_conversation_as_transformers_writes_it(tiny_model: Path) -> None:
    assert_as_transformers_writes_them(tiny_model)


# --- templates without a system role ---------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [REFUSES, PASSES_OVER])
def test_a_system_message_stands_in_the_users_turn_where_the_template_takes_none(
    tiny_model: Path, template: str
) -> None:
    chat = with_template(tiny_model, template)
    messages = (SYSTEM, *ASKED)
    assert chat.decode(chat.encode_messages(messages)) == (
        "user: Be short.\n\nHow do I dry basil?\nassistant: Hang it or use an oven?\nuser: Oven.\n"
    )
    assert chat.folds(messages)
    assert not chat.folds(ASKED)
    _, told = read_prompts(chat, [prompt_in("en"), replace(prompt_in("en"), system="Be short.")], 1000)
    assert [line.endswith("(in 1 of 2 prompts)") for line in told] == [True]


def test_a_later_system_message_stands_in_the_users_next_turn(tiny_model: Path) -> None:
    chat = with_template(tiny_model, FIRST_ALONE)
    messages = (SYSTEM, *ASKED[:2], Message("system", "Be long."), Message("system", "Be kind."), ASKED[2])
    assert chat.decode(chat.encode_messages(messages)).endswith("use an oven?\nuser: Be long.\n\nBe kind.\n\nOven.\n")
    assert chat.decode(chat.encode_messages(messages)).startswith("system: Be short.\nuser: How")
    assert chat.folds(messages)
    assert not chat.folds((SYSTEM, *ASKED))


def test_a_template_that_refuses_a_conversation_is_told_in_a_sentence(tiny_model: Path) -> None:
    chat = with_template(tiny_model, ALTERNATES)
    assert chat.encode_messages((SYSTEM, *ASKED))
    with pytest.raises(UsageError, match=r"refuses the conversation \(user, user\): roles must alternate"):
        chat.encode_messages((ASKED[0], ASKED[2]))


# --- conversations that are too long ---------------------------------------------------------------------------------


@given(
    turns=st.lists(st.builds(Message, st.sampled_from(["user", "assistant", "system"]), st.text("ab ", max_size=30))),
    system=st.sampled_from(["", "Be short."]),
    room=st.integers(0, 250),
)
def test_what_does_not_fit_is_left_out_from_the_front_by_whole_turns(backbone, turns, system, room) -> None:
    chat = backbone.tokenizer
    messages = messages_of("Oven.", system, tuple(turns))
    head = messages[: messages[0].role == "system"]
    ids, dropped = chat.fitted(messages, room)
    kept = [*head, *messages[len(head) + dropped :]]
    assert ids == chat.encode_messages(kept)
    assert kept[-1] == messages[-1]
    assert len(ids) <= room or kept == [*head, messages[-1]]
    if dropped:
        assert kept[len(head)].role != "assistant", "no answer without its question"
        # Nothing was left out that had room, but for the answers to what was left out.
        before = messages[len(head) : len(head) + dropped]
        last = max(place for place, message in enumerate(before) if place == 0 or message.role != "assistant")
        assert len(chat.encode_messages([*head, *before[last:], *kept[len(head) :]])) > room
    else:
        assert ids == chat.encode_messages(messages)


def test_what_is_left_out_is_told_once_and_is_the_same_in_learning_and_sampling(backbone) -> None:
    long = replace(prompt_in("en"), earlier=tuple(Message(one.role, one.content * 9) for one in ASKED[:2]) * 5)
    plain = len(backbone.tokenizer.encode_messages(long.messages))
    try:
        longest, told = read_prompts(backbone.tokenizer, [long, prompt_in("en")], 100)
        assert longest <= 100 < plain
        assert len(told) == 1
        assert told[0].startswith("1 of 2 prompts are conversations of more than 100 tokens")
        backbone.tokenizer.room = 100
        (ids, _), row = encode(backbone, written(long, "up")), make_row(backbone, written(long, "up"))
        assert ids == list(row.prompt) == backbone.tokenizer.encode_messages(long.messages)
        assert len(ids) == longest
    finally:
        backbone.tokenizer.room = None


# --- what is said ----------------------------------------------------------------------------------------------------


def assert_as_likely_as_transformers_say(folder: Path, tolerance: float) -> None:
    """Answers to a conversation of three turns: the log-probabilities that come with them, those that learning takes
    of them, and those of transformers under its own template; the conversation is computed once for all of them."""
    from transformers import AutoTokenizer

    backbone = Backbone(ModelFolder("one", folder, "digest"), torch.device("cpu"), torch.float32)
    messages = CONVERSATIONS["three turns, several languages"]
    ids = backbone.tokenizer.encode_messages(messages)
    decoder, prefilled = backbone.decoder(), []
    prefill = decoder.network.prefill
    decoder.network.prefill = lambda prompts, *more: prefilled.append(len(prompts)) or prefill(prompts, *more)
    sampled = decoder.generate([ids] * 3, Sampling(max_new_tokens=7), [1, 2, 3], frozenset())
    assert prefilled == [1]
    said = [answer.token_ids for answer in sampled]
    assert len({*map(tuple, said)}) == 3
    layout = backbone.layout([ids] * 3, said)
    assert len(layout.ids) == len(ids) + sum(map(len, said)), "learning computes the conversation once as well"
    with torch.no_grad():
        learned = backbone.logprobs(backbone.hidden(layout, None), layout, 1.0).chosen
    plain = [{"role": message.role, "content": message.content} for message in messages]
    theirs = AutoTokenizer.from_pretrained(str(folder)).apply_chat_template(
        plain, add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    model = reference_model(folder)
    for row, (answer, tokens) in enumerate(zip(sampled, said, strict=True)):
        with torch.no_grad():
            logprobs = reference_logits(model, [*theirs, *tokens]).log_softmax(-1)[len(theirs) - 1 : -1]
        expected = logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=tolerance, rtol=0)
        torch.testing.assert_close(learned[row, : len(tokens)], expected, atol=tolerance, rtol=0)


def test_answers_to_a_conversation_are_as_likely_as_transformers_say(tiny_model: Path) -> None:
    assert_as_likely_as_transformers_say(tiny_model, 1e-4)


@pytest.mark.model
def test_the_bundled_models_answers_to_a_conversation_are_as_likely_as_transformers_say(converted_models: Path) -> None:
    folder = next(path for path in converted_models.iterdir() if path.name.startswith("smollm2") and path.is_dir())
    assert_as_likely_as_transformers_say(folder, 2e-3)


# --- what is learned -------------------------------------------------------------------------------------------------


def test_only_the_answer_after_the_conversation_is_learned(backbone) -> None:
    prompts = [replace(prompt_in("en"), id=f"p{n}", earlier=ASKED[:2] * n, system="Be short.") for n in range(3)]
    shown = Demonstrations([written(one, ANSWERS[0]) for one in prompts], ["a", "b", "c"], [])
    config = SftConfig(
        rank=4, minimum=2, batch=8, steps=2, most_repeats=1000, learning_rate=2e-3, held_out=0.0, language_balance=1.0
    )
    learner = sft(backbone, shown, config, seed=1)
    batch = learner.course.batches[0]
    assert {row.prompt for row in batch} == {tuple(backbone.tokenizer.encode_messages(one.messages)) for one in prompts}
    figures = learner.advance().figures
    model = reference_model(backbone.folder.path)
    found: Counter[str] = Counter()
    for row in batch:
        assert backbone.tokenizer.decode(row.response) == ANSWERS[0]
        with torch.no_grad():
            logprobs = reference_logits(model, [*row.prompt, *row.response]).log_softmax(-1)
        for place, token in enumerate(row.response, start=len(row.prompt) - 1):
            found.update(loss=-float(logprobs[place, token]), tokens=1)
    assert figures["loss/train", None] == pytest.approx(found["loss"] / found["tokens"], rel=1e-4)


def test_hindsight_is_told_in_the_last_turn(backbone) -> None:
    prompt = replace(prompt_in("en"), earlier=ASKED[:2], system="Be short.")
    found = [Outcome(written(prompt, answer), value, 1) for answer, value in (("up", 2.0), ("no", 1.0))]
    for rows in (rows_of(backbone, instructions(found, [], 4)), rows_of(backbone, chain(found))):
        texts = {backbone.tokenizer.decode(row.prompt) for row in rows}
        assert all(text.count("Hang it or use an oven?") == 1 for text in texts)
        assert all(text.index("Be short.") < text.index("Hang it") < text.index(prompt.text) for text in texts)
