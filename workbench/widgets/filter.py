"""What every drawn line passes last, whichever widget drew it: no control character, and nothing too faint to read."""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.constants import DIM_FACTOR
from textual.filter import LineFilter

from workbench.text import UNSAFE

LEAST_CONTRAST = 4.5  # of text to what is behind it; WCAG 2.2, success criterion 1.4.3
_NOT_DIM = Style(dim=False)
_STEPS = 32  # of the way from a colour to black or white


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


class ContrastFilter(LineFilter):
    """Lifts what is too faint on its background to `LEAST_CONTRAST`, and leaves every other colour as the theme has it.

    Themes are made by many hands, and a muted text that reads well on one surface is lost on the next.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment
            if segment.style is None or segment.control or segment.text.isspace()
            else Segment(segment.text, readable(segment.style, background))
            for segment in segments
        ]


@lru_cache(4096)
def readable(style: Style, background: Color) -> Style:
    """The style with a colour of at least `LEAST_CONTRAST`; the terminal's own colours, which nobody knows, stay.

    `background` is what lies behind where the style has no background. Dim is drawn as a colour, which terminals
    differ in, and a text without a colour gets one, as the terminal's may be that of the background.
    """
    if style.bgcolor is not None and style.bgcolor.triplet is None:
        return style
    behind = background if style.bgcolor is None else Color.from_rich_color(style.bgcolor)
    if behind.ansi is not None or (style.color is not None and style.color.triplet is None):
        return style
    color = behind.get_contrast_text(1.0) if style.color is None else Color.from_rich_color(style.color)
    if style.dim:
        color = behind.blend(color, DIM_FACTOR)
    lifted = lift(color, behind)
    return style + Style.from_color(color=lifted.rich_color) + (_NOT_DIM if style.dim else Style.null())


def lift(color: Color, behind: Color) -> Color:
    """The colour, moved as little as is needed towards black or white, whichever is farther from what is `behind`."""
    end = max((Color(0, 0, 0), Color(255, 255, 255)), key=lambda one: contrast(one, behind))
    steps = (color.blend(end, step / _STEPS) for step in range(_STEPS))
    return next((one for one in steps if contrast(one, behind) >= LEAST_CONTRAST), end)


def contrast(one: Color, other: Color) -> float:
    """The contrast ratio of two colours, from 1 to 21, as WCAG 2.2 defines it."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: Color) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color.normalized]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
