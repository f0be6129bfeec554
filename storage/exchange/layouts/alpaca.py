"""Alpaca: an instruction, what it is about, and the answer; LLaMA-Factory adds a system prompt and earlier rounds."""

from __future__ import annotations

from typing import Any

from storage.exchange.dialogue import Message, asked, message
from storage.exchange.layout import Fields, Layout, has, need
from storage.exchange.rows import text
from storage.exchange.values import shaped

_JUDGED = {"chosen", "rejected", "label", "kto_tag"}


def recognises(fields: Fields) -> bool:
    """An instruction with one answer, and no judgement of it."""
    return has(fields, "instruction", "output") and isinstance(fields["output"], str) and not fields.keys() & _JUDGED


def read(fields: Fields) -> list[dict[str, Any]]:
    """One demonstration."""
    need(fields, "output")
    return [{"prompt": instructed(fields), "completion": fields["output"]}]


def instructed(fields: Fields) -> str | list[Message]:
    """The prompt of an instruction: with its system prompt and its earlier rounds, and its input on the next line."""
    need(fields, "instruction")
    instruction = text("instruction", fields["instruction"])
    about = text("input", fields.get("input", ""), empty=True)
    said = [message("user", f"{instruction}\n{about}" if about else instruction)]
    for question, answer in reversed(shaped("history", fields.get("history", []), list[tuple[str, str]])):
        said[:0] = [message("user", question), message("assistant", answer)]
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
