"""Runs beside each other: the settings that differ, the gains with their intervals, and the curves.

Runs whose settings differ in nothing but the seed are one group, whose figures are means over seeds. `trainer compare`
and the app both read this; it needs neither torch nor scipy. Screens import it before their first paint, hence the
database layer, which is slow to import, only where it reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from storage.errors import UsageError
from storage.records import Job
from storage.wording import counted

if TYPE_CHECKING:
    from storage.database import Database

MAIN_METRICS = {
    "objective/scores": "reward",
    "objective/kl": "KL to reference, nats/sequence",
    "policy/sampler_gap": "sampler gap, nats/token",
    "support/outside": "outside what was rated, share",
    "response/length": "response length, tokens",
    "value/explained_variance": "value, explained variance",
    "loss/train": "loss, nats/token",
    "loss/held_out": "held-out loss, nats/token",
}
"""What is drawn where nothing else is asked for, of those that any run has, and what each is."""

FIGURES = ("reward_gain", "reward_gain_matched", "loss_gain", "kl")
"""What a run's result says of its gain: reward, the same with finishing taken out, nats/token, nats/response."""

PART = "reward/part_"
"""How the metrics of the parts of a mixed reward begin."""

NO_CONTROL = "none"
"""What a job's settings say where its ratings are the real ones."""

Series = list[tuple[int, float | None]]
Curves = dict[str, dict[str, Series]]


@dataclass(frozen=True)
class Figure:
    """A number with its 95% interval. `over` says of what `n` counts the units: prompts of one run, or seeds.

    `mean` is None where the figure is not known; `reason` then says why, where that is known.
    """

    mean: float | None = None
    interval: tuple[float, float] | None = None
    n: int = 0
    over: str = "prompts"
    reason: str = ""

    def __str__(self) -> str:
        if self.mean is None:
            return "-" + (f" ({self.reason})" if self.reason else "")
        span = f" [{self.interval[0]:+.2f}, {self.interval[1]:+.2f}]" if self.interval else ""
        return f"{self.mean:+.2f}{span}" + (f" over {counted(self.n, self.over[:-1])}" if self.n else "")


