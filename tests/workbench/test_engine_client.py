"""The engine as a process: started, fed, killed, restarted and closed through its client."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_model import CORPUS

from storage import conversations, samples
from storage.database import open_database
from storage.errors import WorkbenchError
from storage.records import Sampling
from workbench.engine import protocol
from workbench.engine.client import EngineClient, EngineDied
from workbench.engine.protocol import Answer, Cancel, Done, Failed, Generate, Load, Ready, Shutdown, Swap, Text
from workbench.engine.recording import store_answers

SHORT = Sampling(max_new_tokens=10)
LONG = Sampling(max_new_tokens=3500)


async def load(client: EngineClient, model: Path) -> Ready:
    events = [event async for event in client.load(Load(str(model), device="cpu", dtype="fp32"))]
    assert isinstance(events[-1], Ready), events
    return events[-1]


async def ask(client: EngineClient, request: Generate) -> list:
    return [event async for event in client.generate(request)]


def answers_in(events: list) -> list[Answer]:
    return [event for event in events if isinstance(event, Answer)]


async def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_answers_come_through_the_process_and_are_kept_with_their_origin(workspace, endless_model):
    async with EngineClient(workspace, threads=1) as client:
        ready = await load(client, endless_model)
        request = Generate("r", CORPUS[1], count=2, seed=4, sampling=SHORT)
        events = await ask(client, request)
    assert isinstance(events[-1], Done)
    answers = answers_in(events)
    assert any(isinstance(event, Text) for event in events)
    with open_database(workspace) as database:
        prompt = conversations.add(database, request.prompt, language="es")
        store_answers(database, prompt.id, reversed(answers), request.sampling, "g1")
        stored = samples.of_group(database, "g1")
    assert [sample.text for sample in stored] == [answer.text for answer in answers]
    assert [sample.token_ids for sample in stored] == [answer.token_ids for answer in answers]
    assert [(sample.version, sample.seed, sample.sampling) for sample in stored] == [
        (ready.version, 4, SHORT), (ready.version, 5, SHORT)
    ]  # fmt: skip
    assert stat.S_IMODE(client.log_path.stat().st_mode) == 0o600


async def test_several_ask_at_once_and_each_hears_only_its_own(workspace, endless_model):
    async with EngineClient(workspace) as client:
        await load(client, endless_model)
        all_events: list = []
        stop_listening = client.listen(all_events.append)
        found = await asyncio.gather(*(ask(client, Generate(f"r{n}", CORPUS[n], sampling=SHORT)) for n in range(3)))
        stop_listening()
        for n, events in enumerate(found):
            assert {event.request for event in events} == {f"r{n}"}
            assert isinstance(events[-1], Done)
        assert len(all_events) == sum(map(len, found))
        assert isinstance(await client.swap("v0"), protocol.Swapped)
        assert isinstance(await client.swap("v7"), Failed)
        assert not all_events[sum(map(len, found)) :]
        assert not client.unfinished


async def test_leaving_a_generation_early_cancels_it(workspace, endless_model):
    async with EngineClient(workspace) as client:
        await load(client, endless_model)
        ended: asyncio.Queue = asyncio.Queue()
        client.listen(lambda event: ended.put_nowait(event) if isinstance(event, Answer) else None)
        events = client.generate(Generate("r", CORPUS[0], sampling=LONG))
        async for event in events:
            if isinstance(event, Text):
                break
        await events.aclose()
        answer = await asyncio.wait_for(ended.get(), 5)
        assert answer.finish_reason == "cancelled"
        assert len(answer.token_ids) < LONG.max_new_tokens


async def test_a_killed_engine_is_reported_with_what_was_left_and_starts_again(workspace, endless_model):
    async with EngineClient(workspace) as client:
        await load(client, endless_model)
        expected = [
            event for event in await ask(client, Generate("r", CORPUS[2], sampling=SHORT)) if isinstance(event, Answer)
        ]
        seen: asyncio.Queue = asyncio.Queue()
        client.listen(seen.put_nowait)
        running, waiting = Generate("r1", CORPUS[0], sampling=LONG), Generate("r2", CORPUS[2], sampling=SHORT)
        await client.send(running)
        await client.send(waiting)
        while not isinstance(await seen.get(), Text):
            pass
        assert client._process is not None
        os.kill(client._process.pid, signal.SIGKILL)
        while not isinstance(died := await asyncio.wait_for(seen.get(), 5), EngineDied):
            pass
        assert died.exit_code == -signal.SIGKILL
        assert died.unfinished == (running, waiting)
        assert died.was_ready
        assert "signal 9" in died.error
        assert "engine.log" in died.hint
        assert not client.running
        with pytest.raises(WorkbenchError, match="not running"):
            await client.send(waiting)

        await client.restart()
        while not isinstance(await asyncio.wait_for(seen.get(), 60), Ready):
            pass
        again = answers_in(await ask(client, died.unfinished[1]))
        assert [answer.token_ids for answer in again] == [answer.token_ids for answer in expected]


async def test_whoever_waits_for_an_answer_hears_that_the_engine_died(workspace, endless_model):
    async with EngineClient(workspace) as client:
        await load(client, endless_model)
        async for event in client.generate(Generate("r", CORPUS[0], sampling=LONG)):
            if isinstance(event, Text) and client.running:
                assert client._process is not None
                client._process.kill()
        assert isinstance(event, EngineDied)


async def test_an_engine_that_cannot_start_tells_why(workspace, monkeypatch):
    monkeypatch.setattr("workbench.engine.process.SERVER", "workbench.engine.no_such_server")
    async with EngineClient(workspace) as client:
        events = [event async for event in client.load(Load())]
    (died,) = events
    assert isinstance(died, EngineDied)
    assert not died.was_ready
    assert "no_such_server" in died.log
    assert "no_such_server" in died.hint


async def test_closing_ends_the_process_even_in_the_middle_of_work(workspace, endless_model):
    client = EngineClient(workspace)
    await client.start()
    await load(client, endless_model)
    asking = asyncio.create_task(ask(client, Generate("r", CORPUS[0], sampling=LONG)))
    while "r" not in client.unfinished:
        await asyncio.sleep(0.01)
    assert client._process is not None
    pid, began = client._process.pid, time.monotonic()
    await client.close()
    assert time.monotonic() - began < 4
    assert await gone(pid)
    events = await asyncio.wait_for(asking, 1)
    assert not any(isinstance(event, EngineDied) for event in events), "closing is no accident"
    await client.close()


async def test_closing_does_not_wait_for_an_engine_that_hangs(workspace, monkeypatch):
    monkeypatch.setattr("workbench.engine.process.PATIENCE", 0.3)
    client = EngineClient(workspace)
    await client.start()
    assert client._process is not None
    pid = client._process.pid
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await client.close()
    assert time.monotonic() - began < 3
    assert await gone(pid)


async def test_closing_while_a_model_loads_is_quick(workspace, endless_model):
    client = EngineClient(workspace)
    await client.start()
    await client.send(Load(str(endless_model)))
    began = time.monotonic()
    await client.close()
    assert time.monotonic() - began < 3, "it had to be stopped by force"


async def test_the_engine_ends_with_the_process_that_started_it(workspace, endless_model):
    program = f"""
