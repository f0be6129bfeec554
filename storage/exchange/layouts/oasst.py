"""OASST (OpenAssistant/oasst1, oasst2): trees of messages whose sibling answers are ranked.

A tree is one record, or one record a message, those of a tree one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, Literal

import msgspec

from storage.exchange.dialogue import Message, asked, message
from storage.exchange.layout import Fields, Layout, has
from storage.exchange.rows import BadFieldError
from storage.exchange.values import parsed, shaped

_ATTRIBUTES = ("quality", "helpfulness", "creativity", "humor")


class Label(msgspec.Struct):
    """What people said of a message, on average."""

    value: float | None = None


class Labels(msgspec.Struct):
    """The same as a table has it: lists side by side."""

    name: list[str]
    value: list[float | None]


class Node(msgspec.Struct):
    """One message of a tree, and those that answer it."""

    text: str
    role: Literal["prompter", "assistant"]
    message_id: str | None = None
    parent_id: str | None = None
    lang: str | None = None
    rank: int | None = None
    deleted: bool | None = None
    model_name: str | None = None
    labels: dict[str, Any] | None = None
    replies: list[Node] | None = None


def recognises(fields: Fields) -> bool:
    """A tree, or a message of one."""
    if has(fields, "message_tree_id", "message_id", "role", "text"):
        return True
    root = parsed(fields.get("prompt"))
    return isinstance(root, dict) and has(root, "role", "text")


def tree_of(fields: Fields) -> str | None:
    """The tree that a message by itself belongs to."""
    return fields["message_tree_id"] if has(fields, "message_tree_id", "message_id") else None


def read(fields: Fields) -> list[dict[str, Any]]:
    """Preferences between ranked answers, demonstrations of the others, and scores of what labels say of each."""
    if "together" in fields:
        rows = ({**row, "labels": parsed(row.get("labels"))} for row in fields["together"])
        root = _grown([shaped("", row, Node) for row in rows])
    elif "prompt" in fields:
        root = shaped("prompt", fields["prompt"], Node)
    else:
        raise BadFieldError("prompt", "is missing: a record is a message with its replies, or a message of a tree")
    return list(_walk(root, []))


def _grown(nodes: list[Node]) -> Node:
    """The first message of a tree with the others under it, from messages that name their parents."""
    by_key = {node.message_id: node for node in nodes}
    if len(by_key) != len(nodes):
        raise BadFieldError("message_id", "names two messages of this tree")
    roots = []
    for node in nodes:
        if node.parent_id is None:
            roots.append(node)
        elif node.parent_id in by_key:
            parent = by_key[node.parent_id]
            parent.replies = [*(parent.replies or []), node]
        else:
            raise BadFieldError("parent_id", "names no message of this tree here: all of them must follow one another")
    if len(roots) != 1:
        raise BadFieldError("parent_id", f"{len(roots)} messages of this tree have none: its first one alone may")
    if _size(roots[0]) != len(nodes):
        raise BadFieldError("parent_id", "leads in a circle")
    return roots[0]


def _size(node: Node) -> int:
    return 1 + sum(map(_size, node.replies or []))


def _walk(node: Node, before: list[Message]) -> Iterator[dict[str, Any]]:
    """What the answers to a message say, and those further down."""
    said = [*before, message("user" if node.role == "prompter" else "assistant", node.text)]
    replies = [reply for reply in node.replies or [] if not reply.deleted]
    if node.role == "prompter":
        prompt = {"prompt": asked(said), **({"language": node.lang} if node.lang else {})}
        yield from _judged(prompt, replies)
        if not before and not replies:
            yield prompt
    for reply in replies:
        yield from _walk(reply, said)


def _judged(prompt: dict[str, Any], answers: list[Node]) -> Iterator[dict[str, Any]]:
    ranked = sorted((one for one in answers if one.rank is not None), key=lambda one: one.rank or 0)
    for better, worse in combinations(ranked, 2):
        if better.text == worse.text:
            continue
        models = {"model": better.model_name, "other_model": worse.model_name}
        choice = "tie" if better.rank == worse.rank else "a"
        told = {"response": better.text, "other_response": worse.text, "choice": choice}
        yield {**prompt, **told, **{name: model for name, model in models.items() if model}}
    for answer in answers:
        if len(ranked) < 2 and answer.text.strip():
            yield {**prompt, "completion": answer.text}
        for attribute, score in _labels(answer).items():
            rated = {"response": answer.text, "score": score, "scale": [0, 1], "attribute": attribute}
            yield {**prompt, **rated, **({"model": answer.model_name} if answer.model_name else {})}


def _labels(node: Node) -> dict[str, float]:
    """The labels that are attributes of an answer: `{name: {value}}` in trees, lists side by side in tables."""
    labels = node.labels or {}
    if isinstance(labels.get("name"), list):
        table = shaped("labels", labels, Labels)
        found = dict(zip(table.name, table.value, strict=False))
    else:
        found = {
            name: one.value if one else None for name, one in shaped("labels", labels, dict[str, Label | None]).items()
        }
    return {name: value for name in _ATTRIBUTES if (value := found.get(name)) is not None}


LAYOUT = Layout(
    name="oasst",
    known_by="`prompt` as a message with `role`, `text` and `replies`; or messages with `message_tree_id`, those of a "
    "tree one after the other",
    becomes={
        "prompt": "the first message of the tree; all `replies` are read as the messages below",
        "message_tree_id": "which messages are one tree",
        "message_id": "who a message is to those that answer it",
        "parent_id": "which message it answers",
        "role": "`prompter` is the user",
        "text": "what was said; the turns before an answer are its prompt",
        "lang": "the language of what is asked",
        "rank": "answers to one message are compared two by two, the lower rank is preferred, equal ranks are a tie; "
        "answers without ranks are demonstrations",
        "labels": "of an answer, `quality`, `helpfulness`, `creativity` and `humor` are scores on [0, 1] of it",
        "model_name": "the model that answered",
        "deleted": "a deleted message is left out with its replies",
    },
    left="`user_id` (who wrote, and not who judged), the other labels, `detoxify`, `emojis`, `review_count`, "
    "`review_result`, `synthetic`, `created_date`, `tree_state`, ranks of the user's messages",
    recognises=recognises,
    read=read,
    together=tree_of,
)
