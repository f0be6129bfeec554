"""A hot swap under a running stream: from the trainer's commit to the first token of the new version.

    python -m benchmarks.hot_swap [--rounds 5] [--json] [--save]

The engine runs as it does for the app, in the number format that it chooses itself. A round commits a version (LoRA of
rank 16 on all linear layers, with the probe that the engine is to answer before it serves it) and looks for it as the
app does; while it is swapped in, a stream is under way on the old weights. Then, with nothing in the way, the same
again, and the first text of an answer from the new version is awaited. Text comes in pieces at least 40 ms apart, so a
stall is the longest pause between two pieces, against the median pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open

from benchmarks import measuring
from storage import clock, versions
from storage.database import Database, open_database
from storage.errors import WorkbenchError
from storage.records import Sampling, Version
from storage.workspace import Workspace
from trainer.policy import devices, probe
from trainer.policy.adapters import FILE_NAME, write_adapter
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.models import resolve, weight_files
from workbench.engine.client import EngineClient
from workbench.engine.process import SERVER
from workbench.engine.protocol import Done, Failed, Generate, Load, Ready, Swapped, Text
from workbench.shell.app import LOOK_SECONDS

PROMPT = "Write a very long story about a lighthouse, its keeper and the sea, with every detail you can think of."
RANK = 16


class Memory:
    """The engine's resident memory, looked at every few milliseconds while this runs."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.peak = 0.0

    def now(self) -> float:
        """In MB."""
        return self.process.memory_info().rss / 1e6

    async def watch(self) -> None:
        self.peak = 0.0
        while True:
            self.peak = max(self.peak, self.now())
            await asyncio.sleep(0.01)


def new_version(workspace: Workspace, database: Database, model: Decoder, seed: int) -> Version:
    """A recorded candidate with small random updates to all linear layers of the model, and its probe."""
    folder = model.folder
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for file in weight_files(folder):
        with safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                shape = opened.get_slice(name).get_shape()
                if ".layers." in name and len(shape) == 2:
                    down = torch.randn(RANK, shape[1], generator=generator) / math.sqrt(shape[1])
                    pairs[name] = (down, 0.001 * torch.randn(shape[0], RANK, generator=generator))
    path = workspace.versions / clock.new_id() / FILE_NAME
    path.parent.mkdir()
    write_adapter(path, pairs, alpha=2 * RANK, base=folder.name)
    answer = probe.take(model.with_version(path), ChatTokenizer.load(folder))
    if answer is not None:
        probe.write(path.parent, answer)
    served = versions.served(database)
    assert served is not None, "the engine records the base model when it loads it"
    base = versions.base_of(database, served)
    relative = str(path.relative_to(workspace.root))
    return versions.add_candidate(database, base=base, parent=base.name, file=relative, sha256=versions.sha256_of(path))


async def commit_and_swap(
    client: EngineClient, workspace: Workspace, trainer: Database, app: Database, version: Version
) -> tuple[float, float]:
    """Commit on one connection, notice it on another as the app does, swap: (moment of the commit, swap's seconds)."""
    before = app.data_version()
    versions.publish(trainer, workspace, version.name)
    committed = time.perf_counter()
    while app.data_version() == before:
        await asyncio.sleep(LOOK_SECONDS)
    report = await client.swap(version.name)
    if not isinstance(report, Swapped):
        raise WorkbenchError(f"the swap failed: {report}")
    if report.proof != "exact" and not report.proof.startswith("within"):
        raise WorkbenchError(f"the swap did not prove itself: {report}")
    return committed, report.seconds


async def stream(client: EngineClient, name: str, tokens: int, pieces: list[tuple[float, int]]) -> None:
    """Generate, and note the moment of each piece of text and the tokens said by then."""
    request = Generate(name, PROMPT, sampling=Sampling(max_new_tokens=tokens), seed=1)
    async for event in client.generate(request):
        if isinstance(event, Text):
            pieces.append((time.perf_counter(), event.tokens))
        elif isinstance(event, Failed):
            raise WorkbenchError(event.error, event.hint)


