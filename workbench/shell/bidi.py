"""Texts in scripts that run from right to left, laid out for terminals that do not turn them themselves.

Where a character stands is the Unicode Bidirectional Algorithm's to say (UAX 9), by the library `python-bidi`. It is
asked about a whole paragraph, and each line of it is turned by itself, as rule L2 wants. What is stored, edited, copied
and searched stays in the order in which it is read; only what is drawn is turned. A paragraph begins on the side that
its first strong letter asks for, and one that runs from right to left stands at the right.

Textual draws nearly all texts by `Content.render_strips`; :func:`install` puts ours in its place, so that no widget
needs to know. Editors and tables ask for :func:`standing` themselves.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from bidi import get_base_level, get_display
from bidi.mirror import MIRRORED
from rich.cells import cell_len, split_graphemes
from rich.segment import Segment
from rich.text import Text
from textual._context import active_app
from textual.content import Content, _FormattedLine
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions

from storage.signs import fitted

CELLS_STAY, CELLS_TURN = "\x1b[8l", "\x1b[8h"
"""To the terminal: leave each cell where it was written, or turn lines as you do (BDSM, mode 8 of ECMA-48)."""

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]")
_BEFORE_A_TEXT = "▸ "  # what the app says before a text ends so, and the text begins on a side of its own
_ISOLATE, _END_OF_ISOLATE = "\u2068", "\u2069"
# Eight characters of each class of the algorithm; what has another one counts as white space or as a sign.
_EIGHT_OF = {
    "L": "abcdefgh", "R": "אבגדהוזח", "AL": "بتثجحخدذ", "EN": "01234567", "AN": "٠١٢٣٤٥٦٧", "ES": "+-⁺⁻₊₋﬩﹢",
    "ET": "#$%¢£¤¥°", "CS": ",./:\xa0،\u202f⁄", "BN": "\xad\u200b\u200c\u200d\u2060\u2061\u2062\u2063",
    "NSM": "".join(map(chr, range(0x300, 0x308))), "WS": " \u1680\u2000\u2001\u2002\u2003\u2004\u2005",
    "ON": "!\"&'*;=?",
}  # fmt: skip
_EIGHT_OF |= dict.fromkeys(("S", "B"), _EIGHT_OF["WS"])
_MARKS = "".join(map(chr, range(0x308, 0x310)))  # eight more of class NSM
_DIGITS = {sign: digit for eight in (*_EIGHT_OF.values(), _MARKS) for digit, sign in enumerate(eight)}


def terminal_turns() -> bool:
    """Whether this terminal is one that turns texts, and does not let the app turn that off."""
    return (
        "KONSOLE_VERSION" in os.environ
        or os.environ.get("TERM_PROGRAM") == "Apple_Terminal"
        or os.environ.get("TERM", "").startswith("mlterm")
    )


def app_turns(mode: str) -> bool:
    """Whether the app turns, by the setting `bidi`."""
    return mode == "app" or (mode == "auto" and not terminal_turns())


def turning() -> bool:
    """Whether the app that is drawing turns texts."""
    app = active_app.get(None)
    return app is not None and getattr(app, "turns_texts", False)


def runs_both_ways(text: str) -> bool:
    """Whether anything in it runs from right to left."""
    return _RIGHT_TO_LEFT.search(text) is not None


@dataclass(frozen=True)
class Paragraph:
    """How a text without line breaks stands as one line: character n is the `places[n]`-th from the left, and drawn as
    `shown[n]`, a bracket the other way round where it needs that."""

    text: str
    from_right: bool
    places: tuple[int, ...]
    shown: str


@lru_cache(2048)
def paragraph(text: str) -> Paragraph:
    """Lay out a text.

    The library tells the order of the characters, but not which is which. So it is asked once for each octal digit of
    their numbers, with one of eight characters of its class in place of each. Brackets stay, as they have to match: a
    combining mark behind each, which stands on the side where its bracket ends, has the digit.
    """
    pieces = [_replacements(character) for character in text]
    from_right = bool(get_base_level("".join(piece[0] for piece in pieces)))
    before = text.find(_BEFORE_A_TEXT) + len(_BEFORE_A_TEXT) if _BEFORE_A_TEXT in text else len(text)

    def displayed(shift: int) -> str:
        asked = [piece[number >> shift & 7] for number, piece in enumerate(pieces)]
        asked[before:before] = _ISOLATE
        shown = get_display("".join(asked) + _END_OF_ISOLATE, base_dir="R" if from_right else "L")
        return shown.replace(_ISOLATE, "").replace(_END_OF_ISOLATE, "")

    digits = [displayed(shift) for shift in range(0, max(1, (len(text) - 1).bit_length()), 3)]
    places, shown, place = [0] * len(text), list(text), 0
    bracket = mark = False  # one of them has come, and the other is next
    for signs in zip(*digits, strict=True):
        if signs[0] in MIRRORED:  # its mark tells which one it is
            bracket, mark = not mark, False
            continue
        number = sum(_DIGITS[sign] << 3 * n for n, sign in enumerate(signs))
        places[number], place = place, place + 1
        if signs[0] in _MARKS:
            if not bracket:  # the mark stands before it: it runs from right to left
                shown[number] = MIRRORED[text[number]]
            bracket, mark = False, not bracket
    return Paragraph(text, from_right, tuple(places), "".join(shown))


@lru_cache(4096)
def _replacements(character: str) -> list[str]:
    """What stands for a character, by an octal digit of its number."""
    if character in MIRRORED:
        return [character + mark for mark in _MARKS]
    return list(_EIGHT_OF.get(unicodedata.bidirectional(character) or "L", _EIGHT_OF["ON"]))


class Piece(NamedTuple):
    """A grapheme of a line: where it starts and ends there, and what is drawn."""

    start: int
    end: int
    shown: str


def standing(line: str, of: Paragraph, offset: int = 0) -> list[Piece]:
    """The graphemes of a line, from left to right.

    `offset` is where it begins in its paragraph. What is more than the paragraph's text (an ellipsis, padding) stands
    behind the line, and so does white space at its end (rule L1).
    """
    inside: list[tuple[int, Piece]] = []
    behind: list[Piece] = []
    written = len(line.rstrip())
    for start, end, _ in split_graphemes(line)[0]:
        at = offset + start
        if start < written and of.text[at : at + 1] == line[start]:
            inside.append((of.places[at], Piece(start, end, of.shown[at] + line[start + 1 : end])))
        else:
            behind.append(Piece(start, end, line[start:end]))
    turned = [piece for _, piece in sorted(inside)]
    return [*reversed(behind), *turned] if of.from_right else [*turned, *behind]


def runs(pieces: list[Piece], breaks: frozenset[int] = frozenset()) -> Iterator[Piece]:
    """Neighbours that are neighbours in the line as well, as one; none goes on at an index in `breaks`."""
    run: Piece | None = None
    for piece in pieces:
        if run is not None and piece.start == run.end and piece.start not in breaks:
            run = Piece(run.start, piece.end, run.shown + piece.shown)
        else:
            if run is not None:
                yield run
            run = piece
    if run is not None:
        yield run


def place_of(pieces: list[Piece], index: int) -> int:
    """How many cells stand to the left of the character at an index of the line."""
    left = 0
    for piece in pieces:
        if piece.start <= index < piece.end:
            break
        left += cell_len(piece.shown)
    return left


def index_at(pieces: list[Piece], cell: int) -> int:
    """The index in the line of what stands in a cell; of the last one, past them."""
    for piece in pieces:
        cell -= cell_len(piece.shown)
        if cell < 0:
            return piece.start
    return pieces[-1].start if pieces else 0


def turned(strip: Strip, of: Paragraph, offset: int = 0) -> Strip:
    """A drawn line of a paragraph, turned, each character with its style."""
    line = strip.text
    pieces = standing(line, of, offset)
    starts: list[tuple[int, Segment]] = []
    at = 0
    for segment in strip:
        starts.append((at, segment))
        at += len(segment.text)
    segments = []
    for run in runs(pieces, frozenset(start for start, _ in starts)):
        style = next(segment.style for start, segment in reversed(starts) if start <= run.start)
        segments.append(Segment(run.shown, style))
    return Strip(segments, strip.cell_length)


def turned_text(text: Text, of: Paragraph | None = None, offset: int = 0) -> Text:
    """A line for a table or a drawing of Rich's, turned, each character with its style; what needs no turning is given
    back. It is a paragraph, or begins at `offset` in one."""
    if not (turning() and runs_both_ways(text.plain if of is None else of.text)):
        return text
    result = Text(style=text.style, no_wrap=text.no_wrap, overflow=text.overflow, end=text.end)
    for piece in standing(text.plain, of or paragraph(text.plain), offset):
        part = text[piece.start : piece.end]
        part.plain = piece.shown
        result.append_text(part)
    return result


_untouched = Content.render_strips


def _render_strips(self: Content, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
    """Textual's way, with the lines of paragraphs that run both ways turned."""
    if not (width and turning() and runs_both_ways(self.plain)):
        return _untouched(self, width, height, style, options)
    rule: Any = options.rules.get
    lines = self._wrap_and_format(
        width, align=rule("text_align", "left"), overflow=rule("text_overflow", "fold"),
        no_wrap=rule("text_wrap", "wrap") == "nowrap", line_pad=rule("line_pad", 0), tab_size=8,
        selection=options.selection, selection_style=options.selection_style, post_style=options.post_style,
        get_style=options.get_style,
    )  # fmt: skip
    paragraphs = [one.expand_tabs(8).plain for one in self.split(allow_blank=True)]
    shown = lines if height is None else lines[:height]
    return [_drawn(line, paragraphs[line.y], rule("line_pad", 0), style) for line in shown]


