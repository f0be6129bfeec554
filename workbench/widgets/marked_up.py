"""A text as the Markdown that it may be, with what runs from right to left turned line by line."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.console import Console
from rich.containers import Lines
from rich.markdown import Heading, Markdown, MarkdownContext, Paragraph, TableDataElement
from rich.text import Text

from storage.signs import safe_text
from workbench.shell import bidi


class Turned(Text):
    """A text that is turned when it is wrapped: only then is it known what stands on which line."""

    def wrap(self, console: Console, width: int, **options: Any) -> Lines:
        if not (bidi.turning() and bidi.runs_both_ways(self.plain)):
            return super().wrap(console, width, **options)
        centred = (options.pop("justify", None) or self.justify) == "center"
        lines = Lines()
        for part in self.split(allow_blank=True):
            part.expand_tabs(8)
            of, at = bidi.paragraph(part.plain), 0
            for line in Text.wrap(part, console, width, justify="default", **options):
                at = part.plain.index(line.plain, at)
                turned = bidi.turned_text(line, of, at)
                room = width - turned.cell_len
                turned.pad_left(room // 2 if centred else room if of.from_right else 0)
                lines.append(turned)
                at += len(line)
        return lines

    def copy(self) -> Turned:
        copy = Turned(self.plain, self.style, justify=self.justify, overflow=self.overflow, end=self.end)
        copy.spans[:] = self.spans
        return copy


class _Paragraph(Paragraph):
    def on_enter(self, context: MarkdownContext) -> None:
        self.style = context.enter_style(self.style_name)
        self.text = Turned(justify="left")


class _Heading(Heading):
    def on_enter(self, context: MarkdownContext) -> None:
        self.style = context.enter_style(self.style_name)
        self.text = Turned()


class _Cell(TableDataElement):
    def __init__(self, justify: Any) -> None:
        super().__init__(justify)
        self.content = Turned("", justify=justify)


class MarkedUp(Markdown):
    """One drawing, whatever is in the text, and nothing that a click would open."""

    elements: ClassVar = Markdown.elements | {
        "paragraph_open": _Paragraph, "heading_open": _Heading, "td_open": _Cell, "th_open": _Cell,
    }  # fmt: skip

    def __init__(self, text: str) -> None:
        super().__init__(safe_text(text), hyperlinks=False)
