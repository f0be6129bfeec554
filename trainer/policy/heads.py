"""The output head of a model: from hidden states to log-probabilities, with what some families do beside a product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainer.policy.linear import exact_product
from trainer.policy.logprobs import CHUNK, chosen_logprobs, normalised


@dataclass(frozen=True)
class OutputHead:
    """logits = cap(scale * (hidden @ weight.T + bias)).

    Attributes:
        weight: (vocabulary, hidden), frozen. bias: (vocabulary,) or None.
        scale: what the logits are multiplied with (Cohere; Granite divides).
        product: hidden @ weight.T + bias in fp32, as it is computed in sampling; None for :func:`exact_product`.
        cap: logits are squeezed into (-cap, cap) by `cap * tanh(logits / cap)` (Gemma 2); None leaves them.
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
        linear = model.get_output_embeddings()
        multiplier = getattr(config, "logit_scale", None)
        divisor = getattr(config, "logits_scaling", None)
        scale = float(multiplier) if isinstance(multiplier, int | float) else 1.0
        return cls(
            linear.weight.detach(),
            None if linear.bias is None else linear.bias.detach(),
            scale / float(divisor) if divisor else scale,
            getattr(config, "final_logit_softcapping", None),
        )

    def chosen(
        self, hidden: Tensor, targets: Tensor, temperature: float, *, with_entropy: bool = True
    ) -> tuple[Tensor, Tensor]:
        """As :func:`trainer.policy.logprobs.chosen_logprobs`, for any head."""
        if self.bias is None and self.cap is None:
            return chosen_logprobs(
                hidden, self.weight, targets, temperature / self.scale, with_entropy=with_entropy, product=self.product
            )
        parts = [
            checkpoint(self._chunk, *piece, temperature, use_reentrant=False, preserve_rng_state=False)
            for piece in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
        ]
        logprobs, entropies = (torch.cat(column) for column in zip(*parts, strict=True))
        return logprobs, entropies.detach() if with_entropy else entropies[:0].detach()

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

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden) -> (n, vocabulary), fp32."""
        logits = self.product(hidden) if self.product else exact_product(hidden, self.weight, self.bias)
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def _chunk(self, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs = (self.logits(hidden) / temperature).log_softmax(-1)
        with torch.no_grad():
            entropy = -(logprobs.exp() * logprobs).sum(-1)
        return logprobs.gather(-1, targets[:, None])[:, 0], entropy
