"""Our decoder and transformers' `generate` on the same model and prompts, and the matrix products both cannot avoid."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from storage.records import Sampling
from trainer.policy.decoding import Decoder
from trainer.policy.kernels import frozen_linear

NEVER: frozenset[int] = frozenset()


def ours(decoder: Decoder, prompts: Sequence[Sequence[int]], tokens: int, eos_ids: frozenset[int] = NEVER) -> float:
    """Tokens a second of our decoder; without `eos_ids` every answer has all its tokens."""
    began = time.perf_counter()
    said = decoder.generate(prompts, Sampling(max_new_tokens=tokens), range(len(prompts)), eos_ids)
    seconds = time.perf_counter() - began
    count = sum(len(completion.token_ids) for completion in said)
    assert eos_ids or count == tokens * len(prompts), "an answer was cut short"
    return count / seconds


class Generate:
    """`generate` of transformers, sampling from the whole distribution at temperature 1."""

    def __init__(
        self,
        folder: Path,
        prompts: Sequence[Sequence[int]],
        tokens: int,
        ends: Sequence[int] = (),
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | None = None,
    ) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype).eval().to(device or "cpu")
        self.model.generation_config.eos_token_id = list(ends) or None
        self.ends = torch.tensor(list(ends), dtype=torch.long, device=device)
        self.tokens = tokens
        longest = max(map(len, prompts))
        self.ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        self.mask = torch.zeros_like(self.ids)
        for row, prompt in enumerate(prompts):
            self.ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            self.mask[row, longest - len(prompt) :] = 1
        self.ids, self.mask = self.ids.to(self.model.device), self.mask.to(self.model.device)

    def measure(self, cache: str) -> float:
        """Tokens a second with the `dynamic` or the `static` cache; tokens after a row's end do not count."""
        options: dict[str, Any] = {} if cache == "dynamic" else {"cache_implementation": cache}
        began = time.perf_counter()
        with torch.inference_mode():
            said = self.model.generate(
                self.ids,
                attention_mask=self.mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.tokens,
                pad_token_id=0,
                **options,
            )
        seconds = time.perf_counter() - began
        return self._count(said[:, self.ids.shape[1] :]) / seconds

    def _count(self, said: Tensor) -> int:
        if not len(self.ends):
            assert said.numel() == self.tokens * len(self.ids), "an answer was cut short"
            return said.numel()
        ended = torch.isin(said, self.ends).long().cumsum(1)
        return int(((ended == 0) | ((ended == 1) & torch.isin(said, self.ends))).sum())


class Products:
    """The linear products of one batch of answers and nothing else: prompt in one pass, then a pass for each token.

    Args:
        packed: with the laid-out weights of our decoder; else as plain linear layers, each one apart as the model
            defines them.
        dtype: of weights and activations.
    """

    def __init__(
        self, config: Any, rows: int, prompt: int, tokens: int, *, packed: bool, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.rows, self.prompt, self.tokens, self.dtype = rows, prompt, tokens, dtype
        size, inner = config.hidden_size, config.intermediate_size
        head = getattr(config, "head_dim", None) or size // config.num_attention_heads
        query, key = head * config.num_attention_heads, head * config.num_key_value_heads
        shapes = [(query + 2 * key, size), (size, query), (2 * inner, size), (size, inner)]
        if not packed:
            shapes = [(query, size), (key, size), (key, size), (size, query), (inner, size), (inner, size), shapes[-1]]
        make = _packed if packed else _plain
        self.layers = [make(shape, dtype) for _ in range(config.num_hidden_layers) for shape in shapes]
        self.inputs = [shape[1] for _ in range(config.num_hidden_layers) for shape in shapes]
        self.head, self.size = make((config.vocab_size, size), dtype), size

    def measure(self) -> float:
        """Tokens a second if there were nothing but these products."""
        began = time.perf_counter()
        with torch.inference_mode():
            self._pass(self.rows * self.prompt)
            for _ in range(self.tokens - 1):
                self._pass(self.rows)
        return self.rows * self.tokens / (time.perf_counter() - began)

    def _pass(self, rows: int) -> None:
        inputs = {size: torch.ones(rows, size, dtype=self.dtype) for size in set(self.inputs)}
        for layer, size in zip(self.layers, self.inputs, strict=True):
            layer(inputs[size])
        self.head(torch.ones(self.rows, self.size, dtype=self.dtype))


def _packed(shape: tuple[int, int], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return frozen_linear(torch.randn(shape, dtype=torch.bfloat16).to(dtype))


def _plain(shape: tuple[int, int], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight = torch.randn(shape, dtype=torch.bfloat16).to(dtype)
    return lambda x: functional.linear(x, weight)
