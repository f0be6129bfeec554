"""KTO: one answer, good or bad. Records of TRL are our own; those of LLaMA-Factory are read here."""

from __future__ import annotations

from typing import Any

from storage.exchange.dialogue import answered, message, messages
from storage.exchange.layout import Fields, Layout, has, kept
from storage.exchange.layouts.alpaca import instructed
from storage.exchange.rows import BadFieldError
from storage.exchange.values import truth

_CONVERSATIONS = ("conversations", "messages")


def recognises(fields: Fields) -> bool:
    """A tag, or a label of what is asked as LLaMA-Factory asks it."""
    return "kto_tag" in fields or (
        "label" in fields and ("conversations" in fields or has(fields, "instruction", "output"))
    )


def read(fields: Fields) -> list[dict[str, Any]]:
    """One label."""
    tag = next((name for name in ("kto_tag", "label") if name in fields), None)
    if tag is None:
        raise BadFieldError("kto_tag", "is missing: it says whether the answer is good")
    return [{**_said(fields), "label": truth(tag, fields[tag])}]


def _said(fields: Fields) -> dict[str, Any]:
    if has(fields, "prompt", "completion"):
        return kept(fields, "prompt", "completion", "system")
    name = next((name for name in _CONVERSATIONS if name in fields), None)
    if name is None:
        return {"prompt": instructed(fields), "completion": fields.get("output", "")}
    said = messages(name, fields[name])
    if fields.get("system") and said[0]["role"] != "system":
        said.insert(0, message("system", fields["system"]))
    prompt, answer = answered(name, said)
    return {"prompt": prompt, "completion": answer}


LAYOUT = Layout(
    name="kto",
    known_by="`kto_tag`, or `label` beside `conversations` or `instruction` and `output`; the form of TRL is our own",
    becomes={
        "prompt": "as in our own records",
        "completion": "as in our own records",
        **dict.fromkeys(_CONVERSATIONS, "the turns before the last answer are the prompt, that answer is rated"),
        "instruction": "the prompt, as in `alpaca`",
        "input": "as in `alpaca`",
        "history": "as in `alpaca`",
        "output": "the rated answer",
        "system": "the system message",
        "kto_tag": "good or bad",
        "label": "good or bad",
    },
    recognises=recognises,
    read=read,
)
