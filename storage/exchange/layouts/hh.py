"""HH-RLHF (Anthropic/hh-rlhf): two transcripts that part at the last turn, the better one named chosen."""

from __future__ import annotations

import re
from typing import Any

from storage.exchange.dialogue import Message, message, parted
from storage.exchange.layout import Fields, Layout, need
from storage.exchange.rows import BadFieldError, text

_TURN = re.compile(r"\n\n(Human|Assistant):[ ]?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def recognises(fields: Fields) -> bool:
    """Transcripts in both fields, and no prompt beside them."""
    pair = (fields.get("chosen"), fields.get("rejected"))
    return "prompt" not in fields and all(isinstance(one, str) and _TURN.match(one) for one in pair)


def read(fields: Fields) -> list[dict[str, Any]]:
    """One preference."""
    need(fields, "chosen", "rejected")
    prompt, chosen, rejected = parted(*((name, _turns(name, fields[name])) for name in ("chosen", "rejected")))
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected}]


def _turns(field: str, value: Any) -> list[Message]:
    """The turns of a transcript; what stands between two marks is kept to the character."""
    before, *rest = _TURN.split(text(field, value))
    if before or not rest:
        raise BadFieldError(field, "must be a transcript of turns, each after a blank line and Human: or Assistant:")
    return [message(_ROLES[who], said) for who, said in zip(rest[::2], rest[1::2], strict=True)]


LAYOUT = Layout(
    name="hh",
    known_by="`chosen` and `rejected` that begin with a blank line and `Human:`, without `prompt`",
    becomes={
        "chosen": "the turns before the last answer are the prompt, that answer is preferred",
        "rejected": "its last answer is the other one",
    },
    recognises=recognises,
    read=read,
)
