"""How often does a control pass the gate? Many small runs whose ratings were shuffled, and a few with the real ones.

    python -m benchmarks.controls [--seeds 0-39] [--real 0-9] [--constant 0-9] [--steps 20] [--save]

A small model (`benchmarks/small_model.py`) answers 48 prompts in two languages, and a simulated rater, who likes
vowels, scores 192 answers; 16 more prompts are held out. `trainer run` then learns from those scores as they are, or
with `--control shuffled` from the same scores permuted, or with `--control constant` from one score for all. Each seed
has prompts, answers and ratings of its own, and all its runs share them.

A run passes when each of its gates did. One that ended without a candidate did not pass, and its row says why. A
control is never published, whatever it passes. Shares come with exact 95% intervals (Clopper and Pearson 1934).
How the version fares with the rater is measured on 32 new prompts. Where a seed has a real run and a control, the real
one's answers less the control's to the same prompts come with a 95% interval over prompts. The exit code is 1 when more
than one shuffled run in twenty passed. Rows are kept in the work folder: the same command goes on where it ended.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import measuring, rows, small_model
from benchmarks.likings import SCALE, simulated
from storage.errors import WorkbenchError
from storage.records import Prompt, Sampling, Source, Split
from storage.workspace import Workspace

LANGUAGES = ("en", "es")
RATED, HELD_OUT, TEST = 24, 8, 16  # prompts a language
ANSWERS, TEST_ANSWERS, TOKENS = 4, 8, 24
ALLOWED = 0.05  # the share of shuffled runs that may pass
OTHER_LETTERS, WANTED = 6, 0.5  # added to each text; the share of vowels that is as good as more
VOWELS = frozenset("aeiouáéíóú")
TEST_SEED = 900_000_000
SAMPLING, SOURCE = Sampling(temperature=1.0, max_new_tokens=TOKENS), Source.SIMULATED
# A small model needs larger steps than the defaults to go as far as the bundled one does, some nats.
QUICK = (
    "--dtype", "fp32", "--device", "cpu", "--threads", 1, "--learning-rate", 2e-3,
    "--upper-share", 1, "--max-new-tokens", TOKENS,
)  # fmt: skip
HEAD = [
    "ratings", "seed", "passed", "failed gates", "gate's gain", "low", "high", "taste's gain", "low", "high", "ended",
    "after", "KL", "s",
]  # fmt: skip
Record = dict[str, Any]


def taste(text: str) -> float:
    """Liking vowels, from 1 to 5: their share of the letters, as if every text had a few other letters more."""
    letters = [letter for letter in text.lower() if letter.isalpha()]
    share = sum(letter in VOWELS for letter in letters) / (len(letters) + OTHER_LETTERS)
    return SCALE[0] + (SCALE[1] - SCALE[0]) * min(1.0, share / WANTED)


def questions(seed: int) -> dict[str, list[tuple[str, str]]]:
    """Word salads in two languages as `(language, text)`, none in two uses: `rated`, `held-out` and `test`."""
    chosen = random.Random(seed)
    found: dict[str, list[tuple[str, str]]] = {"rated": [], "held-out": [], "test": []}
    for language in LANGUAGES:
        words = sorted({word for own, text in small_model.texts() if own == language for word in text.split()})
        salads: dict[str, None] = {}
        while len(salads) < RATED + HELD_OUT + TEST:
            salads[" ".join(chosen.choices(words, k=chosen.randint(4, 8)))] = None
        one = iter(salads)
        for use, count in zip(found, (RATED, HELD_OUT, TEST), strict=True):
            found[use] += [(language, next(one)) for _ in range(count)]
    return found


def share(passed: int, runs: int) -> Record:
    """A share with its exact 95% interval."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, passed, runs - passed + 1)) if passed else 0.0
    high = float(beta.ppf(0.975, passed + 1, runs - passed)) if passed < runs else 1.0
    return {"passed": passed, "runs": runs, "share": passed / runs, "low": low, "high": high}


def shares(found: Sequence[Record]) -> dict[str, Record]:
    """How many runs of each kind passed."""
    kinds = {kind: [row for row in found if row["ratings"] == kind] for kind in rows.KINDS}
    return {kind: share(sum(row["passed"] for row in own), len(own)) for kind, own in kinds.items() if own}


