"""Whether a job fits into memory, told before any weight is read: from the configuration and the headers of the files.

What is counted: frozen weights, the sampler's copies of them, what is learned with its gradients and AdamW moments,
what a minibatch keeps for its backward pass, logits, and the keys and values of a batch of answers. What was measured
is in the constants; on the bundled model the whole is within `TOLERANCE` of what a round of PPO takes (a test).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from storage.errors import UsageError
from trainer.config import RewardStage
from trainer.heap import available
from trainer.methods import method_of
from trainer.methods.method import Need
from trainer.policy.decoding import context_length, row_bytes
from trainer.policy.llama import supports
from trainer.policy.logprobs import CHUNK
from trainer.policy.models import ModelFolder
from trainer.policy.models.config import read_config
from trainer.policy.models.folder import shapes_of
from trainer.policy_config import Tuning

GIGABYTE = 1e9
FP32, HALF = 4, 2  # bytes
MARGIN = 1.1  # for what allocators lose and kernels need for a moment
TOLERANCE = (0.9, 1.6)  # what is told, by what rounds of PPO take on the bundled model
# A number that is learned, in fp32: itself, its gradient, AdamW's two moments, and the copy to roll back to; where a
# policy is optimised also the moments that go with that copy.
LEARNED_COPIES, OPTIMISED_COPIES = 5, 7
LOGIT_COPIES = 4  # in fp32: themselves, their probabilities, and a step between
# How much more transformers' modules keep for the backward pass, by bytes of the number format: some keep fp32 copies.
GENERAL_PATH = {4: 1.5, 2: 2.0}


def need_of(config: RewardStage, prompt_tokens: int, response_tokens: int, sampled_tokens: int) -> Need:
    """What the most demanding part of a stage holds at once.

    Args:
        prompt_tokens, response_tokens: of the longest prompt and the longest rated or written answer.
        sampled_tokens: of the longest rollout.
    """
    batch, rank = config.reward.batch, config.reward.rank
    fit = Need(batch, batch, prompt_tokens, response_tokens, rank, value=False, upper_share=config.upper_share)
    return method_of(config).memory(config, replace(fit, checkpointing=config.gradient_checkpointing), sampled_tokens)


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, in numbers (parameters) and widths.

    Attributes:
        fast: whether our own block computes it. total, layers: parameters of all, and of the layers.
        borders: sum of the in and out widths of the layers' linear weights (experts left out).
        kept: numbers that a layer keeps of a token for the backward pass, beside its attention to others.
        config: as the model's folder has it.
    """

    fast: bool
    total: int
    layers: int
    borders: int
    depth: int
    hidden: int
    kept: int
    heads: int
    vocabulary: int
    context: int
    config: Any

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """From `config.json` and the headers of the weight files; no weight is read."""
        config, shapes = read_config(folder), shapes_of(folder)
        in_layers = {name: shape for name, shape in shapes.items() if re.search(r"\.\d+\.", name)}
        hidden, heads = config.hidden_size, getattr(config, "num_attention_heads", None) or 1
        head_size = getattr(config, "head_dim", None) or hidden // heads
        inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None)
        inner = (inner or 4 * hidden) * (getattr(config, "num_experts_per_tok", None) or 1)
        return cls(
            fast=supports(config),
            total=sum(map(math.prod, shapes.values())),
            layers=sum(map(math.prod, in_layers.values())),
            borders=sum(sum(shape) for name, shape in in_layers.items() if len(shape) == 2 and "expert" not in name),
            depth=config.num_hidden_layers,
            hidden=hidden,
            kept=4 * hidden + 4 * heads * head_size + 3 * inner,
            heads=heads,
            vocabulary=config.vocab_size,
            context=context_length(config),
            config=config,
        )


