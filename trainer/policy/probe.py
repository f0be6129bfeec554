"""What a version answers to a few fixed prompts: stored when it is published, asked again of whoever is to serve it.

The digest of a file says that the file is whole, not that an engine computes with what stands in it. The answer is the
distribution of the next token after each prompt. The prompts go through the network together, hundreds of tokens at
once: the proof is of the weights, in the products that a batch of answers runs on.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from storage.errors import WorkbenchError
from trainer.policy import attention, block, elementwise, kernels, linear, llama, lora, transformers_network
from trainer.policy import cache as keys
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.devices import DTYPES, short_name
from trainer.policy.linear import HalfLinear
from trainer.policy.llama import LlamaNetwork

FILE_NAME = "probe.json"
COMPUTING = (attention, block, keys, elementwise, kernels, linear, llama, lora, transformers_network)
PROMPTS = (
    "Why do leaves turn red in autumn?",
    "¿Cómo se hace un buen pan en casa?",
    "Erkläre einem Kind, was Ebbe und Flut sind.",
    "用一句话说明什么是友谊。",
    "كيف أعتذر لصديق أغضبته؟",
    "Nipe ushauri wa kuamka mapema.",
)
LIKELIEST = 64  # tokens a prompt whose log-probabilities are kept
# Root mean square of log-probabilities, in nats, by which the same weights differ where they are computed otherwise:
# one prompt at a time, merged, in another format. The most that was measured on the bundled model (bf16 0.097, fp32
# 0.00001; fp16 by its step, between the two), rounded up. More than three times as much is another model.
ROUNDING = {torch.float32: 0.0001, torch.float16: 0.0125, torch.bfloat16: 0.1}
MARGIN = 3.0
NO_PROBE = "not proven: published without a probe"
UNPROVEN = f"train again, serve another version, or remove {FILE_NAME} from its folder to serve it unproven"


class Environment(msgspec.Struct, frozen=True):
    """What the bits of a result depend on beside weights and prompts: in the same one, the same weights give the same.

    Attributes:
        kernels: the chip, what torch makes of it, and which code computes.
    """

    device: str
    dtype: str
    torch: str
    kernels: str
    threads: int

    @classmethod
    def of(cls, decoder: Decoder) -> Environment:
        """Where and how this decoder computes."""
        device = decoder.device
        if device.type == "cuda":
            chip, threads = torch.cuda.get_device_name(device), 0
        else:
            chip, threads = f"{kernels.processor()}, {torch.backends.cpu.get_cpu_capability()}", torch.get_num_threads()
            chip += _layout(decoder.network)
        computed = f"{chip}, {type(decoder.network).__name__} {_arithmetic()}"
        return cls(device.type, short_name(decoder.dtype), str(torch.__version__), computed, threads)


def _layout(network: Any) -> str:
    """Which rows are multiplied by 16-bit floats in fp32, as it was measured to be fastest."""
    if not (isinstance(network, LlamaNetwork) and network.layers):
        return ""
    layer = network.layers[0].down
    base: Any = getattr(layer, "base", layer)
    half = isinstance(getattr(base, "few", base), HalfLinear)
    return f", 16-bit floats up to {getattr(base, 'most', 'all')} rows" if half else ""


@cache
def _arithmetic() -> str:
    """A digest of the code that computes a forward pass: another release may round otherwise."""
    sources = (inspect.getsource(module) for module in COMPUTING)
    return hashlib.sha256("".join(sources).encode()).hexdigest()[:12]


def _repeats(decoder: Decoder) -> bool:
    """Whether the same weights give the same bits in each process. In our own forward pass they do on a CPU, which lays
    them out anew; in transformers' modules fp32 depends on where in memory they came to lie. GPUs were not at hand.
    """
    return decoder.device.type == "cpu" and isinstance(decoder.network, LlamaNetwork)


class Probe(msgspec.Struct, frozen=True):
    """A version's answer.

    Attributes:
        prompts: token ids, so that the proof does not hang on a tokenizer or template.
        tokens: (prompts, k) the likeliest next tokens, the likeliest first.
        logprobs: (prompts, k) theirs, in nats.
        digest: SHA-256 of all log-probabilities, as fp32.
    """

    prompts: list[list[int]]
    tokens: list[list[int]]
    logprobs: list[list[float]]
    digest: str
    environment: Environment

    def check(self, vocabulary: int, context: int) -> None:
        """Raise ValueError when it does not hold together or is not one for such a model."""
        if not self.prompts or not len(self.prompts) == len(self.tokens) == len(self.logprobs):
            raise ValueError("it lacks prompts or answers")
        for prompt, tokens, logprobs in zip(self.prompts, self.tokens, self.logprobs, strict=True):
            if not 0 < len(prompt) <= context or not tokens or len(tokens) != len(logprobs):
                raise ValueError("a prompt or an answer has a wrong length")
            if not all(0 <= token < vocabulary for token in (*prompt, *tokens)):
                raise ValueError("a token is not in the vocabulary")
        if self.environment.dtype not in DTYPES:
            raise ValueError(f"{self.environment.dtype!r} is no number format")


def take(decoder: Decoder, tokenizer: ChatTokenizer) -> Probe | None:
    """What the decoder answers; None where it is not finite (such weights are refused everywhere)."""
    prompts = [tokenizer.encode_prompt(prompt) for prompt in PROMPTS]
    answer = decoder.next_logprobs(prompts)
    if not bool(torch.isfinite(answer).all()):
        return None
    likeliest = answer.topk(min(LIKELIEST, answer.shape[1]))
    return Probe(
        prompts, likeliest.indices.tolist(), likeliest.values.tolist(), digest_of(answer), Environment.of(decoder)
    )


def write(folder: Path, probe: Probe) -> Path:
    """Write it into a version's folder, not synced; returns its file."""
    path = folder / FILE_NAME
    path.write_bytes(msgspec.json.encode(probe) + b"\n")
    return path


