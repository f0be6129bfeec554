"""Does a hundred ratings of a taste move the model, and is a version that its rater likes less ever published? Tried
from outside, with our commands alone.

    python -m benchmarks.tastes [--tastes kinds|style|NAMES] [--seeds 0,1,2] [--ratings real,shuffled,constant] [--save]
    python -m benchmarks.tastes --ratings real --schedules 128,64+64,32+32+32+32 [--save]

Each row is a taste (`benchmarks/likings.py`), a seed, and ratings as they are or one of both controls, in a fresh
workspace: four answers of SmolLM2 to each of 32 prompts in four languages are scored with noise (source = simulated),
12 other prompts are held out for the gate, and `trainer run` trains, judges, and publishes or rejects. Then v0 and the
candidate, published or not, answer 32 prompts that the workspace had never seen, twice each, and the taste itself says
what became of it: the mean gain with Student's 95% interval over prompts.

With `--schedules` the same number of ratings is given at once or in parts: the first of answers of the base model to a
share of the prompts, each further one of what `workbench queue` leads with after the run before. The steps are shared
out among the runs.

The exit code is 1 when a published version's taste fell beyond its interval, or when a row failed. Rows are kept in the
work folder: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import measuring, rows
from benchmarks.likings import KINDS, SCALE, STYLE, TASTES, TUNED, Taste, simulated, word_count
from workbench.demo.languages import prompts

LANGUAGES = ("en", "de", "es", "fr")
RATED, GATE, TEST = 8, 3, 8  # prompts a language
ANSWERS, TEST_ANSWERS, TOKENS = 4, 2, 48
TEST_SEED = 900_000_000
FEW_WORDS = 5
RATER = "simulated"
HEAD = [
    "taste", "seed", "ratings", "schedule", "state",
    "pairs right", "before", "after", "gain", "low", "high", "words", "after", "under five",
    "after", "ended", "after", "KL", "min", "failed gates", "verdict",
]  # fmt: skip
Record = dict[str, Any]


def prompts_by_use() -> dict[str, list[Record]]:
    """The demo's prompts in four languages, shared out anew: `rated`, `gate` and `test`, the languages in turn."""
    found: dict[str, list[Record]] = {"rated": [], "gate": [], "test": []}
    for language in LANGUAGES:
        own = [asked for asked in prompts() if asked.language == language]
        random.Random(0).shuffle(own)
        ends = RATED, RATED + GATE, RATED + GATE + TEST
        parts = own[: ends[0]], own[ends[0] : ends[1]], own[ends[1] : ends[2]]
        for use, part in zip(found, parts, strict=True):
            split = "train" if use == "rated" else "held-out"
            found[use] += [{"prompt": asked.text, "language": language, "split": split} for asked in part]
    return found


def seeded(records: Sequence[Record], answers: int, first: int) -> list[Record]:
    """Prompts whose answers share no seed with those of another: else they would begin alike."""
    return [{**record, "seed": first + place * answers} for place, record in enumerate(records)]


def ask(workspace: Path, file: Path, count: int, *options: object) -> list[Record]:
    """Answers to the prompts of a file, as `workbench generate --json` prints them."""
    return rows.command(
        "workbench", "generate", "--workspace", workspace, "--from", file, "--count", count,
        "--max-new-tokens", TOKENS, *options,
    )  # fmt: skip


def rated(answers: Sequence[Record], taste: Taste, seed: int) -> list[Record]:
    """What the simulated rater says of each answer, as events that keep their source when they are imported."""
    from uuid_utils import uuid7

    rng = random.Random(seed)
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return [
        {
            "event": "score", "id": str(uuid7()), "created_at": now, "rater": RATER, "source": "simulated",
            "sample_id": one["sample"], "prompt": one["prompt"], "response": one["text"], "language": one["language"],
            "value": simulated(taste(one["text"], one["language"]), rng), "scale_low": SCALE[0], "scale_high": SCALE[1],
        }
        for one in answers
    ]  # fmt: skip


def summary(answers: Sequence[Record], taste: Taste) -> Record:
    """What a version's answers are like: means over answers."""
    words = [word_count(one["text"]) for one in answers]
    return {
        "taste": statistics.fmean(taste(one["text"], one["language"]) for one in answers),
        "words": statistics.fmean(words),
        "under_five": statistics.fmean(count < FEW_WORDS for count in words),
        "ended": statistics.fmean(one["finish_reason"] == "eos" for one in answers),
    }


def gains(before: Sequence[Record], after: Sequence[Record], taste: Taste) -> Record:
    """The taste's gain with its 95% interval over prompts, as it is and with finishing taken out."""
    from trainer.evaluation.intervals import mean_interval
    from trainer.evaluation.matched import matched_gain

    old, new = sorted(before, key=_place), sorted(after, key=_place)
    assert [_place(one) for one in old] == [_place(one) for one in new], "the same prompts and seeds on both sides"
    values = [[taste(one["text"], one["language"]) for one in side] for side in (old, new)]
    ended = [[one["finish_reason"] == "eos" for one in side] for side in (old, new)]
    units = [one["prompt"] for one in old]
    by_prompt: dict[str, list[float]] = {}
    for unit, earlier, later in zip(units, *values, strict=True):
        by_prompt.setdefault(unit, []).append(later - earlier)
    whole = mean_interval([statistics.fmean(differences) for differences in by_prompt.values()])
    return {
        "gain": asdict(whole),
        "gain_matched": asdict(matched_gain(units, ended[0], values[0], ended[1], values[1])),
    }


