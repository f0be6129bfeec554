"""Conversations as lists of `{role, content}` messages, the form that TRL's data sets use.

A prompt is a text, or a list of messages that ends with the user's. An answer is a text, or a list of one message of
the assistant, before which the prompt may stand once more, and further turns that all answers of the record share: they
belong to the prompt. Without a `prompt`,

- the messages that `chosen` and `rejected` begin with alike are the prompt,
- the last of `messages` is the answer, where it is the assistant's, to those before it; so it is where the first words
  of the user in them stand beside them as `prompt`, and nothing else answers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, get_args, get_type_hints

from storage.exchange.rows import BadFieldError, shown, text
from storage.records import Message, parts_of

ANSWERS = ("completion", "response", "other_response", "chosen", "rejected")
ROLES: tuple[str, ...] = get_args(get_type_hints(Message)["role"])


def flatten(fields: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Message, ...]]:
    """The same record with texts in place of message lists, and the turns before the last message of its prompt.

    A system message that the prompt begins with becomes the field `system`.

    Raises:
        BadFieldError: a list holds something else, or its messages are no prompt or no answer.
    """
    flat = dict(fields)
    lists = {name: _messages(name, flat[name]) for name in ANSWERS if _is_list(flat.get(name))}
    asked = _asked(flat, lists)
    if asked is None:
        return flat, ()
    lists = {name: _after(asked, messages) for name, messages in lists.items()}
    if lists.keys() == set(ANSWERS) & flat.keys() and (more := _further_turns([*lists.values()])):
        asked = [*asked, *more]
        lists = {name: messages[-1:] for name, messages in lists.items()}
    for name, messages in lists.items():
        flat[name] = _answer(name, messages, several="prompt" not in fields)
    if not asked or asked[-1].role != "user":
        ends = f"ends with a message of the {asked[-1].role}" if asked else "has no message before the answer"
        reason = f"{ends}: a prompt ends with the user's, and what answers it stands in completion or response"
        raise BadFieldError(next((name for name in ("prompt", "messages") if name in fields), "chosen"), reason)
    flat["prompt"], system, earlier = parts_of(asked)
    if system and (flat.get("system") or system) != system:
        raise BadFieldError("system", "says something else than the system message that the prompt begins with")
    if system:
        flat["system"] = system
    return flat, earlier


def unread(fields: Mapping[str, Any]) -> set[str]:
    """What :func:`flatten` passes over: `messages` beside a prompt, and what messages hold but role and content."""
    found = set() if _speaks(fields) else {"messages"} & fields.keys()
    for name in {"prompt", "messages", *ANSWERS} & fields.keys() - found:
        for message in fields[name] if _is_list(fields[name]) else ():
            if isinstance(message, dict):
                more = (key for key, value in message.items() if key not in ("role", "content") and value is not None)
                found |= {f"{name}[].{key}" for key in more}
    return found


def _asked(flat: dict[str, Any], lists: dict[str, list[Message]]) -> list[Message] | None:
    """The messages of the prompt; None where no field holds messages. The answer of `messages` becomes a completion."""
    if _speaks(flat):
        said = _messages("messages", flat["messages"])
        if said[-1].role == "assistant" and not set(ANSWERS) & flat.keys():
            flat["completion"] = said.pop().content
        return said
    given = flat.get("prompt")
    if _is_list(given):
        return _messages("prompt", given)
    if isinstance(given, str) and lists:
        asked = [Message("user", given)]
        before = [messages[:-1] for messages in lists.values() if len(messages) > 1]
        # A prompt that is given as a text as well may be the last of the turns before the answers, or their first.
        whole = bool(before) and all(messages == before[0] for messages in before)
        return before[0] if whole and asked[0] in before[0] else asked
    if given is not None:
        return None
    if {"chosen", "rejected"} <= lists.keys():
        return _common_prefix(lists["chosen"], lists["rejected"])
    return None


def _speaks(fields: Mapping[str, Any]) -> bool:
    """Whether `messages` are the conversation of a record."""
    told = fields.get("messages")
    if not _is_list(told):
        return False
    if "prompt" not in fields:
        return not {"chosen", "rejected"} & fields.keys()
    asked = (one.get("content") for one in told if isinstance(one, dict) and one.get("role") == "user")
    return next(asked, None) == fields["prompt"] and not set(ANSWERS) & fields.keys()


def _common_prefix(one: list[Message], other: list[Message]) -> list[Message]:
    """What two conversations begin with alike, and in which each leaves a message over."""
    most = min(len(one), len(other)) - 1
    return one[: next((place for place in range(most) if one[place] != other[place]), most)]


def _after(asked: list[Message], messages: list[Message]) -> list[Message]:
    """An answer without the prompt, where it stands before the answer as well as apart."""
    return messages[len(asked) :] if len(messages) > len(asked) and messages[: len(asked)] == asked else messages


def _further_turns(found: list[list[Message]]) -> list[Message]:
    """The turns, the first the assistant's and the last the user's, before the last message of all answers alike."""
    first = found[0][:-1] if found else []
    turns = bool(first) and first[0].role == "assistant" and first[-1].role == "user"
    return first if turns and all(messages[:-1] == first for messages in found) else []


def _answer(field: str, messages: Sequence[Message], *, several: bool) -> str:
    roles = [message.role for message in messages]
    if roles != ["assistant"]:
        where = "where the conversations part" if several else "after the prompt"
        raise BadFieldError(field, f"must be one message of the assistant {where}; got {', '.join(roles)}")
    return messages[0].content


def _messages(field: str, found: list[Any]) -> list[Message]:
    return [_message(field, place, message) for place, message in enumerate(found, start=1)]


def _message(field: str, place: int, message: Any) -> Message:
    if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("role", "content")):
        raise BadFieldError(field, 'every message must be {"role": "...", "content": "..."}')
    if message["role"] not in ROLES:
        roles = f"{', '.join(ROLES[:-1])} and {ROLES[-1]}"
        raise BadFieldError(field, f"message {place} has the role {shown(message['role'])}; there are {roles}")
    return Message(message["role"], text(field, message["content"], empty=True))


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) > 0
