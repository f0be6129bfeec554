"""HelpSteer (nvidia/HelpSteer, 2 and 3): an answer rated by attributes, or two answers and which is better."""

from __future__ import annotations

import re
from typing import Any

from storage.exchange.dialogue import Message, asked, message, messages
from storage.exchange.layout import Fields, Layout, has, need
from storage.exchange.rows import BadFieldError, text
from storage.exchange.values import figure, one_of

_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_SCALE = [0, 4]
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_ROLES = {"User": "user", "Assistant": "assistant"}
_ANSWERS = (("response_1", "response_2"), ("response1", "response2"))
_PREFERENCES = ("preference_strength", "overall_preference")
_SPLITS = {"train": "train", "training": "train", "val": "held-out", "validation": "held-out", "test": "held-out"}


def recognises(fields: Fields) -> bool:
    """Attributes of one answer, or a preference between two."""
    if has(fields, "prompt", "response"):
        return bool(fields.keys() & set(_ATTRIBUTES[:3]))
    return any(has(fields, *pair) for pair in _ANSWERS) and bool(fields.keys() & set(_PREFERENCES))


def read(fields: Fields) -> list[dict[str, Any]]:
    """A score for each attribute, or a pair; equal answers are a tie."""
    pair = next((pair for pair in _ANSWERS if has(fields, *pair)), None)
    about: dict[str, Any] = {"prompt": _prompt(fields)}
    if "split" in fields:
        about["split"] = one_of("split", fields["split"], _SPLITS)
    if pair is not None:
        name = next((name for name in _PREFERENCES if name in fields), None)
        if name is None:
            raise BadFieldError(_PREFERENCES[0], "is missing: it says which answer is better")
        strength = figure(name, fields[name])
        choice = "tie" if strength == 0 else "a" if strength < 0 else "b"
        return [{**about, "response": fields[pair[0]], "other_response": fields[pair[1]], "choice": choice}]
    need(fields, "response")
    rated = {**about, "response": fields["response"], "scale": _SCALE}
    return [{**rated, "score": figure(name, fields[name]), "attribute": name} for name in _ATTRIBUTES if name in fields]


def _prompt(fields: Fields) -> str | list[Message]:
    """The first turn stands without a mark, the later ones after theirs."""
    if "context" in fields:
        return asked(messages("context", fields["context"]), "context")
    need(fields, "prompt")
    if not isinstance(fields["prompt"], str):
        return asked(messages("prompt", fields["prompt"]))
    first, *rest = _TURN.split(text("prompt", fields["prompt"]))
    turns = zip(rest[::2], rest[1::2], strict=True)
    # A prompt may end with the mark of the answer that follows it.
    said = [message("user", first), *(message(_ROLES[who], content) for who, content in turns)]
    return asked(said[:-1] if said[-1] == message("assistant", "") else said)


LAYOUT = Layout(
    name="helpsteer",
    known_by="`prompt`, `response` and `helpfulness`, `correctness` or `coherence`; or two answers and "
    "`preference_strength` or `overall_preference`",
    becomes={
        "prompt": "the prompt; `<extra_id_1>` parts its turns",
        "context": "the prompt, as turns",
        "response": "an answer",
        **dict.fromkeys(_ATTRIBUTES, "a score of that attribute on [0, 4]"),
        **{name: "an answer" for pair in _ANSWERS for name in pair},
        **dict.fromkeys(_PREFERENCES, "the first answer is better below 0, the second above, and 0 is a tie"),
        "split": "`val` is held out",
    },
    left="`preference_statement`, `preference_elaboration`, `individual_preference`, `domain`",
    recognises=recognises,
    read=read,
)
