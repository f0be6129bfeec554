"""Do all seeds of the default recipe stay in bounds? PPO on the bundled model against a known reward, seed by seed.

    python -m benchmarks.stability [--seeds 10] [--steps 10] [--tokens 32] [--json] [--save]

The reward is the demo's gold reward (brief, finished answers in the language of the question), so that a gain is a
gain. A seed is stable when no round was rolled back, no update was skipped, the KL never passed twice its target, and
the mean reward of the last three rounds lies above that of the first three. A run of the default size takes about ten
minutes on two cores.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import measuring
from storage import clock
from storage.records import Prompt, Split
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import Rollout
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy.layout import TokenLayout
from trainer.policy_config import PpoConfig
from trainer.reward.protocol import Scores
from workbench.demo.gold import gold_score
from workbench.demo.languages import prompts

ROUNDS_COMPARED = 3


class GoldReward:
    """The demo's gold reward as a reward to learn from, on a scale of mean about 0."""

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        """As :meth:`trainer.reward.protocol.Reward.score`."""
        return Scores.certain(self.rate(rollouts).rewards.to(layout.mask.device)), reference

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        """From -2 to 2."""
        golds = [
            gold_score(rollout.text, rollout.prompt.language, rollout.completion.finish_reason) - 3.0
            for rollout in rollouts
        ]
        return Scores.certain(torch.tensor(golds))


def practice_prompts() -> list[Prompt]:
    """The training prompts of the demo."""
    return [
        Prompt(f"{place:03}", asked.text, asked.language, clock.now())
        for place, asked in enumerate(prompts())
        if asked.split == Split.TRAIN
    ]


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--tokens", type=int, default=32)
    chosen = options.parse_args()
    folder = models.resolve("smollm2", measuring.prepare(chosen))
    backbone = Backbone(folder, *devices.choose())
    prompts = practice_prompts()
    config = PpoConfig(steps=chosen.steps, max_new_tokens=chosen.tokens)
    seeds = [_run(backbone, prompts, config, seed) for seed in range(chosen.seeds)]
    stable = sum(seed["stable"] for seed in seeds)
    result = {
        "environment": measuring.environment(),
        "setting": {
            "model": "SmolLM2-135M-Instruct",
            "reward": "the demo's gold reward less 3",
            "steps": chosen.steps,
            "response_tokens": chosen.tokens,
            "batch": config.batch,
            "kl_target": config.kl_target,
        },
        "seeds": seeds,
        "stable": stable,
    }
    head = ["seed", "reward, first", "last", "largest KL", "rolled back", "skipped", "stable"]
    rows = [
        [seed["seed"], seed["first"], seed["last"], max(seed["kl"]), seed["rolled_back"], seed["skipped"],
         "yes" if seed["stable"] else "NO"]
        for seed in seeds
    ]  # fmt: skip
    measuring.finish("stability", result, head, rows, chosen)
    print(f"{stable} of {len(seeds)} seeds stable", file=sys.stderr)


def _run(backbone: Backbone, prompts: list[Prompt], config: PpoConfig, seed: int) -> dict:
    ppo = Ppo(backbone, GoldReward(), prompts, config, seed)
    rewards, kls, skipped = [], [], 0.0
    for _ in tqdm(range(config.steps), desc=f"seed {seed}", file=sys.stderr, leave=False):
        figures = ppo.advance().figures
        rewards.append(figures["objective/scores", None])
        kls.append(figures["objective/kl", None])
        skipped += figures.get(("policy/skipped", None), 0.0)
    first, last = statistics.fmean(rewards[:ROUNDS_COMPARED]), statistics.fmean(rewards[-ROUNDS_COMPARED:])
    bounded = max(kls) <= 2 * config.kl_target
    return {
        "seed": seed,
        "first": first,
        "last": last,
        "rewards": rewards,
        "kl": kls,
        "rolled_back": ppo.rollbacks,
        "skipped": skipped,
        "stable": bool(bounded and ppo.rollbacks == 0 and skipped == 0 and last > first),
    }


if __name__ == "__main__":
    main()
