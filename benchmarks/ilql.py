"""Does ILQL's Q say what the outcomes said? Learned from the true outcomes, from the same ones shuffled, and from none.

    python -m benchmarks.ilql [--seeds 0-9] [--decoded 0] [--only plain/0,linked] [--save]

SmolLM2 answers 32 prompts in four languages four times each, and a simulated rater of a taste of style
(`benchmarks/likings.py`) scores the answers with noise: those are learned from (source = simulated). It answers 32
other prompts four times each, and nobody rates them: there Q is asked how good each answer is (the sum over its tokens
of Q less its mean under the model), and the taste itself says what was right. Each row is a taste, a seed (of the
noise, the shuffling and the heads) and the three kinds of outcomes; the model's states of all answers are computed
once, and all rows share them.

For the seeds named by `--decoded` the policies learned from true and from shuffled outcomes answer the other prompts
twice each: the gain in the taste with Student's 95% interval over prompts, and the KL.

The exit code is 1 when a run left its bounds: a figure that is not finite, an update that was skipped, or a Q that
spreads by more than the outcomes do. Rows are kept in the work folder: the same command goes on after an interruption.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import measuring, rows
from benchmarks.likings import STYLE, simulated
from benchmarks.tastes import LANGUAGES, prompts_by_use
from storage.workspace import Workspace

ANSWERS, DECODED_ANSWERS, TOKENS = 4, 2, 48
KINDS = ("true", "shuffled", "none")
TEST_SEED, DECODED_SEED = 800_000_000, 900_000_000
HEAD = [
    "taste", "seed", "sd, true", "shuffled", "none", "agreement with none", "with shuffled", "foretold, true", "low",
    "high", "shuffled", "by V, true", "s", "gain, true", "low", "high", "KL", "gain, shuffled", "low", "high", "KL",
]  # fmt: skip
Record = dict[str, Any]


class Model:
    """The bundled model in memory, its answers, and their states."""

    def __init__(self, name: str, workspace: Workspace) -> None:
        import torch

        from trainer.policy.backbone import Backbone
        from trainer.policy.models import resolve

        self.backbone = Backbone(resolve(name, workspace), torch.device("cpu"), torch.bfloat16)
        self.states: Any = None

    def answers(self, records: Sequence[Record], count: int, first_seed: int, changes: Any = None) -> list[Record]:
        """Answers to prompts, those of a prompt side by side, as plain values."""
        from storage.records import Prompt, Sampling
        from trainer.algorithms.rollouts import collect

        asked = [Prompt(one["prompt"], one["prompt"], one["language"], "") for one in records]
        sampling = Sampling(temperature=1.0, max_new_tokens=TOKENS)
        found = collect(self.backbone.decoder(changes), self.backbone.tokenizer, asked, count, sampling, first_seed)
        return [
            {
                "prompt": one.prompt.text, "language": one.prompt.language, "text": one.text,
                "tokens": list(one.completion.token_ids), "logprob": sum(one.completion.logprobs),
            }
            for one in found
        ]  # fmt: skip

    def likelihoods(self, answers: Sequence[Record]) -> list[float]:
        """How likely the model itself would have said each answer, in nats."""
        import torch

        found = []
        for one in answers:
            asked = self.backbone.tokenizer.encode_prompt(one["prompt"])
            layout = self.backbone.layout([asked], [one["tokens"]])
            with torch.no_grad():
                said = self.backbone.log_likelihood(self.backbone.hidden(layout, None), layout, 1.0)
            found.append(float(said.sum()))
        return found

    def learner(self, answers: Sequence[Record], outcomes: Sequence[float], seed: int) -> Any:
        """ILQL with its defaults, except that all rated answers are learned from."""
        from msgspec.structs import replace

        from trainer.algorithms.ilql import Ilql
        from trainer.outcomes import Outcome
        from trainer.supervised_config import IlqlConfig

        found = [Outcome(response_of(one), value, 1) for one, value in zip(answers, outcomes, strict=True)]
        config = replace(IlqlConfig(), held_out=0.0)
        return Ilql(self.backbone, found, config, seed, states=self.states)


def response_of(answer: Record) -> Any:
    """An answer as the trainer takes it."""
    from storage.records import Prompt
    from trainer.examples import Response

    prompt = Prompt(answer["prompt"], answer["prompt"], answer["language"], "")
    return Response(prompt, answer["text"], tuple(answer["tokens"]), None)


def outcomes_of(answers: Sequence[Record], taste: str, seed: int, kind: str) -> list[float]:
    """What the simulated rater says, in deviations; or the same permuted within each language; or 0 for all."""
    rng = random.Random(seed)
    said = [simulated(STYLE[taste](one["text"], one["language"]), rng) for one in answers]
    mean, deviation = statistics.fmean(said), statistics.pstdev(said)
    values = [(value - mean) / deviation for value in said]
    if kind == "none":
        return [0.0 for _ in values]
    if kind == "shuffled":
        for language in LANGUAGES:
            places = [place for place, one in enumerate(answers) if one["language"] == language]
            for place, other in zip(places, rng.sample(places, len(places)), strict=True):
                values[place] = (said[other] - mean) / deviation
    return values


def interval_of(by_prompt: dict[str, list[tuple[float, float]]]) -> Record:
    """Correlation within prompts with a 95% bootstrap interval over prompts."""
    from trainer.algorithms.ilql import within_prompts

    rng, names = random.Random(0), sorted(by_prompt)

    def correlation(chosen: Sequence[str]) -> float:
        # Numbered, so that a prompt that was drawn twice counts as two.
        return within_prompts(
            (f"{place} {name}", *pair) for place, name in enumerate(chosen) for pair in by_prompt[name]
        )

    value = correlation(names)
    if math.isnan(value):  # nothing to tell answers apart by
        return {"value": None, "low": None, "high": None}
    drawn = sorted(correlation(rng.choices(names, k=len(names))) for _ in range(1000))
    return {"value": value, "low": drawn[25], "high": drawn[975]}


def run(model: Model, learned: Sequence[Record], other: Sequence[Record], taste: str, seed: int) -> tuple[Record, Any]:
    """A row: the three kinds of outcomes, and what became of Q; and the learners."""
    import torch

    from trainer.algorithms.q_values import States
    from trainer.algorithms.supervised import make_row

    asked = [make_row(model.backbone, response_of(one)) for one in other]
    if model.states is None:
        answers = [make_row(model.backbone, response_of(one)) for one in learned]
        model.states = States.of(model.backbone, [*answers, *asked], None, 0)
    truth = [STYLE[taste](one["text"], one["language"]) for one in other]
    found: Record = {}
    advantages, learners = {}, {}
    for kind in KINDS:
        began = time.monotonic()
        values = outcomes_of(learned, taste, seed, kind)
        # The same answers in each case; without outcomes there is nothing that a user could start, so it is started
        # with the true ones, which are then taken away.
        learner = model.learner(learned, values if kind != "none" else outcomes_of(learned, taste, seed, "true"), seed)
        if kind == "none":
            without_outcomes(learner)
        figures = [learner.advance().figures for _ in range(learner.steps)]
        seconds = time.monotonic() - began
        said, drawn, mask = learner.advantages(asked)
        places, _ = learner.states.places(asked)
        with torch.no_grad():
            by_value = torch.zeros(mask.shape).masked_scatter(mask, learner.value(learner.states.hidden[places]))
        foretold = {"q": said.sum(1).tolist(), "value": (by_value.sum(1) / mask.sum(1)).tolist()}
        advantages[kind], learners[kind] = drawn, learner
        record: Record = {
            "sd": float((drawn.square().sum(1) / (drawn.shape[1] - 1)).mean().sqrt()),
            "seconds": seconds,
            "skipped": sum(one["policy/skipped", None] for one in figures),
            "finite": all(math.isfinite(value) for one in figures for value in one.values()),
        }
        for name, values in foretold.items():
            by_prompt: dict[str, list[tuple[float, float]]] = {}
            for one, value, right in zip(other, values, truth, strict=True):
                by_prompt.setdefault(one["prompt"], []).append((value, right))
            record[f"foretold_by_{name}"] = interval_of(by_prompt)
        found[kind] = record
    for kind in KINDS[1:]:
        found[kind]["agreement_with_true"] = cosine(advantages["true"], advantages[kind])
    found["in_bounds"] = all(
        found[kind]["finite"] and not found[kind]["skipped"] and found[kind]["sd"] < 1 for kind in KINDS
    )
    return {"taste": taste, "seed": seed, **found}, learners


def cosine(left: Any, right: Any) -> float | None:
    """The correlation of two sets of differences; None where either has none."""
    norm = float(left.norm() * right.norm())
    return float((left * right).sum()) / norm if norm > 1e-9 else None


def without_outcomes(learner: Any) -> None:
    """Take the outcomes from all that is learned. The trainer itself refuses to start from outcomes that are alike."""
    from dataclasses import replace

    learner.batches = [[replace(row, outcome=0.0) for row in batch] for batch in learner.batches]


def decoded(model: Model, learner: Any, before: Sequence[Record], records: Sequence[Record], taste: str) -> Record:
    """What the policy's answers are worth more than the model's, with a 95% interval over prompts; and the KL."""
    from trainer.evaluation.intervals import mean_interval

    after = model.answers(records, DECODED_ANSWERS, DECODED_SEED, learner.result())
    sides = [[STYLE[taste](one["text"], one["language"]) for one in side] for side in (before, after)]
    differences: dict[str, list[float]] = {}
    for one, earlier, later in zip(after, *sides, strict=True):
        differences.setdefault(one["prompt"], []).append(later - earlier)
    gain = mean_interval([statistics.fmean(values) for values in differences.values()])
    reference = model.likelihoods(after)
    kl = statistics.fmean(one["logprob"] - other for one, other in zip(after, reference, strict=True))
    return {"gain": asdict(gain), "kl": kl}


def table_row(row: Record) -> list[Any]:
    """A row of the printed table."""
    true, shuffled, none = (row[kind] for kind in KINDS)
    foretold = true["foretold_by_q"]
    gains = []
    for kind in KINDS[:2]:
        said = row.get("decoded", {}).get(kind)
        gains += [said["gain"]["mean"], said["gain"]["low"], said["gain"]["high"], said["kl"]] if said else [None] * 4
    return [
        row["taste"], row["seed"], true["sd"], shuffled["sd"], none["sd"], none["agreement_with_true"],
        shuffled["agreement_with_true"], foretold["value"], foretold["low"], foretold["high"],
        shuffled["foretold_by_q"]["value"], true["foretold_by_value"]["value"],
        statistics.fmean(row[kind]["seconds"] for kind in KINDS), *gains,
    ]  # fmt: skip


def summary(found: Sequence[Record]) -> dict[str, Record]:
    """The mean over seeds of each taste's figures, and how many runs stayed in bounds."""
    result: dict[str, Record] = {}
    for taste in STYLE:
        own = [row for row in found if row["taste"] == taste]
        if own:
            result[taste] = {
                "seeds": len(own),
                "in_bounds": sum(row["in_bounds"] for row in own),
                "foretold_true_above_shuffled": sum(
                    row["true"]["foretold_by_q"]["value"] > row["shuffled"]["foretold_by_q"]["value"] for row in own
                ),
                **{f"sd_{kind}": statistics.fmean(row[kind]["sd"] for row in own) for kind in KINDS},
                **{
                    f"foretold_{kind}": statistics.fmean(row[kind]["foretold_by_q"]["value"] for row in own)
                    for kind in KINDS[:2]
                },
            }
    return result


