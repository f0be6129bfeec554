"""OASST (OpenAssistant/oasst1, oasst2): trees of messages whose sibling answers are ranked.

A tree is one record, or one record a message, those of a tree one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from storage.exchange.dialogue import Message, asked, message, parsed
from storage.exchange.layout import Fields, Layout, has
from storage.exchange.rows import BadFieldError, text
from storage.exchange.values import figure

_ROLES = {"prompter": "user", "assistant": "assistant"}
_ATTRIBUTES = ("quality", "helpfulness", "creativity", "humor")
Node = dict[str, Any]


def recognises(fields: Fields) -> bool:
    """A tree, or a message of one."""
    if has(fields, "message_tree_id", "message_id", "role", "text"):
        return True
    return isinstance(fields.get("prompt"), dict) and has(fields["prompt"], "role", "text")


def tree_of(fields: Fields) -> str | None:
    """The tree that a message by itself belongs to."""
    return fields["message_tree_id"] if has(fields, "message_tree_id", "message_id") else None


def read(fields: Fields) -> list[dict[str, Any]]:
    """Preferences between ranked answers, demonstrations of the others, and scores of what labels say of each."""
    root = _grown(fields["together"]) if "together" in fields else fields.get("prompt")
    if not isinstance(root, dict):
        raise BadFieldError("prompt", "must be a message with its replies, or the records must be messages of a tree")
    return list(_walk(root, []))


def _grown(rows: list[Node]) -> Node:
    """The first message of a tree with the others under it, from messages that name their parents."""
    nodes = {row["message_id"]: {**row, "replies": []} for row in rows}
    roots = []
    for node in nodes.values():
        if node.get("parent_id") is None:
            roots.append(node)
        elif node["parent_id"] in nodes:
            nodes[node["parent_id"]]["replies"].append(node)
        else:
            raise BadFieldError("parent_id", "names no message of this tree here: all of them must follow one another")
    if len(roots) != 1:
        raise BadFieldError("parent_id", f"{len(roots)} messages of this tree have none: its first one alone may")
    return roots[0]


def _walk(node: Node, before: list[Message]) -> Iterator[Node]:
    """What the answers to a message say, and those further down."""
    role = node.get("role")
    if role not in _ROLES:
        raise BadFieldError("role", "must be prompter or assistant")
    said = [*before, message(_ROLES[role], text("text", node.get("text"), empty=True))]
    replies = [reply for reply in node.get("replies") or [] if not reply.get("deleted")]
    if role == "prompter":
        prompt = {"prompt": asked(said), **({"language": node["lang"]} if node.get("lang") else {})}
        yield from _judged(prompt, replies)
        if not before and not replies:
            yield prompt
    for reply in replies:
        yield from _walk(reply, said)


def _judged(prompt: Node, answers: list[Node]) -> Iterator[Node]:
    ranked = sorted((one for one in answers if one.get("rank") is not None), key=lambda one: one["rank"])
    for better, worse in combinations(ranked, 2):
        if better["text"] == worse["text"]:
            continue
        models = {"model": better.get("model_name"), "other_model": worse.get("model_name")}
        choice = "tie" if better["rank"] == worse["rank"] else "a"
        told = {"response": better["text"], "other_response": worse["text"], "choice": choice}
        yield {**prompt, **told, **{name: model for name, model in models.items() if model}}
    for answer in answers:
        model = {"model": answer["model_name"]} if answer.get("model_name") else {}
        if len(ranked) < 2 and text("text", answer.get("text"), empty=True).strip():
            yield {**prompt, "completion": answer["text"]}
        for attribute, score in _labels(answer).items():
            rated = {"response": answer["text"], "score": score, "scale": [0, 1], "attribute": attribute}
            yield {**prompt, **rated, **model}


def _labels(node: Node) -> dict[str, float]:
    """The labels that are attributes of an answer: `{name: {value}}` in trees, lists side by side in tables."""
    labels = parsed(node.get("labels") or {})
    if has(labels, "name", "value") and isinstance(labels["name"], list):
        found = dict(zip(labels["name"], labels["value"], strict=False))
    else:
        found = {name: one["value"] if isinstance(one, dict) else one for name, one in labels.items()}
    return {name: figure("labels", found[name]) for name in _ATTRIBUTES if found.get(name) is not None}


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
