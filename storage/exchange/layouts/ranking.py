"""LLaMA-Factory's rankings: what is asked as `alpaca` or `sharegpt` ask it, with a better and a worse answer."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from storage.exchange.dialogue import Message, are_messages, asked, message, messages
from storage.exchange.layout import Fields, Layout, has, need
from storage.exchange.layouts import ultrafeedback
from storage.exchange.layouts.alpaca import instructed
from storage.exchange.rows import BadFieldError, text


def recognises(fields: Fields) -> bool:
    """A pair beside an instruction, a question or a conversation, or answers in the order of their rank."""
    if has(fields, "chosen", "rejected") and not ultrafeedback.recognises(fields):
        return bool({"instruction", "question", "conversations"} & fields.keys())
    return "instruction" in fields and isinstance(fields.get("output"), list)


def read(fields: Fields) -> list[dict[str, Any]]:
    """A preference, or one for each two of the ranked answers."""
    if isinstance(fields.get("output"), list):
        answers = [text("output", answer, empty=True) for answer in fields["output"]]
        if len(answers) < 2:
            raise BadFieldError("output", "must hold two answers or more, the best one first")
        ranked = list(combinations(answers, 2))
    else:
        ranked = [(_answer("chosen", fields), _answer("rejected", fields))]
    prompt = _prompt(fields)
    return [{"prompt": prompt, "chosen": better, "rejected": worse} for better, worse in ranked]


def _prompt(fields: Fields) -> str | list[Message]:
    if "conversations" in fields:
        said = messages("conversations", fields["conversations"])
        if fields.get("system") and said[0]["role"] != "system":
            said.insert(0, message("system", fields["system"]))
        return asked(said, "conversations")
    if "question" in fields and "instruction" not in fields:
        return instructed({**fields, "instruction": fields["question"]})
    return instructed(fields)


def _answer(name: str, fields: Fields) -> str:
    need(fields, name)
    value = fields[name]
    if isinstance(value, str) and not are_messages(value):
        return value
    said = messages(name, value)
    if [one["role"] for one in said] != ["assistant"]:
        raise BadFieldError(name, "must be one message of the assistant")
    return said[0]["content"]


LAYOUT = Layout(
    name="ranking",
    known_by="`chosen` and `rejected` beside `instruction`, `question` or `conversations`; or `instruction` and a list "
    "of `output`",
    becomes={
        "instruction": "the prompt, as in `alpaca`",
        "question": "the prompt, where there is no instruction",
        "input": "as in `alpaca`",
        "history": "as in `alpaca`",
        "system": "the system message",
        "conversations": "the prompt, as turns",
        "chosen": "the preferred answer",
        "rejected": "the other one",
        "output": "a list of answers, the best one first: a preference of each two",
    },
    left="`id`, `images`, `tools`",
    recognises=recognises,
    read=read,
)
