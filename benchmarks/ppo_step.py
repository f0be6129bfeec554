"""A PPO step: ours against TRL 1.9.2, in seconds and in peak memory.

    python -m benchmarks.ppo_step [--rounds 3] [--json] [--save]

SmolLM2-135M, on both sides in the number format that the program would choose here; 16 episodes of a different prompt
each (about 37 tokens) with 48 sampled tokens, nothing ended early; a reward model of the same base on both sides. At
equal settings: 4 epochs in minibatches of 8, LoRA of rank 16 on all linear layers, a value model that learns by layers
of its own. Ours is measured twice more: so with each minibatch computed in two parts, which is the same update in less
memory; and as the program trains by default, which is less work and another method: 2 epochs, a value that is a
regression on the base model's states. Each side is a process of its own, and they take turns. TRL gets a virtual
environment, made on the first run.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks import measuring
from benchmarks.peer import Peer, environment_of
from benchmarks.prompts import QUESTIONS
from trainer.policy import devices, models
from trainer.policy.chat import ChatTokenizer

REQUIREMENTS = ["trl==1.9.2", "torch==2.13.0", "peft"]
# What we measure of ours: settings that differ from the defaults, beside those that have every side do its full work.
EQUAL = {"epochs": 4, "value_adapter": True, "policy_share": 1.0}
OURS: dict[str, dict[str, Any]] = {
    "ours": EQUAL,
    "ours, minibatches in two parts": {**EQUAL, "accumulation": 2},
    "ours, by default": {"answers": 4},
}
PARTS = ("rollout", "score", "update")


def main() -> None:
    options = measuring.parser(__doc__)
    options.set_defaults(rounds=3)
    options.add_argument("--tokens", type=int, default=48, help="of each response (default 48)")
    options.add_argument("--only", choices=["ours", "trl"], help="measure one side alone")
    options.add_argument(
        "--dtype", default="auto", help="number format of both sides (default: as the program chooses)"
    )
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    folder = models.resolve("smollm2", workspace)
    tokenizer = ChatTokenizer.load(folder.path)
    prompts = [tokenizer.encode_prompt(question) for question in QUESTIONS]

    sides: dict[str, Peer] = {}
    dtype = str(devices.choose("cpu", chosen.dtype)[1]).removeprefix("torch.")
    common = [str(folder.path), str(chosen.tokens)]
    if chosen.only != "trl":
        for name, settings in OURS.items():
            sides[name] = Peer("our_ppo.py", [*common, str(workspace.root), dtype, json.dumps(settings)])
    if chosen.only != "ours":
        python = environment_of("trl-1.9.2", REQUIREMENTS)
        sides["trl"] = Peer("trl_ppo.py", [*common, str(EQUAL["epochs"]), json.dumps(prompts), dtype], python)
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
            "model": f"SmolLM2-135M-Instruct, {dtype}",
            "episodes": len(prompts),
            "prompt_tokens": round(sum(map(len, prompts)) / len(prompts)),
            "response_tokens": chosen.tokens,
            "minibatch": 8,
            "lora_rank": 16,
            "ours": OURS,
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