import asyncio, os
from pathlib import Path
from storage.workspace import Workspace
from workbench.engine.client import EngineClient
from workbench.engine.protocol import Generate, Load, Ready, Text
from storage.records import Sampling
async def main():
    client = EngineClient(Workspace(Path({str(workspace.root)!r})))
    await client.start()
    async for event in client.load(Load({str(endless_model)!r})): pass
    async for event in client.generate(Generate("r", "hola", sampling=Sampling(max_new_tokens=4000))):
        if isinstance(event, Text):
            print(client._process.pid, flush=True)
            os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert await gone(int(ended.stdout.split()[0]))


async def test_events_that_are_too_long_or_unreadable_are_reported_and_survived(workspace, tmp_path, monkeypatch):
    program = tmp_path / "noisy_server.py"
    program.write_text(
        "import sys\n"
        "out = sys.stdout.buffer\n"
        "out.write(b'not json at all\\n')\n"
        'out.write(b\'{"type": "unheard-of"}\\n\')\n'
        "out.write(b'x' * 5000 + b'\\n')\n"
        'out.write(b\'{"type":"ready","model":"m","version":"v0","device":"cpu","dtype":"fp32",\'\n'
        '          b\'"parameters":1,"context":1,"seconds":0}\\n\')\n'
        "out.write(b'half a li')\n"
        "out.flush()\n"
        "sys.stdin.readline()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("workbench.engine.process.SERVER", "noisy_server")
    monkeypatch.setattr(protocol, "MAX_LINE", 1000)
    client = EngineClient(workspace)
    seen: asyncio.Queue = asyncio.Queue()
    client.listen(seen.put_nowait)
    await client.start()
    events = [await asyncio.wait_for(seen.get(), 10) for _ in range(4)]
    assert [type(event) for event in events] == [Failed, Failed, Failed, Ready]
    assert {event.during for event in events[:3]} == {"protocol"}
    await client.send(Shutdown())
    assert isinstance(await asyncio.wait_for(seen.get(), 5), EngineDied)
    await client.close()


def test_nothing_printed_can_slip_between_the_events(workspace):
    program = (
        "import os, subprocess\n"
        "from workbench.engine import stdio\n"
        "from workbench.engine.protocol import Swapped\n"
        "requests, events = stdio.claim_stdio()\n"
        "print('a careless library', flush=True)\n"
        "os.write(1, b'a careless C library')\n"
        "subprocess.run(['echo', 'a careless child'])\n"
        "try: input('run this code? [y/N] ')\n"
        "except EOFError: print('nobody answered', flush=True)\n"
        "stdio.writer_to(events)(Swapped('v1', 'v0', requests.readline().__len__()))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], input=b"y\n", capture_output=True, timeout=30)
    assert ended.stdout == protocol.encode(protocol.Swapped("v1", "v0", 2))
    for said in (b"careless library", b"careless C library", b"careless child", b"nobody answered"):
        assert said in ended.stderr


def test_the_process_speaks_plain_json_lines_and_ends_with_its_input(workspace):
    lines = [b"hello\n", b'{"type": "generate", "request": "r1", "prompt": "x", "count": 0}\n']
    lines += [protocol.encode(request) for request in (Cancel("r9"), Swap("v1"), Generate("r2", "hola"))]
    command = [sys.executable, "-m", "workbench.engine.server", "--workspace", str(workspace.root)]
    ended = subprocess.run(command, input=b"".join(lines), capture_output=True, timeout=30)
    assert ended.returncode == 0, ended.stderr.decode()
    events = [protocol.decode_event(line) for line in ended.stdout.splitlines()]
    assert all(isinstance(event, Failed) for event in events)
    told = {(event.during, event.request) for event in events}
    assert ("protocol", None) in told
    assert ("protocol", "r1") in told


def test_the_client_brings_nothing_heavy_along():
    program = (
        "import sys, workbench.engine.client\n"
        "unwanted = {'torch', 'transformers', 'trainer', 'peft', 'accelerate', 'sqlite_utils', 'numpy'}\n"
        "heavy = unwanted & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.model
async def test_the_bundled_model_knows_a_capital_and_repeats_itself_for_the_same_seed(bundled_model_workspace):
    async with EngineClient(bundled_model_workspace) as client:
        # In fp32: its two likeliest first words are closer than the rounding of bf16.
        events = [event async for event in client.load(Load("smollm2", device="cpu", dtype="fp32"))]
        ready = events[-1]
        assert isinstance(ready, Ready)
        assert (ready.model, ready.version, ready.context) == ("smollm2", "v0", 8192)
        greedy = Sampling(temperature=0, max_new_tokens=12)
        (answer,) = answers_in(await ask(client, Generate("r", "What is the capital of France?", sampling=greedy)))
        assert answer.text == "The capital of France is Paris."
        assert answer.finish_reason == "eos"
        requests = [Generate(name, "Nenne drei Tiere.", seed=5, count=2, sampling=SHORT) for name in ("a", "b")]
        first, second = [
            [answer.token_ids for answer in answers_in(await ask(client, request))] for request in requests
        ]
        assert first == second
        assert first[0] != first[1]
