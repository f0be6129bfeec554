"""Over-optimisation: a reward model fitted on few labels is a proxy; pressed hard, it rises while the truth falls.

    python -m benchmarks.overoptimisation [--labels 50,200,1000] [--steps 40] [--seeds 1] [--tokens 48] [--save]

The truth is the gold reward of workbench/demo/gold.py; labels are its noisy scores, `source = simulated`, so that no
person's rating is meant. For each number of labels two reward models are fitted on prompts apart, as the trainer does:
one is optimised, as its best guess and without a bound, by PPO with a weak leash (small beta, no KL target, hence no
roll back); the other judges. Every few rounds the policy answers held-out prompts: gold reward, proxy reward and KL,
means over prompts with 95% intervals. Gao et al. (2022) plot them against the square root of the KL.

At each of these points the trainer's gate is asked whether the policy may be published, against the last one that it
let pass. The first time it says no would end the run: that point is its *stop*. What would be served then is the last
point before it, and the report says whether the gold reward had fallen beyond its interval by then.

The default takes about half an hour on two cores: 3 x 40 rounds of about 6 s, 3 x 9 measurements of about 10 s, a
thousand labelled answers and three fits. Each measurement is written at once with --save, so that an interrupted run
keeps what it has.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks import measuring, pictures
from storage.records import Prompt, Sampling, Split
from trainer.algorithms import maths
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import Rollout, collect, round_seed
from trainer.config import GateConfig, RewardConfig
from trainer.evaluation.gate import judge
from trainer.evaluation.intervals import mean_interval
from trainer.evaluation.judging import Judge, agreement
from trainer.examples import Examples, Response, Scored
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot, Update
from trainer.policy_config import PpoConfig
from trainer.reward.folds import folds
from trainer.reward.linear_fit import LinearFit
from trainer.reward.model import RewardModel
from workbench.demo.gold import gold_score, simulated_score
from workbench.demo.languages import prompts

RATER = "simulated"
PROMPTS_A_BATCH = 4
ANSWERS = 4  # to each prompt, labelled and in training
LABEL_SEED, REFERENCE_SEED, HELD_OUT_SEED = 1 << 41, 1 << 42, 900_000_000


@dataclass(frozen=True)
class Data:
    """What all sizes share: prompts, and labelled answers of which a smaller size takes the first."""

    train: list[Prompt]
    held_out: list[Prompt]
    labelled: list[tuple[Rollout, float]]
    reference: list[Rollout]


@dataclass
class Gatekeeper:
    """What the trainer's gate would do: the last policy that it let pass, and where it first said no."""

    judge: Judge
    served: Snapshot | None = None
    served_step: int = 0
    stopped_at: int | None = None


def load_prompts(most_held_out: int) -> tuple[list[Prompt], list[Prompt]]:
    """The demo's prompts: for training in a mixed order, and held-out ones of all languages in turn."""
    found: dict[Split, list[Prompt]] = {Split.TRAIN: [], Split.HELD_OUT: []}
    for number, asked in enumerate(prompts()):
        found[asked.split].append(Prompt(f"demo {number:04}", asked.text, asked.language, ""))
    random.Random(0).shuffle(found[Split.TRAIN])
    random.Random(0).shuffle(found[Split.HELD_OUT])
    return found[Split.TRAIN], found[Split.HELD_OUT][:most_held_out]


def answered(
    backbone: Backbone, policy: Update | None, prompts: Sequence[Prompt], answers: int, tokens: int, seed: int
) -> list[Rollout]:
    """Answers of the policy, or of the base model, a few prompts a batch."""
    decoder = backbone.decoder(None if policy is None else policy.snapshot())
    sampling = Sampling(temperature=1.0, max_new_tokens=tokens)
    found: list[Rollout] = []
    for start in range(0, len(prompts), PROMPTS_A_BATCH):
        batch = prompts[start : start + PROMPTS_A_BATCH]
        found += collect(decoder, backbone.tokenizer, batch, answers, sampling, seed + start * answers)
    return found


def labelled(backbone: Backbone, prompts: Sequence[Prompt], count: int, tokens: int, seed: int) -> Any:
    """Answers of the base model with what the simulated rater says of each; the prompts are gone through in turn."""
    rng = random.Random(seed)
    needed = math.ceil(count / ANSWERS)
    asked = [prompts[place % len(prompts)] for place in range(needed)]
    rollouts = answered(backbone, None, asked, ANSWERS, tokens, round_seed(seed, LABEL_SEED))
    said = [simulated_score(one.text, one.prompt.language, one.completion.finish_reason, rng) for one in rollouts]
    return list(zip(rollouts, said, strict=True))[:count]