def _place(answer: Record) -> tuple[str, int]:
    return answer["prompt"], answer["seed"]


def verdict(state: str, gain: Record) -> str:
    """What the gate did with a version, in the light of what its rater thinks of it."""
    if state != "published":
        return f"{state}, though it gained" if gain["low"] > 0 else state
    if gain["high"] < 0:
        return "published where the taste fell beyond its interval"
    if gain["mean"] < 0:
        return "published where the mean fell"
    return "published, gained" if gain["low"] > 0 else "published, not told apart"


def counts(found: Sequence[Record]) -> Record:
    """How many rows came out how."""
    published = [row for row in found if row["state"] == "published"]
    return {
        "rows": len(found),
        "published": len(published),
        "rejected": len(found) - len(published),
        "gained": sum(row["gain"]["low"] > 0 for row in found),
        "published_and_gained": sum(row["gain"]["low"] > 0 for row in published),
        "published_where_the_mean_fell": sum(row["gain"]["mean"] < 0 for row in published),
        "published_where_it_fell_beyond_its_interval": sum(row["gain"]["high"] < 0 for row in published),
    }


def shared_out(records: Sequence[Record], share: float) -> list[Record]:
    """The first prompts of each language, as many as make that share of all."""
    by_language: dict[str, list[Record]] = {}
    for record in records:
        by_language.setdefault(record["language"], []).append(record)
    return [record for own in by_language.values() for record in own[: round(share * len(own))]]


def waiting(workspace: Path, count: int) -> list[Record]:
    """The single answers that the review queue leads with, for the simulated rater."""
    items = rows.command("workbench", "queue", "--workspace", workspace, "--rater", RATER, "--limit", 4 * count)
    return [
        {"sample": item["samples"][0], "prompt": item["prompt"], "text": item["texts"][0], "language": item["language"]}
        for item in items
        if item["kind"] == "single"
    ][:count]


