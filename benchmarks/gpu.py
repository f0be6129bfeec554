"""Every check and table that needs a GPU, in a few minutes and one result: does it compute rightly, and how fast?

    python -m benchmarks.gpu [--device auto] [--model smollm2] [--dtypes bf16,fp32] [--minutes 3.5] [--json] [--save]

For each number format: logits against those of transformers; sampling with static shapes as a CUDA graph against the
same step by step, and whether a step waits for the device; tokens a second at 16, 64 and 256 rows, as a graph, step by
step, and of `generate` of transformers; the seconds in which a version is taken on, and to its first token; then rounds
of PPO with the gap between sampler and policy (:mod:`benchmarks.on_device`). A part that fails says so and the others
go on; the result is written after each of them, and none begins when the time is over.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import measuring, on_device
from benchmarks.generation import Generate, ours
from benchmarks.prompts import QUESTIONS
from storage.records import Sampling
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.stepping import Batch
from trainer.policy_config import AdapterConfig

TOKENS, NEVER = 48, frozenset[int]()


class Side:
    """One number format on one device."""

    def __init__(self, folder: models.ModelFolder, device: torch.device, dtype: torch.dtype, steps: int) -> None:
        self.folder, self.device, self.dtype, self.steps = folder, device, dtype, steps
        self.decoder = Decoder.load(folder.path, device, dtype)
        tokenizer = ChatTokenizer.load(folder.path)
        self.prompts = [tokenizer.encode_prompt(question) for question in QUESTIONS]

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def asked(self, rows: int) -> list[list[int]]:
        return [self.prompts[row % len(self.prompts)] for row in range(rows)]

    @torch.inference_mode()
    def parity(self) -> dict[str, float]:
        """Logits after a prompt and along eight tokens of an answer, against those of transformers in fp32."""
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(str(self.folder.path), dtype=torch.float32)
        model.eval().to(self.device)
        differences, divergences, alike = [], [], 0
        for prompt in self.prompts[:4]:
            logits, cache = self.decoder.network.prefill([prompt], torch.tensor([0], device=self.device), 64)
            said = []
            found = []
            for _ in range(9):
                found.append(logits[0].float())
                said.append(int(logits[0].argmax()))
                logits = self.decoder.network.step(torch.tensor([said[-1]], device=self.device), cache)
            ids = torch.tensor([prompt + said[:-1]], device=self.device)
            expected = model(ids).logits[0, len(prompt) - 1 :].float()
            ours = torch.stack(found)
            differences.append(float((ours - expected).abs().max()))
            here, there = ours.log_softmax(-1), expected.log_softmax(-1)
            divergences.append(float((there.exp() * (there - here)).sum(-1).mean()))
            alike += int((ours.argmax(-1) == expected.argmax(-1)).sum())
        return {
            "largest_difference": max(differences),
            "mean_kl_nats": statistics.fmean(divergences),
            "same_likeliest": alike / 36,
        }

    def said(self, rows: int, *, static: bool, graphed: bool) -> Any:
        """Answers of so many rows, sampled in one of the ways."""
        self.decoder.static, Batch.graphed = static, graphed
        try:
            return self.decoder.generate(self.asked(rows), Sampling(max_new_tokens=TOKENS), range(rows), NEVER)
        finally:
            self.decoder.static, Batch.graphed = self.device.type == "cuda", True

    def equality(self) -> dict[str, Any]:
        """Static shapes as a graph, the same without one, and shapes that grow: tokens alike, and log-probabilities."""
        graph = self.said(16, static=True, graphed=True)
        found: dict[str, Any] = {}
        for name, static in (("graph against static steps", True), ("graph against growing steps", False)):
            other = self.said(16, static=static, graphed=False)
            same = sum(one.token_ids == two.token_ids for one, two in zip(graph, other, strict=True))
            apart = [
                abs(p - q)
                for one, two in zip(graph, other, strict=True)
                if one.token_ids == two.token_ids
                for p, q in zip(one.logprobs, two.logprobs, strict=True)
            ]
            found[name] = {"rows_alike": same, "of": 16, "largest_difference": max(apart, default=None)}
        return found

    @torch.inference_mode()
    def waiting(self) -> dict[str, Any]:
        """Whether a step, as a graph or as it stands, makes the host wait: torch raises where it does."""
        if self.device.type != "cuda":
            return {"not_measured": "only a GPU can be waited for"}
        found: dict[str, Any] = {}
        for name, graphed in (("graph", True), ("static steps", False)):
            vocabulary, network = self.decoder.vocabulary, self.decoder.network
            steps = Batch(network, Sampling(), 96, 32, vocabulary, self.device, static=True)
            steps.graphed = graphed
            steps.admit(self.asked(4), range(4))
            steps._advance()
            self.wait()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(8):
                    steps._advance()
                found[name] = "never" if steps._graph is not None or not graphed else "no graph was made"
            except RuntimeError as error:
                found[name] = f"waits: {error}"
            finally:
                torch.cuda.set_sync_debug_mode("default")
            self.wait()
        return found

    def rollout(self, rows: int) -> dict[str, Any]:
        """Tokens a second of so many rows."""
        prompts = self.asked(rows)

        def mine(static: bool, graphed: bool) -> Callable[[], float]:
            def measure() -> float:
                self.decoder.static, Batch.graphed = static, graphed
                try:
                    return ours(self.decoder, prompts, TOKENS)
                finally:
                    self.decoder.static, Batch.graphed = self.device.type == "cuda", True

            return measure

        peer = Generate(self.folder.path, prompts, TOKENS, dtype=self.dtype, device=self.device)
        sides = {
            "graph": mine(static=True, graphed=True),
            "growing steps": mine(static=False, graphed=False),
            "generate": lambda: peer.measure("dynamic"),
        }
        speeds = {name: measuring.spread(values) for name, values in measuring.alternate(sides, 3).items()}
        medians = {name: figures["median"] for name, figures in speeds.items()}
        return {"rows": rows, "sides": speeds, "times_generate": medians["graph"] / medians["generate"]}

    def swap(self) -> dict[str, float]:
        """Seconds to take on a version of rank 16, and from then to the first token."""
        adapter = Backbone(self.folder, self.device, self.dtype).new_adapter(AdapterConfig(), 0, upper=False).snapshot()
        taking, first = [], []
        for _ in range(4):
            began = time.perf_counter()
            version = self.decoder.with_version(adapter)
            self.wait()
            taken = time.perf_counter()
            version.generate(self.prompts[:1], Sampling(max_new_tokens=1), [0], NEVER)
            taking.append(taken - began)
            first.append(time.perf_counter() - taken)
        return {"taken_on_s": statistics.median(taking[1:]), "first_token_s": statistics.median(first[1:])}

    def ppo(self) -> Any:
        """Rounds of PPO, its parts, the gap, and the proof of the version."""
        return on_device.measure(self.folder, self.device, self.dtype, self.steps, 1)


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--device", default="auto", help="auto, cuda, cuda:N, or cpu to try the benchmark itself")
    options.add_argument("--dtypes", default="bf16,fp32", help="number formats after commas (default bf16,fp32)")
    options.add_argument("--model", default="smollm2", help="as `trainer` takes it (default smollm2)")
    options.add_argument("--rows", default="16,64,256", help="rollout sizes after commas (default 16,64,256)")
    options.add_argument("--steps", type=int, default=5, help="rounds of PPO (default 5)")
    options.add_argument("--minutes", type=float, default=3.5, help="after which no part begins (default 3.5)")
    options.add_argument("--into", type=Path, help="a file that the result is written to after each part")
    chosen = options.parse_args()
    began = time.monotonic()
    result: dict[str, Any] = {"environment": measuring.environment(), "setting": {"tokens": TOKENS}, "sides": {}}
    rows: list[list[Any]] = []

    def part(name: str, dtype: str, work: Callable[[], Any]) -> Any:
        """Do one part, note what it found or why it failed, and write everything down."""
        here = time.monotonic()
        found: Any
        if here - began > 60 * chosen.minutes:
            found = {"not_measured": "no time was left"}
        else:
            try:
                found = work()
            except Exception as error:  # whatever it is, the other parts are still worth their time
                traceback.print_exc()
                found = {"error": f"{type(error).__name__}: {error}"[:600]}
        if isinstance(found, Side):
            return found
        result["sides"].setdefault(dtype, {})[name] = found
        told = json.dumps(found, default=str)
        print(f"[{time.monotonic() - began:5.0f} s] {dtype} {name}: {told[:300]}", file=sys.stderr, flush=True)
        rows.append([dtype, name, round(time.monotonic() - here, 1), told[:100]])
        if chosen.into:
            chosen.into.write_text(json.dumps({"benchmark": "gpu", **result}, indent=1, default=str), encoding="utf-8")
        if chosen.save:
            measuring.save("gpu", result)
        return found

    folder = models.resolve(chosen.model, measuring.prepare(chosen))
    result["setting"] |= {"model": folder.name}
    sides: dict[str, Side] = {}
    for dtype in chosen.dtypes.split(","):
        made = part(
            "load", dtype, lambda dtype=dtype: Side(folder, *devices.choose(chosen.device, dtype), chosen.steps)
        )
        if isinstance(made, Side):
            sides[dtype] = made
    # What tells whether it is right comes first, in all formats; the largest batches come last.
    first, *others = (f"rollout {size}" for size in chosen.rows.split(","))
    for names in (("parity", "equality", "waiting"), (first, "swap", "ppo"), others):
        for dtype, side in sides.items():
            for name in names:
                kind, _, size = name.partition(" ")
                work = getattr(side, kind)
                part(name, dtype, (lambda work=work, size=size: work(int(size))) if size else work)
    if torch.cuda.is_available():
        result["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    measuring.finish("gpu", result, ["dtype", "part", "seconds", "found"], rows, chosen)
    sys.exit(any("error" in found for side in result["sides"].values() for found in side.values()))


if __name__ == "__main__":
    main()
