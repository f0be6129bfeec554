"""The keys and values of a batch of answers: what a block's attention reads and writes in sampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainer.policy.attention import attention, attention_dtype, parts, summed

# Numbers that are widened together on a CPU, so that they stay in a core's own cache until they are summed.
WIDENED = 1 << 19


class Cache:
    """Keys and values of a batch: per layer (rows, key heads, capacity, head size), each row's filled from the left.

    Rows are as long as they are: each has a place of its own to fill next, so that another prompt may take the row of
    an answer that has ended while the others go on.

    Args:
        lengths: of the distinct prompts, in tokens.
        rows: (rows,) which prompt each row of the batch answers.
        capacity: how many tokens prompt and answer may fill together.
        dtype: of the keys and values that come.

    Attributes:
        lengths: (rows,) how many places each row has filled.
        mask: (rows, 1, 1, capacity) what attention adds: nothing for those places, minus infinity for the others.
        window: how many places attention spans; all of them once the cache is frozen.
    """

    def __init__(self, lengths: list[int], rows: Tensor, capacity: int, dtype: torch.dtype) -> None:
        device = rows.device
        self.rows, self.capacity = rows, capacity
        self.window, self.frozen = max(lengths), False
        self.lengths = torch.tensor(lengths, device=device)[rows]
        self.wide = attention_dtype(device, dtype)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        ahead = torch.ones(self.window, self.window, dtype=torch.bool, device=device).triu_(1)
        self.prompt_mask = torch.zeros(ahead.shape, device=device).masked_fill_(ahead, float("-inf"))[None, None]
        free = torch.arange(capacity, device=device) >= self.lengths[:, None]
        empty = torch.zeros(free.shape, dtype=self.wide, device=device)
        self.mask = empty.masked_fill_(free, float("-inf"))[:, None, None]
        self._each = torch.arange(len(rows), device=device)

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
        self.keys[layer][self._each, :, self.lengths] = key
        self.values[layer][self._each, :, self.lengths] = value
        keys, values = (one[layer][:, :, : self.window] for one in (self.keys, self.values))
        mask = self.mask[..., : self.window]
        if query.device.type == "cpu":
            together = max(1, WIDENED // keys[0].numel()) if keys.dtype != self.wide else len(keys)
            some = zip(*(one.split(together) for one in (query[:, :, None], keys, values, mask)), strict=True)
            attended = torch.cat([summed(*one) for one in some])
        else:  # the queries that share a key head stand where other code has the positions of a sequence
            shared = query.unflatten(1, (key.shape[1], -1))
            attended = functional.scaled_dot_product_attention(shared, keys, values, attn_mask=mask)
        return attended.reshape(len(query), 1, -1).to(qkv.dtype)

    def begin(self) -> None:
        """A step begins: the place that each row fills next is opened."""
        self.window = min(self.window + 1, self.capacity)
        self.mask.scatter_(3, self.lengths[:, None, None, None], 0.0)

    def end(self) -> None:
        """The step is over. A row that goes on unheard stays in the last place."""
        self.lengths.add_(1).clamp_(max=self.capacity - 1)

    def freeze(self) -> None:
        """From now on every step has the same shapes: attention spans the whole capacity."""
        self.window, self.frozen = self.capacity, True

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]
        self.lengths, self.mask, self._each = self.lengths[rows], self.mask[rows], self._each[: len(rows)]
        self._span()

    def admit(self, places: Tensor, fresh: Cache) -> None:
        """Rows of another cache of this capacity, instead of those that stand at these places."""
        for own, new in zip(self.keys + self.values, fresh.keys + fresh.values, strict=True):
            own[places] = new
        self.lengths[places], self.mask[places] = fresh.lengths, fresh.mask
        self._span()

    def _span(self) -> None:
        if not self.frozen:
            self.window = int(self.lengths.max())

    def _placed(self, prompts: Tensor) -> Tensor:
        """(prompts, key heads, length, head size) -> (rows, key heads, capacity, head size), zero where all is free."""
        shape = len(self.rows), prompts.shape[1], self.capacity, prompts.shape[3]
        placed = torch.zeros(shape, dtype=prompts.dtype, device=prompts.device)
        placed[:, :, : prompts.shape[2]] = prompts[self.rows]
        return placed