async def one_round(
    client: EngineClient,
    workspace: Workspace,
    model: Decoder,
    memory: Memory,
    trainer: Database,
    app: Database,
    seed: int,
) -> dict[str, float]:
    """One swap beside a stream, and one followed by the first token of the new version."""
    first, second = (new_version(workspace, trainer, model, 2 * seed + place) for place in range(2))
    found = {"memory_before_mb": memory.now()}
    pieces: list[tuple[float, int]] = []
    watching = asyncio.create_task(memory.watch())
    streaming = asyncio.create_task(stream(client, f"long-{seed}", 4000, pieces))
    while len(pieces) < 40:  # the pauses of a stream that nothing disturbs
        await asyncio.sleep(0.01)
        if streaming.done():
            raise WorkbenchError("the stream ended before the swap: its seed makes a short answer")
    began = time.perf_counter()
    _, beside = await commit_and_swap(client, workspace, trainer, app, first)
    ended = time.perf_counter()
    while not streaming.done() and (not pieces or pieces[-1][0] < ended + 0.2):
        await asyncio.sleep(0.01)
    streaming.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await streaming
    pauses = [(moment, moment - last) for (last, _), (moment, _) in itertools.pairwise(pieces)]
    calm = [pause for moment, pause in pauses if moment < began]
    disturbed = [pause for moment, pause in pauses if moment >= began]
    tokens = [after - before for (_, before), (_, after) in itertools.pairwise(pieces)]
    found |= {
        "swap_beside_stream_s": beside,
        "median_pause_ms": 1e3 * statistics.median(calm),
        "longest_calm_pause_ms": 1e3 * max(calm),
        "longest_pause_while_swapping_ms": 1e3 * max(disturbed),
        "tokens_a_piece": statistics.median(tokens),
    }
    committed, alone = await commit_and_swap(client, workspace, trainer, app, second)
    pieces.clear()
    await stream(client, f"short-{seed}", 8, pieces)
    found |= {"swap_alone_s": alone, "commit_to_first_text_s": pieces[0][0] - committed}
    watching.cancel()
    return {**found, "memory_peak_mb": memory.peak, "memory_after_mb": memory.now()}


async def measure(workspace: Workspace, rounds: int, threads: int | None) -> list[dict[str, float]]:
    """The figures of each round."""
    folder = resolve("smollm2", workspace)
    device, dtype = devices.choose("cpu", "auto")
    model = Decoder.load(folder.path, device, dtype, four_bit=True, source=folder.source)
    found = []
    async with EngineClient(workspace, threads=threads) as client:
        async for event in client.load(Load("smollm2", device="cpu")):
            if not isinstance(event, Ready) and isinstance(event, Failed | Done):
                raise WorkbenchError(f"the model cannot be loaded: {event}")
        (engine,) = (child for child in psutil.Process().children() if SERVER in child.cmdline())
        memory = Memory(engine)
        with open_database(workspace) as trainer, open_database(workspace) as app:
            for seed in range(rounds + 1):
                found.append(await one_round(client, workspace, model, memory, trainer, app, seed))
    return found[1:]  # the first round warms up


def main() -> None:
    options = measuring.parser(__doc__)
    chosen = options.parse_args()
    converted = measuring.prepare(chosen)
    resolve("smollm2", converted)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "models").symlink_to(converted.models)
        workspace = Workspace(root).prepare()
        _, dtype = devices.choose("cpu", "auto")
        found = asyncio.run(measure(workspace, chosen.rounds, chosen.threads))
    figures: dict[str, Any] = {name: measuring.spread([one[name] for one in found]) for name in found[0]}
    result = {
        "environment": measuring.environment(),
        "setting": {
            "model": f"SmolLM2-135M-Instruct, {devices.short_name(dtype)}",
            "lora_rank": RANK,
            "poll_s": LOOK_SECONDS,
        },
        "figures": figures,
        "stall_beyond_median_ms": figures["longest_pause_while_swapping_ms"]["median"]
        - figures["median_pause_ms"]["median"],
    }
    rows = [[name, *(figure[key] for key in ("median", "low", "high", "n"))] for name, figure in figures.items()]
    measuring.finish("hot_swap", result, ["figure", "median", "low", "high", "n"], rows, chosen)


if __name__ == "__main__":
    main()
