"""What the header says: the state of the engine and of the trainer, as frozen facts and as short lines of words.

Pure functions: events and records in, facts and words out. The dots change their shape with the state, so that nothing
depends on colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from storage.records import Job, JobState
from workbench.engine import protocol
from workbench.engine.client import EngineDied, Report

DISPLAY_NAMES = {"smollm2": "SmolLM2", "gemma": "Gemma 3"}


@dataclass(frozen=True)
class EngineStatus:
    """Where the engine stands. `state` is starting, converting, loading, ready, writing or down."""

    state: str = "starting"
    model: str = ""
    version: str = ""
    device: str = ""
    dtype: str = ""
    speed: float | None = None  # tokens a second, over all answers of the latest request
    fraction: float | None = None
    detail: str = ""
    proof: str = ""  # how well the loaded version answers as it did when it was published
    pinned: bool = False

    @property
    def is_ready(self) -> bool:
        return self.state in ("ready", "writing")


def after(status: EngineStatus, event: Report) -> EngineStatus:
    """The state of the engine after an event."""
    match event:
        case protocol.Progress(stage=stage, text=text, fraction=fraction):
            state = "converting" if stage == "convert" else "loading"
            return replace(status, state=state, detail=text, fraction=fraction)
        case protocol.Ready():
            return replace(
                status, state="ready", model=event.model, version=event.version, device=event.device,
                dtype=event.dtype, fraction=None, detail="", proof=event.proof,
            )  # fmt: skip
        case protocol.Text():
            return status if status.state == "writing" else replace(status, state="writing")
        case protocol.Done(tokens_per_second=speed):
            return replace(status, state="ready", speed=speed)
        case protocol.Swapped(version=version, proof=proof):
            return replace(status, version=version, proof=proof)
        case protocol.Failed(during="load", error=error):
            return replace(status, state="down", detail=error, fraction=None)
        case protocol.Failed(during="generate") if status.state == "writing":
            return replace(status, state="ready")
        case EngineDied(error=error):
            return replace(status, state="down", detail=error, fraction=None)
    return status


ENGINE_DOTS = {"starting": "◌", "converting": "◔", "loading": "◑", "ready": "●", "writing": "◉", "down": "✕"}


def engine_words(status: EngineStatus) -> tuple[str, str, str]:
    """The engine's part of the header: full, short and shortest."""
    dot = ENGINE_DOTS[status.state]
    if not status.is_ready:
        percent = "" if status.fraction is None else f" {status.fraction:.0%}"
        word = f"engine {status.state}{percent}"
        return f"{dot} {word}", f"{dot} {word}", f"{dot} {status.state}{percent}"
    name = DISPLAY_NAMES.get(status.model, status.model.rstrip("/").rpartition("/")[2])
    pinned = " pinned" if status.pinned else ""
    device = " ".join(filter(None, [status.device, short_dtype(status.dtype)]))
    speed = "" if status.speed is None else f" · {status.speed:.0f} tok/s"
    return (
        f"{dot} {name} {status.version}{pinned} · {device}{speed}",
        f"{dot} {name} {status.version}{pinned} · {device}",
        f"{dot} {status.state} {status.version}",
    )


def short_dtype(dtype: str) -> str:
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(dtype, dtype)


@dataclass(frozen=True)
class TrainerStatus:
    """Where the trainer stands. `state` is idle, waiting, training, stopping, stalled, paused or failed."""

    state: str = "idle"
    stage: str = ""
    step: int = 0
    steps: int = 0
    kl: float | None = None
    minutes_left: float | None = None


def trainer_status(
    job: Job | None, *, alive: bool, kl: float | None = None, seconds_left: float | None = None
) -> TrainerStatus:
    """The state of the newest job; `alive` says whether its worker still renews its lease."""
    if job is None or job.state is JobState.DONE:
        return TrainerStatus()
    state = {JobState.QUEUED: "waiting", JobState.PAUSED: "paused", JobState.FAILED: "failed"}.get(job.state, "")
    if job.state is JobState.RUNNING:
        state = "stalled" if not alive else "stopping" if job.cancel_requested else "training"
    left = None if seconds_left is None or state != "training" else seconds_left / 60
    return TrainerStatus(state, job.stage or job.kind, job.step, job.steps, kl, left)


TRAINER_DOTS = {
    "idle": "△", "waiting": "◌", "training": "▲", "stopping": "▽", "stalled": "✕", "paused": "Ⅱ", "failed": "✕",
}  # fmt: skip


def trainer_words(status: TrainerStatus) -> tuple[str, str, str]:
    """The trainer's part of the header: full, short and shortest."""
    dot = TRAINER_DOTS[status.state]
    if status.state == "idle":
        return f"{dot} trainer idle", f"{dot} idle", dot
    word = "" if status.state == "training" else f" {status.state}"
    where = f" {status.step}/{status.steps}" if status.steps else ""
    kl = "" if status.kl is None else f" · KL {status.kl:.1f}"
    left = "" if status.minutes_left is None else f" · {time_left(60 * status.minutes_left)}"
    return (
        f"{dot}{word} {status.stage}{where}{kl}{left}",
        f"{dot}{word} {status.stage}{where}{kl}",
        f"{dot}{word}{where}",
    )


def outcome(job: Job) -> str:
    """How a finished job ended, such as `v3 rejected: reward gain` or `v3 published, reward +0.41, KL 3.1`."""
    result = job.result or {}
    if "reward_model" in result:
        return ", ".join([str(result["reward_model"]), *agreement(result)])
    named = " ".join(str(result[name]) for name in ("version", "state") if name in result) or str(job.state)
    failed = [str(gate.get("gate")) for gate in result.get("gates", []) if not gate.get("passed")]
    if failed:
        return f"{named}: {', '.join(failed)}"
    return ", ".join([named, *(f"{label} {value}" for label, value in swap_figures(result))])


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
    found = [f"learned from {result.get('examples', 0)} ratings"]
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


def time_left(seconds: float) -> str:
    """A duration still to go, in the words of the header."""
    if seconds < 60:
        return "under 1 min left"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left"


def fitting(choices: list[list[str]], room: int, gap: int) -> list[str]:
    """The longest wording whose parts, `gap` cells apart, fit into `room` cells; else the last one.

    `choices` goes from the longest wording to the shortest.
    """
    from rich.cells import cell_len

    for parts in choices:
        if sum(map(cell_len, parts)) + gap * (len(parts) - 1) <= room:
            return parts
    return choices[-1]


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
