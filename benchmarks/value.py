"""Does the value explain, and do steps fit the leash? Explained variance, reward and KL by round, on the demo's data.

    python -m benchmarks.value [--seeds 0,1,2] [--steps 20] [--only fitted] [--save]

128 answers of SmolLM2 to the demo's training prompts are scored by the demo's simulated rater (source = simulated). A
reward model is fitted to those of three fifths of their prompts, as the trainer does, and PPO runs at its defaults,
with the value in closed form (`fitted`), or with an adapter of its own (`adapter`). Both know the rated answers before
the first round.

Explained variance is of the returns of a round as they came (score less KL charge, Monte Carlo), by values that were
foretold before anything was learned from that round. A run passes where it is above 0.2 in the first round and above
0.35 in the last five on average, rounds stay within twice the KL target, and none is undone. A round takes about ten
seconds on two cores that nothing else uses. Rows are kept in the work folder, with a checkpoint every few rounds: the
same command goes on after an interruption.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import measuring, rows
from benchmarks.overoptimisation import (
    ANSWERS,
    LABEL_SEED,
    RATER,
    REFERENCE_SEED,
    answered,
    labelled,
    load_prompts,
)
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import Rollout, round_seed
from trainer.algorithms.values import rated_answers
from trainer.checkpoints import load, save
from trainer.config import RewardConfig
from trainer.examples import Examples, Response, Scored
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy_config import PpoConfig
from trainer.reward.folds import folds
from trainer.reward.linear_fit import LinearFit
from trainer.reward.model import RewardModel

KINDS = ("fitted", "adapter")
REFERENCE_PROMPTS, REFERENCE_ANSWERS = 32, 2
FIRST_EXPLAINED, LAST_EXPLAINED, LAST = 0.2, 0.35, 5
CHECKPOINT_EVERY = 4  # rounds
NAMES = {
    "explained": "value/explained_variance", "reward": "objective/scores", "kl": "objective/kl",
    "beta": "objective/kl_coef", "rate": "policy/learning_rate", "moved": "policy/round_kl",
    "approxkl": "policy/approxkl", "stopped": "policy/stopped_early", "rolled_back": "policy/rolled_back",
    "length": "response/length", "rollout_s": "timing/rollout", "score_s": "timing/score", "update_s": "timing/update",
}  # fmt: skip
HEAD = [
    "value", "seed", "explained 1st", "2nd", "3rd", "mean", "last 5", "reward 1st", "last 5", "KL 5th", "10th", "last",
    "largest", "beta", "rate", "undone", "s a round", "passes",
]  # fmt: skip
Record = dict[str, Any]


def fitted_reward(backbone: Backbone, tokens: int, count: int, seed: int) -> tuple[RewardModel, Examples]:
    """A reward model of the demo's rater, and the examples that it was fitted to."""
    prompts, _ = load_prompts(0)
    rated = labelled(backbone, prompts, count, tokens, seed)
    scores = [score for _, score in rated]
    mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)

    def example(one: Rollout, score: float) -> Scored:
        response = Response(one.prompt, one.text, tuple(one.completion.token_ids), "v0")
        return Scored(response, (score - mean) / deviation, RATER)

    config = RewardConfig()
    examples = Examples([example(one, score) for one, score in rated])
    optimised, judged = folds(examples, config.held_out, config.minimum)
    fit = LinearFit(backbone, optimised, config, seed, kept=judged)
    fit.advance()
    first = round_seed(seed, REFERENCE_SEED)
    reference = answered(backbone, None, prompts[:REFERENCE_PROMPTS], REFERENCE_ANSWERS, tokens, first)
    fit.model.normalise(
        [one.prompt_ids for one in reference],
        [one.completion.token_ids for one in reference],
        [one.prompt.language for one in reference],
    )
    return fit.model, optimised


