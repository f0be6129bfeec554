"""What can be done on Insight: choose a figure, read its table, save it, and go to the version of a row."""

from __future__ import annotations

from workbench.shell.action import Action, on

SCREEN = "insight"

ACTIONS: tuple[Action, ...] = (
    on(SCREEN, "next", "down j", "figure", "Go to the next figure", when="figures", call="choose(1)"),
    on(SCREEN, "previous", "up k", "figure", "Go to the figure before", when="figures", call="choose(-1)"),
    on(SCREEN, "table", "enter", "open", "Read the table of the figure, large"),
    on(SCREEN, "write", "E", "export", "Write the figure as SVG and PNG, and its points as CSV, into the workspace's "
       "exports, beside what is there"),
    on(SCREEN, "version", "V", "version", "Go to the version of the row in focus"),
    on(SCREEN, "columns-left", "left h", "columns", "Scroll to the columns on the left", call="columns(-1)",
       short="more"),
    on(SCREEN, "columns-right", "right l", "columns", "Scroll to the columns on the right", call="columns(1)",
       short="more"),
)  # fmt: skip
