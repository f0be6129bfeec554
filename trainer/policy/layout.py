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
        mask: (B, R) bool, true on response tokens, the end-of-text token among them.
        before, said, cells: (n,) of each response token in reading order: the token that predicts it, its id, and its
            place in the flattened (B * R) grid. Known to the host, so that no device is asked for them.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    gather: Tensor
    real: Tensor
    mask: Tensor
    before: Tensor
    said: Tensor
    cells: Tensor

    @classmethod
    def build(
        cls, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device
    ) -> TokenLayout:
        """Lay out prompts and responses (each at least one token long), one pair a row."""
        longest = max(map(len, responses))
        total = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        before: list[int] = []
        cells: list[int] = []
        gather: list[list[int]] = []
        starts: dict[tuple[int, ...], int] = {}
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            asked, both = len(prompt), len(prompt) + len(response)
            places = range(row * total, row * total + both)
            start = starts.get(tuple(prompt))
            if start is None:
                start = starts[tuple(prompt)] = len(ids)
                ids += prompt
                positions += range(asked)
                slots += places[:asked]
            begin = len(ids)
            ids += response
            positions += range(asked, both)
            slots += places[asked:]
            gather.append([*range(start, start + asked), *range(begin, len(ids))])
            before += gather[row][asked - 1 : -1]
            cells += range(row * longest, row * longest + len(response))

        def on_device(values: list[int]) -> Tensor:
            return torch.tensor(values).to(device)

        def grid(values: list[list[int]], width: int) -> Tensor:
            return torch.tensor([row + [0] * (width - len(row)) for row in values]).to(device)

        return cls(
            ids=on_device(ids),
            positions=on_device(positions),
            slots=on_device(slots),
            gather=grid(gather, total),
            real=grid([[1] * len(row) for row in gather], total).bool(),
            mask=grid([[1] * len(response) for response in responses], longest).bool(),
            before=on_device(before),
            said=on_device([token for response in responses for token in response]),
            cells=on_device(cells),
        )

    @property
    def predictors(self) -> Tensor:
        """(B, R) which token predicts each response token; 0 at padding."""
        return self.spread(self.before)

    @property
    def targets(self) -> Tensor:
        """(B, R) the response token ids; 0 at padding."""
        return self.spread(self.said)

    def spread(self, values: Tensor) -> Tensor:
        """Values of the response tokens in reading order (n,) -> (B, R), 0 outside the mask; differentiable."""
        return values.new_zeros(self.mask.numel()).scatter(0, self.cells, values).view(self.mask.shape)

    def padded(self, values: Tensor) -> Tensor:
        """Values of tokens (N, ...) -> of the places of the grid (B, T, ...); differentiable.

        What stands at a padded place is arbitrary and must not count.
        """
        return values.index_select(0, self.gather.flatten()).unflatten(0, self.gather.shape)

    def unpadded(self, grid: Tensor) -> Tensor:
        """The inverse of :meth:`padded`; differentiable."""
        return grid.flatten(0, 1).index_select(0, self.slots)

    @property
    def last(self) -> Tensor:
        """(B,) the last token of each response."""
        lengths = self.real.sum(1)
        return self.gather.gather(1, lengths[:, None] - 1)[:, 0]

    def response_means(self, values: Tensor) -> Tensor:
        """Values of tokens (N, size) -> the mean over each response's tokens (B, size), fp32."""
        lengths = self.mask.sum(1)
        tokens = torch.cat([self.predictors[:, 1:], self.predictors[:, :1]], 1)  # token t is what predicts token t + 1
        tokens = tokens.scatter(1, lengths[:, None] - 1, self.last[:, None])
        return (values[tokens].float() * self.mask[..., None]).sum(1) / lengths[:, None]

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """(B, 1, T, T): what attention adds, 0 where a place may look and -inf elsewhere.

        Sequences begin at the left, so a padded place still sees the tokens before it and no row is all -inf.
        """
        length = self.real.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.real.device).tril()
        allowed = causal & self.real[:, None, :]
        mask = torch.zeros(allowed.shape, dtype=dtype, device=self.real.device)
        return mask.masked_fill_(~allowed, float("-inf"))[:, None]


def said_logprobs(logits: Tensor, layout: TokenLayout) -> Tensor:
    """(n,) log-probability of each response token in reading order, fp32, from the logits (n, vocabulary) before it."""
    logits = logits.float()
    return logits.gather(1, layout.said[:, None])[:, 0] - logits.logsumexp(-1)
