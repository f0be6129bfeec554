"""Random keys, misbehaving engines and deaths at any moment: what must hold of the engine's supervisor whatever comes.

More of them, and longer ones:

    SUPERVISOR_EXAMPLES=1000 SUPERVISOR_STEPS=60 python -m pytest tests/workbench/test_supervisor_random.py --timeout 0
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from fake_talk import Desk, FakeEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storage.workspace import Workspace
from workbench.engine import machine
from workbench.engine.machine import Phase
from workbench.engine.process import EngineDied
from workbench.engine.protocol import Cancel, Done, Failed, Generate, Load, Progress, Ready, Swapped
from workbench.screens.prompt.conversation import SENDINGS

EXAMPLES = int(os.environ.get("SUPERVISOR_EXAMPLES", "15"))
STEPS = int(os.environ.get("SUPERVISOR_STEPS", "20"))
PATIENCE = 0.15  # seconds that an engine has to end before it is killed
SILENCE = 0.3  # seconds after which an engine that should say something is taken to hang
PROMPTS = st.sampled_from(["well", "well", "garbage", "fail", "die", "die late", "hang"])
ENDS = {"done", "failed", "aside", "dropped"}
MOODS = [{}, {}, {"delay": 0.1}, {"load": "fail"}, {"load": "die"}, {"load": "hang"}, {"deaf": True}, {"version": "v9"}]


class Supervised(RuleBasedStateMachine):
    """One supervisor through one random life."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.escaped: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.escaped.append(context))
        self.fake = FakeEngine(self.folder / "fake")
        workspace = Workspace(self.folder / "workspace").prepare()

        async def begin() -> Desk:
            return Desk(workspace, self.fake.command, PATIENCE)

        self.desk = self.loop.run_until_complete(begin())
        self.desk.supervisor.listen(self.hear)
        self.raises = False
        self.open()

    def hear(self, event: object) -> None:
        if self.raises:
            raise RuntimeError("a screen that is gone")

    def run(self, seconds: float = 0.0) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def act(self, act: object, *arguments: object) -> None:
        """Do something on the event loop, and let it come to nothing yet."""

        async def acted() -> None:
            act(*arguments)  # type: ignore[operator]

        self.loop.run_until_complete(acted())

    # Keys

    def open(self) -> None:
        self.act(self.desk.supervisor.load, "smollm2")

    @initialize(texts=st.lists(PROMPTS, max_size=4), settled=st.booleans())
    def begin(self, texts: list[str], settled: bool) -> None:
        self.ask(texts, settled)

    @rule(texts=st.lists(PROMPTS, min_size=1, max_size=3), settled=st.booleans())
    def ask(self, texts: list[str], settled: bool) -> None:
        self.settle(settled)
        for text in texts:
            self.act(self.desk.ask, text, f"{len(self.desk.exchanges)}")

    @rule(version=st.sampled_from(["v0", "v1", "v2", "v3-bad", "v4-deadly"]), by_name=st.booleans())
    def swap(self, version: str, by_name: bool) -> None:
        self.act(self.desk.supervisor.swap if by_name else self.desk.supervisor.follow, version)

    @rule(keys=st.sampled_from(["f8", "f8 f8 f8", "escape", "drop", "load", "close"]))
    def press(self, keys: str) -> None:
        for key in keys.split():
            match key:
                case "f8":
                    self.act(self.desk.supervisor.restart)
                case "escape" if self.desk.conversation.current is not None:
                    request = self.desk.conversation.current.ask.generate.request
                    self.act(self.desk.supervisor.send, Cancel(request))
                case "drop":
                    self.act(self.desk.conversation.drop)
                case "load":
                    self.act(self.desk.supervisor.load, "gemma")
                case "close":
                    self.close()
                    self.open()

    def close(self) -> None:
        began = time.monotonic()
        self.loop.run_until_complete(self.desk.supervisor.close())
        assert time.monotonic() - began < 2 * PATIENCE + 5, "closing took too long, even for a busy machine"
        assert self.fake.living() == [], "an engine lives after closing"
        self.act(self.desk.conversation.close)

    # What else happens

    @rule(mood=st.sampled_from(MOODS))
    def engine_changes(self, mood: dict[str, object]) -> None:
        self.fake.mood(**mood)

    @rule(how=st.sampled_from([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV]))
    def signal(self, how: signal.Signals) -> None:
        for pid in self.fake.living():
            with suppress(ProcessLookupError):
                os.kill(pid, how)

    @rule()
    def listener_breaks_or_is_mended(self) -> None:
        self.raises = not self.raises

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05]))
    def time_passes(self, seconds: float) -> None:
        self.run(seconds)

    @rule()
    def all_settles(self) -> None:
        self.settle(True)

    def settle(self, wanted: bool) -> None:
        """Let what is under way come to its end, if that is wanted: an engine that is never waited for is never fed."""
        while wanted and (self.desk.phase is not Phase.READY or self.desk.conversation.is_writing):
            wanted = self.changes()

    def changes(self) -> bool:
        """Run until something changes; False when it does not, for long."""
        before, since = (len(self.desk.told), self.desk.phase), time.monotonic()
        while before == (len(self.desk.told), self.desk.phase):
            if self.desk.phase in (Phase.OFF, Phase.DOWN) or time.monotonic() - since > SILENCE:
                return False
            self.run(0.002)
        return True

    # What must hold

    @invariant()
    def at_most_one_engine_lives(self) -> None:
        assert len(self.fake.living()) <= 1

    def teardown(self) -> None:
        try:
            self.all_comes_to_an_end()
        finally:
            for pid in self.fake.living():
                psutil.Process(pid).kill()
            self.loop.close()
            shutil.rmtree(self.folder)

    def all_comes_to_an_end(self) -> None:
        """With an engine that behaves again, F8 is all it takes: every prompt is answered or named, and a swap done."""
        self.fake.mood()
        conversation = self.desk.conversation
        presses = 0
        while conversation.waiting or conversation.is_writing or self.desk.supervisor.state.version != "v7":
            if not self.changes():
                assert presses <= SENDINGS * len(self.desk.exchanges) + 5, "F8 does not get it going any more"
                presses += 1
                self.act(self.desk.supervisor.restart)
                self.act(self.desk.supervisor.swap, "v7")
        self.close()
        assert [exchange.state for exchange in self.desk.exchanges if exchange.state not in ENDS] == []
        assert self.fake.heard("two alive") == []
        sendings = Counter(heard["request"] for heard in self.fake.heard("generate"))
        assert max(sendings.values(), default=0) <= SENDINGS
        assert sum(died.again for died in self.desk.told_of(EngineDied)) <= machine.RESTARTS
        assert asyncio.all_tasks(self.loop) == set()
        assert self.escaped == []
        assert {str(error) for error in self.desk.errors} <= {"a screen that is gone"}


