"""The forms of a text: the one in which two prompts are the same, the one in which a prompt is searched, and the number
by which two answers are the same."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.records import Message


def text_key(text: str) -> str:
    """The form in which two prompts count as the same: NFC, outer white space removed."""
    return unicodedata.normalize("NFC", text).strip()


def prompt_key(text: str, earlier: Sequence[Message] = ()) -> str:
    """The form in which two prompts count as the same, system messages that they begin with aside: that of the text,
    or, where turns stand before it, that of all of them. It begins with white space then, as no form of a text does."""
    if not earlier:
        return text_key(text)
    said = [[message.role, text_key(message.content)] for message in earlier]
    return "\n" + json.dumps([*said, ["user", text_key(text)]], ensure_ascii=False)


def opening_key(text: str, earlier: Sequence[Message] = ()) -> str:
    """The key of the first words of the user. All conversations that open alike have one split: what one teaches may
    stand among the earlier turns of another."""
    said = (text_key(message.content) for message in earlier if message.role == "user")
    return next((key for key in said if key), text_key(text))


# Signs that are not seen: soft hyphens, joiners, marks of direction and of byte order.
_UNSEEN = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]+")


def folded(text: str) -> str:
    """The form in which two texts ask the same: neither case nor white space, the width or composition of letters nor
    signs that are not seen tell. The form of a form is the form itself."""
    plain = text if text.isascii() else _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    return " ".join(unicodedata.normalize("NFKC", plain.casefold()).split())


# What may be left out in writing: marks of Latin, Greek and Cyrillic letters, and those of vowels in Hebrew and Arabic,
# with the stroke that lengthens an Arabic word. In other scripts marks are vowels that are always written.
_LEFT_OUT = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]+")


def search_form(text: str) -> str:
    """The form in which a text is searched: neither case nor accents tell (`Évian` is found by `evian`), in any script.
    The form of a form is the form itself."""
    if text.isascii():
        return text.lower().strip()
    taken_apart = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKC", _LEFT_OUT.sub("", taken_apart)).strip()


def answer_number(text: str, version: str | None, token_ids: str | None) -> int:
    """The number of an answer to a prompt: the same for the same text of the same version and tokens; never 0.

    64 bits of a hash: among a million answers two that differ share one with a chance of 3 in 10^8.
    """
    whole = "\0".join((version or "", token_ids or "", text)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), signed=True) or 1
