"""Train: start a run on the ratings so far, and watch what the policy learns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.containers import Grid, Horizontal
from textual.content import Content
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.records import JobState
from workbench.curves import Curve, bar, sparkline
from workbench.screens.base import WorkbenchScreen, present
from workbench.screens.parameters import number, one_of, whole_number
from workbench.status import TRAINER_DOTS, outcome, time_left
from workbench.text import one_line
from workbench.widgets.plots import CurvePlot, Line

if TYPE_CHECKING:
    from storage.records import Rollout
    from workbench.store import TrainView
    from workbench.training import Trainers

REDRAW_SECONDS = 0.5
DEFAULT_STEPS, DEFAULT_KL_TARGET = 40, 6.0
# The methods by their names, and the advantage by which the trainer tells them apart.
METHODS = {"ppo": "gae", "rloo": "rloo", "reinforce": "reinforce", "grpo": "grpo"}
REWARD, KL, POLICY_LOSS, LENGTH = "objective/scores", "objective/kl", "loss/policy", "response/length"
LANGUAGE_COLORS = ("reference", "secondary", "success", "accent", "error", "primary", "text-muted")
_FIGURES = (
    ("entropy", "objective/entropy", "{:.2f}"),
    ("clip", "policy/clipfrac", "{:.2f}"),
    ("approx KL", "policy/approxkl", "{:.3f}"),
    ("value EV", "value/explained_variance", "{:.2f}"),
    ("value loss", "loss/value", "{:.3f}"),
    ("rollout", "throughput/tokens_per_second", "{:.0f} tok/s"),
)


class TrainScreen(WorkbenchScreen):
    """Recipe on top, plots in the middle, figures and words below."""

    KEY = "train"

    def body(self) -> ComposeResult:
        yield Static(id="recipe", markup=False)
        yield Static(id="empty", markup=False)
        with Grid(id="plots"):
            yield CurvePlot("reward, by language", id="reward")
            yield CurvePlot("KL to reference, nats/sequence", id="kl")
            yield CurvePlot("policy loss", id="loss")
            yield CurvePlot("response length, tokens", id="length")
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
        if self.store is not None and self.is_current:
            self.drawn_at = time.monotonic()
            self.view = self.store.train_view(max(20, self.size.width // 2))
            self.draw(self.view)

    async def _redraw_later(self) -> None:
        self.redraw_waits = False
        await self.read()

    def on_resize(self) -> None:
        if getattr(self, "view", None) is not None:
            self.drawn_at = 0.0
            self.call_after_refresh(self.read)

    # Drawing

    def draw(self, view: TrainView) -> None:
        started = view.job is not None
        present(self.query_one("#empty"), not started)
        for name in ("#plots", "#figures", "#lower"):
            present(self.query_one(name), started)
        self.query_one("#recipe", Static).update(recipe(view))
        if not started:
            self.query_one("#empty", Static).update(_nothing(view))
        else:
            self._draw_plots(view)
            self.query_one("#figures", Static).update(figures(view, self.size.width - 4))
            height = max(1, self.query_one("#lower").size.height - 2)
            self.query_one("#languages", Static).update(languages(view, language_colors(view)))
            self.query_one("#rollouts", Static).update(rollouts(view.rollouts))
            self.query_one("#log", Static).update(log_tail(view.log, height, self.query_one("#log").size.width))
        self.refresh_bindings()

    def _draw_plots(self, view: TrainView) -> None:
        colors = language_colors(view)
        reward = [Line(view.curves.get((REWARD, None), Curve()), "policy")]
        reward += [Line(view.curves[REWARD, name], colors[name]) for name in colors if (REWARD, name) in view.curves]
        target = view.kl_target
        self.query_one("#reward", CurvePlot).show(reward, reward_words(reward[0].curve))
        kl = view.curves.get((KL, None), Curve())
        self.query_one("#kl", CurvePlot).show([Line(kl, "policy")], kl_words(kl, view, target), target)
        for name, metric, form in (("#loss", POLICY_LOSS, "{:+.4f}"), ("#length", LENGTH, "{:.0f}")):
            curve = view.curves.get((metric, None), Curve())
            self.query_one(name, CurvePlot).show(
                [Line(curve, "policy")], f"now {form.format(curve.now)}" if curve else ""
            )

    # Acting

    def action_start(self) -> None:
        from workbench.screens.dialogs import Field, FormDialog

        def chosen(values: dict[str, Any] | None) -> None:
            if values is not None:
                steps, model = int(values["steps"]), self.workbench.session.model
                advantage = METHODS[str(values["method"])]
                ppo = {"steps": steps, "kl_target": values["kl_target"], "advantage": advantage}
                config = {"model": model, "seed": values["seed"], "ppo": ppo}
                self.act(lambda trainers: trainers.start("run", config, steps), "training starts")

        counts = self.store.counts() if self.store is not None else []
        fields = [
            Field("steps", "steps", str(DEFAULT_STEPS), whole_number(1, 1_000_000), "updates of the policy"),
            Field("kl_target", "KL target", f"{DEFAULT_KL_TARGET:g}", number(0.01, 1000), "nats a response"),
            Field("seed", "seed", "0", whole_number(0, 2**31 - 1), "the same seed, the same run"),
            Field("method", "method", "ppo", one_of(*METHODS), ", ".join(METHODS)),
        ]
        text = f"A reward model from {ratings_words(counts)}, then the policy, a gate, and a new version."
        self.app.push_screen(FormDialog("Start training", fields, text=text), chosen)

    def action_cancel(self) -> None:
        job = self.view.job if self.view else None
        if job is not None:
            self.act(lambda trainers: trainers.cancel(job), "it stops after this step and keeps a checkpoint")

    def action_resume(self) -> None:
        job = self.view.job if self.view else None
        if job is not None:
            self.act(lambda trainers: trainers.resume(job), "training goes on")

    def act(self, change: Callable[[Trainers], object], words: str) -> None:
        """Do something to the trainer; say so, or say why not."""
        trainers = self.workbench.trainers
        if trainers is None:
            return
        try:
            change(trainers)
        except WorkbenchError as error:
            self.workbench.report(error)
        else:
            self.workbench.say(words)
        self.workbench.refresh_facts()
        self.drawn_at = 0.0
        self.call_later(self.read)

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
        return True


# What the view says, in words: pure functions from the view to content.


def recipe(view: TrainView) -> Content:
    """What will be, or is being, learned from; and how far it is."""
    job = view.job
    ratings = Content.styled(ratings_words(view.counts), "$text-muted")
    if job is None or view.status.state == "idle":
        last = "" if job is None else f"   last run: {one_line(outcome(job))}"
        return Content.assemble(("recipe ", "bold"), "PPO on a reward model from ", ratings, (last, "$text-muted"))
    dot = TRAINER_DOTS[view.status.state]
    stage = one_line(job.stage or job.kind, 24)
    where = [Content.assemble((f"{dot} {view.status.state}", "bold $policy"), f" {stage}")]
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
    return Content("\n").join([first, Content.assemble(("learns from ", "$text-muted"), ratings)])


def ratings_words(counts: list[tuple[str, str, int]]) -> str:
    """`612 ratings (fr 120, es 118, ...; 300 score, 312 pair)`."""
    by_language: dict[str, int] = {}
    by_kind: dict[str, int] = {}
    for language, kind, n in counts:
        by_language[language] = by_language.get(language, 0) + n
        by_kind[kind] = by_kind.get(kind, 0) + n
    total = sum(by_kind.values())
    if not total:
        return "no ratings yet"
    most = sorted(by_language.items(), key=lambda pair: -pair[1])
    spoken = ", ".join(f"{one_line(name, 12)} {n}" for name, n in most[:4]) + (", …" if len(most) > 4 else "")
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(by_kind.items(), key=lambda pair: -pair[1]))
    return f"{total} rating{'s' * (total > 1)} ({spoken}; {kinds})"


def reward_words(curve: Curve) -> str:
    if not curve:
        return "no figures yet"
    best, step = curve.best
    return f"now {curve.now:+.2f}  best {best:+.2f} (step {step})"


def kl_words(curve: Curve, view: TrainView, target: float | None) -> str:
    if not curve:
        return "no figures yet"
    beta = view.latest.get(("objective/kl_coef", None))
    parts = [f"now {curve.now:.1f}"]
    parts += [f"target {target:g}"] if target is not None else []
    parts += [f"beta {beta:.3f}"] if beta is not None else []
    return "  ".join(parts)


def figures(view: TrainView, width: int) -> Content:
    """The latest figures as text: they hold where there is no room for a plot."""
    parts = []
    for label, metric, form in (("reward", REWARD, "{:+.2f}"), ("KL", KL, "{:.1f}"), ("loss", POLICY_LOSS, "{:+.4f}"),
                                ("length", LENGTH, "{:.0f}")):  # fmt: skip
        curve = view.curves.get((metric, None), Curve())
        if curve:
            parts.append(
                Content.assemble((f"{label} ", "$text-muted"), (form.format(curve.now), "bold"),
                                 (f" {sparkline(curve.values, 10)}", "$policy"))
            )  # fmt: skip
    for label, metric, form in _FIGURES:
        value = view.latest.get((metric, None))
        if value is not None:
            parts.append(Content.assemble((f"{label} ", "$text-muted"), form.format(value)))
    memory = view.latest.get(("memory/peak", None))
    if memory is not None:
        parts.append(Content.assemble(("memory ", "$text-muted"), f"{memory_words(memory)}"))
    return packed(parts, width)


def packed(parts: list[Content], width: int) -> Content:
    """The parts in as few lines of `width` cells as hold them, none of them broken."""
    lines: list[list[Content]] = [[]]
    room = width
    for part in parts:
        if lines[-1] and part.cell_length > room:
            lines.append([])
            room = width
        lines[-1].append(part)
        room -= part.cell_length + 3
    return Content("\n").join(Content("   ").join(line) for line in lines)


def memory_words(value: float) -> str:
    """Bytes as GB."""
    return f"{value / 1e9:.1f} GB"


def language_colors(view: TrainView) -> dict[str, str]:
    """A colour for each language, the same in the plot and in the table."""
    return dict(zip(_languages(view), itertools.cycle(LANGUAGE_COLORS), strict=False))


def languages(view: TrainView, colors: dict[str, str]) -> Content:
    """One row a language: its reward now, since the start, and its KL."""
    lines = [Content.styled(f"{'':<6}{'reward':>7} {'gain':>6} {'KL':>5}", "$text-muted")]
    for name in _languages(view):
        reward, kl = view.curves.get((REWARD, name), Curve()), view.curves.get((KL, name), Curve())
        now = f"{reward.now:+.2f}" if reward else "-"
        gain = f"{reward.change:+.2f}" if reward else "-"
        away = f"{kl.now:.1f}" if kl else "-"
        lines.append(
            Content.assemble((f"{one_line(name, 6):<6}", f"bold ${colors[name]}"), f"{now:>7} {gain:>6} {away:>5} ",
                             (sparkline(reward.values, 8), "$policy"))
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
    total = sum(n for _, _, n in view.counts)
    second = "Rate some answers on Prompt or Review first." if not total else "Press Enter to start."
    return Content("\n").join(
        [Content.styled("Nothing has been trained here yet.", "bold"), Content.styled(second, "$text-muted")]
    )
