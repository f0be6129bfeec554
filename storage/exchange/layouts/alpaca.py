"""Alpaca: an instruction, what it is about, and the answer; LLaMA-Factory adds a system prompt and earlier rounds."""

from __future__ import annotations

from typing import Any

from storage.exchange.dialogue import Message, asked, message, parsed
from storage.exchange.layout import Fields, Layout, has
from storage.exchange.rows import BadFieldError, text

_JUDGED = {"chosen", "rejected", "label", "kto_tag"}


def recognises(fields: Fields) -> bool:
    """An instruction with one answer, and no judgement of it."""
    return has(fields, "instruction", "output") and isinstance(fields["output"], str) and not fields.keys() & _JUDGED


def read(fields: Fields) -> list[dict[str, Any]]:
    """One demonstration."""
    if "output" not in fields:
        raise BadFieldError("output", "is missing: it is the answer to the instruction")
    return [{"prompt": instructed(fields), "completion": fields["output"]}]


def instructed(fields: Fields) -> str | list[Message]:
    """The prompt of an instruction: with its system prompt and its earlier rounds, and its input on the next line."""
    if "instruction" not in fields:
        raise BadFieldError("instruction", "is missing: it is what is asked")
    instruction = text("instruction", fields["instruction"])
    about = text("input", fields.get("input", ""), empty=True)
    said = [message("user", f"{instruction}\n{about}" if about else instruction)]
    history = parsed(fields.get("history", []))
    if not isinstance(history, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
        raise BadFieldError("history", "must be a list of rounds, each of them [asked, answered]")
    for question, answer in reversed(history):
        said[:0] = [message("user", text("history", question)), message("assistant", text("history", answer))]
    system = text("system", fields.get("system", ""), empty=True)
    return asked([message("system", system), *said] if system else said)


LAYOUT = Layout(
    name="alpaca",
    known_by="`instruction` and one `output`, without `chosen`, `rejected`, `label` and `kto_tag`",
    becomes={
        "instruction": "the prompt",
        "input": "follows the instruction on a line of its own",
        "output": "a demonstration",
        "system": "the system message",
        "history": "earlier turns, as `[asked, answered]` rounds",
    },
    left="`text` (all of it in one template), `images`, `tools`",
    recognises=recognises,
    read=read,
)
