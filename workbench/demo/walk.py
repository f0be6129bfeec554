"""The walk: sample, rate, train, gate, publish, hot swap, and the same held-out prompts answered before and after.

Nothing here is special to the demo but the rater: answers come from the engine, training is the `trainer run` command,
and everything is in the workspace afterwards. The rater is simulated and marked so in every row.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from storage import clock, metrics, prompts, ratings, versions
from storage.database import Database, open_database
from storage.errors import WorkbenchError
from storage.records import Prompt, Sample, Sampling, Source, Split
from storage.workspace import Workspace
from workbench.demo.gold import SCALE, gold_score, simulated_score
from workbench.engine.client import EngineClient, EngineDied
from workbench.engine.protocol import Answer, Done, Failed, Generate, Load, Progress, Question, Swapped
from workbench.engine.recording import store_answers

RATER = "simulated"
PROMPTS_A_BATCH = 8
SAMPLING = Sampling(temperature=1.0, max_new_tokens=48)
HELD_OUT_SEED = 900_000_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Scale:
    """How much of everything the walk does."""

    rated_prompts: int = 8  # a language
    answers: int = 4  # to each rated prompt
    steps: int = 20
    held_out_answers: int = 2


@dataclass(frozen=True)
class Measured:
    """Gold rewards of the answers to held-out prompts: for each prompt, the mean over its answers."""

    version: str
    by_prompt: dict[str, float]
    samples: list[Sample]


def walk(workspace: Workspace, seed: int, scale: Scale, say: Say, model: str = "smollm2") -> dict[str, Any]:
    """The whole loop; returns its figures. Raises WorkbenchError when a part of it fails."""
    return asyncio.run(_walk(workspace, seed, scale, say, model))


async def _walk(workspace: Workspace, seed: int, scale: Scale, say: Say, model: str) -> dict[str, Any]:
    began = time.monotonic()
    with open_database(workspace) as database:
        train, held_out = _load_prompts(database)
        async with EngineClient(workspace) as engine:
            await _loaded(engine, model, say)
            say(f"sampling {scale.answers} answers to each of {scale.rated_prompts} prompts a language")
            chosen = _some_of_each_language(train, scale.rated_prompts)
            answers = await _ask(engine, database, chosen, scale.answers, seed * 1_000_000)
            say(f"rating {len(answers)} answers with the simulated rater (source = simulated)")
            _rate(database, {prompt.id: prompt for prompt in chosen}, answers, seed)
            before = await _measure(engine, database, held_out, scale.held_out_answers)

            say("training: `trainer run`")
            summary = await asyncio.to_thread(_train, workspace, seed, scale, model)
            served = versions.served(database)
            assert served is not None
            seconds = await _swap(engine, served.name)
            say(f"swapped {before.version} -> {served.name} in the running engine in {seconds:.2f} s")
            after = await _measure(engine, database, held_out, scale.held_out_answers)
    return _figures(summary, before, after, held_out, seed, seconds, time.monotonic() - began)


def _load_prompts(database: Database) -> tuple[list[Prompt], list[Prompt]]:
    """Store the demo's prompts; returns the training and the held-out ones."""
    lines = resources.files("workbench.demo").joinpath("prompts.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[Split, list[Prompt]] = {Split.TRAIN: [], Split.HELD_OUT: []}
    with database.transaction():
        for line in lines:
            row = json.loads(line)
            split = Split(row["split"])
            found[split].append(
                prompts.add(
                    database, row["prompt"], language=row["language"], task=row["task"], split=split, origin="demo"
                )
            )
    return found[Split.TRAIN], found[Split.HELD_OUT]


def _some_of_each_language(train: Sequence[Prompt], count: int) -> list[Prompt]:
    by_language: dict[str, list[Prompt]] = {}
    for prompt in train:
        by_language.setdefault(prompt.language, []).append(prompt)
    return [prompt for group in by_language.values() for prompt in group[:count]]


async def _loaded(engine: EngineClient, model: str, say: Say) -> None:
    async for event in engine.load(Load(model)):
        match event:
            case Progress(fraction=None | 0.0, text=text):
                say(text)
            case Failed() | EngineDied():
                raise WorkbenchError(event.error, event.hint)


async def _ask(
    engine: EngineClient, database: Database, questions: Sequence[Prompt], count: int, first_seed: int
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
            clock.new_id(), first.prompt, first.system, count, first.seed, SAMPLING, stream=False, also=tuple(asked[1:])
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
            stored += store_answers(database, prompt.id, own, SAMPLING)
    return stored


def _rate(database: Database, by_id: dict[str, Prompt], answers: Sequence[Sample], seed: int) -> None:
    rng = random.Random(seed)
    ratings.append_all(
        database,
        [
            ratings.score(
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


async def _measure(engine: EngineClient, database: Database, held_out: Sequence[Prompt], answers: int) -> Measured:
    """Gold rewards of fresh answers to the held-out prompts; before and after use the same seeds."""
    found = await _ask(engine, database, held_out, answers, HELD_OUT_SEED)
    language = {prompt.id: prompt.language for prompt in held_out}
    scores: dict[str, list[float]] = {}
    for sample in found:
        scores.setdefault(sample.prompt_id, []).append(
            gold_score(sample.text, language[sample.prompt_id], sample.finish_reason)
        )
    version = found[0].version or "?"
    return Measured(version, {prompt: statistics.fmean(values) for prompt, values in scores.items()}, found)


def _train(workspace: Workspace, seed: int, scale: Scale, model: str) -> dict[str, Any]:
    """Run the trainer as anyone would, its progress on standard error; returns its JSON summary."""
    command = [
        sys.executable, "-m", "trainer", "run", "--workspace", str(workspace.root), "--model", model,
        "--seed", str(seed), "--steps", str(scale.steps), "--json",
    ]  # fmt: skip
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


def _figures(
    summary: dict[str, Any], before: Measured, after: Measured, held_out: Sequence[Prompt], seed: int,
    swap_seconds: float, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """The demo's table as data: gold reward before and after with 95% intervals, overall and by language.

    Of a single prompt there is no interval: null.
    """
    rows = []
    for language in [None, *dict.fromkeys(prompt.language for prompt in held_out)]:
        chosen = [prompt.id for prompt in held_out if language in (None, prompt.language)]
        old = [before.by_prompt[prompt] for prompt in chosen]
        new = [after.by_prompt[prompt] for prompt in chosen]
        gains = [later - earlier for later, earlier in zip(new, old, strict=True)]
        rows.append(
            {
                "language": language,
                "prompts": len(chosen),
                "before": statistics.fmean(old),
                "after": statistics.fmean(new),
                "gain": statistics.fmean(gains),
                "interval": bootstrap(gains, seed),
            }
        )
    return {
        "seed": seed,
        "before_version": before.version,
        "version": after.version,
        "kl": (summary.get("result") or {}).get("kl"),
        "swap_seconds": swap_seconds,
        "seconds": seconds,
        "job": summary["job"],
        "gold": rows,
    }


def bootstrap(gains: Sequence[float], seed: int, draws: int = 4000) -> tuple[float, float] | None:
    """The 95% percentile bootstrap interval of the mean gain; prompts are the units. None of fewer than two."""
    if len(gains) < 2:
        return None
    rng = random.Random(seed)
    means = sorted(statistics.fmean(rng.choices(gains, k=len(gains))) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


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
