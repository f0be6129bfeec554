"""Log-probabilities of chosen tokens under the model's output head, without keeping every logit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Tokens whose logits are held at once: bounds the memory to this many times the vocabulary.
CHUNK = 256


class _ChosenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies, normalisers = [], [], []
        for x, chosen in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            logits = (x @ weight.T).float()
            if temperature != 1:
                logits = logits / temperature
            normaliser = logits.logsumexp(-1)
            logprobs.append(logits.gather(-1, chosen[:, None])[:, 0] - normaliser)
            normalisers.append(normaliser)
            if with_entropy:
                probabilities = (logits - normaliser[:, None]).exp_()
                entropies.append(normaliser - probabilities.mul_(logits).sum(-1))
        ctx.save_for_backward(hidden, weight, targets, torch.cat(normalisers))
        ctx.temperature = temperature
        entropy = torch.cat(entropies) if with_entropy else torch.zeros_like(logprobs[0][:0])
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normalisers = ctx.saved_tensors
        parts = []
        for x, chosen, normaliser, grad in zip(
            hidden.split(CHUNK), targets.split(CHUNK), normalisers.split(CHUNK), grads[0].split(CHUNK), strict=True
        ):
            # The gradient of log softmax: one at the chosen token, less the probabilities.
            logits = (x @ weight.T).float()
            if ctx.temperature != 1:
                logits = logits / ctx.temperature
            slope = (logits - normaliser[:, None]).exp_().neg_()
            slope.scatter_add_(1, chosen[:, None], torch.ones_like(chosen, dtype=slope.dtype)[:, None])
            slope.mul_(grad[:, None] / ctx.temperature)
            parts.append(slope.to(weight.dtype) @ weight)
        return torch.cat(parts), None, None, None, None


def chosen_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, *, with_entropy: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, in nats.

    Logits are formed `CHUNK` tokens at a time and formed again in the backward pass.

    Args:
        hidden: (n, hidden) after the final norm. weight: (vocabulary, hidden), frozen. targets: (n,) token ids.
        temperature: of sampling; the distribution is softmax(logits / temperature).
        with_entropy: False saves the entropies' passes over all logits and returns none (an empty tensor).

    Returns:
        log-probabilities (n,) fp32, differentiable; entropies (n,) fp32, not.
    """
    return _ChosenLogprobs.apply(hidden, weight, targets, temperature, with_entropy)
