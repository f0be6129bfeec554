"""Every way of learning on the same ratings and about the same time: which of them moves the model, and by the ratings?

    python -m benchmarks.methods [--seeds 0,1,2] [--only rloo/real,best-of-n] [--scale 0.5] [--save]

For each seed, one workspace is sampled and rated as `make demo` does it, with answers of at most 32 tokens, and one
reward model with its judge is fitted to the ratings. Each row trains a copy of that workspace by one method on the
ratings as they are, shuffled among the answers, or with one reward for all. Gold on the demo's 50 held-out prompts
stands before and after, whether the version was published or not: as it is, and with finishing taken out (answers that
ended are compared with answers that ended, cut ones with cut ones). Below it, each method over its seeds, and the real
runs less the shuffled ones, with intervals over prompts and seeds (`benchmarks/crossed.py`).

Equal labels: all methods are given the same ratings, and the trainer keeps those of four prompts in ten for the judge.
The others teach: best of n, RLOO and PPO through the reward model, DPO, ILQL and hindsight as they are. (The first
three also sample answers to training prompts that nobody rated.) A shuffled run fits a reward model of its own to the
shuffled ratings, by the same settings and seed; the trainer lets no control see the real one.

Equal time: how much each method does follows from what it costs (`METHODS`), so that learning takes about the same for
all. Neither the reward model (which the judge needs in any case), nor the gate, nor measuring is counted.

Rows and workspaces are kept in the work folder: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measuring, rows
from benchmarks.crossed import crossed_interval
from storage import conversations
from storage.database import open_database
from storage.records import Prompt, Split
from storage.workspace import Workspace
from trainer.evaluation.intervals import Interval
from trainer.evaluation.matched import matched_gain
from workbench.demo.figures import Measured, figures, measured
from workbench.demo.walk import Scale, begin, measure

TOKENS = 32
GATE_ANSWERS = 2  # to each of its prompts: what becomes of a version is measured here, not there
SECONDS = 160  # of learning, for each method: of one core


@dataclass(frozen=True)
class Way:
    """A method, and how much of it fits into the time.

    Attributes:
        option: what makes it do more; `amount` of it is done at `--scale 1`.
        each: seconds for one of them, and `once` for what comes before the first and does not grow with it.
        constant: whether the trainer lets it learn from one reward for all.
    """

    option: str
    amount: int
    each: float
    once: float
    constant: bool = False
    more: tuple[str, ...] = ()

    def seconds(self) -> float:
        """What learning should take."""
        return self.once + self.amount * self.each

    def arguments(self, scale: float) -> list[str]:
        """Its own options of the `trainer` command; at least two of what is counted are done."""
        return [self.option, str(max(2, round(self.amount * scale))), *self.more]


# What of the ratings teaches is learned from whole: no share of it for a loss on answers kept back.
WHOLE = ("--held-out", "0")
# Seconds are processor time (user and system) of the trainer's process with `--threads 1`, since the machine had other
# work: SmolLM2 in bf16 with the products of AVX-512, answers of 32 tokens, 320 ratings, means over 2 to 4 steps. A
# prompt of best of n is 8 answers sampled and judged (1.45), of which one is imitated 8 times (1.9).
METHODS = {
    "best-of-n": Way("--prompts", 48, each=3.35, once=1, constant=True),
    "dpo": Way("--steps", 41, each=3.5, once=17, more=(*WHOLE, "--learning-rate", "5e-4")),  # once: the reference
    "rloo": Way("--steps", 13, each=11.4, once=11.4, constant=True),  # once: the watch
    "ppo": Way("--steps", 12, each=11.2, once=24, constant=True),  # once: the watch, and the value's fit
    "ilql": Way("--steps", 1350, each=0.105, once=18, more=WHOLE),  # once: the states; a step is 10 updates
    "hindsight": Way("--steps", 32, each=5, once=1, more=WHOLE),
}
NO_CONSTANT = "it learns from differences between ratings, so that the trainer refuses constant ones"
HEAD = ["method", "seed", "ratings", "before", "after", "gold gain", "low", "high", "matched", "low", "high", "ended",
        "after", "KL", "state", "learning s", "of processor"]  # fmt: skip
MEANS_HEAD = ["method", "ratings", "seeds", "published", "gold", "low", "high", "matched", "low", "high", "KL",
              "learning s"]  # fmt: skip
LESS = "real less shuffled"
Record = dict[str, Any]


def run(
    folder: Path, models: Path, method: str, seed: int, kind: str, scale: Scale, chosen: argparse.Namespace
) -> Record:
    """One row in a copy of the seed's rated workspace; each step once."""
    shared, own = folder / "rated", folder / method / kind / "workspace"
    rated, steps = rows.Steps(folder / "rated-steps"), rows.Steps(folder / method / kind / "steps")
    before = measured(rated.once("before", lambda: asdict(_rated(shared, models, seed, scale, chosen.model))))
    fit = ["reward", "--model", chosen.model, "--seed", str(seed)]
    rated.once("reward", lambda: rows.train(shared, fit))
    if not own.exists():
        copy = own.with_name("workspace.partial")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(shared, copy, symlinks=True)
        copy.rename(own)
    arguments = training(method, seed, kind, chosen.scale, chosen.model)
    # The copy holds the reward model's job already.
    result = steps.once("training", lambda: rows.train(own, arguments, earlier=1))["result"]
    workspace = Workspace(own)
    after = measured(
        steps.once("after", lambda: asdict(measure(workspace, result["version"], scale, say, chosen.model)))
    )
    with open_database(workspace) as database:
        held_out = conversations.by_split(database, Split.HELD_OUT)
    return {
        "method": method, "seed": seed, "ratings": kind, "state": result["state"], "kl": result["kl"],
        "failed_gates": rows.failed_gates(result), **figures(before, after, held_out, seed),
        "learning": result.get("learning"), "minutes": steps.seconds() / 60, "answers": {
            "before": asdict(by_place(before, held_out)), "after": asdict(by_place(after, held_out)),
        }, "result": result,
    }  # fmt: skip


