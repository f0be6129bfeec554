"""Whether a job fits into memory, told before any weight is read: from the configuration and the headers of the files.

What is counted: frozen weights, the sampler's copies of them, what is learned with its gradients and AdamW moments,
what a minibatch keeps for its backward pass, logits, and the keys and values of a batch of answers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from storage.errors import UsageError
from trainer.config import RewardStage, Tuning
from trainer.heap import available
from trainer.methods import method_of
from trainer.methods.method import Need
from trainer.policy.decoding import context_length
from trainer.policy.linear import can_pack
from trainer.policy.llama import supports
from trainer.policy.logprobs import CHUNK
from trainer.policy.models import ModelFolder, weight_files

GIGABYTE = 1e9
FP32 = 4  # bytes
# What allocators lose and kernels need for a moment, on top of what is counted.
MARGIN = 1.1
# A number that is learned, in fp32: itself, its gradient, AdamW's two moments, and the copy to roll back to; where a
# policy is optimised also the moments that go with that copy.
LEARNED_COPIES, OPTIMISED_COPIES = 5, 7
# Logits held at once, in fp32: themselves, their probabilities, and a step between.
LOGIT_COPIES = 4
# How much more transformers' modules keep for the backward pass than the fused ones, by bytes of the number format:
# some keep fp32 copies beside 16-bit ones.
GENERAL_PATH = {4: 1.5, 2: 2.0}


def need_of(config: RewardStage, prompt_tokens: int, response_tokens: int, sampled_tokens: int) -> Need:
    """What the most demanding part of a stage holds at once.

    Args:
        prompt_tokens, response_tokens: of the longest prompt and the longest rated or written answer.
        sampled_tokens: of the longest rollout.
    """
    whole = Need(
        rows=config.reward.batch,
        minibatch=config.reward.batch,
        prompt_tokens=prompt_tokens,
        response_tokens=response_tokens,
        rank=config.reward.rank,
        value=False,
        upper_share=config.upper_share,
        checkpointing=config.gradient_checkpointing,
    )
    return method_of(config).memory(config, whole, sampled_tokens)


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, in numbers (parameters) and widths.

    Attributes:
        fast: whether the fused forward passes compute it.
        total, layers, adapted: parameters of all, of the layers, of their linear weights (experts left out).
        borders: sum of the in and out widths of those linear weights.
    """

    fast: bool
    total: int
    layers: int
    adapted: int
    borders: int
    head: int
    depth: int
    hidden: int
    queries: int
    keys: int
    inner: int
    heads: int
    vocabulary: int
    context: int

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """From `config.json` and the headers of the weight files; no weight is read."""
        from transformers import AutoConfig

        config: Any = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        config = getattr(config, "text_config", None) or config
        shapes: dict[str, list[int]] = {}
        for file in weight_files(folder):
            with safe_open(str(file), framework="pt") as opened:
                shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        in_layers = {name: shape for name, shape in shapes.items() if re.search(r"\.\d+\.", name)}
        linear = [shape for name, shape in in_layers.items() if len(shape) == 2 and "expert" not in name]
        heads = getattr(config, "num_attention_heads", None) or 1
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None)
        experts = getattr(config, "num_experts_per_tok", None) or 1
        return cls(
            fast=supports(config),
            total=sum(map(math.prod, shapes.values())),
            layers=sum(map(math.prod, in_layers.values())),
            adapted=sum(map(math.prod, linear)),
            borders=sum(map(sum, linear)),
            head=config.vocab_size * config.hidden_size,
            depth=config.num_hidden_layers,
            hidden=config.hidden_size,
            queries=heads * head_size,
            keys=(getattr(config, "num_key_value_heads", None) or heads) * head_size,
            inner=(inner or 4 * config.hidden_size) * experts,
            heads=heads,
            vocabulary=config.vocab_size,
            context=context_length(config),
        )