def _drawn(line: _FormattedLine, text: str, pad: int, style: Style) -> Strip:
    if not runs_both_ways(text):
        return Strip(*line.to_strip(style))
    of = paragraph(text)
    room = line.width - line.content.cell_length
    left = {"center": room // 2, "right": room, "end": room}.get(line.align, room if of.from_right else 0)
    pieces = standing(line.plain[pad:], of, line.x)
    segments = [Segment(" " * (left + pad), style.background_style.rich_style)] if left + pad > 0 else []
    parts: list[tuple[int, str, Style]] = []
    at = -pad
    for words, look in line.content.render(style, end="", parse_style=line.get_style):
        parts.append((at, words, style + look))
        at += len(words)
    for run in runs(pieces, frozenset(start for start, _, _ in parts)):
        look = next(look for start, _, look in reversed(parts) if start <= run.start)
        segments.append(Segment(run.shown, look.rich_style_with_offset(line.x + run.start, line.y)))
    right = room - left if line.align == "center" else 0
    if right > 0:
        segments.append(Segment(" " * right, style.background_style.rich_style))
    return Strip(segments)


_cut = Content.truncate


def _truncate(self: Content, max_width: int, *, ellipsis: bool = False, pad: bool = False) -> Content:
    """Textual's way, which takes the two halves of a flag for two signs: no grapheme cluster is cut in two."""
    if ellipsis and not self.plain.isascii() and self.cell_length > max_width > 1:
        kept = fitted(self.plain, max_width)[:-1]
        cut = self[: len(kept)] + "…"
        return cut.pad_right(max_width - cut.cell_length) if pad else cut
    return _cut(self, max_width, ellipsis=ellipsis, pad=pad)


def install() -> None:
    """From now on, texts of an app that turns them are drawn turned, and none is cut within a grapheme cluster."""
    Content.render_strips = _render_strips  # type: ignore[method-assign]
    Content.truncate = _truncate  # type: ignore[method-assign]
