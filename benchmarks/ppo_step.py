"""A PPO step: ours against TRL 1.9.2, in seconds and in peak memory.

    python -m benchmarks.ppo_step [--rounds 3] [--json] [--save]

SmolLM2-135M in bf16; 16 episodes of a different prompt each (about 37 tokens) with 48 sampled tokens, nothing ended
early; 4 epochs in minibatches of 8; LoRA of rank 16 on all linear layers; a reward model of the same base on both
sides. Ours is measured twice more: with each minibatch computed in two parts, which is the same update in less memory,
and with the policy's adapter in the upper half of the layers alone, which is less work and another method. Each side
is a process of its own, and they take turns. TRL gets a virtual environment, made on the first run.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks import measuring
from benchmarks.peer import Peer, environment_of
from benchmarks.prompts import QUESTIONS
from trainer.policy import models
from trainer.policy.chat import ChatTokenizer

REQUIREMENTS = ["trl==1.9.2", "torch==2.13.0", "peft"]
# What we measure of ours: the share of the layers that the policy's adapter changes, and how many parts a minibatch is
# cut into.
OURS = {"ours": (1.0, 1), "ours, minibatches in two parts": (1.0, 2), "ours, adapter in the upper half": (0.5, 1)}
PARTS = ("rollout", "score", "update")


def main() -> None:
    options = measuring.parser(__doc__)
    options.set_defaults(rounds=3)
    options.add_argument("--tokens", type=int, default=48, help="of each response (default 48)")
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--only", choices=["ours", "trl"], help="measure one side alone")
    options.add_argument("--trl-dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of TRL's weights")
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    folder = models.resolve("smollm2", workspace)
    tokenizer = ChatTokenizer.load(folder.path)
    prompts = [tokenizer.encode_prompt(question) for question in QUESTIONS]

    sides: dict[str, Peer] = {}
    common = [str(folder.path), str(chosen.tokens), str(chosen.epochs)]
    if chosen.only != "trl":
        for name, (share, parts) in OURS.items():
            sides[name] = Peer("our_ppo.py", [*common, str(workspace.root), str(share), str(parts)])
    if chosen.only != "ours":
        python = environment_of("trl-1.9.2", REQUIREMENTS)
        sides["trl"] = Peer("trl_ppo.py", [*common, json.dumps(prompts), chosen.trl_dtype], python)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for turn in range(chosen.rounds + 1):
        for name, side in sides.items():
            said = side.turn()
            print(f"turn {turn} {name}: {said['seconds']:.1f} s, {said['peak_mb']:.0f} MB", file=sys.stderr)
            turns[name].append(said)
    for side in sides.values():
        side.close()

    found = {name: _summary(said[1:]) for name, said in turns.items()}  # the first turn warms up
    for name in OURS.keys() & found.keys():
        found[name]["parts"] = {
            part: measuring.spread([turn[part] for turn in turns[name][1:]])["median"] for part in PARTS
        }
    result: dict[str, Any] = {
        "environment": measuring.environment(),
        "setting": {
            "model": "SmolLM2-135M-Instruct, bf16",
            "episodes": len(prompts),
            "prompt_tokens": round(sum(map(len, prompts)) / len(prompts)),
            "response_tokens": chosen.tokens,
            "epochs": chosen.epochs,
            "minibatch": 8,
            "lora_rank": 16,
            "trl_weights": chosen.trl_dtype,
        },
        "sides": found,
        "versions_of_trl_side": sides["trl"].facts if "trl" in sides else None,
    }
    theirs = found.get("trl")
    for figures in found.values() if theirs else ():
        figures["times_faster_than_trl"] = theirs["seconds"]["median"] / figures["seconds"]["median"]
        figures["share_of_trl_memory"] = figures["peak_mb"] / theirs["peak_mb"]
    rows = [
        [name, *(figures["seconds"][key] for key in ("median", "low", "high", "n")), figures["peak_mb"],
         figures.get("times_faster_than_trl")]
        for name, figures in found.items()
    ]  # fmt: skip
    head = ["side", "s a step", "low", "high", "n", "peak MB", "times TRL"]
    measuring.finish("ppo_step", result, head, rows, chosen)
    for name in OURS.keys() & found.keys() if not chosen.json else ():
        parts = found[name]["parts"]
        print(f"{name}: " + ", ".join(f"{part} {parts[part]:.2f} s" for part in PARTS))


def _summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seconds": measuring.spread([turn["seconds"] for turn in turns]),
        "peak_mb": max(turn["peak_mb"] for turn in turns),
    }


if __name__ == "__main__":
    main()
