"""Where the engine stands, as frozen facts and as the words of the header.

Pure functions: events in, facts and words out. The dots change their shape with the state, so that nothing depends on
colour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from workbench.engine import protocol
from workbench.engine.machine import Report, Restarting
from workbench.engine.process import EngineDied

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
    base: str = ""  # the digest of the loaded model's weights

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
                base=event.base,
            )  # fmt: skip
        case protocol.Text():
            return status if status.state == "writing" else replace(status, state="writing")
        case protocol.Done(tokens_per_second=speed):
            return replace(status, state="ready", speed=speed)
        case protocol.Swapped(version=version, proof=proof):
            return replace(status, version=version, proof=proof)
        case protocol.Failed(during="load", error=error) if status.version:  # the model before goes on answering
            return replace(status, state="ready", detail=error, fraction=None)
        case protocol.Failed(during="load", error=error):
            return replace(status, state="down", detail=error, fraction=None)
        case protocol.Failed(during="generate") if status.state == "writing":
            return replace(status, state="ready")
        case Restarting() | EngineDied(again=True):
            return EngineStatus(pinned=status.pinned)
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
