"""The figures by their titles: a list at the side, a bar where there is less room, one line where there is little."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.events import Click
from textual.style import Style
from textual.widgets import Static

from workbench.shell.screen import packed, put
from workbench.text import one_line


class Chooser(Static, can_focus=True):
    """Titles, of which one is chosen; a click chooses as keys do."""

    def __init__(self) -> None:
        super().__init__(id="chooser", markup=False)
        self.titles: Sequence[str] = ()
        self.at = 0

    def show(self, titles: Sequence[str], at: int) -> None:
        self.titles, self.at = titles, at
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def on_focus(self) -> None:
        self._draw()

    def on_blur(self) -> None:
        self._draw()

    async def on_click(self, event: Click) -> None:
        call = event.style.meta.get("call")
        if call:
            await self.run_action(call)

    def _draw(self) -> None:
        if not self.titles:
            return
        cells = max(1, self.content_size.width)
        if self.screen.has_class("-short") or self.screen.has_class("-narrow"):
            place = f"{self.at + 1}/{len(self.titles)}"
            drawn = Content.assemble((f"{place} ", "$text-muted"), self._title(self.at, cells - len(place) - 1))
        elif self.screen.has_class("-wide"):
            drawn = Content("\n").join(self._title(place, cells) for place in range(len(self.titles)))
        else:
            drawn = packed([self._title(place, cells) for place in range(len(self.titles))], cells)
        put(self, drawn)

    def _title(self, place: int, cells: int) -> Content:
        chosen = place == self.at
        style = ("bold $foreground on $block-cursor-background" if self.has_focus else "bold") if chosen else ""
        click = Style.from_meta({"call": f"screen.show_figure({place})"})
        words = f"{'▸' if chosen else ' '} {one_line(self.titles[place], max(1, cells - 2))}"
        return Content.styled(words, Style.parse(style or "$text-muted") + click)