@dataclass(frozen=True)
class Run:
    """A job, and what it began from: the version that its own goes on from, and how many ratings it learned from."""

    job: Job
    version: str | None = None
    parent: str | None = None
    ratings: int = 0

    @property
    def short(self) -> str:
        """The end of the job's key, which names it as well."""
        return self.job.id[-8:]

    @property
    def seed(self) -> Any:
        return self.job.config.get("seed")

    @property
    def control(self) -> str:
        """`shuffled` or `constant` where the ratings were made meaningless on purpose; else empty."""
        found = str(self.job.config.get("control") or NO_CONTROL)
        return "" if found == NO_CONTROL else found

    @property
    def result(self) -> dict[str, Any]:
        return self.job.result or {}

    @property
    def state(self) -> str:
        """What became of its version; of a job without one, the job's state."""
        return str(self.result.get("state") or self.job.state)


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, under one letter."""

    name: str
    runs: tuple[Run, ...]
    figures: Mapping[str, Figure]

    @property
    def gain(self) -> Figure:
        """The reward gain on held-out prompts."""
        return self.figures["reward_gain"]

    @property
    def control(self) -> str:
        return self.runs[0].control

    @property
    def states(self) -> list[str]:
        return [run.state for run in self.runs]

    @property
    def unlike(self) -> str:
        """What the runs began from, where it is not the same for all: their mean is then not over seeds alone."""
        parents = {run.parent for run in self.runs if run.parent is not None}
        ratings = {run.ratings for run in self.runs}
        told = [f"from {', '.join(sorted(parents))}"] if len(parents) > 1 else []
        told += [f"from {', '.join(map(str, sorted(ratings)))} ratings"] if len(ratings) > 1 else []
        return "; ".join(told)


@dataclass(frozen=True)
class Comparison:
    """Runs in the order given, `settings` as `{path: {job: value}}` (None where a run has none), and the groups."""

    runs: tuple[Run, ...]
    settings: dict[str, dict[str, Any]]
    groups: tuple[Group, ...]

    def group_of(self, job_id: str) -> Group:
        return next(group for group in self.groups if any(run.job.id == job_id for run in group.runs))


def compare(database: Database, names: Iterable[str]) -> Comparison:
    """Jobs by key, or by any unambiguous beginning or ending of it. Raises UsageError where there is no such job."""
    from storage import jobs

    found = {job.id: job for job in (jobs.get(database, name) for name in names)}
    if not found:
        raise UsageError("there is nothing to compare", "name one job or more; `trainer jobs` lists them")
    runs = tuple(_run(database, job) for job in found.values())
    return Comparison(runs, differing([run.job for run in runs]), grouped(runs))


def curves(database: Database, runs: Sequence[Run], names: Sequence[str] = ()) -> Curves:
    """The curves of `names`, by metric and job; without names the main ones, and the parts of a mixed reward. What no
    run has is left out.

    Raises:
        UsageError: none of the runs has a metric that was named.
    """
    from storage import metrics

    found: Curves = {}
    for name in names or (*MAIN_METRICS, *parts_of(database, runs)):
        series = {run.job.id: metrics.series(database, run.job.id, name) for run in runs}
        found[name] = {job: points for job, points in series.items() if points}
        if not found[name]:
            del found[name]
            if names:
                known = sorted({one for run in runs for one in metrics.names(database, run.job.id)})
                raise UsageError(
                    f"none of these jobs has the metric {name!r}",
                    f"they have {', '.join(known)}" if known else "they have no metrics yet",
                )
    return found


def parts_of(database: Database, runs: Sequence[Run]) -> list[str]:
    """The metrics of the parts of mixed rewards that any of some runs has."""
    from storage import metrics

    return sorted({name for run in runs for name in metrics.names(database, run.job.id) if name.startswith(PART)})


def differing(found: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """The settings that are not the same in all jobs, by dotted path; the seed is not among them."""
    settings = {job.id: _settings(job) for job in found}
    paths = dict.fromkeys(path for one in settings.values() for path in one)
    return {
        path: {job: one.get(path) for job, one in settings.items()}
        for path in paths
        if len({_encoded(one.get(path)) for one in settings.values()}) > 1
    }


def grouped(runs: Sequence[Run]) -> tuple[Group, ...]:
    """Runs pooled over seeds, named a, b, c, ... in the order of their first ones."""
    alike: dict[bytes, list[Run]] = {}
    for run in runs:
        alike.setdefault(_encoded(sorted(_settings(run.job).items())), []).append(run)
    return tuple(
        Group(letter(place), tuple(members), {name: pooled(members, name) for name in FIGURES})
        for place, members in enumerate(alike.values())
    )


def letter(place: int) -> str:
    """The name of a group: a to z, then A to Z, then `*` for all others."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return letters[place] if place < len(letters) else "*"


def pooled(runs: Sequence[Run], name: str) -> Figure:
    """One figure of a group: of a single run with that run's own interval, of several the mean over seeds.

    Runs of one seed count once, by their mean. A figure that some runs lack although they have a gain is not known of
    the group: the runs in which it can be told are not chosen by chance.
    """
    if len(runs) == 1:
        return measured(runs[0].result, name)
    known = {run.job.id: value for run in runs if (value := number(run.result.get(name))) is not None}
    lacking = [run for run in runs if run.job.id not in known and number(run.result.get("reward_gain")) is not None]
    if known and lacking:
        return Figure(
            None, over="seeds", reason=f"known of {len(known)} of {counted(len(known) + len(lacking), 'run')}"
        )
    if not known:
        reasons = {_reason(run.result, name) for run in runs} - {""}
        return Figure(None, over="seeds", reason="; ".join(sorted(reasons)))
    by_seed: dict[Any, list[float]] = {}
    for run in runs:
        if run.job.id in known:
            by_seed.setdefault(_encoded(run.seed), []).append(known[run.job.id])
    return mean_over_seeds([sum(values) / len(values) for values in by_seed.values()])


