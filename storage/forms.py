"""The forms of a text: the one in which two prompts are the same, and the one in which a prompt is searched."""

from __future__ import annotations

import unicodedata


def text_key(text: str) -> str:
    """The form in which two prompts count as the same: NFC, outer white space removed."""
    return unicodedata.normalize("NFC", text).strip()


def search_form(text: str) -> str:
    """The form in which a text is searched: neither case nor accents tell (`Évian` is found by `evian`), in any script.

    Only marks of Latin, Greek and Cyrillic letters (U+0300 to U+036F) are left out: in other scripts marks are vowels.
    """
    taken_apart = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(sign for sign in taken_apart if not "\u0300" <= sign <= "\u036f")
    return unicodedata.normalize("NFKC", bare).strip()
