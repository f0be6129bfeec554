"""How many labels acquisition saves: pairs that the reward model's posterior asks about, against pairs drawn at random.

    python -m benchmarks.acquisition [--tastes linked,speaking,warm] [--seeds 0,1,2,3,4] [--work DIR] [--save]

SmolLM2 answers the demo's prompts in four languages, eight times each; what a reward model reads of the answers is
computed once. For each taste (`benchmarks/likings.py`) and seed two thirds of the prompts are to be asked about and the
others are held out. Both sides begin with the same few pairs, drawn at random. Then, a batch at a time, a simulated
rater (noisy scores, the higher wins) compares the pairs that one side draws at random among all pairs of answers to a
prompt, and the other chooses by `trainer/reward/acquisition.py`. After each batch the reward is fitted as the trainer
does, and measured on the held-out prompts: the share of pairs of answers to a prompt in which it prefers what the
taste without noise prefers, and the gold gain of the best of eight answers by it over their mean.

A side needs as many labels for a figure as it takes until its mean over seeds first is as good, on a curve that never
falls; between two measurements the logarithm of the labels is interpolated. `share needed` is the share of the labels
of random choice that acquisition needs to be as good as random choice is with so many: below 1 it saves labels. Its 95%
interval is Student's of the jackknife over seeds, of its logarithm. Where acquisition never gets there with all labels
that were tried, they are what it is taken to need, and the line says so.

Rows are kept in the work folder: the same command goes on after an interruption. Some minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from benchmarks import measuring, pictures, rows
from benchmarks.likings import TASTES, Taste, simulated
from benchmarks.overoptimisation import answered, say
from storage.records import Prompt
from trainer.algorithms.rollouts import round_seed
from trainer.config import RewardConfig
from trainer.evaluation.intervals import mean_interval
from trainer.examples import Example, Pair, Response
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.reward.acquisition import most_telling
from trainer.reward.model import RewardModel
from trainer.reward.regression import Answers, Regression, regress
from workbench.demo.languages import prompts as demo_prompts

LANGUAGES = ("en", "de", "es", "fr")
ANSWERS, TOKENS = 8, 48
HELD_OUT_SHARE = 1 / 3
POINTS = (12, 20, 32, 48, 72, 108, 160, 240)  # labels at which both sides are measured; the first are shared
COMPARED = (72, 108, 160)  # labels of random choice that acquisition is compared with
SIDES = ("random", "acquisition")
FIGURES = {"accuracy": "pairs right, held-out prompts", "gain": "gold gain of the best of eight"}
RATER = "simulated"
Record = dict[str, Any]


def asked_prompts() -> list[Prompt]:
    """The demo's prompts in the four languages."""
    own = [asked for asked in demo_prompts() if asked.language in LANGUAGES]
    return [Prompt(f"demo {number:03}", asked.text, asked.language, "") for number, asked in enumerate(own)]


