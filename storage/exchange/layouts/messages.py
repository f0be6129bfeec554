"""Conversations as lists of `{role, content}` messages, the form that TRL's data sets use, made into plain text."""

from __future__ import annotations

from typing import Any

from storage.exchange.rows import BadFieldError

ANSWERS = ("completion", "response", "chosen", "rejected")


def flatten(fields: dict[str, Any]) -> dict[str, Any]:
    """The same record with texts in place of message lists.

    A prompt may be a system message and one user message. Without a `prompt`, the messages that `chosen` and
    `rejected` begin with alike are the prompt; `messages` alone is a prompt with its completion.

    Raises:
        BadFieldError: the list has another shape (say, several turns).
    """
    flat = dict(fields)
    if "prompt" not in flat and _is_list(flat.get("messages")):
        flat["prompt"], flat["completion"] = flat["messages"][:-1], flat.pop("messages")[-1:]
    elif "prompt" not in flat and _is_list(flat.get("chosen")) and _is_list(flat.get("rejected")):
        chosen, rejected = flat["chosen"], flat["rejected"]
        if chosen[:-1] != rejected[:-1]:
            raise BadFieldError("rejected", "must begin with the same messages as chosen when there is no prompt")
        flat["prompt"], flat["chosen"], flat["rejected"] = chosen[:-1], chosen[-1:], rejected[-1:]
    for name in ANSWERS:
        if "prompt" in flat and _is_list(flat.get(name)):
            flat[name] = _after(flat["prompt"], flat[name])
    if _is_list(flat.get("prompt")):
        system, flat["prompt"] = _prompt(flat["prompt"])
        if system:
            flat["system"] = system
    for name in ANSWERS:
        if _is_list(flat.get(name)):
            flat[name] = _answer(name, flat[name])
    return flat


def _after(prompt: Any, messages: list[Any]) -> list[Any]:
    """An answer without the prompt, where it stands before the answer as well as apart."""
    asked = prompt if _is_list(prompt) else [{"role": "user", "content": prompt}]
    return messages[len(asked) :] if len(messages) > len(asked) and messages[: len(asked)] == asked else messages


def _prompt(messages: list[Any]) -> tuple[str, str]:
    """`(system, user)` texts."""
    said = [_message("prompt", message) for message in messages]
    roles = [role for role, _ in said]
    if roles == ["user"]:
        return "", said[0][1]
    if roles == ["system", "user"]:
        return said[0][1], said[1][1]
    raise BadFieldError("prompt", f"must be one user message, after a system message at most; got {', '.join(roles)}")


def _answer(field: str, messages: list[Any]) -> str:
    said = [_message(field, message) for message in messages]
    if [role for role, _ in said] != ["assistant"]:
        raise BadFieldError(field, "must be one message of the assistant")
    return said[0][1]


def _message(field: str, message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("role", "content")):
        raise BadFieldError(field, 'every message must be {"role": "...", "content": "..."}')
    return message["role"], message["content"]


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0