def main() -> None:
    options = measuring.parser(__doc__)
    rows.add_options(options, "ilql", "0-9")
    options.add_argument("--decoded", type=rows.numbers, default=[0], help="seeds whose policies answer (default 0)")
    options.add_argument("--model", default="smollm2", help="of the trainer (default smollm2)")
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    uses = prompts_by_use()
    setting = {
        "model": chosen.model, "tokens": TOKENS, "languages": LANGUAGES, "answers": ANSWERS,
        "rated": len(uses["rated"]) * ANSWERS, "other": len(uses["test"]) * ANSWERS,
    }  # fmt: skip
    kept = rows.Kept(chosen.work, setting)
    steps = rows.Steps(chosen.work / "answers")
    model = Model(chosen.model, workspace)
    learned = steps.once("rated", lambda: model.answers(uses["rated"], ANSWERS, 0))
    other = steps.once("other", lambda: model.answers(uses["test"], ANSWERS, TEST_SEED))
    before = steps.once("before", lambda: model.answers(uses["test"], DECODED_ANSWERS, DECODED_SEED))
    found = []
    for seed in chosen.seeds:
        for taste in STYLE:
            name = f"{taste}/{seed}"
            if not rows.wanted(name, chosen.only):
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)

            def work(taste: str = taste, seed: int = seed) -> Record:
                row, learners = run(model, learned, other, taste, seed)
                if seed in chosen.decoded:
                    asked = uses["test"]
                    row["decoded"] = {k: decoded(model, learners[k], before, asked, taste) for k in KINDS[:2]}
                return row

            found.append(kept.row(name, work))
    totals = summary(found)
    result = {"environment": measuring.environment(), "setting": setting, "summary": totals, "rows": found}
    measuring.finish("ilql", result, HEAD, [table_row(row) for row in found], chosen)
    print(json.dumps(totals, indent=2), file=sys.stderr)
    sys.exit(not all(row["in_bounds"] for row in found))


if __name__ == "__main__":
    rows.interruptible(main)
