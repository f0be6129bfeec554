"""The last line of defence: nothing that is drawn carries a control character, whichever widget drew it."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from workbench.text import UNSAFE


class SafeFilter(LineFilter):
    """Drops unsafe characters from rendered lines. They are zero cells wide, so that nothing moves.

    Widgets show them as signs by `workbench.text.safe_text`; this filter stands behind that, for a widget that forgot.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(UNSAFE.sub("", segment.text), segment.style, segment.control)
            if UNSAFE.search(segment.text)
            else segment
            for segment in segments
        ]
