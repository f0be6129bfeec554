"""Train: choose a recipe, start it on the feedback so far, and watch what is learned."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual import work
from textual.app import ComposeResult
from textual.containers import Grid, Horizontal
from textual.content import Content
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.records import JobState
from storage.wording import counted
from workbench.shell.messages import RatingsChanged, TrainerMoved
from workbench.shell.screen import WorkbenchScreen, packed, present
from workbench.text import one_line
from workbench.training.boards import KL, chart_words, figures, warning
from workbench.training.curves import Curve, bar, sparkline
from workbench.training.outcome import outcome
from workbench.training.recipes import control_of, learns, recipe_of
from workbench.training.status import TRAINER_DOTS, time_left
from workbench.widgets.plots import CurvePlot, Line

if TYPE_CHECKING:
    from storage.records import Rollout
    from workbench.desk import Desk
    from workbench.screens.train.start import Chosen
    from workbench.training.view import TrainView

REDRAW_SECONDS = 0.5
LANGUAGE_COLORS = ("reference", "secondary", "success", "accent", "error", "primary", "text-muted")
PLOTS = ("#plot-1", "#plot-2", "#plot-3", "#plot-4")


class TrainScreen(WorkbenchScreen):
    """Recipe on top, plots in the middle, figures and words below."""

    CSS_PATH = "style.tcss"
    KEY = "train"
    NEWS = (TrainerMoved, RatingsChanged)

    def body(self) -> ComposeResult:
        yield Static(id="recipe", markup=False)
        yield Static(id="empty", markup=False)
        with Grid(id="plots"):
            for plot in PLOTS:
                yield CurvePlot(id=plot[1:])
        yield Static(id="figures", markup=False)
        with Horizontal(id="lower"):
            yield Static(id="languages", classes="pane", markup=False)
            yield Static(id="rollouts", classes="pane", markup=False)
            yield Static(id="log", classes="pane", markup=False)

    def on_mount(self) -> None:
        self.view: TrainView | None = None
        self.drawn_at = 0.0
        self.redraw_waits = False
        for name, title in (("languages", "by language"), ("rollouts", "said lately"), ("log", "log")):
            self.query_one(f"#{name}").border_title = Content(title)

    async def reload(self) -> None:
        """Draw at most twice a second; news in between are drawn when that time is over."""
        wait = self.drawn_at + REDRAW_SECONDS - time.monotonic()
        if wait > 0:
            if not self.redraw_waits:
                self.redraw_waits = True
                self.set_timer(wait, self._redraw_later)
            return
        if self.desk is not None and self.is_current:
            self.drawn_at = time.monotonic()
            self.view = await self.desk.train_view(max(20, self.size.width // 2))
            await self.draw()

    def _redraw_later(self) -> None:
        self.redraw_waits = False
        self.look_again()

    def on_resize(self) -> None:
        if getattr(self, "view", None) is not None:
            self.drawn_at = 0.0
            self.call_after_refresh(self.look_again)

    # Drawing

    async def paint(self) -> None:
        view = self.view
        if view is None:
            return
        started = view.job is not None
        present(self.query_one("#empty"), not started)
        for name in ("#plots", "#figures", "#lower"):
            present(self.query_one(name), started)
        self.query_one("#recipe", Static).update(recipe(view))
        if not started:
            self.query_one("#empty", Static).update(_nothing(view))
        else:
            self._draw_plots(view)
            shown = figures(view.board, view.curves, view.latest)
            self.query_one("#figures", Static).update(packed(shown, self.size.width - 4))
            height = max(1, self.query_one("#lower").size.height - 2)
            present(self.query_one("#languages"), bool(view.board.columns))
            self.query_one("#languages", Static).update(languages(view, language_colors(view)))
            present(self.query_one("#rollouts"), bool(view.rollouts))
            self.query_one("#rollouts", Static).update(rollouts(view.rollouts))
            self.query_one("#log", Static).update(log_tail(view.log, height, self.query_one("#log").size.width))
        self.refresh_bindings()

    def _draw_plots(self, view: TrainView) -> None:
        colors = language_colors(view)
        charts = view.board.charts
        config = view.job.config if view.job is not None else {}
        self.query_one("#plots").set_class(len(charts) == 2, "-two")
        for place, name in enumerate(PLOTS):
            plot = self.query_one(name, CurvePlot)
            present(plot, place < len(charts))
            if place >= len(charts):
                continue
            chart = charts[place]
            curve = view.curves.get((chart.metric, None), Curve())
            spoken = [
                (view.curves[chart.metric, one], colors[one]) for one in colors if (chart.metric, one) in view.curves
            ]
            lines = [Line(curve, "policy"), *(Line(*one) for one in spoken if chart.languages)]
            target = view.kl_target if chart.metric == KL else None
            plot.show(chart.title, lines, chart_words(chart, curve, view.latest, config, target), target)

    # Acting

    @work(exclusive=True, group="ask")
    async def action_start(self) -> None:
        from workbench.screens.train.start import RecipeDialog

        def chosen(found: Chosen | None) -> None:
            if found is not None:
                recipe, values = found
                config = recipe.config(values, self.workbench.session.model)
                steps = recipe.steps(values)
                words = "training starts" if recipe.method.learns else "it starts"
                self.act(lambda desk: desk.start_job(recipe.stage, config, steps), f"{recipe.name}: {words}")

        stock = await self.attempt(lambda desk: desk.stock(self.workbench.engine.version))
        if stock is not None:
            self.app.push_screen(RecipeDialog(stock), chosen)

    def action_cancel(self) -> None:
        job = self.view.job if self.view else None
        if job is not None:
            self.act(lambda desk: desk.cancel_job(job), "it stops after this step and keeps a checkpoint")

    def action_resume(self) -> None:
        job = self.view.job if self.view else None
        if job is not None:
            self.act(lambda desk: desk.resume_job(job), "it goes on")

    @work(exclusive=True, group="ask")
    async def action_compare(self) -> None:
        """Choose runs, and see them beside each other."""
        from workbench.screens.train.comparing import ComparisonSheet, JobsDialog

        async def chosen(job_ids: list[str] | None) -> None:
            if job_ids and (read := await self.attempt(lambda desk: desk.compared(job_ids))) is not None:
                self.app.push_screen(ComparisonSheet(*read))

        found = await self.attempt(lambda desk: desk.jobs())
        if found is not None and len(found) < 2:
            hint = "start a second one, say with another seed"
            self.workbench.report(WorkbenchError("there are no two runs yet", hint))
        elif found is not None:
            self.app.push_screen(JobsDialog(found), chosen)

    def act(self, change: Callable[[Desk], Awaitable[object]], words: str) -> None:
        """Do something to the trainer; say so when it is stored, or say why not."""
        desk, saver = self.desk, self.workbench.saver
        if desk is None:
            return

        def done(_: object) -> None:
            self.workbench.say(words)
            self.drawn_at = 0.0
            self.look_again()

        if not saver.begin(self.KEY, words, lambda: change(desk), done, self.workbench.report):
            self.workbench.say("not taken: what you asked for before is still being saved")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        view = getattr(self, "view", None)
        state = view.status.state if view is not None else ""
        match action:
            case "start":
                return state in ("idle", "paused", "failed")
            case "cancel":
                return state in ("training", "waiting", "stalled")
            case "resume":
                return state in ("paused", "failed", "stalled")
            case "compare":
                return view is not None and view.job is not None
        return True


# What the view says, in words: pure functions from the view to content.


def recipe(view: TrainView) -> Content:
    """What will be, or is being, learned from; how far it is; and what to beware of."""
    job = view.job
    ratings = Content.styled(ratings_words(view.counts, view.judged), "$text-muted")
    beware = warning(view.curves, view.latest)
    warned = [Content.styled(f"! {beware}", "$text-warning")] if beware else []
    if job is None:
        return Content.assemble(("feedback ", "bold"), ratings)
    name = recipe_of(job.kind, job.config)
    if control := control_of(job.config):
        name += f" (control: {one_line(control, 20)} ratings)"
    if view.status.state == "idle":
        last = Content.assemble(("last run ", "bold"), f"{name}: {one_line(outcome(job), 400)}")
        return Content("\n").join([Content.assemble(("feedback ", "bold"), ratings), last, *warned])
    dot, stage = TRAINER_DOTS[view.status.state], one_line(job.stage, 24)
    state = view.status.state if view.status.state != "training" or learns(job.kind) else "at work"
    where = [Content.assemble((f"{dot} {state}", "bold $policy"), f" {name}{': ' * bool(stage)}{stage}")]
    if job.steps:
        done = bar(job.step, job.steps, 16)
        where.append(Content.assemble((f"{done:·<16}", "$policy"), f" {job.step}/{job.steps}"))
    if view.seconds_left is not None:
        where.append(Content(time_left(view.seconds_left)))
    first = Content("  ").join(where)
    if job.state is JobState.FAILED and job.error:
        said = Content.styled(f"✕ {one_line(job.error, 400)}", "$text-error")
        hint = Content.styled(f"  {one_line(job.hint or '', 400)}  log: {one_line(job.log or '')}", "$text-muted")
        return Content("\n").join([first, said, hint])
    lead = "learns from " if learns(job.kind) else "feedback "
    return Content("\n").join([first, *warned, Content.assemble((lead, "$text-muted"), ratings)])


def ratings_words(counts: list[tuple[str, str, int]], judged: int = 0) -> str:
    """`612 ratings (fr 120, es 118, ...; 300 score, 312 pair) and 40 by AI`."""
    by_language: dict[str, int] = {}
    by_kind: dict[str, int] = {}
    for language, kind, n in counts:
        by_language[language] = by_language.get(language, 0) + n
        by_kind[kind] = by_kind.get(kind, 0) + n
    total = sum(by_kind.values())
    by_ai = f" and {judged} by AI" if judged else ""
    if not total:
        return f"no ratings by people yet, {judged} by AI" if judged else "no ratings yet"
    most = sorted(by_language.items(), key=lambda pair: -pair[1])
    spoken = ", ".join(f"{one_line(name, 12)} {n}" for name, n in most[:4]) + (", …" if len(most) > 4 else "")
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(by_kind.items(), key=lambda pair: -pair[1]))
    return f"{counted(total, 'rating')} ({spoken}; {kinds}){by_ai}"


def language_colors(view: TrainView) -> dict[str, str]:
    """A colour for each language, the same in the plot and in the table."""
    return dict(zip(_languages(view), itertools.cycle(LANGUAGE_COLORS), strict=False))


def languages(view: TrainView, colors: dict[str, str]) -> Content:
    """One row a language: the first curve now and since the start, and the second one now."""
    if len(view.board.columns) < 2:
        return Content()
    first, second = view.board.columns
    lines = [Content.styled(f"{'':<6}{first.label:>7} {'change':>7} {second.label:>8}", "$text-muted")]
    for name in _languages(view):
        one, other = (view.curves.get((chart.metric, name), Curve()) for chart in (first, second))
        now = first.form.format(one.now) if one else "-"
        change = f"{one.change:+.2f}" if one else "-"
        beside = second.form.format(other.now) if other else "-"
        lines.append(
            Content.assemble((f"{one_line(name, 6):<6}", f"bold ${colors[name]}"),
                             f"{now:>7} {change:>7} {beside:>8} ", (sparkline(one.values, 6), "$policy"))
        )  # fmt: skip
    return Content("\n").join(lines)


def rollouts(said: list[Rollout]) -> Content:
    """What the policy said lately, newest first."""
    lines = []
    for rollout in said:
        sign, style = ("▲", "$text-success") if rollout.reward > 0 else ("▽", "$text-error")
        lines.append(
            Content.assemble(
                (f"{sign} {rollout.reward:+.2f} ", style), (f"{rollout.step} {one_line(rollout.language, 8)} ", "bold"),
                (f"{one_line(rollout.prompt, 40)} ", "$text-muted"), one_line(rollout.text, 160),
            )
        )  # fmt: skip
    return Content("\n").join(lines)


def log_tail(log: str, lines: int, width: int) -> Content:
    """The last lines of a log, each cut to the width; a progress bar's rewritten line counts as one."""
    tail = [one_line(line.rpartition("\r")[2], max(1, width)) for line in log.rstrip().split("\n")]
    return Content.styled("\n".join(tail[-lines:]), "$text-muted")


def _languages(view: TrainView) -> list[str]:
    return sorted({language for _, language in view.curves if language is not None})


def _nothing(view: TrainView) -> Content:
    total = view.judged + sum(n for _, _, n in view.counts)
    second = "Rate some answers on Prompt or Review first." if not total else "Press Enter to start."
    return Content("\n").join(
        [Content.styled("Nothing has been trained here yet.", "bold"), Content.styled(second, "$text-muted")]
    )
