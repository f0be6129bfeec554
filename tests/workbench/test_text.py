"""The boundary between stored text and the terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from textual.content import Content

from workbench.text import UNSAFE, cell, content, one_line, safe_text

HOSTILE = (
    "\x1b[31mred",
    "\x1b]52;c;aGVsbG8=\x07",
    "\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m and \x90 and \x9d",
    "\x7f\x00\x08\x0b\x0c\r",
    "\u202eevil\u202c \u2066iso\u2069 \u200e\u200f\u061c",
    "a\u2028b\u2029c",
    "\ud800 lone",
)


def test_no_control_or_bidi_character_survives():
    for text in HOSTILE:
        cleaned = safe_text(text)
        assert UNSAFE.search(cleaned) is None
        cleaned.encode("utf-8")
        assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in cleaned)


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_becomes_safe_and_stays_so(text: str):
    once = safe_text(text)
    assert UNSAFE.search(once) is None
    assert safe_text(once) == once


def test_what_was_removed_can_be_seen():
    assert safe_text("\x1b[2J") == "␛[2J"
    assert safe_text("\x9b") == "‹9B›"
    assert safe_text("\u202e") == "‹RLO›"
    assert safe_text("\x7f") == "␡"


def test_newlines_tabs_and_joiners_stay():
    text = "one\n\ttwo क्‍ष نمی‌دانم 👩‍👩‍👧"
    assert safe_text(text) == text
    assert safe_text("a\r\nb") == "a\nb"


def test_a_sequence_split_across_pieces_is_as_harmless_as_a_whole_one():
    whole = "\x1b]52;c;aGk=\x07"
    for cut in range(len(whole)):
        assert safe_text(whole[:cut]) + safe_text(whole[cut:]) == safe_text(whole)


def test_scripts_are_left_alone():
    for text in ("¿Por qué?", "为什么?", "كيف حالك؟", "नमस्ते", "お元気ですか", "Habari za asubuhi"):
        assert safe_text(text) == text


def test_markup_in_text_is_never_read():
    for text in ("[/INST] [bold]x[/]", "[", "]", "\\[", "[@click=app.quit]quit[/]", "[red", "$accent [$accent]"):
        assert content(text).plain == text
        assert content(text).spans == [] or not content(text).markup.startswith("[bold]")
        assert cell(text).plain == text
    assert isinstance(content("[x]", "bold"), Content)


def test_one_line_folds_and_cuts():
    assert one_line("a\n b\t c") == "a b c"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"
    assert one_line("\x1b\n\x1b") == "␛ ␛"
