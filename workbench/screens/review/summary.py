"""How a session of judging went, on a sheet: opened at any time, and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from storage.feedback.progress import Progress
from storage.wording import counted
from workbench.screens.review.drawing import standing
from workbench.text import one_line
from workbench.training.curves import bar
from workbench.widgets.dialogs import Dialog

_WIDTH = 60


class SessionSheet(Dialog[bool]):
    """Counts by kind and language, the pace, and what was taken back. `n` ends the session and begins another."""

    CAN: ClassVar = frozenset[str]()
    BINDINGS: ClassVar = [("enter", "cancel", "go on"), ("S", "cancel", "go on"), ("n", "anew", "new session")]

    def __init__(self, found: Progress, goal: int, shares: Mapping[str, float]) -> None:
        super().__init__("This session")
        self.found, self.goal, self.shares = found, goal, shares

    def fields(self) -> ComposeResult:
        yield Static(summary(self.found, self.goal, self.shares), id="summary")
        keys = (("enter", "go on"), ("n", "end it, and begin another"))
        yield Static(Content("   ").join(Content.assemble((key, "bold $accent"), f" {said}") for key, said in keys))

    def action_anew(self) -> None:
        self.dismiss(True)


def summary(found: Progress, goal: int, shares: Mapping[str, float]) -> Content:
    """What a session came to, as lines."""
    of = f" of {goal}{', the goal' if found.items < goal else ': the goal is reached ✓'}" if goal else ""
    items = counted(found.items, "item") + of
    items += f" · {found.passed_over} passed over" if found.passed_over else ""
    pace = "" if found.pace is None else f" · {found.seconds / 60:.0f} min · {found.pace:.1f} s an item of late"
    lines = [Content.assemble((items, "bold"), (pace, "$text-muted"))]
    most = max(found.kinds.values(), default=0)
    lines += [_counted(name, n, most) for name, n in found.kinds.items()]
    lines.append(Content(""))
    if shares:
        lines.append(standing([], shares, found, _WIDTH))
    else:
        most = max(found.languages.values(), default=0)
        lines += [_counted(name, n, most) for name, n in found.languages.items()]
    lines.append(Content.styled(f"taken back {found.taken_back}×", "$text-muted"))
    return Content("\n").join(lines)


def _counted(name: str, n: int, most: int) -> Content:
    return Content.assemble((f"{one_line(name, 14):<15}", "$text-muted"), (bar(n, most, 12), "$primary"), f" {n}")
