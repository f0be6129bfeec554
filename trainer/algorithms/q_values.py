"""What ILQL learns of tokens: the heads that say Q, the losses of Q and V, and the states both are learned over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.algorithms.supervised import Row, parts
from trainer.policy.backbone import Backbone
from trainer.policy.full import Update
from trainer.policy.logprobs import CHUNK

# Tokens of the vocabulary that are widened to fp32 at once.
VOCABULARY_CHUNK = 8192
HEADS = 2
# Tokens that are drawn at each state for the conservative loss, from the model and as many from the whole vocabulary;
# an update asks about one of either.
DRAWS = 8
# The tokens of a prompt and of an answer.
Said = tuple[tuple[int, ...], tuple[int, ...]]


def lambda_returns(bootstraps: Tensor, rewards: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """`G_t = (1 - lam) x_t + lam (r_t + gamma G_t+1)`, 0 after the end; x is an estimate of what is still to come.

    lam 1 gives the discounted sum of the rewards that followed (Monte Carlo), lam 0 the estimate itself.

    Args:
        bootstraps, rewards: (B, R); x and r. mask: (B, R), real tokens first.

    Returns:
        (B, R), 0 outside the mask, without a gradient.
    """
    estimates = bootstraps.detach()
    found = torch.zeros_like(estimates)
    following = torch.zeros_like(estimates[:, 0])
    for place in reversed(range(estimates.shape[1])):
        mixed = (1 - lam) * estimates[:, place] + lam * (rewards[:, place] + gamma * following)
        following = found[:, place] = torch.where(mask[:, place], mixed, 0.0)
    return found


@dataclass(frozen=True)
class TokenLosses:
    """Losses of each token (B, R), 0 outside the mask."""

    q: Tensor
    value: Tensor


def token_losses(
    q: Tensor,
    target_q: Tensor,
    values: Tensor,
    rewards: Tensor,
    mask: Tensor,
    gamma: float,
    tau: float,
    lam: float = 0.0,
    value_lam: float = 0.0,
) -> TokenLosses:
    """The losses of Q and V; nothing flows back into what each of them is compared with.

    Q: the squared error to `r + gamma G(s')`, the mean over the heads, where G is the lambda-return over V (lam 0: V of
    the state that follows; lam 1: what came in the end; after the last token 0). V: the squared error to the
    lambda-return over the smallest target Q (value_lam 0: this Q; 1: what came in the end), weighted tau where V is too
    low and 1 - tau where it is too high (the tau-expectile, Kostrikov et al. 2022). With both 0 this is ILQL as
    published.

    Args:
        q, target_q: (heads, B, R) of the tokens that were said. values: (B, R) of the state before each of them.
        rewards: (B, R).
    """
    following = functional.pad(lambda_returns(values, rewards, mask, gamma, lam)[:, 1:], (0, 1))
    target = rewards + gamma * following
    advantage = lambda_returns(target_q.amin(0), rewards, mask, gamma, value_lam) - values
    weight = torch.where(advantage > 0, tau, 1 - tau)
    return TokenLosses((q - target).square().mean(0) * mask, weight * advantage.square() * mask)


class QHeads(nn.Module):
    """Two heads, each `Q(s, a) = e_a . B A h / sqrt(size) + offset(h)`.

    h is the hidden state, e_a the output embedding of token a: no matrix over the vocabulary is ever stored. Both
    start at zero, with different A.
    """

    def __init__(self, size: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = size**-0.5
        self.down = nn.Parameter(torch.empty(HEADS, rank, size).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(HEADS, size, rank))
        self.offset_weight = nn.Parameter(torch.zeros(HEADS, size))
        self.offset_bias = nn.Parameter(torch.zeros(HEADS))

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Q of some tokens of each state, fp32.

        Args:
            hidden: (n, size). embeddings: (n, k, size) of k tokens of each state.

        Returns:
            (heads, n, k)
        """
        size = hidden.shape[-1]
        hidden = hidden.float()
        # Both sides are brought to the low rank first: nothing of (heads, n, size) is ever formed.
        state = hidden @ self.down.flatten(0, 1).T / size**0.5
        token = embeddings.float() @ torch.cat(list(self.up), 1)
        found = (state[:, None] * token).unflatten(-1, (HEADS, -1)).sum(-1)
        offset = hidden @ self.offset_weight.T / size**0.5 + self.offset_bias
        return (found + offset[:, None]).permute(2, 0, 1)

    @torch.no_grad()
    def output_update(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the heads as an update `B @ A` of the output head, without the offsets: they shift all tokens.

        Args:
            embedding: (vocabulary, size), the weight of the output head.

        Returns:
            A: (heads * rank, size), B: (vocabulary, heads * rank), fp32, on the CPU.
        """
        up = torch.cat(list(self.up), 1) / (HEADS * embedding.shape[1] ** 0.5)
        rows = [chunk.float() @ up for chunk in embedding.split(VOCABULARY_CHUNK)]
        return self.down.flatten(0, 1).cpu().clone(), torch.cat(rows).cpu()


@torch.no_grad()
def follow(targets: nn.Module, online: nn.Module, rate: float) -> None:
    """Move the targets a share of the way to the online values (Polyak averaging)."""
    for target, value in zip(targets.parameters(), online.parameters(), strict=True):
        target.lerp_(value, rate)


@dataclass(frozen=True)
class States:
    """The states of some answers' tokens under one policy, n of them, computed once.

    Attributes:
        hidden: (n, size) the state before each token, in the model's number format. tokens: (n,) what was said there.
        drawn: (n, DRAWS) what the model itself would have said there. any: (n, DRAWS) tokens of the vocabulary, all
            equally likely.
        starts: where the answer of a row begins, by its prompt's and its own tokens.
    """

    hidden: Tensor
    tokens: Tensor
    drawn: Tensor
    any: Tensor
    starts: dict[Said, int]

    @classmethod
    @torch.no_grad()
    def of(cls, backbone: Backbone, rows: Sequence[Row], policy: Update | None, seed: int) -> States:
        """Run all rows through the model, in parts that fit into memory."""
        generator = torch.Generator(backbone.device).manual_seed(seed)
        hidden, tokens, drawn = [], [], []
        starts: dict[Said, int] = {}
        count = 0
        for part in parts(rows):
            layout = backbone.layout([list(row.prompt) for row in part], [list(row.response) for row in part])
            hidden.append(backbone.hidden(layout, policy)[layout.before])
            tokens.append(layout.said)
            for chunk in hidden[-1].split(CHUNK):
                # Where a number falls among the summed probabilities: quicker than `multinomial` over a vocabulary.
                sums = backbone.network.head.logits(chunk).softmax(-1).cumsum(-1)
                chances = torch.rand(len(chunk), DRAWS, generator=generator, device=backbone.device) * sums[:, -1:]
                drawn.append(torch.searchsorted(sums, chances).clamp_max(sums.shape[1] - 1))
            for row in part:
                starts[row.prompt, row.response] = count
                count += len(row.response)
        vocabulary = backbone.network.head.weight.shape[0]
        some = torch.randint(vocabulary, (count, DRAWS), generator=generator, device=backbone.device)
        return cls(torch.cat(hidden), torch.cat(tokens), torch.cat(drawn), some, starts)

    def places(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Where the states of some rows are, in reading order (m,), and the mask (B, R) that lays them out."""
        device = self.hidden.device
        lengths = [len(row.response) for row in rows]
        starts = [self.starts[row.prompt, row.response] for row in rows]
        found = [torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        return torch.cat(found).to(device), mask.to(device)
