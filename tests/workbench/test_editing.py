"""What an edit changes, as it is shown before it is accepted."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.widgets.editing import UNCHANGED, difference

WORDS = st.lists(st.sampled_from(["ice", "snow", "氷", "雪", "الجليد", "बर्फ", "\n", " ", "  "]), max_size=12).map(
    "".join
)


def shown(before: str, after: str) -> str:
    return difference(before, after).plain


def test_what_goes_and_what_comes_stand_in_their_places() -> None:
    assert shown("ice is cold", "ice is warm") == "ice is [-cold-]{+warm+}"
    assert shown("氷は水です", "氷は固い水です") == "氷は{+固い+}水です"
    assert shown("same", "same") == "nothing is changed yet"
    long = "word " * 100
    assert len(shown(long + "cold", long + "warm")) < 2 * UNCHANGED + 30
    assert "\x1b" not in shown("a", "a\x1b[2J")


@settings(max_examples=60, deadline=None)
@given(before=WORDS, after=WORDS)
def test_both_texts_can_be_read_from_the_difference(before: str, after: str) -> None:
    if before == after or max(len(before), len(after)) > UNCHANGED:
        return
    told = shown(before, after)
    without = re.sub(r"\{\+.*?\+\}", "", told, flags=re.DOTALL)
    assert re.sub(r"\[-(.*?)-\]", r"\1", without, flags=re.DOTALL) == before
    with_ = re.sub(r"\[-.*?-\]", "", told, flags=re.DOTALL)
    assert re.sub(r"\{\+(.*?)\+\}", r"\1", with_, flags=re.DOTALL) == after