def estimate(shape: Shape, device: torch.device, dtype: torch.dtype, need: Need) -> dict[str, float]:
    """Bytes at the peak of a round, by what they are for.

    Compared once with the resident memory that rounds of PPO added (bundled model, bf16, two CPU cores, 16 answers of
    37 + 48 tokens, minibatch 8), the total with its margin was 1.2 times what was used, for LoRA (1.20 GB) and full
    tuning (3.23 GB) alike, and 1.4 times with gradient checkpointing and 24 tokens (0.79 GB). What is kept for a
    backward pass is exact to about a tenth on the fused path and up to three times too high on the general one. Short
    answers make it too high as well: each is taken to be as long as it may be, and prompts that are answered several
    times are counted each time.
    """
    size = dtype.itemsize
    adapter = need.rank * shape.borders * FP32
    copies = (OPTIMISED_COPIES if need.optimised else LEARNED_COPIES) + need.reference
    return {
        "base model": (shape.total - shape.layers + shape.layers / need.processes) * size,
        "sampler": _sampler(shape, device, dtype, need),
        "policy": shape.layers / need.processes * (FP32 * copies + size)  # and the rounded copy computed with
        if need.tuning == Tuning.FULL
        else adapter * copies,
        "value and reward": adapter * need.upper_share * LEARNED_COPIES * (2 if need.value else 1),
        "activations": max(_update(shape, size, need), _sampling(shape, size, need)),
    }


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
    free = available(device)
    wanted = _total(parts)
    if wanted > free:
        largest = sorted(parts, key=lambda name: -parts[name])
        told = ", ".join(f"{name} {parts[name] / GIGABYTE:.1f}" for name in largest)
        raise UsageError(
            f"{folder.name} needs about {wanted / GIGABYTE:.1f} GB for this, and {device} has "
            f"{free / GIGABYTE:.1f} GB free (GB by part: {told})",
            _hint(shape, device, dtype, need, wanted),
        )
    return parts


def _sampler(shape: Shape, device: torch.device, dtype: torch.dtype, need: Need) -> float:
    """What the sampler does not share with the learner: the layers where they are split or all learned, and on a CPU
    the output head, laid out for sampling."""
    own = need.processes > 1 or (shape.fast and need.tuning == Tuning.FULL)
    packed = shape.head if shape.fast and device.type == "cpu" and can_pack(torch.empty(1, dtype=dtype)) else 0
    return ((shape.layers if own else 0) + packed) * dtype.itemsize


def _update(shape: Shape, size: int, need: Need) -> float:
    """What an update keeps for its backward pass, its logits, and what the other minibatches of a round keep."""
    length = need.prompt_tokens + need.response_tokens
    tokens = need.minibatch * length
    kept = 4 * shape.hidden + 4 * shape.queries + 3 * shape.inner + shape.heads * length  # by layer and token
    layer = tokens * kept * size * (1.0 if shape.fast else GENERAL_PATH[size])
    layers = shape.depth * tokens * shape.hidden * size + layer if need.checkpointing else shape.depth * layer
    return layers + LOGIT_COPIES * CHUNK * shape.vocabulary * FP32 + need.rows * length * shape.hidden * size


def _sampling(shape: Shape, size: int, need: Need) -> float:
    """Keys and values of the answers, their logits, and the weights of a fully tuned version while it is made."""
    length = need.prompt_tokens + need.response_tokens
    merged = shape.layers * size if need.tuning == Tuning.FULL else 0
    cache = need.rows * length * shape.depth * 2 * shape.keys * size
    return merged + cache + LOGIT_COPIES * need.rows * shape.vocabulary * FP32


def _total(parts: dict[str, float]) -> float:
    return MARGIN * sum(parts.values())


def _hint(shape: Shape, device: torch.device, dtype: torch.dtype, need: Need, wanted: float) -> str:
    """What would help, and to how much it would come down."""
    changes = {
        "--tuning lora": replace(need, tuning=Tuning.LORA),
        "--gradient-checkpointing": replace(need, checkpointing=True),
        "half the --minibatch or twice the --accumulation": replace(need, minibatch=max(1, need.minibatch // 2)),
        "half the --batch": replace(need, rows=max(1, need.rows // 2), minibatch=min(need.minibatch, need.rows // 2)),
    }
    helps = []
    for option, changed in changes.items():
        less = _total(estimate(shape, device, dtype, changed))
        if less < 0.98 * wanted:
            helps.append(f"{option} ({less / GIGABYTE:.1f} GB)")
    return "; ".join(["use a smaller model", *helps])
