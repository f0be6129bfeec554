"""What `trainer compare` prints: the gains, the settings that differ, and curves drawn with characters."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from storage.comparison import MAIN_METRICS, Comparison, Curves, Group
from storage.wording import counted

HEIGHT = 14
WIDEST = 110
COLORS = (75, 214, 78, 205, 117, 220, 141, 203)  # of the 256 that terminals share


def width() -> int:
    """The columns to draw in: those of the terminal, and not more than a plot can use."""
    return max(40, min(WIDEST, shutil.get_terminal_size((80, 24)).columns))


def is_colored() -> bool:
    """Whether standard output is a terminal whose user has not asked for no colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def page(found: Comparison, curves: Curves, *, width: int, colored: bool) -> str:
    """The comparison as text, at most `width` columns where a word is not longer."""
    parts = [_gains(found), _settings(found)]
    parts += [plot(name, series, found, width=width, colored=colored) for name, series in curves.items()]
    return "\n\n".join(part for part in parts if part)


def _gains(found: Comparison) -> str:
    return "\n".join(line for group in found.groups for line in _group(group))


def _group(group: Group) -> list[str]:
    runs = group.runs
    jobs = ", ".join(run.short + (f" ({run.version})" if run.version else "") for run in runs)
    seeds = f"seeds pooled: {_listed(run.seed for run in runs)}" if len(runs) > 1 else f"seed {_value(runs[0].seed)}"
    states = ", ".join(dict.fromkeys(group.states))
    lines = [f"{group.name}  {runs[0].job.kind}  {jobs}  {seeds}  {states}"]
    if group.control:
        lines.append(f"   control: {group.control} ratings; its gain is what chance and the reward's leanings give")
    figures = group.figures
    lines.append(f"   reward gain            {group.gain}")
    matched = figures["reward_gain_matched"]
    if matched.mean is not None or matched.reason:
        lines.append(f"   finishing taken out    {matched}")
    if figures["loss_gain"].mean is not None:
        lines.append(f"   held-out loss fell by  {figures['loss_gain']} (nats/token)")
    kl = figures["kl"]
    if kl.mean is not None:
        span = f" [{kl.interval[0]:.2f}, {kl.interval[1]:.2f}] over {counted(kl.n, 'seed')}" if kl.interval else ""
        lines.append(f"   KL                     {kl.mean:.2f} nats/response{span}")
    if group.unlike:
        lines.append(f"   not alike but for the seed: {group.unlike}")
    return [printable(line) for line in lines]


def _settings(found: Comparison) -> str:
    """One line a setting that differs, with its value in each group."""
    if len(found.runs) < 2:
        return ""
    if not found.settings:
        return "settings: no difference but the seed"
    longest = max(map(len, found.settings))
    lines = ["settings that differ"]
    for path, values in found.settings.items():
        told = "  ".join(f"{group.name} {_value(values[group.runs[0].job.id])}" for group in found.groups)
        lines.append(printable(f"   {path:{longest}}  {told}"))
    return "\n".join(lines)


def plot(name: str, series: dict[str, Any], found: Comparison, *, width: int, colored: bool) -> str:
    """One metric of all runs in one frame; a curve is drawn with the letter of its group."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, HEIGHT)
    title = f"{name}: {MAIN_METRICS[name]}" if name in MAIN_METRICS else name
    plotext.title(title.encode("ascii", "replace").decode())
    named: set[str] = set()
    for job, points in series.items():
        group = found.group_of(job)
        drawn = thinned([(step, value) for step, value in points if value is not None], 2 * width)
        if not drawn:
            continue
        label = None if group.name in named else f"{group.name} {', '.join(run.short for run in group.runs)}"[:40]
        named.add(group.name)
        color = COLORS[found.groups.index(group) % len(COLORS)]
        plotext.plot(*map(list, zip(*drawn, strict=True)), marker=group.name, color=color, label=label)
    if not named:
        plotext.clear_figure()
        return f"{printable(name)}: no finite figures"
    steps = [step for points in series.values() for step, _ in points]
    plotext.xticks(sorted({min(steps), (min(steps) + max(steps)) // 2, max(steps)}))
    drawn_text = plotext.build()
    plotext.clear_figure()
    return (drawn_text if colored else plotext.uncolorize(drawn_text)).rstrip("\n")


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most about `most` points: of each run of them the lowest and the highest, so that spikes stay."""
    if len(points) <= most:
        return list(points)
    size = -(-2 * len(points) // most)
    kept: list[tuple[int, float]] = []
    for start in range(0, len(points), size):
        piece = points[start : start + size]
        kept += sorted({min(piece, key=lambda point: point[1]), max(piece, key=lambda point: point[1])})
    return kept


def _listed(values: Any) -> str:
    return ", ".join(map(_value, values))


def _value(value: object) -> str:
    """A setting as it is written; a dash where the run has none."""
    return "-" if value is None else value if isinstance(value, str) and value else msgspec.json.encode(value).decode()


def printable(text: str) -> str:
    """The text on one line, with every character that a terminal would not draw written as an escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
