"""How a run ended, in a line: what came of it, and the figures of its version or reward model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from storage.records import Job
from storage.wording import counted


def outcome(job: Job) -> str:
    """How a finished job ended, such as `v3 rejected: reward gain` or `v3 published, reward +0.41, KL 3.1`."""
    result = job.result or {}
    if "reward_model" in result:
        return ", ".join([str(result["reward_model"]), *agreement(result)])
    if "sentence" in result:
        return str(result["sentence"])
    named = " ".join(str(result[name]) for name in ("version", "state") if name in result) or str(job.state)
    failed = [str(gate.get("gate")) for gate in result.get("gates", []) if not gate.get("passed")]
    if failed:
        return f"{named}: {', '.join(failed)}"
    return ", ".join([named, *(f"{label} {value}" for label, value in swap_figures(result))])


def ended(job: Job) -> str:
    """What came of a job that has just ended well: `training is done: v3 published`."""
    from workbench.training.recipes import learns  # a fifth of a second that the start of the app does without

    return f"training is done: {outcome(job)}" if learns(job.kind) else outcome(job)


# How well a reward model agrees with ratings that it never saw; each with an interval and a number of ratings.
_AGREEMENT = (
    ("better of two answers to a prompt", "within_prompt_accuracy", "within_prompt_n", "{:.0%}"),
    ("prompts' means", "between_prompts_spearman", "between_prompts_n", "{:+.2f}"),
    ("rank correlation", "spearman", "spearman_n", "{:+.2f}"),
    ("pair accuracy", "pair_accuracy", "pair_n", "{:.0%}"),
    ("label accuracy", "label_accuracy", "label_n", "{:.0%}"),
)


def agreement(result: Mapping[str, Any]) -> list[str]:
    """The held-out figures of a fitted reward model: `rank correlation +0.62 [+0.41, +0.77] (n 31)`.

    Where there were ratings of a kind and no figure could be told of them: `rank correlation - (all 12 ... are equal)`.
    """
    reasons = result.get("reasons") or {}
    by_ai = f" ({result['by_ai']} by AI)" if result.get("by_ai") else ""
    found = [f"learned from {counted(result.get('examples', 0), 'example')}{by_ai}"]
    for label, name, size, form in _AGREEMENT:
        value, bounds = result.get(name), result.get(f"{name}_interval")
        if value is None:
            if result.get(size) and name in reasons:
                found.append(f"{label} - ({reasons[name]})")
            continue
        span = f" [{form.format(bounds[0])}, {form.format(bounds[1])}]" if bounds else ""
        lacks = "" if bounds or f"{name}_interval" not in reasons else f", no interval: {reasons[f'{name}_interval']}"
        found.append(f"{label} {form.format(value)}{span} (n {result.get(size, 0)}{lacks})")
    if (curve := result.get("learning_curve")) is not None:
        found.append(str(curve["words"]))
    if len(found) == 1:
        found.append(f"too few of the {result.get('held_out', 0)} kept apart to say how good it is")
    return found


_FIGURES = (
    ("reward", ("reward_gain", "reward"), "{:+.2f}"),
    ("held-out loss lower by", ("loss_gain",), "{:.3f} nats/token"),
    ("KL", ("kl",), "{:.1f}"),
)


def swap_figures(metrics: Mapping[str, object]) -> list[tuple[str, str]]:
    """The figures of a version that the swap banner names: `(label, number in words)`."""
    found = []
    for label, names, form in _FIGURES:
        value = next((metrics[name] for name in names if name in metrics), None)
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((label, form.format(value)))
    return found
