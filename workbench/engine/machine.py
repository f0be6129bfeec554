"""When the app's engine is started, fed, ended and started again: a pure function, `step`.

A state and what happens give the next state and the effects to carry out; `workbench.engine.supervisor` does these.
Nothing here knows a process or a clock.

| phase      | the process                                      | prompts |
|------------|--------------------------------------------------|---------|
| `OFF`      | none, and none is wanted: not yet, or closed     | refused |
| `STARTING` | is being started                                 | refused |
| `LOADING`  | lives, and its model is on the way               | refused |
| `READY`    | answers                                          | sent    |
| `ENDING`   | is being ended; `State.after_end` comes then     | refused |
| `DOWN`     | none: it could not load, or died once too often  | refused |

A refused prompt is told as failed; the queue of prompts (`screens.prompt.conversation`) sends none then.

| what happens    | `OFF`      | `STARTING`     | `LOADING`        | `READY`              | `ENDING`    | `DOWN`     |
|-----------------|------------|----------------|------------------|----------------------|-------------|------------|
| `Load`          | `STARTING` | noted          | sent             | sent, `LOADING`      | started (2) | `STARTING` |
| `Restart` (F8)  | -          | - (on its way) | `ENDING`, again  | `ENDING`, again      | started (2) | `STARTING` |
| swap, follow    | -          | noted          | noted            | sent, or noted       | noted       | noted      |
| `Close`         | -          | `ENDING`, off  | `ENDING`, off    | `ENDING`, off        | then `OFF`  | `OFF`      |
| started         | -          | `LOADING`      | -                | -                    | -           | -          |
| not started     | -          | `DOWN`         | -                | -                    | -           | -          |
| ready           | -          | -              | `READY`          | `READY`              | -           | -          |
| failed to load  | -          | -              | `ENDING`, down (1) | told               | -           | -          |
| any other event | -          | -              | told             | told                 | -           | -          |
| died            | -          | `DOWN`         | `DOWN` (1)       | `STARTING` or `DOWN` | -           | -          |
| ended           | -          | -              | -                | -                    | `after_end` | -          |

(1) As in `READY` where a model was loaded before. (2) Unless it is being closed: closing wins.

- **One swap at a time.** One that is asked for while another is under way, or while a model loads, is noted (the latest
  wins) and sent when it can be. One that failed, or during which the engine died, is not followed again by itself
  (`State.refused`); whoever asks for it by name tries it again, and so does a restart. Another model forgets all of it.
- **A restart forgets the swap under way** but not the version that was asked for by name (`State.pin`).
- **Restarts are bounded for good.** One that nobody asked for takes one of `RESTARTS`; only `REFILL` seconds of being
  ready give one back. At none the engine stays down until F8, which takes none and gives none back.
- An engine that is being ended is not listened to any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import msgspec

from workbench.engine.process import EngineDied
from workbench.engine.protocol import Cancel, Done, Event, Failed, Generate, Load, Ready, Swap, Swapped

RESTARTS = 4
REFILL = 120.0  # seconds


class Phase(Enum):
    """Where the engine's process stands; see the tables of this module."""

    OFF = "off"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    ENDING = "ending"
    DOWN = "down"


class Restarting(msgspec.Struct, frozen=True):
    """The engine is started anew because somebody asked for it; what it was doing is lost."""


Report = Event | EngineDied | Restarting


@dataclass(frozen=True)
class State:
    """All there is to know about the engine. `version` is what answers, empty when nothing is loaded."""

    phase: Phase = Phase.OFF
    after_end: Phase = Phase.OFF  # of ENDING: OFF, STARTING or DOWN
    load: Load | None = None
    version: str = ""
    unfinished: tuple[Generate, ...] = ()  # sent, and not yet done or failed
    swapping: str = ""  # the version of the swap under way
    wanted: str = ""  # the version to swap to next
    pin: str = ""  # the version that was asked for by name: it outlives a restart
    refused: str = ""  # the version whose swap failed: not followed by itself
    restarts: int = RESTARTS  # how many are left
    ready_since: float = 0.0


