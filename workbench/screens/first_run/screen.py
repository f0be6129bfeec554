"""The first minutes: what is being prepared, and what there is to do. Any time, it can be closed to look around."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import ProgressBar, Static

from workbench.engine.status import EngineStatus
from workbench.screens import PLACES
from workbench.shell import models
from workbench.shell.actions import spoken
from workbench.shell.screen import HEIGHTS, WIDTHS
from workbench.text import from_home, one_line

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp

_STAGES = ("starting", "converting", "loading", "ready")
_STEPS = (
    ("starting", "start the engine, a process of its own"),
    ("converting", "read the model, or convert it once"),
    ("loading", "load the weights"),
)


class FirstRunScreen(ModalScreen[None]):
    """Shown over the app in a new workspace."""

    CSS_PATH = "style.tcss"
    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS
    BINDINGS: ClassVar = [("escape,enter,space", "close", "look around"), ("m", "multilingual", "more languages")]

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="first-run"):
            yield Static(id="place", markup=False)
            yield Static(id="steps", markup=False)
            yield ProgressBar(total=1.0, show_eta=False)
            yield Static(id="detail", markup=False)
            yield Static(_loop(cast("WorkbenchApp", self.app).keys), id="loop")
            yield Static(id="more-languages")
            yield Static(
                Content.assemble(("enter", "bold $accent"), (" look around meanwhile", "$text-muted")), id="answer"
            )

    def on_mount(self) -> None:
        self.query_one("#dialog").border_title = Content("A new workspace")
        self.refresh_bars()

    def refresh_bars(self) -> None:
        """Draw the state of the engine (the app calls this whenever it moves)."""
        app = cast("WorkbenchApp", self.app)
        engine = app.engine
        self.query_one("#place", Static).update(
            Content.assemble(("Everything is kept in ", "$text-muted"), one_line(from_home(app.workspace.root)))
        )
        self.query_one("#steps", Static).update(_steps(engine))
        bar = self.query_one(ProgressBar)
        bar.display = engine.fraction is not None
        bar.progress = engine.fraction or 0.0
        self.query_one("#more-languages").display = self._offers_more_languages
        self.query_one("#more-languages", Static).update(
            Content.assemble(
                ("m", "bold $accent"), f" answer with {models.MULTILINGUAL}: ", models.SPEAKS[models.MULTILINGUAL]
            )
        )
        detail = "The engine is ready: ask something." if engine.is_ready else engine.detail
        self.query_one("#detail", Static).update(Content.styled(one_line(detail), "$text-muted"))
        if engine.is_ready:
            self.query_one("#answer", Static).update(Content.assemble(("enter", "bold $accent"), " begin"))

    @property
    def _offers_more_languages(self) -> bool:
        app = cast("WorkbenchApp", self.app)
        is_other = app.desk is not None and app.session.model != models.MULTILINGUAL
        return is_other and models.is_installed(models.MULTILINGUAL)

    def action_multilingual(self) -> None:
        """Answer with the model of many languages, from now on."""
        if self._offers_more_languages:
            models.use(cast("WorkbenchApp", self.app), models.MULTILINGUAL)
            self.refresh_bars()

    def action_close(self) -> None:
        self.dismiss()


def _steps(engine: EngineStatus) -> Content:
    state = "ready" if engine.is_ready else engine.state
    reached = _STAGES.index(state) if state in _STAGES else -1
    lines = []
    for n, (stage, words) in enumerate(_STEPS):
        if state == "down":
            sign, style = "·", "$text-muted"
        elif n < reached:
            sign, style = "✓", "$text-success"
        elif stage == state:
            sign, style = "▸", "bold $policy"
        else:
            sign, style = "·", "$text-muted"
        lines.append(Content.assemble((f"{sign} ", style), (words, style if sign == "▸" else "")))
    if state == "down":
        lines.append(Content.styled("✕ the engine is down", "$text-error"))
    return Content("\n").join(lines)


def _loop(keys: dict[str, tuple[str, ...]]) -> Content:
    lines = []
    for place in PLACES:
        key = spoken(keys[f"app.show-{place.name}"][0])
        lines.append(
            Content.assemble((f"{f'{key} {place.title}':<12}", "bold $accent"), (place.purpose, "$text-muted"))
        )
    return Content("\n").join(lines)
