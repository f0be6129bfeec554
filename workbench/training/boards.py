"""What each stage of training draws and tells: its curves with their units, its figures, and the words beside them.

Pure: from the metrics of a job to lines and words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textual.content import Content

from trainer.methods import METHODS
from trainer.methods.method import Chart, Method
from workbench.training.curves import Curve, sparkline

Key = tuple[str, str | None]
AGREEMENT = "watch/human_agreement"
KL = "objective/kl"
OUTSIDE = "support/outside"
PART = "reward/part_"  # of a mixed reward
# The share of answers like none that was rated above which the gate fails; a test compares it with the trainer's.
MOST_OUTSIDE = 0.3


@dataclass(frozen=True)
class Figure:
    """A number of the latest step, without a curve. `lacks` says why it is not known where null was recorded."""

    label: str
    metric: str
    form: str
    lacks: str = "not finite"


@dataclass(frozen=True)
class Board:
    """What is shown of a stage: two or four charts, the first two of them where there is less room."""

    charts: tuple[Chart, ...]
    figures: tuple[Figure, ...]

    @property
    def columns(self) -> tuple[Chart, ...]:
        """What is told by language."""
        return tuple(chart for chart in self.charts if chart.languages)[:2]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What has to be read in full."""
        return (*(chart.metric for chart in self.charts), AGREEMENT)


_GRADIENT = Figure("gradient norm", "policy/grad_norm", "{:.2f}")
_SKIPPED = Figure("skipped", "policy/skipped", "{:.0f}")
_MEMORY = Figure("memory", "memory/peak", "{:.1f} GB")
_UPDATE = Figure("update", "timing/update", "{:.1f} s")

POLICY = Board(
    (
        Chart("reward, by language", "reward", "objective/scores", "{:+.2f}", 1, "batch", True),
        Chart("KL to reference, nats/sequence", "KL", KL, "{:.1f}", 0, "batch", True),
        Chart("outside what was rated, share of answers", "outside", OUTSIDE, "{:.0%}", -1, "batch", True),
        Chart("response length, tokens", "length", "response/length", "{:.0f}", 0, "batch", True),
    ),
    (
        Figure("entropy", "objective/entropy", "{:.2f}"),
        Figure("clip", "policy/clipfrac", "{:.2f}"),
        Figure("approx KL", "policy/approxkl", "{:.3f}"),
        Figure("sampler gap", "policy/sampler_gap", "{:.1e} nats/token"),
        Figure("policy loss", "loss/policy", "{:+.4f}"),
        Figure("value EV", "value/explained_variance", "{:.2f}", "returns all equal"),
        Figure("value loss", "loss/value", "{:.3f}"),
        Figure("rollout", "throughput/tokens_per_second", "{:.0f} tok/s"),
        _MEMORY,
    ),
)
IMITATION = Board(
    (
        Chart("loss, nats/token", "loss", "loss/train", "{:.2f}", -1, "data/examples", True),
        Chart("held-out loss, nats/token", "held out", "loss/held_out", "{:.2f}", -1, "data/held_out", True),
        Chart("gradient norm", "gradient norm", "policy/grad_norm", "{:.2f}"),
        Chart("update, seconds", "update", "timing/update", "{:.1f}"),
    ),
    (_SKIPPED,),
)
Q_LEARNING = Board(
    (
        Chart("Q loss, squared deviations", "Q", "loss/q", "{:.3f}", -1, "data/examples", True),
        Chart("held-out Q loss, squared deviations", "held out", "loss/held_out_q", "{:.3f}", -1, "data/held_out",
              True),
        Chart("value loss, squared deviations", "value", "loss/value", "{:.3f}", -1, "data/examples", True),
        Chart("correlation with kept-back ratings", "foretold", "q/held_out_correlation", "{:+.2f}", 1),
    ),
    (
        Figure("sd of Q - V", "q/advantage_sd", "{:.3f}"),
        Figure("conservative", "loss/conservative", "{:.3f}"),
        _GRADIENT, _SKIPPED, _UPDATE,
    ),
)  # fmt: skip
REWARD = Board(
    (
        Chart("loss, mean over ratings", "loss", "loss/reward", "{:.3f}", -1),
        Chart("gradient norm", "gradient norm", "reward/grad_norm", "{:.2f}"),
    ),
    (
        Figure("skipped", "reward/skipped", "{:.0f}"),
        Figure("better of two answers to a prompt", "reward/within_prompt_accuracy", "{:.0%}"),
        Figure("held-out rank correlation", "reward/spearman", "{:+.2f}"),
        Figure("held-out pair accuracy", "reward/pair_accuracy", "{:.0%}"),
    ),
)
JUDGE = Board(
    (
        Chart("judge's loss, mean over ratings", "loss", "loss/judge", "{:.3f}", -1),
        Chart("gradient norm", "gradient norm", "judge/grad_norm", "{:.2f}"),
    ),
    (Figure("skipped", "judge/skipped", "{:.0f}"),),
)

# By what the trainer says it is doing, and by kind of job where that is said no more (gate, publish), not yet, or of a
# method that has curves of its own.
BOARDS = {"policy": POLICY, "demonstrations": IMITATION, "hindsight": IMITATION, "q-learning": Q_LEARNING,
          "reward model": REWARD, "judge": JUDGE}  # fmt: skip
NAMED = {"ppo": POLICY, "sft": IMITATION, "ilql": Q_LEARNING, "reward": REWARD}


