"""One answer at a time, what a person waits for: our decoder against `generate` and against llama.cpp.

    python -m benchmarks.single_stream [--rounds 5] [--no-llama-cpp] [--json] [--save]

SmolLM2-135M, one prompt, 64 new tokens, temperature 1, in the number format that the program would choose. Ours runs
as the engine serves: in bf16 the layers' weights are read in 4 bits (they lie on the grid of the packed file they were
unpacked from), in fp32 in 16-bit floats; once without and once with an adapter of rank 16 beside them; and, for
comparison, with the weights that are learned with. `generate` runs in the same format. llama.cpp runs the packed file,
and once more with the same adapter beside it, in a virtual environment that is made on the first run (the package
xllamacpp has ready-made wheels).

What that loses is measured on answers of the weights that are learned with: the mean KL between the two distributions
of each next token, in nats, how often they agree on the likeliest token, and the same between those and fp32 weights.
"""

from __future__ import annotations

import json
import statistics
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks import measuring
from benchmarks.generation import Generate, Products, ours
from benchmarks.peer import Peer, environment_of
from benchmarks.prompts import QUESTIONS
from storage.records import Sampling
from trainer import gguf_files
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy_config import AdapterConfig

LOSS_PROMPTS = 8
LLAMA_CPP, LLAMA_CPP_ADAPTED = "llama.cpp, 4 bits", "llama.cpp, with the adapter"
XLLAMACPP = "xllamacpp==2026.10.11549"


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--dtype", default="auto", help="number format of all sides (default: as the program chooses)")
    options.add_argument("--no-llama-cpp", action="store_true", help="leave llama.cpp out")
    chosen = options.parse_args()
    workspace = measuring.prepare(chosen)
    folder = models.resolve("smollm2", workspace)
    prompt = ChatTokenizer.load(folder.path).encode_prompt(QUESTIONS[0])
    cpu, dtype = devices.choose("cpu", chosen.dtype)
    plain = Decoder.load(folder.path, cpu, dtype)
    decoder = Decoder.load(folder.path, cpu, dtype, four_bit=True, source=folder.source)
    backbone = Backbone(folder, cpu, dtype)
    update = backbone.new_adapter(AdapterConfig(), 0, upper=False).snapshot()
    adapted = decoder.with_version(update)
    generate = Generate(folder.path, [prompt], chosen.tokens, dtype=dtype)
    products = Products(decoder.config, 1, len(prompt), chosen.tokens, packed=True, dtype=dtype)
    sides = {
        "ours": lambda: ours(decoder, [prompt], chosen.tokens),
        "ours, with an adapter": lambda: ours(adapted, [prompt], chosen.tokens),
        "ours, as it learns": lambda: ours(plain, [prompt], chosen.tokens),
        "generate, dynamic cache": lambda: generate.measure("dynamic"),
        "generate, static cache": lambda: generate.measure("static"),
        "products alone, packed": products.measure,
    }
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "adapter.gguf"
        gguf_files.write_adapter(update, folder.path, file)
        llama, reason = ({}, "left out") if chosen.no_llama_cpp else _llama_cpp(prompt, chosen.tokens, file)
        sides |= {name: partial(_turn, peer) for name, peer in llama.items()}
        speeds = measuring.alternate(sides, chosen.rounds)
        for peer in llama.values():
            peer.close()

    found = {name: measuring.spread(values) for name, values in speeds.items()}
    mine = found["ours"]["median"]
    best = max(found[name]["median"] for name in found if name.startswith("generate"))
    result = {
        "environment": measuring.environment(),
        "setting": {
            "model": f"SmolLM2-135M-Instruct, {devices.short_name(dtype)}",
            "batch": 1,
            "prompt_tokens": len(prompt),
            "new_tokens": chosen.tokens,
            "temperature": 1.0,
        },
        "unit": "tokens/s",
        "sides": found,
        "times_generate": mine / best,
        "times_generate_with_adapter": found["ours, with an adapter"]["median"] / best,
        "loss": {
            "as served against as it learns": difference(plain, decoder, folder.path),
            "as it learns against fp32": difference(Decoder.load(folder.path, cpu, torch.float32), plain, folder.path),
        },
        "share_of_packed_floor": mine / found["products alone, packed"]["median"],
        "llama_cpp": {"version": llama[LLAMA_CPP].facts["version"]} if llama else {"not_measured": reason},
        "times_llama_cpp": mine / found[LLAMA_CPP]["median"] if llama else None,
        "times_llama_cpp_with_adapter": found["ours, with an adapter"]["median"] / found[LLAMA_CPP_ADAPTED]["median"]
        if llama
        else None,
    }
    rows = [
        [name, figures["median"], figures["low"], figures["high"], figures["n"], mine / figures["median"]]
        for name, figures in found.items()
    ]
    measuring.finish("single_stream", result, ["side", "tokens/s", "low", "high", "n", "ours is times"], rows, chosen)
    if not llama:
        print(f"llama.cpp was not measured: {reason}", file=sys.stderr)


@torch.inference_mode()
def difference(one: Decoder, other: Decoder, folder: Path, tokens: int = 48) -> dict[str, float | int]:
    """How the next-token distributions of two decoders differ along answers of the first."""
    tokenizer = ChatTokenizer.load(folder)
    kls, agreed = [], 0
    for number, question in enumerate(QUESTIONS[:LOSS_PROMPTS]):
        prompt = tokenizer.encode_prompt(question)
        (answer,) = one.generate([prompt], Sampling(max_new_tokens=tokens), [number], frozenset())
        row = torch.tensor([0])
        caches = [decoder.network.prefill([prompt], row, len(prompt) + tokens)[1] for decoder in (one, other)]
        for token in answer.token_ids[:-1]:
            here, there = (
                decoder.network.step(torch.tensor([token]), cache)[0].float().log_softmax(-1)
                for decoder, cache in zip((one, other), caches, strict=True)
            )
            kls.append(float((here.exp() * (here - there)).sum()))
            agreed += int(here.argmax() == there.argmax())
    return {"mean_kl_nats": statistics.fmean(kls), "same_likeliest": agreed / len(kls), "tokens": len(kls)}


def _llama_cpp(prompt: list[int], tokens: int, adapter: Path) -> tuple[dict[str, Peer], str]:
    """llama.cpp on the bundled file, without and with an adapter; or none, and why it cannot be measured here."""
    try:
        python = environment_of("llama-cpp", ["--only-binary=:all:", XLLAMACPP])
    except RuntimeError as error:
        return {}, str(error)
    arguments = [str(models.bundled_parts("smollm2")[0]), json.dumps(prompt), str(tokens), str(torch.get_num_threads())]
    return {
        LLAMA_CPP: Peer("llama.py", arguments, python),
        LLAMA_CPP_ADAPTED: Peer("llama.py", [*arguments, str(adapter)], python),
    }, ""


def _turn(peer: Peer) -> float:
    return float(peer.turn()["tokens_per_second"])


if __name__ == "__main__":
    main()
