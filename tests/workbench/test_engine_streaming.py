"""Streamed text: whole characters only, nothing taken back, and together exactly the final text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import CORPUS

from trainer.policy.chat import ChatTokenizer
from workbench.engine.protocol import Generate
from workbench.engine.streaming import INTERVAL, StableText, TextStream, byte_tokens

PIECES = (
    "👩‍👩‍👧‍👦 family, 🇰🇪 flag, é and e\u0301",
    "क्षत्रिय संस्कृति",
    "text\nwith\ttabs  and   spaces ",
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model)


@pytest.fixture(scope="module")
def fallback_tokenizer():
    """A tokenizer in the manner of Gemma: unknown characters come as single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "é", "▁a"]
    vocabulary = {name: number for number, name in enumerate(names)}
    inner = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def stream(decode, token_ids, held=frozenset()) -> tuple[list[str], str]:
    """The pieces of a stream that is asked after each token, and the decoding of the whole."""
    text, pieces = StableText(decode, held), []
    for token_id in token_ids:
        text.push(token_id)
        pieces.append(text.take())
    whole = decode(list(token_ids))
    return [*pieces, text.rest(whole)], whole


@pytest.mark.parametrize("text", CORPUS + PIECES)
def test_pieces_are_whole_characters_and_add_up_to_the_text(tokenizer, text):
    pieces, whole = stream(tokenizer.decode, tokenizer.encode_response(text))
    assert whole == text
    assert "".join(pieces) == whole
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert sum(map(bool, pieces)) > 2, "the text came in one piece: nothing was streamed"


@settings(max_examples=300, deadline=None)
@given(token_ids=st.lists(st.integers(0, 383), max_size=40))
def test_any_tokens_at_all_add_up_to_their_text(tokenizer, token_ids):
    pieces, whole = stream(tokenizer.decode, token_ids)
    assert "".join(pieces) == whole


@settings(max_examples=300, deadline=None)
@given(token_ids=st.lists(st.integers(1, 261), max_size=30))
def test_any_tokens_add_up_with_byte_fallback_too(fallback_tokenizer, token_ids):
    def decode(ids):
        return fallback_tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    pieces, whole = stream(decode, token_ids, byte_tokens(fallback_tokenizer))
    assert "".join(pieces) == whole


def test_only_tokenizers_with_byte_fallback_hold_bytes_back(tokenizer, fallback_tokenizer):
    assert byte_tokens(tokenizer.tokenizer) == frozenset()
    assert byte_tokens(fallback_tokenizer) == frozenset(range(1, 257))


def test_asking_rarely_gives_the_same_text(tokenizer):
    chance = random.Random(4)
    for text in CORPUS:
        growing, given_out = StableText(tokenizer.decode), ""
        for token_id in tokenizer.encode_response(text):
            growing.push(token_id)
            if chance.random() < 0.3:
                given_out += growing.take()
            assert text.startswith(given_out)
        assert given_out + growing.rest(text) == text


def test_a_candidate_speaks_at_most_25_times_a_second_and_its_last_words_are_not_lost(tokenizer):
    now, events = 0.0, []
    ids = tokenizer.encode_response(CORPUS[0])
    texts = TextStream(Generate("r", "p", count=2), tokenizer.decode, frozenset(), events.append, lambda: now)
    for token_id in ids:
        texts.push([token_id, None])
        now += 0.005
    whole = tokenizer.decode(ids)
    streamed = len(events)
    assert 1 < streamed <= 1 + now / INTERVAL
    texts.end(0, whole)
    assert "".join(event.text for event in events) == whole
    assert {event.candidate for event in events} == {0}
    assert events[-1].tokens == len(ids)