# What happens: requests of the protocol (Load, Generate, Cancel), events of the engine, its death, and these.


@dataclass(frozen=True)
class Restart:
    """Start the engine anew, whatever it is doing."""


@dataclass(frozen=True)
class Choose:
    """Answer with a version. `by_name`: somebody chose it, and stays on it; otherwise it is followed."""

    version: str
    by_name: bool


@dataclass(frozen=True)
class Close:
    """End the engine for good."""


@dataclass(frozen=True)
class Started:
    """The process runs; nothing is loaded."""


@dataclass(frozen=True)
class NotStarted:
    """There is no process."""

    error: str
    hint: str


@dataclass(frozen=True)
class Ended:
    """The process was ended. `gone` is False when the system itself could not end it."""

    gone: bool


Happening = (
    Load | Generate | Cancel | Event | EngineDied | Restart | Choose | Close | Started | NotStarted | Ended
)  # fmt: skip

# Effects, in the order to carry them out.


@dataclass(frozen=True)
class Launch:
    """Start the process, then say Started or NotStarted."""


@dataclass(frozen=True)
class End:
    """End the process, then say Ended."""


@dataclass(frozen=True)
class Send:
    """Hand the engine a request."""

    request: Load | Generate | Cancel | Swap


@dataclass(frozen=True)
class Tell:
    """Tell whoever listens."""

    report: Report


Effect = Launch | End | Send | Tell
Next = tuple[State, list[Effect]]


def step(state: State, happening: Happening, now: float) -> Next:
    """What comes of it: the next state and the effects. `now` is in seconds that only grow."""
    match happening:
        case Load():
            return _load(state, happening)
        case Restart():
            return _restart(state)
        case Choose(version=version, by_name=by_name):
            return _swap_if_free(_choose(state, version, by_name))
        case Generate():
            if state.phase is not Phase.READY:
                why = f"the engine is {state.phase.value}"
                return state, [Tell(Failed("generate", why, "send it again when it is ready", happening.request))]
            return replace(state, unfinished=(*state.unfinished, happening)), [Send(happening)]
        case Cancel():
            return state, [Send(happening)] if state.phase in (Phase.LOADING, Phase.READY) else []
        case Close():
            return _close(state)
        case Started() if state.phase is Phase.STARTING:
            loads: list[Effect] = [Send(state.load)] if state.load else []
            return replace(state, phase=Phase.LOADING), loads
        case NotStarted(error=error, hint=hint) if state.phase is Phase.STARTING:
            return replace(state, phase=Phase.DOWN), [Tell(Failed("load", error, hint))]
        case Ended(gone=gone) if state.phase is Phase.ENDING:
            return _ended(state, gone)
        case EngineDied() if state.phase in (Phase.STARTING, Phase.LOADING, Phase.READY):
            return _died(state, happening, now)
        case Started() | NotStarted() | Ended() | EngineDied():
            return state, []
    return _heard(state, happening, now) if state.phase in (Phase.LOADING, Phase.READY) else (state, [])


def _load(state: State, load: Load) -> Next:
    closing = state.phase is Phase.ENDING and state.after_end is Phase.OFF
    if closing:
        return state, []
    state = replace(state, load=load, wanted="", pin="", refused="")
    match state.phase:
        case Phase.LOADING | Phase.READY:
            return replace(state, phase=Phase.LOADING), [Send(load)]
        case Phase.OFF | Phase.DOWN:
            return _launch(state)
        case Phase.ENDING:
            return replace(state, after_end=Phase.STARTING), []
    return state, []


def _restart(state: State) -> Next:
    asked: list[Effect] = [Tell(Restarting())]
    match state.phase:
        case Phase.LOADING | Phase.READY:
            state = replace(_without_process(state), phase=Phase.ENDING, after_end=Phase.STARTING, refused="")
            return state, [*asked, End()]
        case Phase.ENDING if state.after_end is Phase.DOWN:
            return replace(state, after_end=Phase.STARTING, refused=""), asked
        case Phase.DOWN:
            state, effects = _launch(replace(state, refused=""))
            return state, [*asked, *effects]
    return state, []


