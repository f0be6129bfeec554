"""Argilla: records as fields, with what each annotator answered to each question.

Three forms: `fields` and `responses` as Argilla 2 exports them and as its server holds them, the same laid out as
`QUESTION.responses` columns, and the columns of lists of `{user_id, value, status}` of Argilla 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, zip_longest
from typing import Any

import msgspec

from storage.exchange.dialogue import are_messages, asked, messages
from storage.exchange.layout import Fields, Layout, has
from storage.exchange.rows import BadFieldError, shown
from storage.exchange.values import parsed, shaped

_PROMPTS = ("prompt", "instruction", "question", "input", "context", "conversation", "chat", "messages")
_ANSWERS = ("response", "completion", "answer", "output", "generation", "reply", "text")
_NUMBERED = re.compile(r"(.*?)[-_ ]?(\d+|[ab])$", re.IGNORECASE)
_OVERALL = {"rating", "score", "quality", "overall", "preference", "ranking", "label", "choice"}
_TRUTH = {
    "yes": True, "good": True, "true": True, "accept": True, "no": False, "bad": False, "false": False, "reject": False,
}  # fmt: skip
_WRITTEN = re.compile(r"correct|edit|rewrite|improve|demonstration")
_TIES = {"tie", "equal", "same", "both", "neutral"}
_DISCARDED = {"discarded", "draft"}
Said = tuple[str, Any, str]  # a question, an answer to it, and who gave it


class Answer(msgspec.Struct):
    """What one annotator said."""

    value: Any = None
    user_id: str | int | None = None
    status: str | None = None


class Answers(msgspec.Struct):
    """What all of them said, in lists side by side."""

    value: list[Any]
    user_id: list[str | int | None]
    status: list[str | None] | None = None


class Response(msgspec.Struct):
    """What one annotator said to all questions."""

    values: dict[str, Answer | None] | None = None
    user_id: str | int | None = None
    status: str | None = None


class Ranked(msgspec.Struct):
    """The place of one answer, whose field `value` names."""

    value: str
    rank: int


def recognises(fields: Fields) -> bool:
    """Fields with responses beside them, or columns of responses."""
    if has(fields, "fields", "responses"):
        return isinstance(parsed(fields["fields"]), dict)
    return any(_is_column(name, value) for name, value in fields.items())


def read(fields: Fields) -> list[dict[str, Any]]:
    """What each annotator said, question by question; a prompt or a demonstration where nobody said anything."""
    told = shaped("fields", fields["fields"], dict[str, Any]) if "fields" in fields else fields
    prompt = next((name for name in _PROMPTS if told.get(name)), None)
    if prompt is None:
        raise BadFieldError("fields", f"hold no prompt ({', '.join(_PROMPTS)}), but {', '.join(told)}")
    about = {"prompt": told[prompt]}
    answers = _answers({name: value for name, value in told.items() if name != prompt})
    if are_messages(told[prompt]):
        turns = messages(prompt, told[prompt])
        if not answers and turns[-1]["role"] == "assistant":
            answers = {"response": turns.pop()["content"]}
        about = {"prompt": asked(turns, prompt)}
    found = [one for said in _said(fields) for one in _judged(about, answers, *said)]
    return found or [about]


def names_read(fields: Fields) -> set[str]:
    """The names of the fields that tell the prompt, the answers and what was said of them."""
    if "fields" in fields:
        return {"fields", "responses"}
    columns = {name for name, value in fields.items() if _is_column(name, value)}
    users = {f"{name}.users" for name in columns} | {f"{name}.status" for name in columns}
    prompts = [name for name in _PROMPTS if fields.get(name)][:1]
    return fields.keys() & {*columns, *users, *prompts, *_answers(fields)}


def _is_column(name: str, value: Any) -> bool:
    if name.endswith(".responses"):
        return True
    value = parsed(value)
    if isinstance(value, dict):
        return isinstance(value.get("user_id"), list) and "value" in value
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and has(one, "user_id", "value") for one in value)
    )


def _answers(told: Fields) -> dict[str, str]:
    """The fields that are answers: `response`, or `response-1` and `response-2`, or `chosen` and `rejected`."""
    found = {}
    for name, value in told.items():
        numbered = _NUMBERED.match(name)
        stem = numbered[1] if numbered else name
        if isinstance(value, str) and (stem.lower() in _ANSWERS or name in ("chosen", "rejected")):
            found[name] = value
    return found


def _said(fields: Fields) -> Iterator[Said]:
    """Each answer to each question, from any of the forms."""
    for question, answer in _given(fields):
        if answer.status not in _DISCARDED:
            yield question, answer.value, str(answer.user_id or "")


def _given(fields: Fields) -> Iterator[tuple[str, Answer]]:
    if "fields" in fields:
        responses = parsed(fields.get("responses", {}))
        if isinstance(responses, dict):  # {question: [{value, user_id}]}
            told = shaped("responses", responses, dict[str, list[Answer] | None])
            yield from ((question, one) for question, given in told.items() for one in given or [])
            return
        for response in shaped("responses", responses, list[Response]):  # [{user_id, values: {question: {value}}}]
            for question, one in (response.values or {}).items():
                if one is not None:
                    yield question, Answer(one.value, response.user_id, response.status)
        return
    for name, value in fields.items():
        if name.endswith(".responses"):
            users = shaped(f"{name}.users", fields.get(f"{name}.users", []), list[str | int | None])
            states = shaped(f"{name}.status", fields.get(f"{name}.status", []), list[str | None])
            given = parsed(value) if isinstance(parsed(value), list) else [value]
            for one, user, status in zip_longest(given, users[: len(given)], states[: len(given)]):
                yield name.removesuffix(".responses"), Answer(one, user, status)
        elif _is_column(name, value) and isinstance(parsed(value), dict):
            lists = shaped(name, value, Answers)
            for one, user, status in zip_longest(lists.value, lists.user_id, lists.status or []):
                yield name, Answer(one, user, status)
        elif _is_column(name, value):
            yield from ((name, one) for one in shaped(name, value, list[Answer]))


def _judged(
    about: dict[str, Any], answers: dict[str, str], question: str, value: Any, user: str
) -> Iterator[dict[str, Any]]:
    """Our records of what one annotator answered to one question."""
    about = {**about, **({"rater": user} if user else {}), "attribute": _attribute(question)}
    value = parsed(value)
    if value is None:
        return
    if _is_ranking(value):
        yield from _ranked(about, answers, question, value)
    elif isinstance(value, str) and len(answers) == 2 and not _WRITTEN.search(question):
        yield {**about, **_pair(answers, question, value)}
    elif isinstance(value, str) and (_WRITTEN.search(question) or not answers):
        yield {**about, "completion": value}
    else:
        yield {**about, "response": _rated(answers, question), **_rating(question, value)}


def _rating(question: str, value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"label": value}
    if isinstance(value, int | float):
        return {"score": value}
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return {"label": _TRUTH[value.strip().lower()]}
    if isinstance(value, str):
        return {"tags": {question: value}}
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return {"tags": value}
    raise BadFieldError(question, "is answered with neither a number, a label, a list of labels, a ranking nor a text")


def _attribute(question: str) -> str:
    numbered = _NUMBERED.match(question)
    stem = (numbered[1] if numbered else question).lower()
    words = [word for word in re.split(r"[-_ ]", stem) if word not in _ANSWERS]
    return "overall" if not words or set(words) <= _OVERALL else "-".join(words)


def _rated(answers: dict[str, str], question: str) -> str:
    """The answer that a question is about: the only one, or the one that ends with the same number."""
    if len(answers) == 1:
        return next(iter(answers.values()))
    place = _place(question)
    named = [answer for name, answer in answers.items() if place and _place(name) == place]
    if len(named) != 1:
        raise BadFieldError(question, f"does not tell which of {', '.join(answers) or 'no answers'} it is about")
    return named[0]


def _pair(answers: dict[str, str], question: str, value: str) -> dict[str, Any]:
    (first, answer), (second, other) = answers.items()
    said = value.strip().lower()
    named = [name for name in (first, second) if said == name.lower() or _place(name) == _place(said) != ""]
    if said not in _TIES and len(named) != 1:
        raise BadFieldError(question, f"must name {first} or {second}, or be a tie, not {shown(value)}")
    choice = "tie" if said in _TIES else "a" if named == [first] else "b"
    return {"response": answer, "other_response": other, "choice": choice}


def _place(name: str) -> str:
    found = _NUMBERED.match(name)
    return {"a": "1", "b": "2"}.get(found[2].lower(), found[2]) if found else ""


def _is_ranking(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and has(one, "rank", "value") for one in value)
    )


def _ranked(about: dict[str, Any], answers: dict[str, str], question: str, value: Any) -> Iterator[dict[str, Any]]:
    """Each two of the ranked answers; of equal ranks a tie."""
    ranking = shaped(question, value, list[Ranked])
    for one in ranking:
        if one.value not in answers:
            raise BadFieldError(question, f"ranks {shown(one.value)}, which is none of {', '.join(answers)}")
    for better, worse in combinations(sorted(ranking, key=lambda one: one.rank), 2):
        texts = {"response": answers[better.value], "other_response": answers[worse.value]}
        yield {**about, **texts, "choice": "tie" if better.rank == worse.rank else "a"}


LAYOUT = Layout(
    name="argilla",
    known_by="`fields` and `responses`; or `QUESTION.responses` columns; or columns of `{user_id, value}`",
    becomes={
        "fields": "the prompt is `prompt`, `instruction`, `question`, `input`, `context`, `conversation`, `chat` or "
        "`messages` (a conversation may end with the answer); answers are `response`, `completion`, `answer`, "
        "`output`, `generation`, `reply` or `text`, also numbered, and `chosen` and `rejected`",
        "responses": "of one answer, a number is a score (on `--scale`), yes and no are a label, other labels are "
        "tags; of two answers, the name of one or a tie is a preference; a ranking is a preference of each two; a text "
        "to a correction, or where there is no answer, is a demonstration. The question is the attribute, `user_id` "
        "the rater",
        "QUESTION.responses": "the same",
        "QUESTION.responses.users": "the raters",
        "QUESTION.responses.status": "drafts and discarded responses are left out",
        "QUESTION": "the same, where it holds `{user_id, value}`",
    },
    left="`id`, `status`, `metadata`, `vectors`, `suggestions`",
    recognises=recognises,
    read=read,
    reads=names_read,
)
