"""llama.cpp answering one prompt: `llama.py MODEL.gguf PROMPT_IDS TOKENS THREADS`; see benchmarks/peer.py."""

import json
import os
import sys
import time

import llama_cpp


def main() -> None:
    model, prompt, tokens, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the library prints must not mix with the answers
    llama = llama_cpp.Llama(model, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    print(json.dumps({"version": llama_cpp.__version__}), file=answers)
    for _ in sys.stdin:
        llama.reset()
        said = 0
        began = time.perf_counter()
        for _ in llama.generate(prompt, top_k=0, top_p=1.0, min_p=0.0, temp=1.0, repeat_penalty=1.0):
            said += 1
            if said == tokens:
                break
        seconds = time.perf_counter() - began
        print(json.dumps({"tokens_per_second": said / seconds}), file=answers)


if __name__ == "__main__":
    main()
