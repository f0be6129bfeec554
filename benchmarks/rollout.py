"""Rollouts: our decoder against `generate` of transformers, in tokens a second.

    python -m benchmarks.rollout [--rounds 5] [--json] [--save]

SmolLM2-135M in the number format that the program would choose, 16 prompts of about 37 tokens, 64 new tokens each with
nothing ended early, temperature 1; and as many rows of ours as are sampled at once by default. The floor is the model's
linear products alone, as plain layers and as our decoder runs them.

Answers of uneven length are 96 that end at one token in fifty or after 128, 32 at once: with rows that are given to
prompts that wait, and in batches that wait for their longest answer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks import measuring
from benchmarks.generation import Generate, Products, ours
from benchmarks.prompts import QUESTIONS
from storage.records import Sampling
from trainer.policy import devices, models
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import ROWS, Decoder

UNEVEN, AT_ONCE, LONGEST, ENDS = 96, 32, 128, frozenset(range(0, 1 << 20, 50))


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
    many = [prompts[row % len(prompts)] for row in range(ROWS)]
    uneven = [prompts[row % len(prompts)] for row in range(UNEVEN)]
    speeds = measuring.alternate(
        {
            "ours": lambda: ours(decoder, prompts, chosen.tokens),
            f"ours, {ROWS} rows": lambda: ours(decoder, many, chosen.tokens),
            "generate, dynamic cache": lambda: peer.measure("dynamic"),
            "generate, static cache": lambda: peer.measure("static"),
            "products alone, plain": plain.measure,
            "products alone, packed": packed.measure,
        },
        chosen.rounds,
    )
    parts = [uneven[at : at + AT_ONCE] for at in range(0, UNEVEN, AT_ONCE)]
    speeds |= measuring.alternate(
        {
            "uneven, rows given on": lambda: of_batches(decoder, [uneven]),
            "uneven, batches": lambda: of_batches(decoder, parts),
        },
        max(1, chosen.rounds // 2),
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
        f"times_generate_{ROWS}_rows": medians[f"ours, {ROWS} rows"] / best,
        f"{ROWS}_rows_times_{chosen.batch}": medians[f"ours, {ROWS} rows"] / medians["ours"],
        "rows_given_on_times_batches": medians["uneven, rows given on"] / medians["uneven, batches"],
        "share_of_plain_floor": medians["ours"] / medians["products alone, plain"],
        "share_of_packed_floor": medians["ours"] / medians["products alone, packed"],
    }
    rows = [
        [name, figures["median"], figures["low"], figures["high"], figures["n"], medians["ours"] / figures["median"]]
        for name, figures in found.items()
    ]
    measuring.finish("rollout", result, ["side", "tokens/s", "low", "high", "n", "ours is times"], rows, chosen)


def of_batches(decoder: Decoder, batches: Sequence[Sequence[Sequence[int]]]) -> float:
    """Tokens a second of answers that end by themselves, one batch after the other."""
    began, asked, count = time.perf_counter(), 0, 0
    for prompts in batches:
        seeds = range(asked, asked + len(prompts))
        said = decoder.generate(prompts, Sampling(max_new_tokens=LONGEST), seeds, ENDS, rows=AT_ONCE)
        asked, count = asked + len(prompts), count + sum(len(one.token_ids) for one in said)
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
