"""The walk: sample, rate, train, gate, publish, hot swap, and the same held-out prompts answered before and after.

Nothing here is special to the demo but the rater: answers come from the engine, training is the `trainer run` command,
and everything is in the workspace afterwards. The rater is simulated and marked so in every row.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from storage import clock, conversations, metrics
from storage.database import Database, open_database
from storage.errors import WorkbenchError
from storage.feedback import log
from storage.records import Prompt, Sample, Sampling, Source, Split
from storage.wording import counted
from storage.workspace import Workspace
from workbench.demo.figures import Judged, Measured, figures
from workbench.demo.gold import SCALE, gold_score, simulated_score
from workbench.demo.languages import prompts
from workbench.engine.client import EngineClient, EngineDied
from workbench.engine.protocol import Answer, Done, Failed, Generate, Load, Progress, Question, Swapped
from workbench.engine.recording import store_answers

RATER = "simulated"
PROMPTS_A_BATCH = 8
HELD_OUT_SEED = 900_000_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Scale:
    """How much of everything the walk does."""

    rated_prompts: int = 8  # a language
    answers: int = 4  # to each rated prompt
    steps: int = 20
    held_out_answers: int = 2
    max_new_tokens: int = 48  # of every answer; the trainer takes the length from the rated ones

    @property
    def sampling(self) -> Sampling:
        """How answers are sampled, to be rated and to be measured alike."""
        return Sampling(temperature=1.0, max_new_tokens=self.max_new_tokens)


def walk(
    workspace: Workspace, seed: int, scale: Scale, say: Say, model: str = "smollm2", control: str | None = None
) -> dict[str, Any]:
    """The whole loop; returns its figures. Raises WorkbenchError when a part of it fails.

    Args:
        control: `shuffled` or `constant` to learn from ratings that say nothing. What such a run gains is measured
            on its candidate, which is never published.
    """
    return asyncio.run(_walk(workspace, seed, scale, say, model, control))


async def _walk(
    workspace: Workspace, seed: int, scale: Scale, say: Say, model: str, control: str | None
) -> dict[str, Any]:
    began = time.monotonic()
    with open_database(workspace) as database:
        async with EngineClient(workspace) as engine:
            await _loaded(engine, Load(model), say)
            before = await _begin(engine, database, seed, scale, say)
            say("training: `trainer run`")
            summary = await asyncio.to_thread(_train, workspace, training(seed, scale, model, control))
            # The candidate answers even where it was not published: a rejected one is measured, and never served.
            seconds = await _swap(engine, summary["version"])
            say(f"swapped {before.version} -> {summary['version']} in the running engine in {seconds:.2f} s")
            held_out = conversations.by_split(database, Split.HELD_OUT)
            after = await _measure(engine, database, held_out, scale)
    result = summary.get("result") or {}
    return {
        "seed": seed,
        "control": control,
        "state": result.get("state"),
        "kl": result.get("kl"),
        "swap_seconds": seconds,
        "seconds": time.monotonic() - began,
        "job": summary["job"],
        **figures(before, after, held_out, seed),
    }


def begin(workspace: Workspace, seed: int, scale: Scale, say: Say, model: str = "smollm2") -> Measured:
    """The first half of the loop: a workspace with sampled and rated answers, and what the base model is worth."""

    async def work() -> Measured:
        with open_database(workspace) as database:
            async with EngineClient(workspace) as engine:
                await _loaded(engine, Load(model), say)
                return await _begin(engine, database, seed, scale, say)

    return asyncio.run(work())


def measure(workspace: Workspace, version: str, scale: Scale, say: Say, model: str = "smollm2") -> Measured:
    """What a version is worth on the held-out prompts, whether it was published or not."""

    async def work() -> Measured:
        with open_database(workspace) as database:
            async with EngineClient(workspace) as engine:
                await _loaded(engine, Load(model, version), say)
                held_out = conversations.by_split(database, Split.HELD_OUT)
                return await _measure(engine, database, held_out, scale)

    return asyncio.run(work())


def training(seed: int, scale: Scale, model: str, control: str | None) -> list[str]:
    """The arguments of the `trainer` command that the demo trains with."""
    chosen = ["--control", control] if control else []
    return ["run", "--model", model, "--seed", str(seed), "--steps", str(scale.steps), *chosen]


async def _begin(engine: EngineClient, database: Database, seed: int, scale: Scale, say: Say) -> Measured:
    """Sample, rate, and measure what the base model is worth."""
    train = _load_prompts(database)
    say(f"sampling {counted(scale.answers, 'answer')} to each of {counted(scale.rated_prompts, 'prompt')} a language")
    chosen = _some_of_each_language(train, scale.rated_prompts)
    answers = await _ask(engine, database, chosen, scale.answers, seed * 1_000_000, scale.sampling)
    say(f"rating {counted(len(answers), 'answer')} with the simulated rater (source = simulated)")
    _rate(database, {prompt.id: prompt for prompt in chosen}, answers, seed)
    return await _measure(engine, database, conversations.by_split(database, Split.HELD_OUT), scale)


def _load_prompts(database: Database) -> list[Prompt]:
    """Store the demo's prompts; returns those to train on."""
    with database.transaction():
        found = [
            conversations.add(database, one.text, language=one.language, task=one.task, split=one.split, origin="demo")
            for one in prompts()
        ]
    return [prompt for prompt in found if prompt.split == Split.TRAIN]


