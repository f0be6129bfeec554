"""The output head of a model: from hidden states to log-probabilities, in one pass over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.policy.linear import exact_product

# Tokens whose logits are held at once: bounds the memory to a few times this many vocabularies.
CHUNK = 128


@dataclass(frozen=True)
class OutputHead:
    """logits = cap(scale * (hidden @ weight.T + bias)).

    Attributes:
        weight: (vocabulary, hidden), frozen. bias: (vocabulary,) or None.
        scale: what the logits are multiplied with (Cohere; Granite divides).
        cap: logits are squeezed into (-cap, cap) by `cap * tanh(logits / cap)` (Gemma 2); None leaves them.
        product: hidden @ weight.T + bias in fp32, as it is computed in sampling; None for :func:`exact_product`.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None
    product: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, model: Any, config: Any) -> OutputHead:
        """The head of a causal language model of transformers, as far as its configuration tells.

        What a configuration does not tell must be found by comparing log-probabilities with the model's own.
        """
        linear = model.get_output_embeddings().requires_grad_(False)
        multiplier, divisor = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
        scale = float(multiplier) if isinstance(multiplier, int | float) else 1.0
        cap = getattr(config, "final_logit_softcapping", None)
        return cls(linear.weight, linear.bias, scale / float(divisor or 1), cap)

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden) -> (n, vocabulary), fp32; not differentiable."""
        logits = self.product(hidden) if self.product else exact_product(hidden, self.weight, self.bias)
        if self.scale != 1:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def chosen(
        self, hidden: Tensor, targets: Tensor, temperature: float, *, with_entropy: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each target and entropy of each distribution, in nats.

        Logits are formed `CHUNK` tokens at a time and never kept.

        Args:
            hidden: (n, hidden) after the final norm. targets: (n,) token ids.
            temperature: of sampling; the distribution is softmax(logits / temperature).
            with_entropy: False saves a pass over all logits and returns none (an empty tensor).

        Returns:
            log-probabilities (n,) fp32, differentiable; entropies (n,) fp32, not.
        """
        return _Chosen.apply(hidden, self, targets, temperature, with_entropy)

    @torch.no_grad()
    def compared(
        self, hidden: Tensor, reference: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two distributions over the same places, in one pass over the vocabulary.

        Args:
            hidden, reference: (n, hidden) after the final norm. targets: (n,) token ids.

        Returns:
            log-probabilities of the targets by the first and by the second, the entropy of the first, and the exact
            `KL(first || second)`: (n,) each, fp32, in nats.
        """
        columns = []
        for x, y, chosen in zip(hidden.split(CHUNK), reference.split(CHUNK), targets.split(CHUNK), strict=True):
            logits, others = self.logits(x).div_(temperature), self.logits(y).div_(temperature)
            probabilities, normaliser = normalised(logits)
            _, other_normaliser = normalised(others)
            ours = logits.gather(-1, chosen[:, None])[:, 0] - normaliser
            theirs = others.gather(-1, chosen[:, None])[:, 0] - other_normaliser
            entropy = normaliser - torch.linalg.vecdot(probabilities, logits)
            apart = torch.linalg.vecdot(probabilities, logits.sub_(others)) - normaliser + other_normaliser
            columns.append((ours, theirs, entropy, apart.clamp_min(0)))
        first, second, entropies, divergence = (torch.cat(column) for column in zip(*columns, strict=True))
        return first, second, entropies, divergence


class _Chosen(torch.autograd.Function):
    """The gradient with respect to a hidden state is `(W[target] - probabilities @ W) * scale / temperature`, each
    row of W by the slope of the cap there, times a number that comes from above: it is formed here, while the logits
    are at hand, and only scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: OutputHead, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies, slopes = [], [], []
        weight = head.weight
        for x, chosen in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            logits, places = head.logits(x.detach()), chosen[:, None]
            if temperature != 1:
                logits /= temperature
            probabilities, normaliser = normalised(logits)
            logprobs.append(logits.gather(-1, places)[:, 0] - normaliser)
            if with_entropy:
                entropies.append(normaliser - torch.linalg.vecdot(probabilities, logits))
            if ctx.needs_input_grad[0]:
                own = weight[chosen]
                if head.cap is not None:
                    steepness = 1 - (logits * (temperature / head.cap)).square_()
                    own, probabilities = own * steepness.gather(-1, places).to(own.dtype), probabilities * steepness
                slopes.append(own - probabilities.to(weight.dtype) @ weight)
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
            ctx.factor = head.scale / temperature
        entropy = torch.cat(entropies) if with_entropy else torch.zeros_like(logprobs[0][:0])
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (grads[0][:, None] * ctx.factor).to(slopes.dtype) * slopes, None, None, None, None


def normalised(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(n, vocabulary) logits -> probabilities, and the logarithm of what they were divided by (n,)."""
    probabilities = torch.softmax(logits, -1)
    # The likeliest token's probability is at least 1 / vocabulary, so that its logarithm is exact.
    best = probabilities.argmax(-1, keepdim=True)
    return probabilities, (logits.gather(-1, best) - probabilities.gather(-1, best).log())[:, 0]
