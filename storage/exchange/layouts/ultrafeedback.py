"""UltraFeedback (openbmb/UltraFeedback), and its pairs with scores (HuggingFaceH4's and Argilla's binarised forms)."""

from __future__ import annotations

from typing import Any

import msgspec

from storage.exchange.dialogue import are_messages, message, messages, parted
from storage.exchange.layout import Fields, Layout, has, need
from storage.exchange.rows import BadFieldError, text
from storage.exchange.values import figure, shaped

_OVERALL = [1, 10]
_ASPECT = [1, 5]
# What the two binarised forms call the score and the model of an answer, and the scale of the scores.
_SCORES = {"score_{}": _OVERALL, "{}-rating": _ASPECT, "{}_rating": _ASPECT}
_MODELS = ("{}-model", "{}_model")
_PAIR = ("chosen", "rejected")
# Argilla's first form of the pairs, in the names of the later ones.
_RENAMED = {
    f"{one}_{theirs}": f"{one}{ours}" for one in _PAIR for theirs, ours in (("response", ""), ("avg_rating", "-rating"))
}


class Aspect(msgspec.Struct):
    """What was said of one aspect of a completion."""

    Rating: str | float | None = None


class Completion(msgspec.Struct):
    """One answer and its ratings."""

    response: str
    model: str | None = None
    overall_score: float | None = None
    annotations: dict[str, Aspect | list[Aspect] | None] | None = None


def recognises(fields: Fields) -> bool:
    """Several completions of an instruction, or a pair with a score of each."""
    if has(fields, "instruction", "completions") or has(fields, "instruction", *_RENAMED):
        return True
    return has(fields, *_PAIR) and any(has(fields, *(name.format(one) for one in _PAIR)) for name in _SCORES)


def read(fields: Fields) -> list[dict[str, Any]]:
    """Scores of each completion; or a preference and a score of each of its answers."""
    if "completions" in fields:
        return _completions(fields)
    return _pair({_RENAMED.get(name, name): value for name, value in fields.items()})


def _completions(fields: Fields) -> list[dict[str, Any]]:
    need(fields, "instruction")
    found = []
    for one in shaped("completions", fields["completions"], list[Completion]):
        about = {"prompt": fields["instruction"], "response": one.response}
        if one.model:
            about["model"] = one.model
        for attribute, score, scale in _ratings(one):
            found.append({**about, "score": score, "scale": scale, "attribute": attribute})
    return found or [{"prompt": fields["instruction"]}]


def _ratings(completion: Completion) -> list[tuple[str, float, list[int]]]:
    """`(attribute, score, scale)` of all that was rated; an aspect that does not apply is N/A."""
    found = []
    if completion.overall_score is not None:
        found.append(("overall", completion.overall_score, _OVERALL))
    for aspect, told in (completion.annotations or {}).items():
        for one in told if isinstance(told, list) else [told]:
            if one is not None and one.Rating not in (None, "", "N/A"):
                found.append((aspect, figure(f"completions.annotations.{aspect}.Rating", one.Rating), _ASPECT))
    return found


def _pair(fields: Fields) -> list[dict[str, Any]]:
    prompt, *answers = _said(fields)
    models = [next((fields[name.format(one)] for name in _MODELS if name.format(one) in fields), "") for one in _PAIR]
    pair = dict(zip(("prompt", *_PAIR), (prompt, *answers), strict=True))
    pair |= {f"{one}_model": model for one, model in zip(_PAIR, models, strict=True) if model}
    found = [pair]
    for one, answer, model in zip(_PAIR, answers, models, strict=True):
        for pattern, scale in _SCORES.items():
            if (name := pattern.format(one)) in fields:
                rated = {"prompt": prompt, "response": answer, "score": figure(name, fields[name]), "scale": scale}
                found.append({**rated, "model": model} if model else rated)
    return found


def _said(fields: Fields) -> tuple[Any, str, str]:
    """`(prompt, chosen, rejected)`: the answers are conversations that begin with the prompt, or texts beside it."""
    need(fields, *_PAIR)
    asked = fields.get("prompt", fields.get("instruction"))
    said = []
    for name in _PAIR:
        if not are_messages(fields[name]):
            if not isinstance(asked, str):
                raise BadFieldError("prompt", "is missing: chosen and rejected are answers alone")
            said.append([message("user", asked), message("assistant", text(name, fields[name], empty=True))])
        else:
            said.append(messages(name, fields[name]))
    return parted((_PAIR[0], said[0]), (_PAIR[1], said[1]))


def _each(name: str, meaning: str) -> dict[str, str]:
    return {name.format(one): meaning for one in _PAIR}


LAYOUT = Layout(
    name="ultrafeedback",
    known_by="`instruction` and `completions`; or `chosen` and `rejected` with a score of each",
    becomes={
        "instruction": "the prompt",
        "completions": "of each, `response` is an answer, `model` the model that gave it, `overall_score` a score on "
        "[1, 10], and each `Rating` of `annotations` a score on [1, 5] of the attribute of that name",
        "prompt": "the prompt, where the answers do not begin with it",
        "messages": "the same as `chosen`",
        "chosen": "the turns before the last one are the prompt, that one is preferred",
        "rejected": "its last turn is the other answer",
        **_each("{}_response", "that answer"),
        **_each("score_{}", "a score of that answer on [1, 10]"),
        **_each("{}-rating", "a score of that answer on [1, 5]"),
        **_each("{}_rating", "a score of that answer on [1, 5]"),
        **_each("{}_avg_rating", "a score of that answer on [1, 5]"),
        **_each("{}-model", "the model that answered"),
        **_each("{}_model", "the model that answered"),
    },
    left="`prompt_id`, `source`, `models`, `correct_answers`, `incorrect_answers`; of completions `critique`, "
    "`principle`, `custom_system_prompt` and `fine-grained_score` (a mean of the others)",
    recognises=recognises,
    read=read,
)