def run(backbone: Backbone, folder: Path, kind: str, seed: int, config: PpoConfig, labels: int) -> Record:
    """The rounds of one run, from its last checkpoint where there is one."""
    reward, examples = fitted_reward(backbone, config.max_new_tokens, labels, seed)
    prompts, _ = load_prompts(0)
    ppo = Ppo(backbone, reward, prompts, config, seed, rated=rated_answers(backbone, examples))
    checkpoint, log = folder / "checkpoint", folder / "rounds.json"
    found: list[Record] = []
    if checkpoint.exists():
        load(checkpoint, ppo)
        found = json.loads(log.read_text(encoding="utf-8"))[: ppo.step]
    while ppo.step < ppo.steps:
        figures = ppo.advance().figures
        found.append({name: figures[key, None] for name, key in NAMES.items() if (key, None) in figures})
        folder.mkdir(parents=True, exist_ok=True)
        rows.write_json(log, found)
        if ppo.step % CHECKPOINT_EVERY == 0:
            save(checkpoint, ppo)
        last = found[-1]
        told = " ".join(f"{name} {last[name]:.3g}" for name in last)
        print(f"{kind}, seed {seed}, round {ppo.step} of {ppo.steps}: {told}", file=sys.stderr, flush=True)
    return {"kind": kind, "seed": seed, "rounds": found, "rolled_back": ppo.rollbacks, "remark": ppo.remark()}


def summary(row: Record, kl_target: float) -> Record:
    """What a run's rounds come to."""

    def each(name: str) -> list[float]:
        return [one[name] for one in row["rounds"] if one.get(name) is not None]

    explained, kl = each("explained"), each("kl")
    seconds = statistics.median(
        sum(one[f"{part}_s"] for part in ("rollout", "score", "update")) for one in row["rounds"]
    )
    late = statistics.fmean(explained[-LAST:])
    within = max(kl) <= 2 * kl_target and not row["rolled_back"]
    return {
        "explained_first": explained[0],
        "explained_mean": statistics.fmean(explained),
        "explained_last": late,
        "reward_first": each("reward")[0],
        "reward_last": statistics.fmean(each("reward")[-LAST:]),
        "kl_largest": max(kl),
        "seconds": seconds,
        "passes": bool(explained[0] > FIRST_EXPLAINED and late > LAST_EXPLAINED and within),
    }


def line(row: Record, kl_target: float) -> list[Any]:
    """A row of the table."""
    rounds, found = row["rounds"], summary(row, kl_target)
    early = [rounds[place]["explained"] if place < len(rounds) else None for place in range(3)]
    kl = [rounds[place]["kl"] if place < len(rounds) else None for place in (4, 9)]
    return [
        row["kind"], row["seed"], *early, found["explained_mean"], found["explained_last"], found["reward_first"],
        found["reward_last"], *kl, rounds[-1]["kl"], found["kl_largest"], rounds[-1]["beta"], rounds[-1].get("rate"),
        row["rolled_back"], found["seconds"], "yes" if found["passes"] else "NO",
    ]  # fmt: skip


def main() -> None:
    options = measuring.parser(__doc__)
    rows.add_options(options, "value", "0,1,2")
    options.add_argument("--steps", type=int, default=20, help="rounds (default 20)")
    options.add_argument("--tokens", type=int, default=48, help="longest answer (default 48)")
    options.add_argument("--labels", type=int, default=128, help="rated answers (default 128)")
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    device, dtype = devices.choose()
    backbone = Backbone(models.resolve("smollm2", workspace), device, dtype)
    config = PpoConfig(steps=chosen.steps, max_new_tokens=chosen.tokens)
    setting = {
        "model": "SmolLM2-135M-Instruct", "dtype": devices.short_name(dtype), "steps": chosen.steps,
        "tokens": chosen.tokens, "labels": chosen.labels, "answers": ANSWERS, "label_seed": LABEL_SEED,
        "kl_target": config.kl_target, "batch": config.batch, "learning_rate": config.learning_rate,
    }  # fmt: skip
    kept = rows.Kept(chosen.work, setting)
    found = []
    for kind in KINDS:
        own = PpoConfig(steps=chosen.steps, max_new_tokens=chosen.tokens, value_adapter=kind == "adapter")
        for seed in chosen.seeds:
            name = f"{kind}/{seed}"
            if not rows.wanted(name, chosen.only):
                continue
            folder = chosen.work / f"{kind}-{seed}"
            row = kept.row(name, lambda f=folder, k=kind, s=seed, c=own: run(backbone, f, k, s, c, chosen.labels))
            found.append(row)
    result = {
        "environment": measuring.environment(),
        "setting": setting,
        "runs": [{**row, "summary": summary(row, config.kl_target)} for row in found],
    }
    measuring.finish("value", result, HEAD, [line(row, config.kl_target) for row in found], chosen)


if __name__ == "__main__":
    rows.interruptible(main)
