"""A version's verdict in full: what the gate found, and held-out answers before and after beside each other."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from storage.records import Version
from workbench.screens.versions.detail import detail
from workbench.text import content, one_line
from workbench.training import verdict
from workbench.widgets.dialogs import SheetDialog


class AnswersSheet(SheetDialog):
    """The figures, then each prompt with both answers; below 80 columns they stand under each other."""

    CSS_PATH = "style.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-medium"), (100, "-wide")]  # noqa: RUF012

    def __init__(self, version: Version) -> None:
        super().__init__(f"{version.name}: held-out answers before and after")
        self.version = version

    def page(self) -> ComposeResult:
        yield Static(detail(self.version), classes="verdict")
        kept = verdict.answers(self.version.metrics)
        if not kept:
            yield Static(Content.styled("No answers were kept with this version.", "$text-muted"), classes="asked")
        for answered in kept:
            language = one_line(answered.language, 12) or "-"
            prompt = content(answered.prompt)
            yield Static(Content.assemble((f"{language} ▸ ", "bold $accent"), prompt), classes="asked")
            with Horizontal(classes="pair"):
                yield _said("before", self.version.parent or "", answered.before)
                yield _said("after", self.version.name, answered.after)


def _said(when: str, version: str, said: verdict.Said) -> Static:
    """An answer in a frame that says whose it is and what it measures."""
    text = content(said.text) if said.text.strip() else Content.styled("(nothing)", "$text-muted")
    box = Static(Content("\n").join([Content.styled(said.figures, "$text-muted"), text]), classes="said")
    box.border_title = Content.assemble(when, (f" {one_line(version, 12)}", "$text-muted"))
    return box
