"""Text that is safe to show: escape sequences, other control characters and bidirectional overrides become signs.

What is stored stays raw; this is for drawing, on a terminal or in a line of an error.
"""

from __future__ import annotations

import re

_BIDI = {
    "\u061c": "ALM", "\u200e": "LRM", "\u200f": "RLM", "\u202a": "LRE", "\u202b": "RLE", "\u202c": "PDF",
    "\u202d": "LRO", "\u202e": "RLO", "\u2066": "LRI", "\u2067": "RLI", "\u2068": "FSI", "\u2069": "PDI",
}  # fmt: skip
_KEPT = "\n\t"


def _signs() -> dict[int, str]:
    """One visible sign for each character that must not reach a terminal."""
    table = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in _KEPT}
    table[0x7F] = "␡"
    table.update({code: f"‹{code:02X}›" for code in range(0x80, 0xA0)})
    table.update({ord(sign): f"‹{name}›" for sign, name in _BIDI.items()})
    table.update({0x2028: "␤", 0x2029: "␤"})
    return table


_SIGNS = _signs()
_SURROGATES = re.compile("[\ud800-\udfff]")
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f" + "".join(_BIDI) + "\u2028\u2029\ud800-\udfff]")
"""Matches any character that `safe_text` replaces."""


def safe_text(text: str) -> str:
    """The text with C0, C1, DEL, bidi controls and lone surrogates made visible.

    Newline, tab, and the joiners that scripts and emoji need (ZWJ, ZWNJ) stay. A pasted `\\r\\n` counts as one newline.
    Works character by character, so a sequence split across streamed pieces is as harmless as a whole one.
    """
    if UNSAFE.search(text) is None:
        return text
    return without_surrogates(text.replace("\r\n", "\n").translate(_SIGNS))


def without_surrogates(text: str) -> str:
    """The text as it can be stored and sent: what stands for bytes that are no UTF-8 (of a file's name, of the
    environment) becomes U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def one_line(text: str, limit: int = 200) -> str:
    """Safe text on one line, white space folded, cut with an ellipsis at `limit` cells of a terminal."""
    return fitted(" ".join(safe_text(text[: 16 * limit]).split()), limit)


def width(text: str) -> int:
    """How many cells of a terminal a text of one line takes, as the app's widgets measure it."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fitted(text: str, cells: int) -> str:
    """The text, or as much of it as fits before an ellipsis; no grapheme cluster (UAX 29) is cut in two."""
    if len(text) <= cells and text.isascii():
        return text
    if width(text) <= cells:
        return text
    from wcwidth import iter_graphemes

    kept, room = "", cells - 1
    for cluster in iter_graphemes(text):
        if width(kept + cluster) > room:
            break
        kept += cluster
    return f"{kept}…"
