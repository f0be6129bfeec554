"""Where the tokens of a batch of prompts and responses stand.

Only real tokens are computed: padding is added for attention and dropped again after it. Responses to the same prompt
share its tokens, since what a prompt token becomes cannot depend on what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenLayout:
    """A batch of B responses. N: distinct real tokens, T: padded length, R: longest response.

    Attributes:
        ids: (N,) token ids. positions: (N,) of each in its own sequence.
        slots: (N,) one place of each token in the padded (B * T) grid.
        gather: (B, T) which token stands at each place; 0 at padding.
        real: (B, T) bool, false at padding.
        predictors: (B, R) which token predicts each response token; 0 at padding.
        targets: (B, R) the response token ids; 0 at padding.
        mask: (B, R) bool, true on response tokens, the end-of-text token among them.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    gather: Tensor
    real: Tensor
    predictors: Tensor
    targets: Tensor
    mask: Tensor

    @classmethod
    def build(
        cls, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device
    ) -> TokenLayout:
        """Lay out prompts and responses (each at least one token long), one pair a row."""
        rows = len(prompts)
        longest = max(map(len, responses))
        total = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        gather = torch.zeros(rows, total, dtype=torch.long)
        real = torch.zeros(rows, total, dtype=torch.bool)
        predictors = torch.zeros(rows, longest, dtype=torch.long)
        targets = torch.zeros(rows, longest, dtype=torch.long)
        mask = torch.zeros(rows, longest, dtype=torch.bool)
        starts: dict[tuple[int, ...], int] = {}
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            asked, said = len(prompt), len(response)
            start = starts.get(tuple(prompt))
            if start is None:
                start = starts[tuple(prompt)] = len(ids)
                ids += prompt
                positions += range(asked)
                slots += range(row * total, row * total + asked)
            begin = len(ids)
            ids += response
            positions += range(asked, asked + said)
            slots += range(row * total + asked, row * total + asked + said)
            gather[row, :asked] = torch.arange(start, start + asked)
            gather[row, asked : asked + said] = torch.arange(begin, begin + said)
            real[row, : asked + said] = True
            predictors[row, 0] = start + asked - 1
            predictors[row, 1:said] = torch.arange(begin, begin + said - 1)
            targets[row, :said] = torch.tensor(response)
            mask[row, :said] = True
        fields = [
            torch.tensor(ids),
            torch.tensor(positions),
            torch.tensor(slots),
            gather,
            real,
            predictors,
            targets,
            mask,
        ]
        return cls(*(field.to(device) for field in fields))

    @property
    def last(self) -> Tensor:
        """(B,) the last token of each response."""
        lengths = self.real.sum(1)
        return self.gather.gather(1, lengths[:, None] - 1)[:, 0]

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """(B, 1, T, T): what attention adds, 0 where a place may look and -inf elsewhere.

        Sequences begin at the left, so a padded place still sees the tokens before it and no row is all -inf.
        """
        length = self.real.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.real.device).tril()
        allowed = causal & self.real[:, None, :]
        mask = torch.zeros(allowed.shape, dtype=dtype, device=self.real.device)
        return mask.masked_fill_(~allowed, float("-inf"))[:, None]

    def padded_ids(self) -> Tensor:
        """(B, T) token ids, 0 at padding."""
        return self.ids[self.gather] * self.real