def _choose(state: State, version: str, by_name: bool) -> State:
    if state.phase is Phase.OFF or (not by_name and version == state.refused):
        return state
    # Asked for by name, it is tried again; followed, it is another one than the one that failed, or the served one.
    state = replace(state, refused="", pin=version if by_name else "")
    coming = state.wanted or state.swapping or state.version
    return state if version == coming else replace(state, wanted=version)


def _swap_if_free(state: State) -> Next:
    """Send the swap that is noted, where it can be."""
    if not state.wanted or state.swapping or state.phase is not Phase.READY:
        return state, []
    wanted, state = state.wanted, replace(state, wanted="")
    if wanted == state.version:
        return state, []
    return replace(state, swapping=wanted), [Send(Swap(wanted))]


def _close(state: State) -> Next:
    match state.phase:
        case Phase.STARTING | Phase.LOADING | Phase.READY:
            return replace(_without_process(state), phase=Phase.ENDING, after_end=Phase.OFF), [End()]
        case Phase.ENDING:
            return replace(state, after_end=Phase.OFF), []
    return replace(_without_process(state), phase=Phase.OFF), []


def _ended(state: State, gone: bool) -> Next:
    if state.after_end is Phase.STARTING and gone:
        return _launch(state)
    told: list[Effect] = []
    if state.after_end is Phase.STARTING:
        told = [Tell(Failed("load", "the engine cannot be ended", "wait for the system, then start it again"))]
    return replace(state, phase=Phase.OFF if state.after_end is Phase.OFF else Phase.DOWN), told


def _died(state: State, died: EngineDied, now: float) -> Next:
    was_ready = bool(state.version)
    earned = int((now - state.ready_since) // REFILL) if was_ready else 0
    left = min(RESTARTS, state.restarts + earned)
    again = was_ready and left > 0
    told: list[Effect] = [
        Tell(msgspec.structs.replace(died, unfinished=state.unfinished, was_ready=was_ready, again=again))
    ]
    if state.swapping:
        error, hint = f"the engine ended while it took up {state.swapping}", "choose it again to try it again"
        told.append(Tell(Failed("swap", error, hint)))
    after = _without_process(_without_swap(state))
    if not again:
        return replace(after, phase=Phase.DOWN, restarts=left), told
    state, effects = _launch(replace(after, restarts=left - 1))
    return state, [*told, *effects]


def _heard(state: State, event: Event, now: float) -> Next:
    """An event of an engine that is listened to: everything is told, and some of it has consequences."""
    told: list[Effect] = [Tell(event)]
    match event:
        case Ready(version=version):
            since = state.ready_since if state.version else now
            state = replace(state, phase=Phase.READY, version=version, ready_since=since)
            state = replace(state, wanted=state.wanted or state.pin)
        case Failed(during="load") if not state.version:
            return replace(_without_process(state), phase=Phase.ENDING, after_end=Phase.DOWN), [*told, End()]
        case Failed(during="load"):
            state = replace(state, phase=Phase.READY)
        case Swapped(version=version):
            state = replace(state, version=version, swapping="")
        case Failed(during="swap"):
            state = _without_swap(state)
        case Done(request=request) | Failed(request=str(request)):
            left = tuple(asked for asked in state.unfinished if asked.request != request)
            state = replace(state, unfinished=left)
    state, effects = _swap_if_free(state)
    return state, [*told, *effects]


def _launch(state: State) -> Next:
    return replace(state, phase=Phase.STARTING), [Launch()]


def _without_swap(state: State) -> State:
    """The swap under way has failed."""
    if not state.swapping:
        return state
    return replace(state, swapping="", refused=state.swapping, pin="" if state.pin == state.swapping else state.pin)


def _without_process(state: State) -> State:
    return replace(state, version="", unfinished=(), swapping="", wanted="")