def training(method: str, seed: int, kind: str, scale: float, model: str) -> list[str]:
    """The arguments of the `trainer` command of a row."""
    return [
        method, "--model", model, "--seed", str(seed), *rows.with_control(kind), "--gate-answers", str(GATE_ANSWERS),
        "--ask", "0", *METHODS[method].arguments(scale),
    ]  # fmt: skip


def _rated(folder: Path, models: Path, seed: int, scale: Scale, model: str) -> Measured:
    """Sample and rate in a new workspace; what an interruption left of one is thrown away."""
    shutil.rmtree(folder, ignore_errors=True)
    workspace = Workspace(rows.fresh_workspace(folder, models)).prepare()
    return begin(workspace, seed, scale, say, model)


def by_place(found: Measured, held_out: Sequence[Prompt]) -> Measured:
    """The same with each prompt's place among the held-out ones for its key, which differs between workspaces."""
    places = {prompt.id: str(place) for place, prompt in enumerate(sorted(held_out, key=lambda prompt: prompt.text))}
    return Measured(found.version, [replace(one, prompt=places[one.prompt]) for one in found.answers])


# Over seeds


def over_seeds(pairs: Sequence[tuple[Measured, Measured]]) -> Record:
    """What the second of each seed's pair is worth more than the first, with intervals over prompts and seeds.

    Both as it is, and with finishing taken out within each seed; null where a seed cannot tell that.
    """
    keys = sorted(pairs[0][0].by_prompt(), key=int)
    gains = []
    for before, after in pairs:
        old, new = before.by_prompt(), after.by_prompt()
        assert old.keys() == new.keys() == set(keys), "the same prompts on both sides and in all seeds"
        gains.append({key: new[key] - old[key] for key in keys})

    def gold(seeds: Sequence[int], chosen: Sequence[str]) -> float:
        return _mean([gains[seed][key] for seed in seeds for key in chosen])

    def matched(seeds: Sequence[int], chosen: Sequence[str]) -> float | None:
        found = [_matched(*pairs[seed], set(chosen)) for seed in seeds]
        known = [value for value in found if value is not None]
        return _mean(known) if len(known) == len(found) else None

    seeds = range(len(pairs))
    return {
        "seeds": len(pairs),
        "gold": _document(crossed_interval(seeds, keys, gold)),
        "gold_matched": _document(crossed_interval(seeds, keys, matched)),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _matched(before: Measured, after: Measured, chosen: set[str]) -> float | None:
    """The gain of some prompts with finishing taken out; how sure it is, is asked of all seeds together."""
    old, new = ([one for one in side.answers if one.prompt in chosen] for side in (before, after))
    return matched_gain(
        [one.prompt for one in old], [one.ended for one in old], [one.gold for one in old],
        [one.ended for one in new], [one.gold for one in new], draws=1,
    ).mean  # fmt: skip


def _document(interval: Interval | None) -> Record | None:
    """The interval for JSON, which has no infinite numbers: null."""
    if interval is None:
        return None
    low, high = interval.bounds or (None, None)
    return {"mean": interval.mean, "low": low, "high": high, "prompts": interval.n}


def means(found: Sequence[Record]) -> list[Record]:
    """Each method on each kind of ratings over its seeds, and its real runs less the shuffled ones of each seed."""
    told = []
    for method in METHODS:
        kinds = {kind: {row["seed"]: row for row in found if (row["method"], row["ratings"]) == (method, kind)}
                 for kind in rows.KINDS}  # fmt: skip
        for kind, own in kinds.items():
            if not own:
                continue
            took = [row["learning"]["seconds"] for row in own.values() if row["learning"]]
            told.append({
                "method": method, "ratings": kind, **over_seeds([_sides(row) for row in own.values()]),
                "published": sum(row["state"] == "published" for row in own.values()),
                "kl": _mean([row["kl"] for row in own.values()]),
                "seconds_of_learning": _mean(took) if took else None,
            })  # fmt: skip
        real, shuffled = kinds["real"], kinds["shuffled"]
        both = [(_sides(shuffled[seed])[1], _sides(real[seed])[1]) for seed in real if seed in shuffled]
        if both:
            told.append({"method": method, "ratings": LESS, **over_seeds(both)})
    return told


def _sides(row: Record) -> tuple[Measured, Measured]:
    return measured(row["answers"]["before"]), measured(row["answers"]["after"])


# Tables


def table_row(row: Record) -> list[Any]:
    """A row of the printed table."""
    gold, alike = row["gold"][0], row["gold_matched"]
    return [
        row["method"], row["seed"], row["ratings"], gold["before"], gold["after"], gold["gain"],
        *(gold["interval"] or (None, None)), alike["mean"], alike["low"], alike["high"], row["finished_before"],
        row["finished_after"], row["kl"], row["state"],
        *((row["learning"] or {}).get(name) for name in ("seconds", "processor_seconds")),
    ]  # fmt: skip


def left_out_row(method: str) -> list[Any]:
    """A method that cannot have a control, with the reason where the others have their state."""
    return [method, None, "constant", *[None] * 11, f"left out: {NO_CONSTANT}", None, None]


def means_row(found: Record) -> list[Any]:
    """A row of the second table."""
    both = [found[name] or {"mean": None, "low": None, "high": None} for name in ("gold", "gold_matched")]
    return [
        found["method"], found["ratings"], found["seeds"], found.get("published"),
        *(one[name] for one in both for name in ("mean", "low", "high")), found.get("kl"),
        found.get("seconds_of_learning"),
    ]  # fmt: skip


def say(text: str) -> None:
    """Narration."""
    print(text, file=sys.stderr, flush=True)


def share(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("it must be above 0")
    return value


def main() -> None:
    options = measuring.parser(__doc__)
    rows.add_options(options, "methods", "0,1,2")
    options.add_argument(
        "--scale", type=share, default=1.0, help="how much every method does, of its usual (default 1)"
    )
    options.add_argument(
        "--rated-prompts", type=int, default=Scale.rated_prompts, help="a language, as the demo has it"
    )
    options.add_argument("--model", default="smollm2", help="of the trainer and the engine (default smollm2)")
    chosen = options.parse_args()
    models = measuring.prepare(chosen).models
    scale = Scale(rated_prompts=chosen.rated_prompts, max_new_tokens=TOKENS)
    setting = {
        "model": chosen.model, "scale": chosen.scale, "rated_prompts": scale.rated_prompts, "answers": scale.answers,
        "held_out_answers": scale.held_out_answers, "max_new_tokens": TOKENS,
        "methods": {name: " ".join(way.arguments(chosen.scale)) for name, way in METHODS.items()},
    }  # fmt: skip
    kept = rows.Kept(chosen.work, setting)
    found, table, failures = list[Record](), list[list[Any]](), 0
    left_out: dict[str, str] = {}
    for seed, method, kind in itertools.product(chosen.seeds, METHODS, rows.KINDS):
        name = f"{method}/{seed}/{kind}"
        if not rows.wanted(name, chosen.only):
            continue
        if kind == "constant" and not METHODS[method].constant:
            left_out[method] = NO_CONSTANT
            continue
        say(f"{method}, seed {seed}, {kind} ratings")
        folder = chosen.work / f"seed-{seed}"
        try:
            found.append(kept.row(name, partial(run, folder, models, method, seed, kind, scale, chosen)))
        except rows.CommandFailed as error:
            say(f"{name}: {error}; it is tried again the next time")
            failures += 1
    over = means(found)
    result = {
        "environment": measuring.environment(), "setting": setting, "left_out": left_out, "means": over, "rows": found,
    }  # fmt: skip
    for method in METHODS:
        table += [table_row(row) for row in found if row["method"] == method]
        table += [left_out_row(method)] if method in left_out else []
    measuring.finish("methods", result, HEAD, table, chosen)
    if over and not chosen.json:
        print()
        print(measuring.table(MEANS_HEAD, [means_row(one) for one in over]))
    sys.exit(bool(failures))


if __name__ == "__main__":
    rows.interruptible(main)
