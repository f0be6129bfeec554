"""A table of rows, wider than the terminal where it has to be: its first columns stay, the others scroll sideways."""

from __future__ import annotations

from itertools import accumulate

from rich.text import Text
from textual.widgets import DataTable
from textual.widgets._data_table import RowRenderables

from workbench.shell.bidi import turned_text


class RowTable(DataTable[Text], inherit_bindings=False):
    """One row is in focus; Enter and sideways keys are left to the screen."""

    BINDINGS = [  # noqa: RUF012
        ("up,k", "cursor_up", "up"), ("down,j", "cursor_down", "down"), ("pageup", "page_up", "page up"),
        ("pagedown", "page_down", "page down"), ("home", "scroll_top", "first"), ("end", "scroll_bottom", "last"),
    ]  # fmt: skip

    def _compute_row_renderables(self, row_index: int) -> RowRenderables:
        label, cells = super()._compute_row_renderables(row_index)
        return RowRenderables(label, [turned_text(one) if isinstance(one, Text) else one for one in cells])

    @property
    def is_cut(self) -> bool:
        """Whether some columns are out of sight."""
        return self.max_scroll_x > 0

    def scroll_columns(self, by: int) -> None:
        """Scroll sideways so that another whole column comes first after those that stay."""
        widths = [column.get_render_width(self) for column in self.ordered_columns[self.fixed_columns :]]
        starts = [0, *accumulate(widths)]
        at = round(self.scroll_x)
        before = [start for start in starts if start < at]
        after = [start for start in starts if start > at]
        wanted = after[by - 1 :] if by > 0 else before[by:]
        if wanted:
            self.scroll_to(x=wanted[0], animate=False)
