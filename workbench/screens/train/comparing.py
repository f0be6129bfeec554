"""Comparing runs: choose two or more; then their gains, settings that differ, and their curves over each other."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.containers import Grid
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from storage.comparison import MAIN_METRICS, Comparison, Curves, Group
from storage.records import Job
from storage.wording import counted
from workbench.text import one_line
from workbench.training.curves import Curve, points_of
from workbench.training.recipes import recipe_of
from workbench.widgets.dialogs import Dialog, SheetDialog
from workbench.widgets.plots import CurvePlot, Line

if TYPE_CHECKING:
    from textual.events import Resize

COLORS = ("policy", "reference", "success", "secondary", "error", "accent", "warning", "text-muted")


class JobsDialog(Dialog[list[str]]):
    """The jobs, newest first; Space chooses, Enter compares what is chosen."""

    CSS_PATH = "style.tcss"
    AUTO_FOCUS = "OptionList"
    CAN: ClassVar = frozenset({"accept", "choose"})
    BINDINGS: ClassVar = [("j", "move(1)", "down"), ("k", "move(-1)", "up")]

    def __init__(self, found: list[Job]) -> None:
        super().__init__("Compare runs")
        self.found = found
        self.chosen: set[str] = set()

    def fields(self) -> ComposeResult:
        yield Static("Choose two or more with space; enter compares them.", id="hint")
        yield OptionList(*(Option(self._row(job)) for job in self.found), markup=False, id="jobs")

    def _row(self, job: Job) -> Content:
        return job_row(job, job.id in self.chosen)

    def action_move(self, step: int) -> None:
        listed = self.query_one(OptionList)
        listed.highlighted = ((listed.highlighted or 0) + step) % len(self.found)

    def action_choose(self) -> None:
        listed = self.query_one(OptionList)
        if listed.highlighted is not None:
            self.chosen ^= {self.found[listed.highlighted].id}
            listed.replace_option_prompt_at_index(listed.highlighted, self._row(self.found[listed.highlighted]))
            self.complain("")

    def on_option_list_option_selected(self) -> None:
        self.action_accept()

    def action_accept(self) -> None:
        if len(self.chosen) < 2:
            self.complain("choose two runs or more")
            return
        self.dismiss([job.id for job in self.found if job.id in self.chosen])


class ComparisonSheet(SheetDialog):
    """Gains and settings as text, curves below; a small terminal has the latest figures instead of the curves."""

    CSS_PATH = "style.tcss"

    def __init__(self, found: Comparison, curves: Curves) -> None:
        super().__init__(f"{counted(len(found.runs), 'run')} compared")
        self.found = found
        self.curves = curves

    def page(self) -> ComposeResult:
        yield Static(gains(self.found), classes="verdict")
        yield Static(settings(self.found), classes="verdict")
        yield Static(latest(self.found, self.curves), id="latest")
        with Grid(id="curves"):
            for place in range(len(self.curves)):
                yield CurvePlot(id=f"curve-{place}")

    def on_mount(self) -> None:
        self.call_after_refresh(self.draw)

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self.draw)

    def draw(self) -> None:
        """Draw each metric, thinned to about two points a column."""
        for place, (name, series) in enumerate(self.curves.items()):
            plot = self.query_one(f"#curve-{place}", CurvePlot)
            lines = []
            for job, points in series.items():
                group = self.found.group_of(job)
                curve = points_of(points, 2 * max(20, plot.size.width))
                lines.append(Line(curve, color_of(self.found, group), group.name))
            plot.show(MAIN_METRICS[name], lines, _now(self.found, series))


def job_row(job: Job, chosen: bool) -> Content:
    """`[x] 50dc8af5  PPO  done  seed 1  v3 published  +0.41`."""
    result = job.result or {}
    gain = result.get("reward_gain")
    words = [
        recipe_of(job.kind, job.config), str(job.state), f"seed {job.config.get('seed', '-')}",
        f"control: {job.config['control']}" if job.config.get("control") else "",
        " ".join(str(result[name]) for name in ("version", "state") if result.get(name)),
        f"reward {gain:+.2f}" if isinstance(gain, int | float) else "",
    ]  # fmt: skip
    told = "  ".join(one_line(word, 40) for word in words if word)
    mark = Content.styled("✓ " if chosen else "· ", "bold $accent" if chosen else "$text-muted")
    return Content.assemble(mark, (job.id[-8:], "bold"), f"  {told}")


def gains(found: Comparison) -> Content:
    """Each group: its letter, its runs, and its figures with intervals."""
    lines = []
    for group in found.groups:
        first, name = group.runs[0], one_line(recipe_of(group.runs[0].job.kind, group.runs[0].job.config), 30)
        jobs = ", ".join(run.short + (f" {one_line(run.version, 10)}" if run.version else "") for run in group.runs)
        seeds = ", ".join(_value(run.seed) for run in group.runs)
        pooled = f"seeds pooled: {seeds}" if len(group.runs) > 1 else f"seed {seeds}"
        states = one_line(", ".join(dict.fromkeys(group.states)), 60)
        lines.append(
            Content.assemble((f"{group.name} ━ ", f"bold ${color_of(found, group)}"), (name, "bold"),
                             f"  {jobs}  {pooled}  ", (states, "$text-muted"))
        )  # fmt: skip
        if first.control:
            control = one_line(first.control, 20)
            lines.append(Content.styled(f"  ⊘ control: {control} ratings, never published", "bold $text-warning"))
        lines += [Content.assemble("  ", piece) for piece in _figures(group)]
        if group.unlike:
            lines.append(Content.styled(f"  ! not alike but for the seed: {one_line(group.unlike)}", "$text-warning"))
    return Content("\n").join(lines)


def _figures(group: Group) -> list[Content]:
    pieces = [Content.assemble(("reward gain ", "$text-muted"), one_line(str(group.gain)))]
    matched, loss, kl = (group.figures[name] for name in ("reward_gain_matched", "loss_gain", "kl"))
    if matched.mean is not None or matched.reason:
        pieces.append(Content.assemble(("with finishing taken out ", "$text-muted"), one_line(str(matched))))
    if loss.mean is not None:
        pieces.append(Content.assemble(("held-out loss lower by ", "$text-muted"), f"{loss} (nats/token)"))
    if kl.mean is not None:
        span = f" [{kl.interval[0]:.1f}, {kl.interval[1]:.1f}] over {counted(kl.n, 'seed')}" if kl.interval else ""
        pieces.append(Content.assemble(("KL ", "$text-muted"), f"{kl.mean:.1f} nats/response{span}"))
    return pieces


def settings(found: Comparison) -> Content:
    """One line a setting that differs, with its value in each group."""
    if not found.settings:
        return Content.styled("settings: no difference but the seed", "$text-muted")
    lines = [Content.styled("settings that differ", "$text-muted")]
    for path, values in found.settings.items():
        told = []
        for group in found.groups:
            value = _value(values[group.runs[0].job.id])
            told.append(Content.assemble((f"{group.name} ", f"bold ${color_of(found, group)}"), value))
        lines.append(Content.assemble(f"  {one_line(path, 60)}  ", Content("  ").join(told)))
    return Content("\n").join(lines)


def latest(found: Comparison, curves: Curves) -> Content:
    """The newest figure of each curve, where there is no room for plots."""
    lines = [
        Content.assemble((f"{MAIN_METRICS[name]}  ", "$text-muted"), _now(found, series))
        for name, series in curves.items()
    ]
    return Content("\n").join(lines) if lines else Content.styled("no figures were recorded", "$text-muted")


def color_of(found: Comparison, group: Group) -> str:
    """The theme colour of a group; they come round again after eight."""
    return next(itertools.islice(itertools.cycle(COLORS), found.groups.index(group), None))


def _now(found: Comparison, series: dict[str, list[tuple[int, float | None]]]) -> str:
    """`a 1.2, 1.3  b 0.9`: the newest figure of each run, under the letter of its group."""
    told: dict[str, list[str]] = {}
    for job, points in series.items():
        curve: Curve = points_of(points, len(points) + 4)
        told.setdefault(found.group_of(job).name, []).append(f"{curve.now:.3g}" if curve else "-")
    return "  ".join(f"{name} {', '.join(figures)}" for name, figures in told.items())


def _value(value: object) -> str:
    """A setting as it is written; a dash where the run has none."""
    if value is None:
        return "-"
    return one_line(value if isinstance(value, str) and value else msgspec.json.encode(value).decode(), 60)