def read_answers(backbone: Backbone, folder: Path) -> tuple[list[Response], Answers]:
    """Answers to all prompts and what a reward model reads of them, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    said_file, features_file = folder / "answers.json", folder / "features.pt"
    asked = asked_prompts()
    if not said_file.exists():
        found = []
        for start in range(0, len(asked), 4):
            say(f"answers to prompt {start + 1} of {len(asked)}")
            batch = asked[start : start + 4]
            found += answered(backbone, None, batch, ANSWERS, TOKENS, round_seed(0, 1 << 40) + start * ANSWERS)
        rows.write_json(said_file, [[one.prompt.id, one.text, list(one.completion.token_ids)] for one in found])
    by_id = {prompt.id: prompt for prompt in asked}
    responses = [
        Response(by_id[key], text, tuple(ids), "v0")
        for key, text, ids in json.loads(said_file.read_text(encoding="utf-8"))
    ]
    distinct = list(dict.fromkeys(responses))
    if not features_file.exists():
        say("what the reward model reads of them")
        known = Answers.read(RewardModel(backbone, RewardConfig(), 0), distinct)
        torch.save({"features": known.features, "tokens": known.tokens, "parts": known.parts}, features_file)
    kept = torch.load(features_file, weights_only=True)
    rows_of = {response: row for row, response in enumerate(distinct)}
    return distinct, Answers(rows_of, kept["tokens"], kept["features"], tuple(kept["parts"]))


class Trial:
    """One taste and seed: which prompts are asked about, and what the rater says of each pair, whoever asks."""

    def __init__(self, responses: Sequence[Response], answers: Answers, taste: Taste, seed: int) -> None:
        self.answers, self.seed = answers, seed
        chance = random.Random(seed)
        prompts = list(dict.fromkeys(response.prompt for response in responses))
        held_out: set[str] = set()
        for language in LANGUAGES:  # of every language the same share
            own = [prompt.id for prompt in prompts if prompt.language == language]
            held_out |= set(chance.sample(own, round(HELD_OUT_SHARE * len(own))))
        self.gold = {one: taste(one.text, one.prompt.language) for one in responses}
        by_prompt: dict[str, list[Response]] = {}
        for one in responses:
            by_prompt.setdefault(one.prompt.id, []).append(one)
        self.held_out = [by_prompt[key] for key in by_prompt if key in held_out]
        self.pool = [pair for key in by_prompt if key not in held_out for pair in combinations(by_prompt[key], 2)]
        chance.shuffle(self.pool)
        self.said = [
            float(simulated(self.gold[a], chance) > simulated(self.gold[b], chance)) for a, b in self.pool
        ]  # a draw of the rater's noise for each pair: both sides hear the same

    def example(self, place: int) -> Example:
        first, second = self.pool[place]
        return Pair(first, second, self.said[place], RATER)

    def measure(self, found: Regression) -> Record:
        """How well a reward foretells the taste on held-out prompts."""
        right: list[float] = []
        gains: list[float] = []
        for several in self.held_out:
            places = [self.answers.rows[one] for one in several]
            rewards = found.rewards(self.answers.features[places]).tolist()
            gold = [self.gold[one] for one in several]
            for a, b in combinations(range(len(several)), 2):
                if gold[a] != gold[b]:
                    right.append(float((rewards[a] > rewards[b]) == (gold[a] > gold[b])))
            best = max(range(len(several)), key=rewards.__getitem__)
            gains.append(gold[best] - statistics.fmean(gold))
        return {"accuracy": statistics.fmean(right), "gain": statistics.fmean(gains)}

    def curve(self, side: str) -> list[Record]:
        """What one side's labels teach, at each of the points."""
        chosen = list(range(POINTS[0]))  # the pool is in random order
        points: list[Record] = []
        found: Regression | None = None
        for labels in POINTS:
            if found is not None:
                chosen += self.choose(side, found, chosen, labels - len(chosen))
            found = regress(self.answers, [self.example(place) for place in chosen])
            points.append({"labels": labels, **self.measure(found)})
            say(f"seed {self.seed}, {side}: {labels} labels, {points[-1]['accuracy']:.3f} right")
        return points

    def choose(self, side: str, found: Regression, chosen: Sequence[int], count: int) -> list[int]:
        """More pairs to ask about, none of them twice."""
        left = sorted(set(range(len(self.pool))) - set(chosen))
        if side == "random":
            return left[:count]
        features = self.answers.features
        places = torch.tensor([[self.answers.rows[one] for one in self.pool[place]] for place in left])
        differences = features[places[:, 0]] - features[places[:, 1]]
        numbers: dict[str, int] = {}
        prompts = [numbers.setdefault(self.pool[place][0].prompt.id, len(numbers)) for place in left]
        telling = most_telling(found.posterior(), differences, differences @ found.weights, prompts, count, self.seed)
        return [left[place] for place, _ in telling]


def _mean(points: Sequence[Record]) -> Record:
    """A measurement of several tastes as one."""
    return {
        "labels": points[0]["labels"],
        **{name: statistics.fmean(point[name] for point in points) for name in FIGURES},
    }


def labels_for(points: Sequence[Record], figure: str, wanted: float) -> float | None:
    """How many labels a side takes until it first has a figure; None where it never has."""
    before: tuple[float, float] | None = None
    for point in points:
        value = point[figure] if before is None else max(before[1], point[figure])
        if value >= wanted:
            if before is None or value == before[1]:
                return float(point["labels"])
            share = (wanted - before[1]) / (value - before[1])
            return math.exp(math.log(before[0]) + share * (math.log(point["labels"]) - math.log(before[0])))
        before = float(point["labels"]), value
    return None


def compared(runs: Sequence[dict[str, list[Record]]], figure: str, labels: int) -> Record:
    """The share of the labels of random choice that acquisition needs for as much, with its interval over seeds."""
    needed, there = needed_share(runs, figure, labels)
    count = len(runs)
    left_out = [needed_share([*runs[:place], *runs[place + 1 :]], figure, labels)[0] for place in range(count)]
    logs = [count * math.log(needed) - (count - 1) * math.log(one) for one in left_out]
    found = mean_interval(logs)
    half = (found.high - found.low) / 2
    low, high = (math.exp(math.log(needed) + way * half) for way in (-1, 1))
    return {"figure": figure, "labels": labels, "needed": needed, "low": low, "high": high, "there": there}