def estimate(shape: Shape, device: torch.device, dtype: torch.dtype, need: Need) -> dict[str, float]:
    """Bytes at the peak of a round, by what they are for.

    Short answers make it too high: each is taken to be as long as it may be, and prompts that are answered several
    times are counted each time.
    """
    size, full = dtype.itemsize, need.tuning == Tuning.FULL
    adapter = need.rank * shape.borders * FP32
    copies = (OPTIMISED_COPIES if need.optimised else LEARNED_COPIES) + need.reference
    shared = shape.layers / need.processes
    # The sampler has layers of its own where they are split or all learned. On a CPU it has the output head in 16-bit
    # floats, and in fp32 the layers too, for few rows at a time.
    own = shape.layers if need.processes > 1 or (shape.fast and full) else 0
    halves = shape.vocabulary * shape.hidden + (size == FP32) * shape.layers
    half = shape.fast and device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines
    length = need.prompt_tokens + need.response_tokens
    sampling = need.rows * row_bytes(shape.config, need.prompt_tokens, length, dtype) + shape.layers * size * full
    return {
        "base model": (shape.total - shape.layers + shared) * size,
        "sampler": own * size + half * halves * HALF,
        "policy": shared * (FP32 * copies + size) if full else adapter * copies,  # and the copy computed with
        "value and reward": adapter * need.upper_share * LEARNED_COPIES * (2 if need.value else 1),
        "activations": max(
            kept_bytes(shape, size, need)
            + LOGIT_COPIES * CHUNK * shape.vocabulary * FP32
            + need.rows * length * shape.hidden * size,
            sampling,
        ),
    }


def kept_bytes(shape: Shape, size: int, need: Need) -> float:
    """What a minibatch keeps for its backward pass: to a tenth for our own block, up to three times as much as others
    keep."""
    length = need.prompt_tokens + need.response_tokens
    tokens = need.minibatch * length
    layer = tokens * (shape.kept + shape.heads * length) * size * (1.0 if shape.fast else GENERAL_PATH[size])
    return shape.depth * tokens * shape.hidden * size + layer if need.checkpointing else shape.depth * layer


def check_fits(folder: ModelFolder, device: torch.device, dtype: torch.dtype, need: Need) -> dict[str, float]:
    """The estimate, in bytes by what they are for, when the job fits.

    Raises:
        UsageError: it needs more memory than is free, or answers longer than the model's context.
    """
    shape = Shape.read(folder.path)
    if need.prompt_tokens + 1 > shape.context or need.response_tokens >= shape.context:
        raise UsageError(
            f"{folder.name} reads {shape.context} tokens at once, which cannot hold prompts of {need.prompt_tokens} "
            f"and answers of {need.response_tokens} tokens",
            "lower --max-new-tokens, leave out the longest prompts, or use a model with a longer context",
        )
    parts = estimate(shape, device, dtype, need)
    wanted, free = total(parts), available(device)
    if wanted <= free:
        return parts
    told = ", ".join(f"{name} {parts[name] / GIGABYTE:.1f}" for name in sorted(parts, key=lambda name: -parts[name]))
    changes = {
        "--tuning lora": replace(need, tuning=Tuning.LORA),
        "--gradient-checkpointing": replace(need, checkpointing=True),
        "half the --minibatch or twice the --accumulation": replace(need, minibatch=max(1, need.minibatch // 2)),
        "half the --batch": replace(need, rows=max(1, need.rows // 2), minibatch=min(need.minibatch, need.rows // 2)),
    }
    less = {option: total(estimate(shape, device, dtype, changed)) for option, changed in changes.items()}
    helps = [f"{option} ({lower / GIGABYTE:.1f} GB)" for option, lower in less.items() if lower < 0.98 * wanted]
    raise UsageError(
        f"{folder.name} needs about {wanted / GIGABYTE:.1f} GB for this, and {device} has "
        f"{free / GIGABYTE:.1f} GB free (GB by part: {told})",
        "; ".join(["use a smaller model", *helps]),
    )


def total(parts: dict[str, float]) -> float:
    """Bytes of all parts, with a margin."""
    return MARGIN * sum(parts.values())
