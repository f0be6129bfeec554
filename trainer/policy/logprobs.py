"""Log-probabilities of chosen tokens under the model's output head, in one pass over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer.policy.linear import exact_product

# Tokens whose logits are held at once: bounds the memory to a few times this many vocabularies.
CHUNK = 128


def normalised(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(n, vocabulary) logits -> probabilities, and the logarithm of what they were divided by (n,)."""
    probabilities = torch.softmax(logits, -1)
    # The likeliest token's probability is at least 1 / vocabulary, so that its logarithm is exact.
    best = probabilities.argmax(-1, keepdim=True)
    return probabilities, (logits.gather(-1, best) - probabilities.gather(-1, best).log())[:, 0]


class _ChosenLogprobs(torch.autograd.Function):
    """The gradient with respect to a hidden state is `(W[target] - probabilities @ W) / temperature`, times a number
    that comes from above: it is formed here, while the logits are at hand, and only scaled in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        with_entropy: bool,
        product: Callable[[Tensor], Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies, slopes = [], [], []
        for x, chosen in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            logits = product(x.detach()) if product else exact_product(x, weight)
            if temperature != 1:
                logits /= temperature
            probabilities, normaliser = normalised(logits)
            logprobs.append(logits.gather(-1, chosen[:, None])[:, 0] - normaliser)
            if with_entropy:
                entropies.append(normaliser - torch.linalg.vecdot(probabilities, logits))
            if ctx.needs_input_grad[0]:
                slopes.append(weight[chosen] - probabilities.to(weight.dtype) @ weight)
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
            ctx.temperature = temperature
        entropy = torch.cat(entropies) if with_entropy else torch.zeros_like(logprobs[0][:0])
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (grads[0][:, None] / ctx.temperature).to(slopes.dtype) * slopes, None, None, None, None, None


def chosen_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    with_entropy: bool = True,
    product: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, in nats.

    Logits are formed `CHUNK` tokens at a time and never kept.

    Args:
        hidden: (n, hidden) after the final norm. weight: (vocabulary, hidden), frozen. targets: (n,) token ids.
        temperature: of sampling; the distribution is softmax(logits / temperature).
        product: what gives `hidden @ weight.T` in fp32, as it is computed in sampling.
        with_entropy: False saves a pass over all logits and returns none (an empty tensor).

    Returns:
        log-probabilities (n,) fp32, differentiable; entropies (n,) fp32, not.
    """
    return _ChosenLogprobs.apply(hidden, weight, targets, temperature, with_entropy, product)
