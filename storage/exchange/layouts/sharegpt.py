"""ShareGPT: a conversation as a list of `{from, value}` turns."""

from __future__ import annotations

from typing import Any

from storage.exchange.dialogue import answered, asked, message, messages
from storage.exchange.layout import Fields, Layout, need

_JUDGED = {"chosen", "rejected", "label", "kto_tag"}


def recognises(fields: Fields) -> bool:
    """Turns without a judgement of the last one."""
    return "conversations" in fields and not fields.keys() & _JUDGED


def read(fields: Fields) -> list[dict[str, Any]]:
    """A demonstration of the last answer, or a prompt where the user speaks last."""
    need(fields, "conversations")
    said = messages("conversations", fields["conversations"])
    if isinstance(fields.get("system"), str) and fields["system"] and said[0]["role"] != "system":
        said.insert(0, message("system", fields["system"]))
    if said[-1]["role"] == "user":
        return [{"prompt": asked(said)}]
    prompt, answer = answered("conversations", said)
    return [{"prompt": prompt, "completion": answer}]


LAYOUT = Layout(
    name="sharegpt",
    known_by="`conversations`, without `chosen`, `rejected`, `label` and `kto_tag`",
    becomes={
        "conversations": "the turns before the last answer are the prompt, that answer is a demonstration of it",
        "system": "the system message, where the turns have none",
    },
    left="`id`, `tools`, `source`, and records with turns of tools are refused",
    recognises=recognises,
    read=read,
)