def read(folder: Path, vocabulary: int, context: int) -> Probe | None:
    """The probe of a version's folder; None where there is none.

    Raises:
        WorkbenchError: it is damaged, or was taken of a model with another vocabulary or a longer context.
    """
    path = folder / FILE_NAME
    try:
        probe = msgspec.json.decode(path.read_bytes(), type=Probe)
        probe.check(vocabulary, context)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WorkbenchError(
            f"the probe {path} cannot be used: {error}",
            "restore the version's folder from a copy, or remove this file to serve the version unproven",
        ) from error
    return probe


def prove(name: str, stored: Probe, decoder: Decoder, before: Decoder | None = None) -> str:
    """Ask the decoder what was asked when the version was published, and say in a few words how well it agrees.

    In the environment of then the same bits are demanded where they are known to repeat. Otherwise the answers must
    agree to rounding and, where that leaves it to be seen, be nearer to what is stored than those of `before`.

    Args:
        name: of the version.
        before: what served until now, if that is another version: does the engine go on computing with its weights?

    Raises:
        WorkbenchError: it answers otherwise than the version that was published.
    """
    here = Environment.of(decoder)
    answer = decoder.next_logprobs(stored.prompts)
    alike = here == stored.environment
    if alike and digest_of(answer) == stored.digest:
        return "exact"
    apart = distance(stored, answer)
    rounding = max(ROUNDING[DTYPES[one]] for one in (here.dtype, stored.environment.dtype))
    differs = f"{name} answers the fixed prompts {apart:.2g} nats apart from what it said when it was published"
    if not apart <= MARGIN * rounding:
        raise WorkbenchError(f"{differs}; rounding explains {MARGIN * rounding:.2g} at most", UNPROVEN)
    if alike and _repeats(decoder):
        raise WorkbenchError(f"{differs}; computed in the same way, it must say the same to the bit", UNPROVEN)
    within = f"within {max(apart, 0.0001):.2g} nats"
    if before is None:
        return within
    earlier = before.next_logprobs(stored.prompts)
    former = distance(stored, earlier)
    stale = WorkbenchError(
        f"{differs}, and the version before is as near ({former:.2g}): its weights still answer",
        "start the engine again; if that does not help, serve another version",
    )
    if torch.equal(answer, earlier):
        raise stale
    if former <= rounding:
        return f"{within}, as is the version before"
    if not apart < former:
        raise stale
    return within


def distance(stored: Probe, answer: Tensor) -> float:
    """Root mean square difference of the stored log-probabilities, in nats. Answer: (prompts, vocabulary)."""
    total, count = 0.0, 0
    for tokens, logprobs, row in zip(stored.tokens, stored.logprobs, answer, strict=True):
        total += float((row[tokens].double() - torch.tensor(logprobs, dtype=torch.float64)).square().sum())
        count += len(tokens)
    return math.sqrt(total / count)


def digest_of(answer: Tensor) -> str:
    """SHA-256 of a tensor's bytes, in hexadecimal."""
    return hashlib.sha256(answer.contiguous().numpy().tobytes()).hexdigest()
