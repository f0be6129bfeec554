"""Turns of a conversation as foreign records hold them, made into lists of `{role, content}` messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.exchange.rows import BadFieldError, shown
from storage.exchange.values import parsed

Message = dict[str, str]
# What public data sets call those who speak. Other roles (tools and what they return) are none of a conversation here.
_ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "bot": "assistant",
    "system": "system",
}  # fmt: skip


def message(role: str, content: str) -> Message:
    """One message."""
    return {"role": role, "content": content}


def messages(field: str, value: Any) -> list[Message]:
    """The messages of a field: `{role, content}` or `{from, value}` objects, in a list or in JSON text of one.

    Raises:
        BadFieldError: it holds something else, or a role that is none of a conversation.
    """
    found = parsed(value)
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not found:
        raise BadFieldError(field, f"must be a list of messages, not {shown(value)}")
    return [_message(field, one) for one in found]


def are_messages(value: Any) -> bool:
    """Whether a value is a message or a list of them, or JSON text of that, and not a text like any other."""
    found = parsed(value)
    said = found if isinstance(found, list) else [found]
    return bool(said) and all(isinstance(one, dict) and one.keys() & {"role", "from"} for one in said)


def asked(said: Sequence[Message], field: str = "prompt") -> str | list[Message]:
    """A prompt: a text where it is one message of the user, else the messages. Raises BadFieldError for another end."""
    if not said or said[-1]["role"] != "user":
        raise BadFieldError(field, "does not end with a message of the user before the answer")
    return said[0]["content"] if len(said) == 1 else list(said)


def answered(field: str, said: Sequence[Message]) -> tuple[str | list[Message], str]:
    """`(prompt, answer)` of a conversation that ends with the assistant. Raises BadFieldError for another end."""
    if not said or said[-1]["role"] != "assistant":
        raise BadFieldError(field, "does not end with a message of the assistant")
    return asked(said[:-1], field), said[-1]["content"]


def parted(
    first: tuple[str, Sequence[Message]], second: tuple[str, Sequence[Message]]
) -> tuple[str | list[Message], str, str]:
    """`(prompt, answer, other answer)` of two conversations, each with the name of its field.

    Raises:
        BadFieldError: they part before their last message: what was judged is then no two answers to one prompt.
    """
    (field, one), (other_field, other) = first, second
    prompt, answer = answered(field, one)
    other_prompt, other_answer = answered(other_field, other)
    if prompt != other_prompt:
        raise BadFieldError(
            other_field, f"parts from {field} before the last message: these are no answers to one prompt"
        )
    return prompt, answer, other_answer


def _message(field: str, value: Any) -> Message:
    if not isinstance(value, dict):
        raise BadFieldError(field, f"holds {shown(value)} where a message should stand")
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = _text_of(field, content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise BadFieldError(field, "every message must have a role and a content, or a from and a value")
    if role.lower() not in _ROLES:
        raise BadFieldError(field, f"holds a message of {shown(role)}, which is neither user, assistant nor system")
    return message(_ROLES[role.lower()], content)


def _text_of(field: str, parts: list[dict[str, Any]]) -> str:
    """The text of a message in parts. Raises BadFieldError where a part is a picture or a sound."""
    for part in parts:
        if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            raise BadFieldError(field, f"holds a message with {shown(part.get('type'))}, and only text is read")
    return "".join(part["text"] for part in parts)