def mean_over_seeds(values: Sequence[float]) -> Figure:
    """The mean with Student's 95% interval, one value a seed; without an interval where there is one seed only."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return Figure(mean, None, n, "seeds")
    half = student(n - 1) * math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return Figure(mean, (mean - half, mean + half), n, "seeds")


def student(degrees: int, share: float = 0.95) -> float:
    """The t that holds `share` of Student's distribution between -t and +t, for whole degrees of freedom.

    By bisection over the angle of t / sqrt(degrees), in which that share is a finite sum (Abramowitz and Stegun 26.7.3
    and 26.7.4): loading scipy for this would keep the app waiting.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _held(middle, degrees) < share else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def document(found: Comparison, drawn: Curves) -> dict[str, Any]:
    """The comparison as the one JSON document of `trainer compare --json`."""
    return {
        "settings": found.settings,
        "jobs": [
            {"job": run.job.id, "kind": run.job.kind, "state": run.state, "seed": run.seed, "control": run.control,
             "version": run.version, "parent": run.parent, "ratings": run.ratings}
            for run in found.runs
        ],
        "groups": [_described(group) for group in found.groups],
        "curves": drawn,
    }  # fmt: skip


def _described(group: Group) -> dict[str, Any]:
    matched = group.figures["reward_gain_matched"]
    described = {
        "group": group.name,
        "jobs": [run.job.id for run in group.runs],
        "seeds": [run.seed for run in group.runs],
        "control": group.control,
        "states": group.states,
        "gain": group.gain.mean,
        "interval": group.gain.interval,
        "n": group.gain.n,
        "over": group.gain.over,
        "gain_matched": matched.mean,
        "gain_matched_interval": matched.interval,
        "gain_matched_reason": matched.reason,
        "unlike": group.unlike,
    }
    for name in ("loss_gain", "kl"):
        described |= {name: group.figures[name].mean, f"{name}_interval": group.figures[name].interval}
    return described


def _run(database: Database, job: Job) -> Run:
    made = database.rows("SELECT name, parent FROM versions WHERE job_id = ? ORDER BY sequence DESC LIMIT 1", (job.id,))
    name, parent = (made[0]["name"], made[0]["parent"]) if made else ((job.result or {}).get("version"), None)
    return Run(job, name, parent, database.scalar("SELECT count(*) FROM job_ratings WHERE job_id = ?", (job.id,)))


def _settings(job: Job) -> dict[str, Any]:
    """What was set, by dotted path, with the kind of the job and without its seed."""
    return {"kind": job.kind, **{path: value for path, value in _flat(job.config) if path != "seed"}}


def _flat(config: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        found += _flat(value, f"{before}{name}.") if isinstance(value, dict) and value else [(f"{before}{name}", value)]
    return found


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


def measured(found: Mapping[str, Any], name: str) -> Figure:
    """A figure of a job's result, or of a version's metrics. Its units are the held-out prompts; the KL comes without
    an interval."""
    mean = number(found.get(name))
    if mean is None:
        return Figure(reason=_reason(found, name))
    counted = number(found.get("loss_n" if name == "loss_gain" else "held_out_prompts"))
    return Figure(mean, interval_of(found.get(f"{name}_interval")), 0 if counted is None else int(counted))


def interval_of(bounds: object) -> tuple[float, float] | None:
    """A stored interval `[low, high]`; None where it is missing, or unbounded (which is stored as null)."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return None
    low, high = map(number, bounds)
    return None if low is None or high is None else (low, high)


def _reason(found: Mapping[str, Any], name: str) -> str:
    """Why a figure is null, where that was told: by itself, or among the reasons of all."""
    reasons = found.get("reasons")
    return str(found.get(f"{name}_reason") or (reasons.get(name) if isinstance(reasons, dict) else None) or "")


def number(value: object) -> float | None:
    """A stored figure; None where it is null, not finite, or no number."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None  # type: ignore[arg-type]


def _held(angle: float, degrees: int) -> float:
    """The share of Student's distribution within +-tan(angle) * sqrt(degrees)."""
    cosine, odd = math.cos(angle), degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 if odd else 0, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
