"""Text from tokens as they come: only what can no longer change, and never half a character."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from workbench.engine.protocol import Event, Generate, Text

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
INTERVAL = 0.04  # seconds between two pieces of one candidate: a screen shows no more


class StableText:
    """The growing text of one answer, given out piece by piece.

    A token may hold a part of a character, and a decoder may treat the first token of a text in its own way. So each
    piece is what decoding a short window of tokens gives beyond the tokens before it, and it is held back while its
    last character is incomplete. Together, the pieces and `rest` are the decoding of all tokens.

    Args:
        decode: token ids to text; special tokens give nothing.
        held: tokens after which nothing is given out yet: the single bytes of tokenizers with byte fallback, where one
            bad byte undoes its whole run.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], held: frozenset[int] = frozenset()) -> None:
        self.token_ids: list[int] = []
        self._decode = decode
        self._held = held
        self._given = ""
        self._start = 0  # the window: tokens from here on are decoded together ...
        self._done = 0  # ... of which the text of those before here was given out
        self._looked = 0

    def push(self, token_id: int) -> None:
        self.token_ids.append(token_id)

    def take(self) -> str:
        """The text that became certain since the last call; often empty."""
        count = len(self.token_ids)
        if count == self._looked or self.token_ids[-1] in self._held:
            return ""
        self._looked = count
        before = self._decode(self.token_ids[self._start : self._done])
        text = self._decode(self.token_ids[self._start :])
        if len(text) <= len(before) or text.endswith(REPLACEMENT) or not text.startswith(before):
            return ""
        self._start, self._done = self._done, count
        piece = text[len(before) :]
        self._given += piece
        return piece

    def rest(self, whole: str) -> str:
        """What is still to be given out once `whole`, the decoding of all tokens, is known."""
        return whole[len(self._given) :] if whole.startswith(self._given) else ""


class TextStream:
    """Turns decode steps into Text events, few enough for a screen to follow.

    Args:
        request: the generation; one text for each of its candidates.
        decode, held: as for `StableText`.
        send: takes the events.
        clock: seconds that only grow.
        version: of the weights that sample.
    """

    def __init__(
        self,
        request: Generate,
        decode: Callable[[Sequence[int]], str],
        held: frozenset[int],
        send: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
        version: str = "",
    ) -> None:
        self._request = request.request
        self._send = send
        self._clock = clock
        self._version = version
        count = request.count * len(request.questions())
        self._texts = [StableText(decode, held) for _ in range(count)]
        self._next_at = [0.0] * count

    def push(self, token_ids: Sequence[int | None]) -> None:
        """Take one decode step: a token for each candidate, None for the finished ones."""
        now = self._clock()
        for candidate, token_id in enumerate(token_ids):
            if token_id is not None:
                self._texts[candidate].push(token_id)
            if now >= self._next_at[candidate] and self._say(candidate, self._texts[candidate].take()):
                self._next_at[candidate] = now + INTERVAL

    def end(self, candidate: int, whole: str) -> None:
        """Give out what is left of a candidate whose whole text is known."""
        self._say(candidate, self._texts[candidate].rest(whole))

    def _say(self, candidate: int, piece: str) -> bool:
        if piece:
            tokens = len(self._texts[candidate].token_ids)
            self._send(Text(self._request, candidate, piece, tokens, self._version))
        return bool(piece)


def byte_tokens(tokenizer: Any) -> frozenset[int]:
    """The tokens `<0x00>` to `<0xFF>` of a Hugging Face tokenizer with byte fallback; empty for all others."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    ids = tokenizer.convert_tokens_to_ids(names)
    return frozenset(
        token_id
        for token_id, name in zip(ids, names, strict=True)
        if token_id is not None and tokenizer.convert_ids_to_tokens(token_id) == name
    )
