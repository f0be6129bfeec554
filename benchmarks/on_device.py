"""What a device does with the trainer's arithmetic: is the sampler the policy, how fast, does a swap prove itself?

    python -m benchmarks.on_device [--device auto] [--dtypes bf16,fp32] [--model smollm2] [--steps 20] [--json] [--save]

For each number format: a run of PPO (16 answers of 48 tokens a round, LoRA of rank 16 on all linear layers, two epochs)
whose reward counts the vowels of an answer, with the gap between sampler and policy in each round; the seconds of a
round and its parts; tokens a second in rollouts of the policy that came out, and of `generate` of transformers on the
base model with a dynamic cache; the seconds in which a decoder takes on the version; and what the version's probe says
to it. The first round warms up and is not timed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import measuring
from benchmarks.generation import Generate, ours
from benchmarks.prompts import QUESTIONS
from storage import clock
from storage.errors import WorkbenchError
from storage.records import Prompt
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import Rollout
from trainer.policy import devices, models, probe
from trainer.policy.backbone import Backbone
from trainer.policy.layout import TokenLayout
from trainer.policy_config import PpoConfig
from trainer.reward.protocol import Scores

TOKENS, BATCH = 48, 16
HEAD = [
    "dtype", "gap, mean", "gap, most", "slope, least", "round s", "rollout", "score", "update", "tokens/s",
    "generate's", "times", "swap s", "proof", "peak MB",
]  # fmt: skip
PARTS = ("rollout", "score", "update")


class Vowels:
    """The share of vowels in an answer, as a :class:`trainer.reward.protocol.Reward`."""

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        shares = [sum(letter in "aeiou" for letter in one.text) / max(1, len(one.text)) for one in rollouts]
        return Scores.certain(10 * torch.tensor(shares) - 3)

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        return Scores.certain(self.rate(rollouts).rewards.to(trunk.device)), reference


def measure(folder: models.ModelFolder, device: torch.device, dtype: torch.dtype, steps: int, rounds: int) -> Any:
    """The figures of one number format."""
    backbone = Backbone(folder, device, dtype)
    prompts = [Prompt(f"{place:02}", text, "en", clock.now()) for place, text in enumerate(QUESTIONS)]
    config = PpoConfig(batch=BATCH, answers=4, steps=steps, max_new_tokens=TOKENS)
    run = Ppo(backbone, Vowels(), prompts, config, seed=0)
    gaps, largest, slopes, seconds, parts = [], [], [], [], []
    stopped = None
    while run.step < steps:
        began = time.perf_counter()
        try:
            figures = run.advance().figures
        except WorkbenchError as error:
            stopped = str(error)
            break
        seconds.append(time.perf_counter() - began)
        gaps.append(figures["policy/sampler_gap", None])
        largest.append(figures["policy/sampler_gap_largest", None])
        slopes.append(figures.get(("policy/sampler_slope", None)))
        parts.append({part: figures[f"timing/{part}", None] for part in PARTS})
        print(f"round {run.step}: {seconds[-1]:.2f} s, gap {gaps[-1]:.2g}, slope {slopes[-1]}", file=sys.stderr)
    version = run.result()
    stored = probe.take(backbone.decoder(version), backbone.tokenizer)
    taking = []
    for _ in range(rounds):
        began = time.perf_counter()
        taken = backbone.decoder(version)
        if device.type == "cuda":
            torch.cuda.synchronize()
        taking.append(time.perf_counter() - began)
    asked = [backbone.tokenizer.encode_prompt(QUESTIONS[row % len(QUESTIONS)]) for row in range(BATCH)]
    peer = Generate(folder.path, asked, TOKENS, dtype=dtype, device=device)
    speeds = measuring.alternate(
        {"ours": lambda: ours(taken, asked, TOKENS), "generate": lambda: peer.measure("dynamic")}, rounds
    )
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "dtype": str(dtype).removeprefix("torch."), "stopped": stopped, "rounds": len(seconds), "gaps": gaps,
        "largest": largest, "slopes": slopes, "seconds": seconds, "parts": parts,
        "round_s": statistics.median(seconds[1:]) if seconds[1:] else None,
        "tokens_per_second": speeds, "times_generate": medians["ours"] / medians["generate"], "medians": medians,
        "swap_s": statistics.median(taking),
        "proof": None if stored is None else probe.prove("the version", stored, taken),
        "peak_mb": torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else measuring.peak_mb(),
    }  # fmt: skip


def table_row(found: dict[str, Any]) -> list[Any]:
    """A row of the printed table."""
    timed = found["parts"][1:]
    parts = [statistics.median(one[part] for one in timed) if timed else None for part in PARTS]
    return [
        found["dtype"], statistics.fmean(found["gaps"]) if found["gaps"] else None, max(found["gaps"], default=None),
        min((one for one in found["slopes"] if one is not None), default=None), found["round_s"], *parts,
        found["medians"]["ours"], found["medians"]["generate"], found["times_generate"], found["swap_s"],
        found["stopped"] or found["proof"], found["peak_mb"],
    ]  # fmt: skip


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options.add_argument("--dtypes", default="bf16,fp32", help="number formats after commas (default bf16,fp32)")
    options.add_argument("--model", default="smollm2", help="as `trainer` takes it (default smollm2)")
    options.add_argument("--steps", type=int, default=20, help="rounds of the run (default 20)")
    chosen = options.parse_args()
    folder = models.resolve(chosen.model, measuring.prepare(chosen))
    found = [
        measure(folder, *devices.choose(chosen.device, dtype), chosen.steps, chosen.rounds)
        for dtype in chosen.dtypes.split(",")
    ]
    result = {
        "environment": measuring.environment(),
        "setting": {"model": folder.name, "batch": BATCH, "tokens": TOKENS, "steps": chosen.steps},
        "sides": found,
    }
    measuring.finish("on_device", result, HEAD, [table_row(one) for one in found], chosen)
    sys.exit(any(one["stopped"] for one in found))


if __name__ == "__main__":
    main()