def two_models(backbone: Backbone, data: Data, labels: int, seed: int) -> tuple[RewardModel, Judge]:
    """The reward to optimise and the judge, fitted on prompts apart of the first labels, normalised on answers of the
    base model."""
    chosen = data.labelled[:labels]
    scores = [score for _, score in chosen]
    mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)
    examples = Examples(
        [
            Scored(
                Response(one.prompt, one.text, tuple(one.completion.token_ids), "v0"), (score - mean) / deviation, RATER
            )
            for one, score in chosen
        ]
    )
    config = RewardConfig()
    optimised, judged = folds(examples, config.held_out, config.minimum)
    prompts = [one.prompt_ids for one in data.reference]
    models = []
    for learned, unseen in ((optimised, judged), (judged, optimised)):
        fit = LinearFit(backbone, learned, config, seed, kept=unseen)
        fit.advance()
        said = [list(one.completion.token_ids) for one in data.reference]
        fit.model.normalise(prompts, said, [one.prompt.language for one in data.reference])
        models.append(fit.model)
    proxy, judge = models
    return proxy, Judge(judge, agreement(judge, optimised))


def asked(backbone: Backbone, keeper: Gatekeeper, learner: Ppo, held_out: Sequence[Prompt], tokens: int) -> Any:
    """What the gate says of the policy as it is; one that passes is what the next is compared with."""
    candidate = learner.policy.snapshot()
    sampling = Sampling(temperature=1.0, max_new_tokens=tokens)
    report = judge(backbone, keeper.judge, candidate, keeper.served, held_out, GateConfig(max_kl=1e9), sampling)
    if report.passed:
        keeper.served, keeper.served_step = candidate, learner.step
    elif keeper.stopped_at is None:
        keeper.stopped_at = learner.step
    assert report.gain is not None, "a judge is there"
    failed = [gate["gate"] for gate in report.gates if not gate["passed"]]
    return {"passed": report.passed, "failed": failed, "gain": asdict(report.gain)}


@torch.no_grad()
def measure(backbone: Backbone, policy: Update, reward: RewardModel, prompts: Sequence[Prompt], tokens: int) -> Any:
    """Gold, proxy and KL of fresh answers to held-out prompts, one each: means over prompts with 95% intervals."""
    rollouts = answered(backbone, policy, prompts, 1, tokens, HELD_OUT_SEED)
    gold = [gold_score(one.text, one.prompt.language, one.completion.finish_reason) for one in rollouts]
    nats: list[float] = []
    for start in range(0, len(rollouts), 16):
        part = rollouts[start : start + 16]
        layout = backbone.layout([one.prompt_ids for one in part], [list(one.completion.token_ids) for one in part])
        ours = backbone.log_likelihood(backbone.hidden(layout, policy), layout, 1.0)
        theirs = backbone.log_likelihood(backbone.hidden(layout, None), layout, 1.0)
        nats += (maths.k3(ours, theirs) * layout.mask).sum(1).tolist()
    figures = {"gold": gold, "proxy": reward.rate(rollouts).plain.tolist(), "kl": nats}
    return {name: asdict(mean_interval(values)) for name, values in figures.items()}


def settings(steps: int, tokens: int) -> PpoConfig:
    """PPO on a leash so long that only the proxy counts."""
    return PpoConfig(
        steps=steps, batch=16, answers=ANSWERS, minibatch=8, epochs=2, learning_rate=2e-4, max_new_tokens=tokens,
        beta=0.005, kl_target=1e6, kl_horizon_batches=1e12, kl_rounds=0, final_rate=1.0, missing_eos_penalty=0.0,
        score_clip=1e6, max_update_kl=0.1,
    )  # fmt: skip


