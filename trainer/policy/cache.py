"""The keys and values of a batch of answers: what a block's attention reads and writes in sampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainer.policy.attention import attention, attention_dtype, parts


class Cache:
    """Keys and values of a batch: per layer (rows, key heads, capacity, head size), filled from the left.

    Args:
        lengths: of the distinct prompts, in tokens; shorter ones stand behind padding.
        rows: (rows,) which prompt each row of the batch answers.
        capacity: how many tokens prompt and answer may fill together.
        dtype: of the keys and values that come.

    Attributes:
        filled: how many places are taken.
        padding: (rows,) unused places before each row's prompt.
        mask: (rows, 1, 1, capacity) what attention adds for them; None when no row is padded.
        place: (1,) the place to fill next, once the cache is frozen; `filled` stands still then.
    """

    def __init__(self, lengths: list[int], rows: Tensor, capacity: int, dtype: torch.dtype) -> None:
        device = rows.device
        self.filled = max(lengths)
        self.rows, self.capacity = rows, capacity
        self.prompt_padding = torch.tensor([self.filled - length for length in lengths], device=device)
        self.padding = self.prompt_padding[rows]
        self.place: Tensor | None = None
        self.dtype = attention_dtype(device, dtype)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        places = torch.arange(self.filled, device=device)
        allowed = (places <= places[:, None]) & (places >= self.prompt_padding[:, None, None])
        allowed |= torch.eye(self.filled, dtype=torch.bool, device=device)  # a padded place attends to itself
        self.prompt_mask = torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, float("-inf"))[:, None]
        self.mask = self._mask()

    def prefill(self, qkv: Tensor, heads: int) -> Tensor:
        """Attention among the prompts' tokens (prompts, length, all heads, head size); keeps their keys and values as
        those of the next layer."""
        query, key, value = parts(qkv.transpose(1, 2), heads, 1)
        self.keys.append(self._placed(key))
        self.values.append(self._placed(value))
        return attention(query, key, value, self.prompt_mask).transpose(1, 2).flatten(2)

    def step(self, layer: int, qkv: Tensor, heads: int) -> Tensor:
        """Attention of one more token a row (rows, 1, all heads, head size), at the place that is to be filled next."""
        query, key, value = parts(qkv[:, 0], heads, 1)
        keys, values = self.keys[layer], self.values[layer]
        if self.place is None:
            until = self.filled + 1
            keys[:, :, self.filled] = key
            values[:, :, self.filled] = value
        else:
            until = self.capacity
            keys.index_copy_(2, self.place, key[:, :, None].to(self.dtype))
            values.index_copy_(2, self.place, value[:, :, None].to(self.dtype))
        # The queries that share a key head stand where other code has the positions of a sequence.
        attended = functional.scaled_dot_product_attention(
            query.to(self.dtype).unflatten(1, (key.shape[1], -1)),
            keys[:, :, :until],
            values[:, :, :until],
            attn_mask=None if self.mask is None else self.mask[..., :until],
        )
        return attended.reshape(len(query), 1, -1).to(qkv.dtype)

    @property
    def positions(self) -> Tensor:
        """(rows,) of the tokens that come next, in their own sequences."""
        return (self.filled if self.place is None else self.place) - self.padding

    def advance(self, *, before: bool) -> None:
        """A step begins (`before` its attention), or is over."""
        if self.place is None:
            self.filled += 0 if before else 1
        elif before and self.mask is not None:
            self.mask.index_fill_(3, self.place, 0.0)
        elif not before:
            self.place += 1

    def freeze(self) -> None:
        """From now on every step has the same shapes: attention spans the whole capacity, and places that are free are
        masked."""
        self.place = torch.full((1,), self.filled, device=self.padding.device)
        places = torch.arange(self.capacity, device=self.padding.device)
        hidden = (places < self.padding[:, None]) | (places >= self.filled)
        mask = torch.zeros(hidden.shape, dtype=self.dtype, device=self.padding.device)
        self.mask = mask.masked_fill_(hidden, float("-inf"))[:, None, None]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]
        self.padding = self.padding[rows]
        self.mask = self._mask()

    def _placed(self, prompts: Tensor) -> Tensor:
        """(prompts, key heads, length, head size) -> (rows, key heads, capacity, head size), zero where all is free."""
        shape = len(self.rows), prompts.shape[1], self.capacity, prompts.shape[3]
        placed = torch.zeros(shape, dtype=self.dtype, device=prompts.device)
        placed[:, :, : self.filled] = prompts[self.rows]
        return placed

    def _mask(self) -> Tensor | None:
        if not bool(self.padding.any()):
            return None
        places = torch.arange(self.capacity, device=self.padding.device)
        mask = torch.zeros(len(self.padding), 1, 1, self.capacity, dtype=self.dtype, device=self.padding.device)
        return mask.masked_fill_((places < self.padding[:, None])[:, None, None], float("-inf"))