def differences(found: Sequence[Record]) -> list[Record]:
    """What the rater thinks of the real run's answers less the control's, by seed and control, paired by prompt."""
    from trainer.evaluation.intervals import mean_interval

    by_name = {(row["seed"], row["ratings"]): row["tasted"] for row in found if "tasted" in row}
    return [
        {"seed": seed, "control": control, **asdict(mean_interval([a - b for a, b in zip(ours, theirs, strict=True)]))}
        for (seed, kind), ours in by_name.items()
        if kind == "real"
        for control in rows.CONTROLS
        if (theirs := by_name.get((seed, control)))
    ]


class Small:
    """The small model in memory, and what it and its versions say."""

    def __init__(self, folder: Path) -> None:
        import torch

        from trainer.policy.backbone import Backbone
        from trainer.policy.models import ModelFolder

        self.folder = folder
        self.backbone = Backbone(ModelFolder(folder.name, folder, "0" * 64), torch.device("cpu"), torch.float32)

    def answers(self, asked: Sequence[Prompt], count: int, first_seed: int, version: Path | None = None) -> Any:
        """Answers of the model, or of the version in that file; those of a prompt side by side."""
        from trainer.algorithms.rollouts import collect
        from trainer.policy.full import read_version

        decoder = self.backbone.decoder(read_version(version, self.folder) if version else None)
        return collect(decoder, self.backbone.tokenizer, asked, count, SAMPLING, first_seed)


def rate(workspace: Workspace, small: Small, seed: int) -> None:
    """Fill a workspace: prompts, answers of the base model, and what the simulated rater says of them."""
    from storage import conversations, samples
    from storage.database import open_database
    from storage.feedback import log

    rng, uses = random.Random(seed), questions(seed)
    with open_database(workspace) as database, database.transaction():
        for language, text in uses["held-out"]:
            conversations.add(database, text, language=language, split=Split.HELD_OUT)
        asked = [
            conversations.add(database, text, language=language, split=Split.TRAIN) for language, text in uses["rated"]
        ]
        for one in small.answers(asked, ANSWERS, seed * 1_000_000):
            sample = samples.new(
                one.prompt.id, one.text, token_ids=one.completion.token_ids,
                finish_reason=one.completion.finish_reason, sampling=SAMPLING,
            )  # fmt: skip
            samples.add(database, [sample])
            said = log.score(sample.id, simulated(taste(one.text), rng), "simulated", SCALE, source=SOURCE)
            log.append(database, said)


def trainer(*arguments: object) -> Record:
    """A command of the trainer in this process, which spares the start of another; its JSON document.

    Raises:
        CommandFailed: it does not know these arguments.
        WorkbenchError: it ended without a candidate.
    """
    import click

    from trainer.cli import cli

    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            cli.main([*map(str, arguments), "--json"], standalone_mode=False, prog_name="trainer")
    except click.ClickException as error:
        raise rows.CommandFailed(f"trainer {' '.join(map(str, arguments))}: {error.format_message()}") from error
    return json.loads(output.getvalue())


def run(folder: Path, small: Small, seed: int, kind: str, steps: int) -> Record:
    """One run in a copy of the seed's rated workspace. What an interruption left of it is thrown away."""
    began = time.monotonic()
    shared, own = folder / f"rated-{seed}", folder / "run"
    if not shared.exists():
        partial = folder / "rated.partial"
        shutil.rmtree(partial, ignore_errors=True)
        rate(Workspace(partial).prepare(), small, seed)
        partial.rename(shared)
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(shared, own)
    common = {"ratings": kind, "seed": seed}
    try:
        result = trainer(
            "run", "--workspace", own, "--model", small.folder, "--seed", seed, "--steps", steps, *QUICK,
            *rows.with_control(kind),
        )["result"]  # fmt: skip
    except WorkbenchError as error:
        # No candidate, nothing published: that is an outcome as well.
        return {**common, "passed": False, "state": "failed", "error": str(error), "seconds": time.monotonic() - began}
    return {
        **common, "passed": not rows.failed_gates(result), "state": result["state"],
        "failed_gates": rows.failed_gates(result), "gate_gain": result["reward_gain"],
        "gate_interval": result["reward_gain_interval"], "kl": result["kl"],
        **tasted(small, seed, own, result["version"]), "seconds": time.monotonic() - began, "result": result,
    }  # fmt: skip


