"""SHP (stanfordnlp/SHP): a post, two comments on it, and which of them its readers preferred."""

from __future__ import annotations

from typing import Any

from storage.exchange.layout import Fields, Layout, has, need
from storage.exchange.values import truth

_NEEDED = ("history", "human_ref_A", "human_ref_B", "labels")


def recognises(fields: Fields) -> bool:
    """The post and both comments."""
    return has(fields, *_NEEDED)


def read(fields: Fields) -> list[dict[str, Any]]:
    """One preference."""
    need(fields, *_NEEDED)
    first, second = fields["human_ref_A"], fields["human_ref_B"]
    chosen, rejected = (first, second) if truth("labels", fields["labels"]) else (second, first)
    return [{"prompt": fields["history"], "chosen": chosen, "rejected": rejected}]


LAYOUT = Layout(
    name="shp",
    known_by="`history`, `human_ref_A`, `human_ref_B` and `labels`",
    becomes={
        "history": "the prompt",
        "human_ref_A": "the preferred answer where `labels` is 1",
        "human_ref_B": "the preferred answer where `labels` is 0",
        "labels": "which one is preferred",
    },
    left="`score_A`, `score_B`, `score_ratio` and `upvote_ratio` (votes, on no scale), `post_id`, `domain`, times",
    recognises=recognises,
    read=read,
)
