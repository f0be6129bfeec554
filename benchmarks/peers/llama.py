"""llama.cpp answering one prompt: `llama.py MODEL.gguf PROMPT_IDS TOKENS THREADS [LORA.gguf]`; see benchmarks/peer.py.

The engine is the llama.cpp inside the package xllamacpp 2026.10.11549, in this process, from its ready-made wheel: a
generic x86-64 or ARM build that picks its kernels when it starts. It samples at temperature 1 with no other sampler,
says no end-of-text token, and keeps nothing of the prompt between turns. The speed is that of the whole answer, as on
our side: prompt and new tokens, by the engine's own timings.
"""

import json
import os
import sys
from importlib import metadata

import xllamacpp


def main() -> None:
    model, prompt, tokens, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the library prints must not mix with the answers
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.n_ctx = 512
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.verbosity = 0
    if len(sys.argv) > 5:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(sys.argv[5], 1.0)]
    server = xllamacpp.Server(parameters)
    print(json.dumps({"version": f"xllamacpp {metadata.version('xllamacpp')}"}), file=answers)
    for turn, _ in enumerate(sys.stdin):
        asked = {"prompt": prompt, "n_predict": tokens, "temperature": 1.0, "samplers": ["temperature"], "seed": turn}
        said = server.handle_completions({**asked, "ignore_eos": True, "cache_prompt": False})
        timings = said["timings"]
        if (timings["prompt_n"], timings["predicted_n"]) != (len(prompt), tokens):
            raise RuntimeError(f"{tokens} tokens were asked for after {len(prompt)}, and this came: {timings}")
        seconds = (timings["prompt_ms"] + timings["predicted_ms"]) / 1000
        alone = timings["predicted_n"] / (timings["predicted_ms"] / 1000)
        print(json.dumps({"tokens_per_second": tokens / seconds, "after_the_prompt": alone}), file=answers)


if __name__ == "__main__":
    main()
