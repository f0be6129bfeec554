"""Long work: answers of mixed length, long answers, and memory over many PPO rounds.

    python -m benchmarks.long_work [--rounds 3] [--ppo-rounds 200] [--json] [--save]

Mixed: 16 prompts answered until each ends by itself, at most 256 tokens, ours and `generate` (tokens after a row's
end do not count). Long: 16 answers of 512 tokens. Memory: resident memory after each of many short PPO rounds on a
model of the same tokenizer shrunk to two small layers, and of a few on the real one; the rise is the least-squares
slope over the second half.
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import measuring
from benchmarks.generation import Generate, ours
from benchmarks.peers.our_ppo import make_ppo
from benchmarks.prompts import QUESTIONS
from trainer import heap
from trainer.algorithms.ppo import Ppo
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.models import ModelFolder, resolve


def speeds(folder: ModelFolder, rounds: int, tokens: int, *, ended: bool) -> dict[str, Any]:
    """Tokens a second, ours and `generate`; with `ended`, answers stop where they end by themselves."""
    tokenizer = ChatTokenizer.load(folder.path)
    prompts = [tokenizer.encode_prompt(question) for question in QUESTIONS]
    ends = tokenizer.eos_ids if ended else frozenset()
    decoder = Decoder.load(folder.path, torch.device("cpu"), torch.bfloat16)
    peer = Generate(folder.path, prompts, tokens, sorted(ends))
    found = measuring.alternate(
        {
            "ours": lambda: ours(decoder, prompts, tokens, ends),
            "generate, dynamic cache": lambda: peer.measure("dynamic"),
        },
        rounds,
    )
    return {name: measuring.spread(values) for name, values in found.items()}


def shrunk(folder: ModelFolder, destination: Path) -> ModelFolder:
    """A random llama of two small layers with the tokenizer of another model."""
    from transformers import AutoConfig, LlamaForCausalLM

    config = AutoConfig.from_pretrained(str(folder.path))
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 64, 128, 2
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, 16
    config.layer_types = None
    LlamaForCausalLM(config).bfloat16().save_pretrained(destination)
    for file in folder.path.iterdir():
        if file.suffix != ".safetensors" and file.name not in ("config.json", "manifest.json"):
            shutil.copy(file, destination)
    return ModelFolder("shrunk", destination, "0" * 64)


def memory(ppo: Ppo, rounds: int) -> dict[str, float]:
    """Resident MB at the start, middle and end of many rounds, and the rise a round over the second half."""
    resident = []
    for _ in range(rounds):
        ppo.advance()
        gc.collect()
        heap.release()  # as the trainer does after each step
        resident.append(measuring.resident_mb())
    middle = rounds // 2
    return {
        "first_mb": resident[0],
        "middle_mb": resident[middle],
        "last_mb": resident[-1],
        "rise_mb_a_round": measuring.slope(resident[middle:]),
        "rounds": rounds,
    }


def main() -> None:
    options = measuring.parser(__doc__)
    options.set_defaults(rounds=3)
    options.add_argument("--mixed-tokens", type=int, default=256)
    options.add_argument("--long-tokens", type=int, default=512)
    options.add_argument("--ppo-rounds", type=int, default=200, help="on the shrunk model")
    options.add_argument("--real-rounds", type=int, default=24, help="on the real model")
    chosen = options.parse_args()
    if min(chosen.ppo_rounds, chosen.real_rounds) < 4:
        options.error("a rise over half of the rounds needs at least 4 rounds: raise --ppo-rounds and --real-rounds")
    folder = resolve("smollm2", measuring.prepare(chosen))
    with tempfile.TemporaryDirectory() as temporary:
        small = make_ppo(shrunk(folder, Path(temporary)), tokens=12, epochs=2)
        tiny = memory(small, chosen.ppo_rounds)
    del small
    print("memory on the shrunk model: done", file=sys.stderr)
    real = memory(make_ppo(folder, tokens=24, epochs=1), chosen.real_rounds)
    print("memory on the real model: done", file=sys.stderr)
    sides = {
        f"mixed, at most {chosen.mixed_tokens}": speeds(folder, chosen.rounds, chosen.mixed_tokens, ended=True),
        f"long, {chosen.long_tokens}": speeds(folder, chosen.rounds, chosen.long_tokens, ended=False),
    }
    remembered = {"shrunk model": tiny, "SmolLM2-135M": real}
    result: dict[str, Any] = {
        "environment": measuring.environment(),
        "setting": {"model": "SmolLM2-135M-Instruct, bf16", "batch": len(QUESTIONS), "temperature": 1.0},
        "unit": "tokens/s",
        "sides": sides,
        "memory": remembered,
    }
    rows = [
        [f"{name}: {side}", figures["median"], figures["low"], figures["high"], figures["n"]]
        for name, found in sides.items()
        for side, figures in found.items()
    ]
    measuring.finish("long_work", result, ["work", "tokens/s", "low", "high", "n"], rows, chosen)
    if not chosen.json:
        columns = list(tiny)
        print()
        print(measuring.table(["memory of PPO", *columns], [[name, *(figures[key] for key in columns)]
              for name, figures in remembered.items()]))  # fmt: skip


if __name__ == "__main__":
    main()
