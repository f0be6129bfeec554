"""One answer at a time, what a person waits for: our decoder against `generate` and against llama.cpp.

    python -m benchmarks.single_stream [--rounds 5] [--no-llama-cpp] [--json] [--save]

SmolLM2-135M, one prompt, 64 new tokens, temperature 1. Ours and `generate` run in bf16; llama.cpp runs the packed
4-bit file that the bf16 weights were unpacked from, in a virtual environment that is made on the first run (the
package xllamacpp, which has ready-made wheels).
"""

from __future__ import annotations

import json
import sys

import torch

from benchmarks import measuring
from benchmarks.generation import Generate, Products, ours
from benchmarks.peer import Peer, environment_of
from benchmarks.prompts import QUESTIONS
from trainer.policy import models
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder

LLAMA_CPP = "llama.cpp, 4 bits"
XLLAMACPP = "xllamacpp==2026.10.11549"


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--no-llama-cpp", action="store_true", help="leave llama.cpp out")
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    folder = models.resolve("smollm2", workspace)
    prompt = ChatTokenizer.load(folder.path).encode_prompt(QUESTIONS[0])
    decoder = Decoder.load(folder.path, torch.device("cpu"), torch.bfloat16)
    generate = Generate(folder.path, [prompt], chosen.tokens)
    products = Products(decoder.config, 1, len(prompt), chosen.tokens, packed=True)
    sides = {
        "ours": lambda: ours(decoder, [prompt], chosen.tokens),
        "generate, dynamic cache": lambda: generate.measure("dynamic"),
        "generate, static cache": lambda: generate.measure("static"),
        "products alone, packed": products.measure,
    }
    llama, reason = (None, "left out") if chosen.no_llama_cpp else _llama_cpp(prompt, chosen.tokens)
    if llama is not None:
        found_llama = llama
        sides[LLAMA_CPP] = lambda: float(found_llama.turn()["tokens_per_second"])
    speeds = measuring.alternate(sides, chosen.rounds)
    if llama is not None:
        llama.close()

    found = {name: measuring.spread(values) for name, values in speeds.items()}
    mine = found["ours"]["median"]
    best = max(found[name]["median"] for name in found if name.startswith("generate"))
    result = {
        "environment": measuring.environment(),
        "setting": {
            "model": "SmolLM2-135M-Instruct",
            "batch": 1,
            "prompt_tokens": len(prompt),
            "new_tokens": chosen.tokens,
            "temperature": 1.0,
        },
        "unit": "tokens/s",
        "sides": found,
        "times_generate": mine / best,
        "share_of_packed_floor": mine / found["products alone, packed"]["median"],
        "llama_cpp": {"version": llama.facts["version"]} if llama else {"not_measured": reason},
        "times_llama_cpp": mine / found[LLAMA_CPP]["median"] if llama else None,
    }
    rows = [
        [name, figures["median"], figures["low"], figures["high"], figures["n"], mine / figures["median"]]
        for name, figures in found.items()
    ]
    measuring.finish("single_stream", result, ["side", "tokens/s", "low", "high", "n", "ours is times"], rows, chosen)
    if llama is None:
        print(f"llama.cpp was not measured: {reason}", file=sys.stderr)


def _llama_cpp(prompt: list[int], tokens: int) -> tuple[Peer | None, str]:
    """llama.cpp on the bundled file, or why it cannot be measured here."""
    try:
        python = environment_of("llama-cpp", ["--only-binary=:all:", XLLAMACPP])
    except RuntimeError as error:
        return None, str(error)
    arguments = [str(models.bundled_parts("smollm2")[0]), json.dumps(prompt), str(tokens), str(torch.get_num_threads())]
    return Peer("llama.py", arguments, python), ""


if __name__ == "__main__":
    main()
