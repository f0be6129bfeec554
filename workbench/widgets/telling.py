"""Telling what came of an answer: whether it worked, how well, and why."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Static, TextArea

from storage.feedback import outcome
from storage.feedback.guidelines import Scale
from storage.feedback.outcome import FAILED, UNCLEAR, WORKED, Outcome
from workbench.text import content
from workbench.widgets.dialogs import ChoiceInput, TextDialog
from workbench.widgets.editor import SafeTextArea


def written(told: Outcome) -> str:
    """An outcome as the text that is kept while it is half written."""
    return msgspec.json.encode(told).decode()


def read(text: str, scale: Scale) -> Outcome:
    """What :func:`written` wrote; any other text is a reason."""
    try:
        return msgspec.json.decode(text, type=Outcome)
    except msgspec.DecodeError:
        return Outcome(reason=text, scale=(float(scale.low), float(scale.high)))


class OutcomeDialog(TextDialog):
    """The reason to write, and above it two fields: whether it worked, and a score on the scale that is set.

    What it gives is the text of an outcome (:func:`written`).
    """

    AUTO_FOCUS = "TextArea"

    def __init__(
        self,
        title: str,
        text: str,
        scale: Scale,
        *,
        hint: str = "",
        changed: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.told = read(text, scale)
        super().__init__(title, self.told.reason, hint=hint, changed=changed)

    def fields(self) -> ComposeResult:
        if self.hint:
            yield Static(content(self.hint), id="hint")
        low, high = self.told.scale
        score = "" if self.told.score is None else f"{self.told.score:g}"
        for name, value, choices, aside in (
            ("worked", self.told.verdict, (WORKED, FAILED, UNCLEAR), "or neither"),
            ("score", score, (), f"{low:g} to {high:g}, or none"),
        ):
            with Horizontal(classes="field"):
                yield Static(Content.styled(name, "bold"), classes="label")
                yield ChoiceInput(value, choices, id=f"told-{name}")
                arrows = Content.styled("↑↓ " if choices else "", "bold $accent")
                yield Static(Content.assemble(arrows, (aside, "$text-muted")), classes="aside")
        area = SafeTextArea(self.text, classes="short", placeholder="why, in words; above: shift+tab")
        area.move_cursor(area.document.end)
        yield area

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        self._heard()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._heard()

    def on_input_submitted(self) -> None:
        self.action_accept()

    def _heard(self) -> None:
        self.complain("")
        told, fault = self._typed()
        if not fault:
            self.changed(written(told))

    def _typed(self) -> tuple[Outcome, str]:
        """What is typed, and what is wrong with it."""
        verdict, number = (self.query_one(f"#told-{name}", Input).value.strip() for name in ("worked", "score"))
        told = msgspec.structs.replace(
            self.told,
            worked=outcome.VERDICTS.get(verdict.lower()),
            reason=self.query_one(SafeTextArea).text,
            score=None,
        )
        if verdict and verdict.lower() not in outcome.VERDICTS:
            return told, f"worked: want {WORKED}, {FAILED} or nothing, not {verdict}"
        try:
            return msgspec.structs.replace(told, score=float(number) if number else None), ""
        except ValueError:
            return told, f"score: want a number, not {number}"

    def action_accept(self) -> None:
        told, fault = self._typed()
        if not fault and (fault := outcome.wrong(told)).startswith("must say"):
            fault = "say whether it worked, why, or how well"
        if fault:
            self.complain(fault)
        else:
            self.dismiss(written(told))