def run(
    folder: Path, models: Path, name: str, seed: int, control: str, model: str, policy_steps: int, schedule: str = "128"
) -> Record:
    """One row: sample, rate, train (in parts: and again), and ask the taste; each step once."""
    steps, taste, uses = rows.Steps(folder / "steps"), TASTES[name], prompts_by_use()
    workspace = rows.fresh_workspace(folder / "workspace", models)
    parts = [int(part) for part in schedule.split("+")]

    def imported(file: str, records: Sequence[Record]) -> Callable[[], Any]:
        path = folder / file
        return lambda: rows.command("workbench", "import", "--workspace", workspace, rows.write_lines(path, records))

    steps.once("gate-prompts", imported("gate.jsonl", uses["gate"]))
    steps.once("prompts", imported("prompts.jsonl", uses["rated"]))
    first = shared_out(uses["rated"], parts[0] / sum(parts))
    questions = rows.write_lines(folder / "rated.jsonl", seeded(first, ANSWERS, seed * 1_000_000))
    trained: list[Record] = []
    for place, part in enumerate(parts):
        tag = f"-{place}" if place else ""
        if place:
            answers = steps.once(f"answers{tag}", lambda part=part: waiting(workspace, part))
        else:
            answers = steps.once("answers", lambda: ask(workspace, questions, ANSWERS, "--model", model))
        # Their keys are made once: events that come in twice under the same keys count once.
        scores = steps.once(
            f"scores{tag}", lambda answers=answers, place=place: rated(answers, taste, seed + 100 * place)
        )
        steps.once(f"ratings{tag}", imported(f"ratings{tag}.jsonl", scores))
        training = ["run", "--model", model, "--seed", seed + place, "--steps", policy_steps // len(parts)]
        if place + 1 < len(parts):
            training += ["--ask", parts[place + 1]]
        trained.append(
            steps.once(
                f"training{tag}",
                lambda training=training, place=place: rows.train(workspace, training, control, earlier=place),
            )
        )
    result = trained[-1]["result"]
    test = rows.write_lines(folder / "test.jsonl", seeded(uses["test"], TEST_ANSWERS, TEST_SEED))
    before, after = (
        steps.once(
            f"test-{version}",
            lambda version=version: ask(workspace, test, TEST_ANSWERS, "--model", model, "--version", version),
        )
        for version in ("v0", result["version"])
    )
    found = gains(before, after, taste)
    within = steps.once("reward-model", lambda: within_prompts(workspace))
    return {
        "taste": name, "tuned": name in TUNED, "seed": seed, "ratings": control, "schedule": schedule,
        "state": result["state"], "version": result["version"], "before": summary(before, taste),
        "after": summary(after, taste), **found, "kl": result["kl"], "failed_gates": rows.failed_gates(result),
        "verdict": verdict(result["state"], found["gain"]), "minutes": steps.seconds() / 60, "result": result,
        "earlier_states": [one["result"]["state"] for one in trained[:-1]], "within_prompts": within,
    }  # fmt: skip


def within_prompts(workspace: Path) -> Record:
    """How often the newest reward model tells the better of two answers to one prompt, cross-fitted by prompt."""
    from storage.database import open_database
    from storage.workspace import Workspace

    with open_database(Workspace(workspace)) as database:
        found = database.scalar("SELECT metrics FROM reward_models ORDER BY sequence DESC LIMIT 1")
    metrics = dict.fromkeys(("within_prompt_accuracy", "within_prompt_n", "within_prompt_accuracy_interval"))
    metrics |= json.loads(found) if found else {}
    return {
        "accuracy": metrics["within_prompt_accuracy"], "pairs": metrics["within_prompt_n"],
        "interval": metrics["within_prompt_accuracy_interval"],
    }  # fmt: skip


def table_row(row: Record) -> list[Any]:
    """A row of the printed table."""
    before, after, gain = row["before"], row["after"], row["gain"]
    pairs = [figure for key in ("words", "under_five", "ended") for figure in (before[key], after[key])]
    return [
        row["taste"], row["seed"], row["ratings"], row["schedule"], row["state"],
        row["within_prompts"]["accuracy"], before["taste"], after["taste"],
        gain["mean"], gain["low"], gain["high"], *pairs, row["kl"], row["minutes"],
        ", ".join(row["failed_gates"]) or "-", row["verdict"],
    ]  # fmt: skip


def named(text: str) -> list[str]:
    """The tastes that `--tastes` asks for."""
    found = list({"kinds": KINDS, "style": STYLE}.get(text, text.split(",")))
    if unknown := [name for name in found if name not in TASTES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(TASTES)}")
    return found


def main() -> None:
    options = measuring.parser(__doc__)
    rows.add_options(options, "tastes", "0,1,2")
    options.add_argument("--tastes", type=named, default=named("kinds"), help="kinds (the five of different kinds, the "
                         "default), style (the three of style), or names after commas")  # fmt: skip
    options.add_argument("--steps", type=int, default=20, help="of the policy (default 20)")
    options.add_argument("--ratings", default="real,shuffled,constant", help="which, after commas (default all three)")
    options.add_argument("--schedules", default="128", help="parts of the ratings, with + between them, after commas")
    options.add_argument("--model", default="smollm2", help="of the trainer and the engine (default smollm2)")
    chosen = options.parse_args()
    whole = RATED * len(LANGUAGES) * ANSWERS
    for schedule in chosen.schedules.split(","):
        if sum(map(int, schedule.split("+"))) != whole:
            options.error(f"--schedules {schedule}: its parts must make {whole} ratings together")
    if unknown := set(chosen.ratings.split(",")) - set(rows.KINDS):
        options.error(f"--ratings {','.join(unknown)}: there are {', '.join(rows.KINDS)}")
    models = measuring.prepare(chosen).models
    setting = {
        "model": chosen.model, "steps": chosen.steps, "tokens": TOKENS, "languages": LANGUAGES,
        "scores": RATED * len(LANGUAGES) * ANSWERS, "gate_prompts": GATE * len(LANGUAGES),
        "test_prompts": TEST * len(LANGUAGES), "test_answers": TEST_ANSWERS,
    }  # fmt: skip
    kept = rows.Kept(chosen.work, setting)
    # Converted here once, and shared by all rows' workspaces.
    rows.command(
        "workbench", "generate", "--workspace", chosen.workspace, "--model", chosen.model, "--prompt", "Hello.",
        "--max-new-tokens", 1,
    )  # fmt: skip
    found, failures = [], 0
    asked = itertools.product(chosen.seeds, chosen.tastes, chosen.ratings.split(","), chosen.schedules.split(","))
    for seed, taste, ratings, schedule in asked:
        name = f"{taste}/{seed}/{ratings}" + ("" if schedule == str(whole) else f"/{schedule}")
        if not rows.wanted(name, chosen.only):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            row = kept.row(
                name,
                lambda n=name, t=taste, s=seed, r=ratings, p=schedule: run(
                    chosen.work / n, models, t, s, r, chosen.model, chosen.steps, p
                ),
            )
        except rows.CommandFailed as error:
            print(f"{name}: {error}; it is tried again the next time", file=sys.stderr)
            failures += 1
            continue
        found.append(row)
        print(f"{name}: {row['verdict']}", file=sys.stderr, flush=True)
    totals = {kind: counts(own) for kind in rows.KINDS if (own := [row for row in found if row["ratings"] == kind])}
    result = {"environment": measuring.environment(), "setting": setting, "counts": totals, "rows": found}
    measuring.finish("tastes", result, HEAD, [table_row(row) for row in found], chosen)
    for kind, own in totals.items():
        told = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in own.items())
        print(f"{kind}: {told}", file=sys.stderr)
    fell = sum(own["published_where_it_fell_beyond_its_interval"] for own in totals.values())
    sys.exit(bool(failures or fell))


if __name__ == "__main__":
    rows.interruptible(main)
