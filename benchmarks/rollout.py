"""Rollouts: our decoder against `generate` of transformers, in tokens a second.

    python -m benchmarks.rollout [--rounds 5] [--json] [--save]

SmolLM2-135M in the number format that the program would choose, 16 prompts of about 37 tokens, 64 new tokens each with
nothing ended early, temperature 1. The floor is the model's linear products alone, as plain layers and as our decoder
runs them.
"""

from __future__ import annotations

from benchmarks import measuring
from benchmarks.generation import Generate, Products, ours
from benchmarks.prompts import QUESTIONS
from trainer.policy import devices, models
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--dtype", default="auto", help="number format of all sides (default: as the program chooses)")
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    folder = models.resolve("smollm2", workspace)
    tokenizer = ChatTokenizer.load(folder.path)
    prompts = [tokenizer.encode_prompt(QUESTIONS[row % len(QUESTIONS)]) for row in range(chosen.batch)]
    length = round(sum(map(len, prompts)) / len(prompts))
    device, dtype = devices.choose("cpu", chosen.dtype)
    decoder = Decoder.load(folder.path, device, dtype)
    peer = Generate(folder.path, prompts, chosen.tokens, dtype=dtype)
    plain, packed = (
        Products(decoder.config, chosen.batch, length, chosen.tokens, packed=packed, dtype=dtype)
        for packed in (False, True)
    )
    speeds = measuring.alternate(
        {
            "ours": lambda: ours(decoder, prompts, chosen.tokens),
            "generate, dynamic cache": lambda: peer.measure("dynamic"),
            "generate, static cache": lambda: peer.measure("static"),
            "products alone, plain": plain.measure,
            "products alone, packed": packed.measure,
        },
        chosen.rounds,
    )
    found = {name: measuring.spread(values) for name, values in speeds.items()}
    medians = {name: figures["median"] for name, figures in found.items()}
    best = max(medians["generate, dynamic cache"], medians["generate, static cache"])
    result = {
        "environment": measuring.environment(),
        "setting": {
            "model": f"SmolLM2-135M-Instruct, {devices.short_name(dtype)}",
            "batch": chosen.batch,
            "prompt_tokens": length,
            "new_tokens": chosen.tokens,
            "temperature": 1.0,
        },
        "unit": "tokens/s",
        "sides": found,
        "times_generate": medians["ours"] / best,
        "share_of_plain_floor": medians["ours"] / medians["products alone, plain"],
        "share_of_packed_floor": medians["ours"] / medians["products alone, packed"],
    }
    rows = [
        [name, figures["median"], figures["low"], figures["high"], figures["n"], medians["ours"] / figures["median"]]
        for name, figures in found.items()
    ]
    measuring.finish("rollout", result, ["side", "tokens/s", "low", "high", "n", "ours is times"], rows, chosen)


if __name__ == "__main__":
    main()
