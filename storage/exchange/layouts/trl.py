"""TRL's preferences with an implicit prompt: two texts that begin alike, and what they begin with is the prompt.

The explicit form, and lists of messages in either, are our own records.
"""

from __future__ import annotations

from typing import Any

from storage.exchange.layout import Fields, Layout, need
from storage.exchange.rows import BadFieldError, text


def recognises(fields: Fields) -> bool:
    """Two texts that are no transcripts, and nothing that could be the prompt."""
    pair = (fields.get("chosen"), fields.get("rejected"))
    asked = {"prompt", "instruction", "question", "conversations", "messages"} & fields.keys()
    return not asked and all(isinstance(one, str) and not one.startswith("\n\nHuman:") for one in pair)


def read(fields: Fields) -> list[dict[str, Any]]:
    """One preference. Raises BadFieldError where the texts do not begin alike."""
    need(fields, "chosen", "rejected")
    chosen, rejected = (text(name, fields[name]) for name in ("chosen", "rejected"))
    parting = next(
        (place for place, pair in enumerate(zip(chosen, rejected, strict=False)) if len(set(pair)) > 1), None
    )
    end = min(len(chosen), len(rejected)) if parting is None else parting
    # As TRL parts them: a space before the first letter that differs goes to the answers.
    end -= chosen[:end].endswith(" ")
    if not chosen[:end].strip():
        raise BadFieldError("rejected", "does not begin as chosen does, and there is no prompt beside them")
    return [{"prompt": chosen[:end], "chosen": chosen[end:], "rejected": rejected[end:]}]


LAYOUT = Layout(
    name="trl",
    known_by="`chosen` and `rejected` texts without anything that could be the prompt",
    becomes={
        "chosen": "what both texts begin with is the prompt, the rest of this one is preferred",
        "rejected": "the rest is the other answer",
    },
    recognises=recognises,
    read=read,
)