def peak(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where gold was highest, and how far it fell after that."""
    best = max(points, key=lambda point: point["gold"]["mean"])
    return {
        "step": best["step"],
        "gold": best["gold"],
        "kl": best["kl"],
        "fall_to_the_end": best["gold"]["mean"] - points[-1]["gold"]["mean"],
    }


def served(points: Sequence[dict[str, Any]], keeper: Gatekeeper) -> dict[str, Any]:
    """What the gate would have left to serve at its first no, and whether its gold had fallen beyond its interval from
    the best of the points before."""
    until = [point for point in points if keeper.stopped_at is None or point["step"] < keeper.stopped_at]
    last, best = until[-1], max(until, key=lambda point: point["gold"]["mean"])
    fell = last["gold"]["high"] < best["gold"]["mean"]
    return {"step": last["step"], "gold": last["gold"], "kl": last["kl"], "stop": keeper.stopped_at, "fell": fell}


def say(text: str) -> None:
    """Progress, on one line."""
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--labels", default="50,200,1000", help="sizes, after commas (default 50,200,1000)")
    options.add_argument("--steps", type=int, default=40, help="rounds of 16 answers (default 40)")
    options.add_argument("--seeds", type=int, default=1, help="runs of each size (default 1)")
    options.add_argument("--tokens", type=int, default=48, help="longest answer (default 48)")
    options.add_argument("--every", type=int, default=5, help="rounds between measurements (default 5)")
    options.add_argument("--prompts", type=int, default=50, help="held-out prompts (default 50)")
    options.add_argument("--model", default="smollm2", help="as `trainer` takes it (default smollm2)")
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    folder = models.resolve(chosen.model, workspace)
    device, dtype = devices.choose(stored=models.stored_bytes(folder))
    backbone = Backbone(folder, device, dtype)
    sizes = [int(size) for size in chosen.labels.split(",")]
    config = settings(chosen.steps, chosen.tokens)
    result: dict[str, Any] = {
        "environment": measuring.environment("matplotlib"),
        "setting": {
            "model": "SmolLM2-135M-Instruct", "dtype": devices.short_name(dtype), "tokens": chosen.tokens,
            "steps": chosen.steps, "beta": config.beta, "learning_rate": config.learning_rate,
            "held_out_prompts": chosen.prompts, "labels": "gold reward of the demo with noise, source = simulated",
        },
        "runs": [],
    }  # fmt: skip
    for seed in range(chosen.seeds):
        train, held_out = load_prompts(chosen.prompts)
        say(f"sampling {max(sizes)} answers to label")
        reference = answered(backbone, None, train[:32], 2, chosen.tokens, round_seed(seed, REFERENCE_SEED))
        rated = labelled(backbone, train, max(sizes), chosen.tokens, seed)
        data = Data(train, held_out, rated, reference)
        for labels in sizes:
            run = {"labels": labels, "seed": seed, "points": []}
            result["runs"].append(run)
            _optimise(backbone, data, labels, seed, config, chosen, run, result)
    say("")
    rows = [_row(run) for run in result["runs"]]
    head = [
        "labels", "seed", "gold before", "gold peak", "low", "high", "KL at peak", "gold at end", "KL at end",
        "gate's no", "gold served", "fell before",
    ]  # fmt: skip
    measuring.finish("overoptimisation", result, head, rows, chosen)


def _optimise(
    backbone: Backbone, data: Data, labels: int, seed: int, config: PpoConfig, chosen: Any, run: Any, result: Any
) -> None:
    """One size and seed; its points go into `run` as they come."""
    reward, judged_by = two_models(backbone, data, labels, seed)
    keeper = Gatekeeper(judged_by)
    run["judge_agreement"] = asdict(judged_by.agreement) if judged_by.agreement else None
    learner = Ppo(backbone, reward, data.train, config, seed)
    while True:
        if learner.step % chosen.every == 0 or learner.step == learner.steps:
            found = measure(backbone, learner.policy, reward, data.held_out, chosen.tokens)
            said = asked(backbone, keeper, learner, data.held_out, chosen.tokens) if learner.step else None
            run["points"].append({"step": learner.step, "gate": said, **found})
            run["peak"] = peak(run["points"])
            run["served"] = served(run["points"], keeper)
            if chosen.save:
                picture(measuring.save("overoptimisation", result), result)
        if learner.step == learner.steps:
            return
        headline = learner.advance().headline
        figures = ", ".join(f"{name} {value:.2f}" for name, value in headline.items())
        say(f"{labels} labels, seed {seed}: round {learner.step} of {learner.steps}; {figures}")


def _row(run: dict[str, Any]) -> list[Any]:
    first, last, best = run["points"][0], run["points"][-1], run["peak"]
    gold = best["gold"]
    return [
        run["labels"], run["seed"], first["gold"]["mean"], gold["mean"], gold["low"], gold["high"],
        best["kl"]["mean"], last["gold"]["mean"], last["kl"]["mean"], run["served"]["stop"],
        run["served"]["gold"]["mean"], "yes" if run["served"]["fell"] else "no",
    ]  # fmt: skip


def picture(path: Any, result: dict[str, Any]) -> None:
    """Gold and proxy against the root of the KL, a colour for each number of labels."""
    sizes = list(dict.fromkeys(run["labels"] for run in result["runs"]))

    def panel(name: str, label: str) -> Any:
        def drawn(axes: Any) -> None:
            for run in result["runs"]:
                roots = [math.sqrt(max(0.0, point["kl"]["mean"])) for point in run["points"]]
                place = sizes.index(run["labels"])
                said = f"{run['labels']} labels" if run["seed"] == 0 else "_"
                pictures.path_of(axes, roots, [point[name] for point in run["points"]], said, place, "o-")
            axes.set(xlabel="square root of the KL, nats a response", ylabel=label)
            axes.legend()

        return drawn

    panels = [panel("gold", "gold reward, 1 to 5"), panel("proxy", "proxy reward, deviations")]
    pictures.draw(path, panels, "Gold and proxy reward on held-out prompts, 95% intervals")


if __name__ == "__main__":
    main()