def needed_share(runs: Sequence[dict[str, list[Record]]], figure: str, labels: int) -> tuple[float, bool]:
    """The share, by the means over some runs; and whether acquisition got there at all."""
    means = {
        side: [
            {"labels": labels, figure: statistics.fmean(run[side][place][figure] for run in runs)}
            for place, labels in enumerate(POINTS)
        ]
        for side in SIDES
    }
    reached = max(point[figure] for point in means["random"] if point["labels"] <= labels)
    usual, needed = (labels_for(means[side], figure, reached) for side in SIDES)
    assert usual is not None, "random choice has what it has"
    return (POINTS[-1] if needed is None else needed) / usual, needed is not None


def picture(path: Path, curves: dict[str, list[dict[str, list[Record]]]]) -> None:
    """The curves of both sides, means over seeds with their intervals."""

    def panel(taste: str, figure: str, label: str) -> Any:
        def drawn(axes: Any) -> None:
            for number, side in enumerate(SIDES):
                points = [
                    asdict(mean_interval([run[side][place][figure] for run in curves[taste]]))
                    for place in range(len(POINTS))
                ]
                pictures.path_of(axes, POINTS, points, side, number, "o-")
            axes.set(xscale="log", xlabel=f"pairs compared ({taste})", ylabel=label)
            axes.set_xticks(POINTS, [str(point) for point in POINTS], minor=False)
            axes.minorticks_off()
            axes.legend()

        return drawn

    panels = [panel(taste, figure, label) for taste in curves for figure, label in FIGURES.items()]
    pictures.draw(path, panels, "Pairs chosen by the posterior and at random, 95% intervals over seeds")


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--tastes", default="linked,speaking,warm", help="after commas (default linked,speaking,warm)")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="after commas (default 0,1,2,3,4)")
    parser.add_argument("--work", type=Path, default=measuring.cache_folder() / "acquisition", help="keeps the rows")
    parser.add_argument("--model", default="smollm2", help="as `trainer` takes it (default smollm2)")
    chosen = parser.parse_args()
    tastes, seeds = chosen.tastes.split(","), [int(seed) for seed in chosen.seeds.split(",")]
    if unknown := [name for name in tastes if name not in TASTES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(TASTES)}")
    workspace = measuring.prepare(chosen)
    folder = models.resolve(chosen.model, workspace)
    device, dtype = devices.choose(stored=models.stored_bytes(folder.path))
    responses, answers = read_answers(Backbone(folder, device, dtype), chosen.work)
    setting = {"points": POINTS, "answers": ANSWERS, "tokens": TOKENS, "languages": LANGUAGES}
    kept = rows.Kept(chosen.work, setting)
    curves: dict[str, list[dict[str, list[Record]]]] = {}
    for taste in tastes:
        for seed in seeds:
            trial = Trial(responses, answers, TASTES[taste], seed)
            curves.setdefault(taste, []).append(
                {
                    side: kept.row(f"{taste} {seed} {side}", lambda trial=trial, side=side: trial.curve(side))
                    for side in SIDES
                }
            )
    say("")
    together = [{side: [_mean(points) for points in zip(*(curves[taste][place][side] for taste in tastes), strict=True)]
                 for side in SIDES} for place in range(len(seeds))]  # fmt: skip
    figures = [
        {"taste": taste, **compared(runs, figure, labels)}
        for taste, runs in [*curves.items(), ("all", together)]
        for figure in FIGURES
        for labels in COMPARED
    ]
    result = {"environment": measuring.environment("matplotlib"), "setting": setting | {"seeds": seeds},
              "curves": curves, "compared": figures}  # fmt: skip
    head = ("taste", "figure", "labels at random", "share needed", "low", "high", "")
    table = [
        [one["taste"], one["figure"], one["labels"], one["needed"], one["low"], one["high"],
         "" if one["there"] else "never there"]
        for one in figures
    ]  # fmt: skip
    measuring.finish("acquisition", result, head, table, chosen)
    if chosen.save:
        picture(measuring.save("acquisition", result), curves)


if __name__ == "__main__":
    sys.exit(rows.interruptible(main))
