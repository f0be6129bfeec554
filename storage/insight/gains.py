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
    total, below, above, n = 0.0, 0.0, 0.0, None
    bounded = True
    for step in versions.lineage(database, version).values():
        if step.kind == "base":
            continue
        gain = over_parent(step)
        if gain.mean is None:
            return Figure(reason=gain.reason if step is version else f"{step.name}: {gain.reason}")
        total += gain.mean
        n = gain.n if n is None else min(n, gain.n)
        if gain.interval is None:
            bounded = False
        else:
            below, above = (
                math.hypot(one, bound - gain.mean) for one, bound in zip((below, above), gain.interval, strict=True)
            )
    return Figure(total, (total - below, total + above) if bounded and n is not None else None, n or 0)


def state_of(version: Version) -> str:
    """Its state, or `control`: what it gained is no gain."""
    return "control" if version.metrics.get("control") else str(version.state)