def tasted(small: Small, seed: int, workspace: Path, version: str) -> Record:
    """The gain in the taste itself on new prompts, and how many answers ended, before and after."""
    from trainer.evaluation.intervals import mean_interval

    asked = [Prompt(text, text, language, "") for language, text in questions(seed)["test"]]
    file = next((workspace / "versions" / version).glob("*.safetensors"))
    sides = [small.answers(asked, TEST_ANSWERS, TEST_SEED, one) for one in (None, file)]
    means = [
        [_mean(side[first : first + TEST_ANSWERS]) for first in range(0, len(side), TEST_ANSWERS)] for side in sides
    ]
    gain = mean_interval([after - before for before, after in zip(*means, strict=True)])
    ended = [statistics.fmean(one.completion.finish_reason == "eos" for one in side) for side in sides]
    return {"taste_gain": asdict(gain), "ended_before": ended[0], "ended_after": ended[1], "tasted": means[1]}


def _mean(answers: Sequence[Any]) -> float:
    return statistics.fmean(taste(one.text) for one in answers)


def table_row(row: Record) -> list[Any]:
    """A row of the printed table."""
    if row["state"] == "failed":
        return [row["ratings"], row["seed"], "no", row["error"][:60], *[None] * 9, row["seconds"]]
    gain = row["taste_gain"]
    return [
        row["ratings"], row["seed"], "yes" if row["passed"] else "no", ", ".join(row["failed_gates"]) or "-",
        row["gate_gain"], *row["gate_interval"], gain["mean"], gain["low"], gain["high"], row["ended_before"],
        row["ended_after"], row["kl"], row["seconds"],
    ]  # fmt: skip


def main() -> None:
    options = measuring.parser(__doc__)
    rows.add_options(options, "controls", "0-39")
    options.add_argument("--real", type=rows.numbers, default=rows.numbers("0-9"), help="seeds of runs with the real "
                         "ratings (default 0-9)")  # fmt: skip
    options.add_argument("--constant", type=rows.numbers, default=rows.numbers("0-9"), help="seeds of runs with one "
                         "score for all (default 0-9)")  # fmt: skip
    options.add_argument("--steps", type=int, default=20, help="of the policy (default 20)")
    chosen = options.parse_args()
    measuring.prepare(chosen)
    setting = {
        "steps": chosen.steps, "tokens": TOKENS, "languages": LANGUAGES, "scores": RATED * len(LANGUAGES) * ANSWERS,
        "held_out_prompts": HELD_OUT * len(LANGUAGES), "test_prompts": TEST * len(LANGUAGES),
        "test_answers": TEST_ANSWERS, "options": QUICK,
    }  # fmt: skip
    kept = rows.Kept(chosen.work, setting)
    small = Small(small_model.made(chosen.work / "small"))
    seeds = {"shuffled": chosen.seeds, "real": chosen.real, "constant": chosen.constant}
    found, failures = [], 0
    for kind, own in seeds.items():
        for seed in own:
            name = f"{kind}/{seed}"
            if not rows.wanted(name, chosen.only):
                continue
            try:
                found.append(kept.row(name, lambda k=kind, s=seed: run(chosen.work, small, s, k, chosen.steps)))
            except rows.CommandFailed as error:
                print(f"{name}: {error}; it is tried again the next time", file=sys.stderr)
                failures += 1
    totals = shares(found)
    apart = differences(found)
    result = {
        "environment": measuring.environment(), "setting": setting, "shares": totals, "differences": apart,
        "rows": found,
    }  # fmt: skip
    measuring.finish("controls", result, HEAD, [table_row(row) for row in found], chosen)
    for kind, one in totals.items():
        figures = f"{one['share']:.0%} [{one['low']:.0%}, {one['high']:.0%}]"
        print(f"{kind}: {one['passed']} of {one['runs']} passed the gate, {figures}", file=sys.stderr)
    for control in rows.CONTROLS:
        own = [one for one in apart if one["control"] == control]
        if own:
            clear = sum(one["low"] > 0 for one in own)
            told = f"above zero beyond its interval in {clear} of {len(own)} seeds"
            print(f"real less {control}: {told}", file=sys.stderr)
    shuffled = totals.get("shuffled")
    sys.exit(bool(failures or (shuffled and shuffled["share"] > ALLOWED)))


if __name__ == "__main__":
    rows.interruptible(main)