def _board(method: Method) -> Board:
    if isinstance(method.board, str):
        return NAMED[method.board]
    return Board(method.board, (_GRADIENT, _SKIPPED, _UPDATE))


BY_KIND = {method.name: _board(method) for method in METHODS.values()}
BOARDS["judging"] = BY_KIND["judge"]  # told step by step all along, so that the time left can be told too


def board_of(kind: str, stage: str) -> Board:
    """What to show of a job."""
    return BOARDS.get(stage) or BY_KIND.get(kind, POLICY)


def with_parts(board: Board, latest: Mapping[Key, float | None]) -> Board:
    """The board with the first two parts of a mixed reward drawn in place of its last charts, which are told as
    figures then; as it is where the reward has no parts."""
    names = {name for name, language in latest if language is None and name.startswith(PART)}
    ordered = sorted(names, key=lambda name: (name != f"{PART}learned", name))
    parts = [(name, name.removeprefix(PART)) for name in ordered]
    drawn = [
        Chart(f"{short}, before its weight", short, name, "{:+.2f}", 1, "batch", True) for name, short in parts[:2]
    ]
    charts = (*board.charts[: len(board.charts) - len(drawn)], *drawn)
    told = [Figure(chart.label, chart.metric, chart.form) for chart in board.charts if chart not in charts]
    told += [Figure(short, name, "{:+.2f}") for name, short in parts[2:]]
    return Board(charts, (*told, *board.figures))


def chart_words(
    chart: Chart, curve: Curve, latest: Mapping[Key, float | None], config: Mapping[str, Any], target: float | None
) -> str:
    """What stands beside a curve: now, the best and its step, of how many answers, and for the KL its leash."""
    if not curve:
        return "no figures yet"
    parts = [f"now {chart.form.format(curve.now)}"]
    if chart.aim:
        best, step = curve.best if chart.aim > 0 else curve.least
        parts.append(f"best {chart.form.format(best)} at {step}")
    if chart.metric == KL:
        beta = latest.get(("objective/kl_coef", None))
        parts += [f"target {target:g}"] if target is not None else []
        parts += [f"beta {beta:.2f}"] if beta is not None else []
    folded = latest.get(("data/cross_fitted", None))
    if chart.count == "data/held_out" and folded:
        return "  ".join([*parts, f"n {folded:.0f} prompts, cross-fitted"])
    count = config.get("ppo", {}).get("batch") if chart.count == "batch" else latest.get((chart.count, None))
    if count:
        parts.append(f"n {count:.0f}")
    return "  ".join(parts)


def figures(board: Board, curves: Mapping[Key, Curve], latest: Mapping[Key, float | None]) -> list[Content]:
    """The latest figures as text: they hold where there is no room for a plot."""
    parts = []
    for chart in board.charts:
        curve = curves.get((chart.metric, None), Curve())
        if curve:
            parts.append(
                Content.assemble((f"{chart.label} ", "$text-muted"), (chart.form.format(curve.now), "bold"),
                                 (f" {sparkline(curve.values, 10)}", "$policy"))
            )  # fmt: skip
        if chart.metric == "objective/scores" and (said := agreement_words(latest)):
            parts.append(Content.assemble(("human agreement ", "$text-muted"), said))
    for figure in board.figures:
        if (figure.metric, None) not in latest:
            continue
        value = latest[figure.metric, None]
        words = f"- ({figure.lacks})"
        if value is not None:
            words = figure.form.format(value / 1e9 if figure.metric == "memory/peak" else value)
        parts.append(Content.assemble((f"{figure.label} ", "$text-muted"), words))
    return parts


def agreement_words(latest: Mapping[Key, float | None]) -> str:
    """`+0.34 [+0.10, +0.55] (n 40)`: rank correlation of the policy's shift with what people said of held-out answers.

    Empty where nobody watched; where the answers watched tell nothing, a dash and why.
    """
    value, rows = latest.get((AGREEMENT, None)), latest.get(("watch/human_rows", None))
    if value is None:
        return f"- (n {rows:.0f}, shifts or ratings all equal)" if rows else ""
    low, high = latest.get((f"{AGREEMENT}_low", None)), latest.get((f"{AGREEMENT}_high", None))
    bounded = low is not None and high is not None
    span = f" [{low:+.2f}, {high:+.2f}]" if bounded else ""
    return f"{value:+.2f}{span}" + (f" (n {rows:.0f}{'' if bounded else ', no interval'})" if rows else "")


def warning(curves: Mapping[Key, Curve], latest: Mapping[Key, float | None]) -> str:
    """What to beware of: a policy that moves away from what people liked, or to answers like none that they rated.
    Empty where there is nothing to fear."""
    return "; ".join(filter(None, [_against_people(curves, latest), _outside(latest)]))


def _outside(latest: Mapping[Key, float | None]) -> str:
    share = latest.get((OUTSIDE, None))
    if share is None or share <= MOST_OUTSIDE:
        return ""
    return f"{share:.0%} of answers are like none that was rated"


def _against_people(curves: Mapping[Key, Curve], latest: Mapping[Key, float | None]) -> str:
    value = latest.get((AGREEMENT, None))
    if value is None or value >= 0:
        return ""
    reward = curves.get(("objective/scores", None), Curve())
    rises = "the reward rises while " if reward and reward.change > 0 else ""
    high = latest.get((f"{AGREEMENT}_high", None))
    chance = " (this may still be chance)" if high is not None and high >= 0 else ""
    return f"{rises}the policy moves away from what people rated high{chance}: agreement {value:+.2f}"