TestSupervised = Supervised.TestCase
TestSupervised.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    phases=[Stage.reuse, Stage.generate],  # a life of processes is never the same twice: there is nothing to shrink
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# The machine alone: thousands of lives, without a process.

READY = Ready("smollm2", "v0", "cpu", "bf16", 1, 1, 1.0)
HAPPENINGS = st.sampled_from(
    [
        Load(), Generate("r", "p"), Cancel("r"), machine.Restart(), machine.Close(), Progress("load", ""), READY,
        machine.Choose("v1", True), machine.Choose("v2", False), Done("r", 1, 1.0, 1.0), Swapped("v1", "v0", 0.1),
        Failed("load", "no"), Failed("swap", "no"), Failed("generate", "no", request="r"), Failed("protocol", "no"),
        "the process dies", "the lock is free", "the lock is free", "it cannot be started",
    ]
)  # fmt: skip


@given(st.lists(HAPPENINGS, max_size=60))
def test_the_machine_starts_one_process_at_a_time_and_speaks_to_none_that_is_not_there(happenings: list[object]):
    state, alive = machine.State(), False
    tasks: list[machine.Launch | machine.End] = []  # waiting for the lock, which lets them in by turns
    again = 0
    happenings = [*happenings, machine.Close(), *["the lock is free"] * (len(happenings) + 4)]
    for happening in happenings:
        match happening:
            case "the process dies":
                if not alive:
                    continue
                alive, happening = False, EngineDied(-9, "", "")
            case "it cannot be started" | "the lock is free":
                if not tasks:
                    continue
                match tasks.pop(0):
                    case machine.Launch():
                        if state.phase is not Phase.STARTING:
                            continue
                        assert not alive, "a second process"
                        alive = happening == "the lock is free"
                        happening = machine.Started() if alive else machine.NotStarted("no", "")
                    case machine.End():
                        alive, happening = False, machine.Ended(True)
            case Ready() | Progress() | Done() | Swapped() | Failed():
                if not alive:
                    continue
        state, effects = machine.step(state, happening, 0.0)  # type: ignore[arg-type]
        for effect in effects:
            match effect:
                case machine.Launch() | machine.End():
                    tasks.append(effect)
                case machine.Send():
                    assert alive
                    assert state.phase in (Phase.LOADING, Phase.READY)
                case machine.Tell(report=EngineDied(again=True)):
                    again += 1
    assert (state.phase, alive, tasks) == (Phase.OFF, False, [])
    assert again <= machine.RESTARTS
