"""Reward against KL where the answer is known exactly: does PPO reach the frontier, and never pass it?

    python -m benchmarks.frontier [--betas 2,1,.5,.25] [--seeds 3] [--steps 80] [--json] [--save]

SmolLM2-135M answers one prompt with one token; the reward is a planted function of that token. The best policy under
`E r - beta KL(pi || ref)` is then `ref * exp(r / beta)`, normalised, and reaches `J* = beta log E_ref exp(r / beta)`
(Ziegler et al. 2019). A LoRA policy is trained by our PPO class for each beta and seed. Its KL and reward are computed
over the whole vocabulary after every round, not sampled. No policy lies above the frontier; one that does is a bug in
the measurement, and ends the report with an error. The learning rate falls linearly to 0.

A round of 64 answers of one token takes four to five seconds on two cores (four updates of 32 answers, each a forward
and a backward pass over some 70 tokens), so that the default takes somewhat over an hour.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import measuring, pictures
from storage.records import Prompt
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import Rollout
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy.full import Update
from trainer.policy.layout import TokenLayout
from trainer.policy_config import PpoConfig
from trainer.reward.protocol import Scores

QUESTION = Prompt("frontier", "Name a colour.", "en", "")
PLANTED = 32  # the likeliest tokens have a reward of their own
TOLERANCE = 1e-4  # nats and reward: fp32 over a large vocabulary
CURVE = torch.logspace(1.5, -1.5, 60, dtype=torch.float64)  # betas from which the frontier is drawn


@dataclass(frozen=True)
class Point:
    """Where a policy is, exactly: nats to the reference, and its expected reward."""

    kl: float
    reward: float


@dataclass(frozen=True)
class Problem:
    """(V,) log-probabilities of the reference, and a reward for every token."""

    reference: Tensor
    rewards: Tensor

    def best(self, beta: float) -> Tensor:
        """(V,) log-probabilities of the best policy."""
        return (self.reference + self.rewards / beta).log_softmax(0)

    def bound(self, beta: float) -> float:
        """J*: the most that any policy reaches of `E r - beta KL`."""
        return float(beta * (self.reference + self.rewards / beta).logsumexp(0))

    def point(self, policy: Tensor) -> Point:
        """Where a policy (V,) is, from its log-probabilities."""
        shares = policy.exp()
        return Point(float((shares * (policy - self.reference)).sum()), float((shares * self.rewards).sum()))

    def above(self, point: Point) -> float:
        """How far a point is above the frontier, in reward; at most 0 for every policy.

        At its KL no policy has more than the least of `bound(beta) + beta KL` over all beta.
        """
        return max(point.reward - point.kl * beta - self.bound(beta) for beta in CURVE.tolist())


class PlantedReward:
    """A fixed reward for each token, as a :class:`trainer.reward.protocol.Reward`."""

    def __init__(self, rewards: Tensor) -> None:
        self.rewards = rewards

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        return Scores.certain(self.rate(rollouts).rewards.to(reference.device)), reference

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        first = [rollout.completion.token_ids[0] for rollout in rollouts]
        return Scores.certain(self.rewards[torch.tensor(first)].float())


@torch.no_grad()
def exact_policy(backbone: Backbone, policy: Update | None) -> Tensor:
    """(V,) log-probabilities of the first token of the answer, in fp64; the reference where `policy` is None."""
    asked = backbone.tokenizer.encode_prompt(QUESTION.text, QUESTION.system)
    layout = backbone.layout([asked], [[0]])
    state = backbone.hidden(layout, policy)[layout.predictors[0, 0]]
    return (backbone.network.head.weight @ state).double().log_softmax(0).cpu()


def planted(backbone: Backbone, seed: int) -> Problem:
    """Normal rewards for the likeliest tokens, of mean 0 and deviation 1 among them; the others have the lowest."""
    reference = exact_policy(backbone, None)
    drawn = torch.randn(PLANTED, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn = (drawn - drawn.mean()) / drawn.std()
    rewards = torch.full_like(reference, float(drawn.min()))
    rewards[reference.topk(PLANTED).indices] = drawn
    return Problem(reference, rewards)


def settings(beta: float, steps: int, **more: Any) -> PpoConfig:
    """PPO with a leash that stays as it is, and nothing in the reward but what was planted."""
    chosen: dict[str, Any] = {
        "steps": steps, "batch": 64, "answers": 64, "minibatch": 32, "epochs": 2, "learning_rate": 1e-3, "warmup": 1,
        "max_new_tokens": 1, "beta": beta, "kl_target": 1e6, "kl_horizon_batches": 1e12, "kl_rounds": 0,
        "score_clip": 1e6, "max_update_kl": 1.0,
        # Whitened advantages are as large at the optimum as far from it: smaller steps let the policy come to rest.
        "final_rate": 0.0,
    }  # fmt: skip
    return PpoConfig(**{**chosen, **more})


def train(backbone: Backbone, problem: Problem, config: PpoConfig, seed: int) -> tuple[list[Point], Tensor]:
    """The points of a run, the first before any round, and the policy (V,) that it ends with."""
    run = Ppo(backbone, PlantedReward(problem.rewards), [QUESTION], config, seed)
    found = exact_policy(backbone, run.policy)
    points = [problem.point(found)]
    while run.step < run.steps:
        run.advance()
        found = exact_policy(backbone, run.policy)
        points.append(problem.point(found))
        print(f"\rbeta {config.beta:g}, seed {seed}: round {run.step} of {run.steps}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return points, found


def summary(problem: Problem, beta: float, points: Sequence[Point], policy: Tensor) -> dict[str, Any]:
    """How near a run came. Raises AssertionError where a point is above the frontier."""
    above = max(problem.above(point) for point in points)
    assert above <= TOLERANCE, f"a policy is {above:.2g} above the frontier, which is impossible"
    last = points[-1]
    return {
        "best": problem.bound(beta),
        "start": points[0].reward - beta * points[0].kl,
        "reached": last.reward - beta * last.kl,
        # Of the way from the reference to the optimum.
        "share": (last.reward - beta * last.kl - points[0].reward) / (problem.bound(beta) - points[0].reward),
        "total_variation": float((policy.exp() - problem.best(beta).exp()).abs().sum() / 2),
        "most_above_frontier": above,
    }


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--betas", default="2,1,.5,.25", help="weights of the KL, after commas (default 2,1,.5,.25)")
    options.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    options.add_argument("--steps", type=int, default=80, help="rounds of 64 answers (default 80)")
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    device, _ = devices.choose()
    backbone = Backbone(models.resolve("smollm2", workspace), device, torch.float32)
    problem = planted(backbone, seed=0)
    curve = [problem.point(problem.best(beta)) for beta in CURVE.tolist()]
    result: dict[str, Any] = {
        "environment": measuring.environment("matplotlib"),
        "setting": {"model": "SmolLM2-135M-Instruct, fp32", "prompt": QUESTION.text, "vocabulary": len(problem.rewards),
                    "planted": PLANTED, "steps": chosen.steps},
        "frontier": [asdict(point) for point in curve],
        "runs": [],
    }  # fmt: skip
    for beta in map(float, chosen.betas.split(",")):
        for seed in range(chosen.seeds):
            points, policy = train(backbone, problem, settings(beta, chosen.steps), seed)
            found = {"beta": beta, "seed": seed, **summary(problem, beta, points, policy)}
            result["runs"].append({**found, "points": [asdict(point) for point in points]})
            if chosen.save:
                picture(measuring.save("frontier", result), result)
    rows = [
        [run["beta"], run["seed"], run["best"], run["reached"], run["share"], run["total_variation"]]
        for run in result["runs"]
    ]
    head = ["beta", "seed", "J*", "reached", "share of the way", "total variation"]
    measuring.finish("frontier", result, head, rows, chosen)


def picture(path: Any, result: dict[str, Any]) -> None:
    """The frontier and the way of every run to it."""

    def panel(axes: Any) -> None:
        line = result["frontier"]
        axes.plot([point["kl"] for point in line], [point["reward"] for point in line], "k-", label="frontier, exact")
        betas = list(dict.fromkeys(run["beta"] for run in result["runs"]))
        for run in result["runs"]:
            kl, reward = ([point[name] for point in run["points"]] for name in ("kl", "reward"))
            colour = pictures.colour(betas.index(run["beta"]))
            label = f"PPO, beta {run['beta']:g}" if run["seed"] == 0 else None
            axes.plot(kl, reward, ".-", color=colour, linewidth=0.6, markersize=3, label=label)
            axes.plot(kl[-1:], reward[-1:], "o", color=colour, markeredgecolor="black")
        axes.set(xlabel="KL to the reference, nats", ylabel="expected reward")
        axes.legend()

    pictures.draw(path, [panel], "Reward against KL, computed over the whole vocabulary")


if __name__ == "__main__":
    main()
