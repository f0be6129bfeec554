"""The answers to one prompt as cards, while they are written and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.screens.prompt.turns import LETTERS
from workbench.widgets.answers import CardFacts, card_of
from workbench.widgets.judging import verdict

if TYPE_CHECKING:
    from storage.records import Rating
    from workbench.screens.prompt.conversation import Exchange


def cards(exchange: Exchange | None, ratings: Mapping[str, list[Rating]], speed: float | None) -> list[CardFacts]:
    """One card an answer; `ratings` by the keys of answers, `speed` of the engine in tokens a second."""
    if exchange is None:
        return []
    found = []
    for n, (text, tokens) in enumerate(zip(exchange.texts, exchange.tokens, strict=True)):
        answer, sample = exchange.answers.get(n), exchange.samples.get(n)
        found.append(
            card_of(
                LETTERS[n] + " ✓" * (n == exchange.chosen), text, exchange.ask.prompt.language,
                tokens=tokens if tokens or not text else None,  # an end cut short left a text without its tokens
                said_by=answer.version if answer else "", ended=answer.finish_reason if answer else "",
                speed=None if answer else speed,
                verdict=verdict(ratings.get(sample.id, []), sample) if sample else "",
                writing=exchange.state in ("writing", "waiting") and answer is None,
            )
        )  # fmt: skip
    return found
