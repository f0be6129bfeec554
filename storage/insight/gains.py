"""What versions gained in reward: over their parents, as their gates measured it, and over the reference."""

from __future__ import annotations

import math

from storage import versions
from storage.comparison import Figure, measured
from storage.database import Database
from storage.records import Version


def over_parent(version: Version) -> Figure:
    """The gain that the gate measured, by a judge which the version was not trained against."""
    found = measured(version.metrics, "reward_gain")
    return found if found.mean is not None or found.reason else Figure(reason="no gate measured its reward")


def over_reference(database: Database, version: Version) -> Figure:
    """The gain over the base model: those of all steps that lead to the version, added up.

    Each step was measured by itself, so that their errors add as squares do; `n` is of the step with the fewest
    prompts. Unknown where a step is not known.
    """
    steps = [step for step in versions.lineage(database, version).values() if step.kind != "base"]
    found = [over_parent(step) for step in steps]
    for step, gain in zip(steps, found, strict=True):
        if gain.mean is None:
            return Figure(reason=gain.reason if step is version else f"{step.name}: {gain.reason}")
    if len(found) < 2:
        return found[0] if found else Figure(0.0)
    total = math.fsum(gain.mean for gain in found if gain.mean is not None)
    bounds = [gain.interval for gain in found if gain.interval is not None]
    if len(bounds) < len(found):
        return Figure(total, None, min(gain.n for gain in found))
    below, above = (
        math.hypot(*(interval[side] - (gain.mean or 0.0) for interval, gain in zip(bounds, found, strict=True)))
        for side in (0, 1)
    )
    return Figure(total, (total - below, total + above), min(gain.n for gain in found))


def state_of(version: Version) -> str:
    """Its state, or `control`: what it gained is no gain."""
    return "control" if version.metrics.get("control") else str(version.state)
