"""The app's hold on the engine, with a real process that misbehaves as it is told (`fake_engine`)."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import AsyncIterator

import pytest
from fake_talk import PATIENCE, Desk, FakeEngine, until

from storage.workspace import Workspace
from workbench.engine import machine, protocol
from workbench.engine.machine import Phase
from workbench.engine.process import EngineDied
from workbench.engine.protocol import Cancel, Done, Failed, Generate, Ready, Swapped, Text
from workbench.engine.supervisor import Supervisor
from workbench.screens.prompt.conversation import SENDINGS


@pytest.fixture
async def desk(workspace: Workspace, fake: FakeEngine) -> AsyncIterator[Desk]:
    desk = Desk(workspace, fake.command)
    yield desk
    await desk.supervisor.close()
    assert desk.errors == []


async def test_f5_pressed_ten_times_leaves_one_engine(desk: Desk, fake: FakeEngine):
    await desk.opened()
    for _ in range(10):
        desk.supervisor.restart()
    await desk.ready()
    assert len(fake.living()) == 1
    assert len(fake.heard("start")) == 2, "presses while it is being started anew add nothing"
    for presses in range(10):
        desk.supervisor.restart()
        # The process says that it began before the supervisor knows: until then a press adds nothing.
        await until(lambda n=presses: len(fake.heard("start")) > 2 + n and desk.phase is not Phase.STARTING)
    await desk.ready()
    assert len(fake.living()) == 1
    assert desk.told_of(EngineDied) == [], "an engine that is ended is no accident"


async def test_a_poison_prompt_is_sent_twice_and_set_aside_and_the_others_go_on(desk: Desk, fake: FakeEngine):
    await desk.opened()
    for text in ("one", "die", "two"):
        desk.ask(text)
    await until(lambda: [done.request for done in desk.told_of(Done)] == ["one", "two"])
    asked = [heard["request"] for heard in fake.heard("generate")]
    assert asked == ["one", *["die"] * SENDINGS, "two"]
    (aside,) = desk.conversation.aside
    assert (aside.state, aside.ask.prompt.text) == ("aside", "die")
    assert [(answer.text, answer.finish_reason, answer.version) for answer in aside.answers.values()] == [
        ("die ", "cancelled", "v0")
    ]
    assert "ended 2 times" in aside.error


async def test_an_answer_that_was_whole_before_the_engine_died_stays_whole(desk: Desk):
    await desk.opened()
    desk.ask("die late")
    await until(lambda: desk.conversation.aside)
    (aside,) = desk.conversation.aside
    assert [(n, answer.finish_reason, answer.token_ids) for n, answer in aside.answers.items()] == [(0, "eos", [1, 2])]
    assert aside.texts == ["die late 0", ""]


async def test_restarts_are_bounded_for_good_until_somebody_asks(desk: Desk, fake: FakeEngine):
    await desk.opened()
    for n in range(10):
        desk.ask("die", f"poison {n}")
    await until(lambda: desk.phase is Phase.DOWN)
    assert len(fake.heard("start")) == 1 + machine.RESTARTS
    assert [died.again for died in desk.told_of(EngineDied)] == [True] * machine.RESTARTS + [False]
    assert fake.living() == []
    desk.supervisor.restart()  # the next prompt kills it again: no further restart comes for free
    await until(lambda: len(fake.heard("start")) == 2 + machine.RESTARTS and desk.phase is Phase.DOWN)
    assert len(desk.conversation.drop()) == 10 - 3
    desk.supervisor.restart()
    await desk.ready()
    desk.ask("well")
    await until(lambda: desk.told_of(Done))


async def test_a_failed_swap_can_be_tried_again(desk: Desk, fake: FakeEngine):
    await desk.opened()
    desk.supervisor.follow("v1-bad")
    await until(lambda: desk.told_of(Failed))
    desk.supervisor.follow("v1-bad")  # by itself it is not tried again and again ...
    desk.supervisor.swap("v1-bad")  # ... but by name it is
    await until(lambda: len(desk.told_of(Failed)) == 2)
    assert [heard["version"] for heard in fake.heard("swap")] == ["v1-bad", "v1-bad"]
    desk.supervisor.follow("v2")
    await until(lambda: desk.told_of(Swapped))
    desk.supervisor.follow("v1-bad")  # served anew after another: it may have been mended
    await until(lambda: len(desk.told_of(Failed)) == 3)
    assert desk.supervisor.state.version == "v2"


async def test_a_swap_that_kills_the_engine_is_named_and_not_repeated(desk: Desk, fake: FakeEngine):
    await desk.opened()
    desk.supervisor.swap("v1-deadly")
    await until(lambda: len(fake.heard("start")) == 2)
    await desk.ready()
    assert "v1-deadly" in desk.told_of(Failed)[0].error
    desk.supervisor.follow("v1-deadly")
    desk.ask("still answering")
    await until(lambda: desk.told_of(Done))
    assert len(fake.heard("swap")) == 1


async def test_swaps_in_a_row_come_one_after_the_other_and_the_last_wins(desk: Desk, fake: FakeEngine):
    desk.supervisor.load("smollm2")
    for version in ("v1", "v2"):  # while the model loads
        desk.supervisor.swap(version)
    await until(lambda: desk.supervisor.state.version == "v2")
    for version in ("v3", "v4", "v5"):
        desk.supervisor.swap(version)
    await until(lambda: desk.supervisor.state.version == "v5")
    assert [heard["version"] for heard in fake.heard("swap")] == ["v2", "v3", "v5"]


async def test_a_load_during_a_swap_and_a_restart_during_either(desk: Desk, fake: FakeEngine):
    await desk.opened()
    desk.supervisor.swap("v1")
    desk.supervisor.load("gemma")
    assert desk.phase is Phase.LOADING
    await desk.ready()
    assert (desk.told_of(Ready)[-1].model, desk.supervisor.state.version) == ("gemma", "v0")
    desk.supervisor.swap("v2")
    desk.supervisor.restart()
    await desk.ready()
    await until(lambda: desk.supervisor.state.version == "v2")  # asked for by name, it outlives a restart
    desk.supervisor.load("smollm2")
    desk.supervisor.restart()
    await desk.ready()
    assert (desk.told_of(Ready)[-1].model, desk.supervisor.state.version) == ("smollm2", "v0")


async def test_a_listener_that_raises_is_reported_once_and_the_others_go_on_hearing(desk: Desk):
    def broken(event: object) -> None:
        raise RuntimeError("the screen is gone")

    heard: list[object] = []
    desk.supervisor.listen(broken)
    desk.supervisor.listen(heard.append)
    await desk.opened()
    desk.ask("one")
    await until(lambda: any(isinstance(event, Done) for event in heard))
    assert heard == desk.told
    assert [str(error) for error in desk.errors] == ["the screen is gone"]
    desk.errors.clear()


@pytest.mark.parametrize("mood", [{"load": "hang"}, {"load": "hang", "deaf": True}, {"delay": 60.0}])
async def test_closing_is_bounded_in_the_middle_of_a_load(desk: Desk, fake: FakeEngine, mood: dict[str, object]):
    fake.mood(**mood)
    desk.supervisor.load("smollm2")
    await until(lambda: fake.heard("start" if "delay" in mood else "load"))
    await closed_in_time(desk, fake)


async def test_closing_is_bounded_when_the_engine_is_stopped(desk: Desk, fake: FakeEngine):
    await desk.opened()
    desk.ask("hang")
    await until(lambda: desk.told_of(Text))
    assert desk.supervisor.pid is not None
    os.kill(desk.supervisor.pid, signal.SIGSTOP)
    await closed_in_time(desk, fake)


async def closed_in_time(desk: Desk, fake: FakeEngine) -> None:
    began = time.monotonic()
    await desk.supervisor.close()
    assert time.monotonic() - began < 2 * PATIENCE + 2.0  # and something for a busy machine
    assert fake.living() == []
    assert desk.phase is Phase.OFF
    desk.supervisor.restart()
    desk.supervisor.swap("v1")
    assert desk.phase is Phase.OFF, "none after closing"


async def test_a_stopped_engine_is_restarted_and_its_prompt_answered_anew(desk: Desk, fake: FakeEngine):
    await desk.opened()
    assert desk.supervisor.pid is not None
    os.kill(desk.supervisor.pid, signal.SIGSTOP)
    desk.ask("one")
    desk.supervisor.restart()
    await until(lambda: desk.told_of(Done))
    assert len(fake.heard("start")) == 2


async def test_a_model_that_cannot_be_loaded_leaves_no_process(desk: Desk, fake: FakeEngine):
    fake.mood(load="fail")
    desk.supervisor.load("nothing")
    await until(lambda: desk.phase is Phase.DOWN)
    assert fake.living() == []
    fake.mood(load="die")
    desk.supervisor.restart()
    await until(lambda: desk.phase is Phase.DOWN)
    (died,) = desk.told_of(EngineDied)
    assert (died.was_ready, died.again) == (False, False)
    assert "no memory for the weights" in died.hint
    fake.mood()
    desk.supervisor.restart()
    await desk.ready()


async def test_a_command_that_is_not_there_is_told(workspace: Workspace):
    told: list[object] = []
    supervisor = Supervisor(workspace, command=["/no/such/program"])
    supervisor.listen(told.append)
    supervisor.load("smollm2")
    await until(lambda: told)
    assert isinstance(told[0], Failed)
    assert "cannot be started" in told[0].error
    await supervisor.close()


async def test_an_engine_that_ends_at_once_and_a_key_in_that_moment_leave_no_phase_hanging(workspace: Workspace):
    supervisor = Supervisor(workspace, command=[shutil.which("true") or "/bin/true"])
    deaths: list[EngineDied] = []

    def press_f8(event: object) -> None:
        if isinstance(event, EngineDied):
            deaths.append(event)
            if len(deaths) < 20:
                supervisor.restart()

    supervisor.listen(press_f8)
    supervisor.load("smollm2")
    await until(lambda: len(deaths) == 20)
    assert supervisor.state.phase is Phase.DOWN
    await supervisor.close()


async def test_an_unreadable_line_is_told_and_ends_nothing(desk: Desk):
    await desk.opened()
    desk.ask("garbage")
    await until(lambda: desk.told_of(Done))
    assert [failed.during for failed in desk.told_of(Failed)] == ["protocol"]
    assert desk.conversation.current is not None
    assert desk.conversation.current.state == "done"


@pytest.mark.parametrize("prompt", ["mute", "orphan"])
async def test_an_engine_that_can_no_longer_be_heard_is_replaced(
    desk: Desk, fake: FakeEngine, prompt: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("workbench.engine.process.PATIENCE", 0.1)
    monkeypatch.setattr("workbench.engine.process.LAST_WORDS", 0.1)
    await desk.opened()
    desk.ask(prompt)
    desk.ask("well")
    await until(lambda: desk.told_of(Done))
    assert len(desk.told_of(EngineDied)) == SENDINGS
    await until(lambda: len(fake.living()) == 1)  # what it left behind is ended as well


async def test_dropped_prompts_are_not_sent_and_keep_what_was_answered(desk: Desk, fake: FakeEngine):
    await desk.opened()
    desk.ask("hang")
    desk.ask("never sent")
    await until(lambda: desk.told_of(Text))
    assert desk.supervisor.pid is not None
    os.kill(desk.supervisor.pid, signal.SIGSTOP)
    desk.supervisor.restart()
    first, second = desk.conversation.drop()
    assert (first.state, second.state) == ("dropped", "dropped")
    assert [answer.text for answer in first.answers.values()] == ["hang "]
    await desk.ready()
    assert [heard["request"] for heard in fake.heard("generate")] == ["hang"]


async def test_a_prompt_for_an_engine_that_is_not_ready_is_told_as_failed(desk: Desk):
    desk.supervisor.send(Generate("r", "too early"))
    (failed,) = desk.told
    assert isinstance(failed, Failed)
    assert failed.request == "r"
    desk.supervisor.send(Cancel("r"))


def test_only_healthy_time_gives_restarts_back():
    def after(state: machine.State, *happenings: machine.Happening, at: float = 0.0) -> machine.State:
        for happening in happenings:
            state, _ = machine.step(state, happening, at)
        return state

    ready = Ready("smollm2", "v0", "cpu", "bf16", 1, 1, 1.0)
    died = EngineDied(-9, "", "engine.log")
    state = after(machine.State(), protocol.Load(), machine.Started(), ready)
    for left in reversed(range(machine.RESTARTS)):
        state = after(state, died, machine.Started(), ready)
        assert state.restarts == left
    healthy = after(state, died, at=machine.REFILL)
    assert (healthy.phase, healthy.restarts) == (Phase.STARTING, 0)
    assert after(state, died, at=machine.REFILL - 1).phase is Phase.DOWN
    assert after(state, died, at=100 * machine.REFILL).restarts == machine.RESTARTS - 1, "never more than there are"
    assert after(state, died, machine.Restart(), machine.Started(), ready).restarts == 0, "a key gives none back"


@pytest.mark.model
async def test_the_bundled_model_killed_in_the_middle_of_an_answer_comes_back_and_gives_it(
    bundled_model_workspace: Workspace,
):
    desk = Desk(bundled_model_workspace, None, patience=3.0)
    desk.supervisor.load("smollm2")
    await desk.ready(120)
    desk.ask("Name three animals.", tokens=24)
    await until(lambda: desk.told_of(Text), 60)
    assert desk.supervisor.pid is not None
    os.kill(desk.supervisor.pid, signal.SIGKILL)
    await until(lambda: desk.told_of(Done), 120)
    (died,) = desk.told_of(EngineDied)
    assert died.again
    assert [asked.prompt for asked in died.unfinished] == ["Name three animals."]
    (exchange,) = desk.exchanges
    assert (exchange.state, exchange.sent, len(exchange.answers)) == ("done", 2, 2)
    assert all(answer.version == "v0" and answer.token_ids for answer in exchange.answers.values())
    await desk.supervisor.close()
    assert desk.supervisor.pid is None
    assert desk.errors == []