def _some_of_each_language(train: Sequence[Prompt], count: int) -> list[Prompt]:
    by_language: dict[str, list[Prompt]] = {}
    for prompt in train:
        by_language.setdefault(prompt.language, []).append(prompt)
    return [prompt for group in by_language.values() for prompt in group[:count]]


async def _loaded(engine: EngineClient, wanted: Load, say: Say) -> None:
    async for event in engine.load(wanted):
        match event:
            case Progress(fraction=None | 0.0, text=text):
                say(text)
            case Failed() | EngineDied():
                raise WorkbenchError(event.error, event.hint)


async def _ask(
    engine: EngineClient,
    database: Database,
    questions: Sequence[Prompt],
    count: int,
    first_seed: int,
    sampling: Sampling,
) -> list[Sample]:
    """Sample `count` answers to each prompt, a few prompts a batch, and store them."""
    stored: list[Sample] = []
    for start in range(0, len(questions), PROMPTS_A_BATCH):
        batch = questions[start : start + PROMPTS_A_BATCH]
        asked = [
            Question(prompt.text, prompt.system, first_seed + (start + place) * count)
            for place, prompt in enumerate(batch)
        ]
        first = asked[0]
        request = Generate(
            clock.new_id(), first.prompt, first.system, count, first.seed, sampling, stream=False, also=tuple(asked[1:])
        )
        answers: list[Answer] = []
        async for event in engine.generate(request):
            match event:
                case Answer():
                    answers.append(event)
                case Failed() | EngineDied():
                    raise WorkbenchError(event.error, event.hint)
                case Done():
                    break
        for place, prompt in enumerate(batch):
            own = [answer for answer in answers if answer.candidate // count == place]
            stored += store_answers(database, prompt.id, own, sampling)
    return stored


def _rate(database: Database, by_id: dict[str, Prompt], answers: Sequence[Sample], seed: int) -> None:
    rng = random.Random(seed)
    log.append_all(
        database,
        [
            log.score(
                answer.id,
                simulated_score(answer.text, by_id[answer.prompt_id].language, answer.finish_reason, rng),
                RATER,
                SCALE,
                source=Source.SIMULATED,
                guideline="demo gold reward with noise",
            )
            for answer in answers
        ],
    )


async def _measure(engine: EngineClient, database: Database, held_out: Sequence[Prompt], scale: Scale) -> Measured:
    """Gold rewards of fresh answers to the held-out prompts; before and after use the same seeds."""
    found = await _ask(engine, database, held_out, scale.held_out_answers, HELD_OUT_SEED, scale.sampling)
    language = {prompt.id: prompt.language for prompt in held_out}
    judged = [
        Judged(
            one.prompt_id, gold_score(one.text, language[one.prompt_id], one.finish_reason), one.finish_reason == "eos"
        )
        for one in found
    ]
    return Measured(found[0].version or "?", judged)


def _train(workspace: Workspace, arguments: Sequence[str]) -> dict[str, Any]:
    """Run the trainer as anyone would, its progress on standard error; returns its JSON summary."""
    command = [sys.executable, "-m", "trainer", *arguments, "--workspace", str(workspace.root), "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise WorkbenchError(f"the trainer ended with exit code {finished.returncode}", "what it said is above")
    return json.loads(finished.stdout)


async def _swap(engine: EngineClient, version: str) -> float:
    """Swap the running engine to a version; returns the seconds it took."""
    match await engine.swap(version):
        case Swapped(seconds=seconds):
            return seconds
        case Failed(error=error, hint=hint) | EngineDied(error=error, hint=hint):
            raise WorkbenchError(error, hint)
    raise WorkbenchError("the engine did not answer the swap", "its log is in the workspace's logs folder")


def plots(workspace: Workspace, job_id: str, width: int = 78) -> str:
    """Reward and KL of the training run, drawn with characters."""
    import plotext

    drawn = []
    with open_database(workspace) as database:
        for name, title in (("objective/scores", "reward"), ("objective/kl", "KL to reference, nats a response")):
            points = [(step, value) for step, value in metrics.series(database, job_id, name) if value is not None]
            if not points:
                continue
            plotext.clear_figure()
            plotext.theme("clear")
            plotext.plotsize(width, 14)
            plotext.title(title)
            plotext.plot([step for step, _ in points], [value for _, value in points], marker="braille")
            drawn.append(plotext.build())
    return "\n".join(drawn)
