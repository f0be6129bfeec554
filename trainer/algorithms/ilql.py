"""Implicit language Q-learning (Snell et al. 2022): offline reinforcement learning from rated answers.

A token is an action, the text before it the state; the outcome of an answer is the reward of its last token. One LoRA
adapter on the shared backbone is trained by everything: a language model of all answers (the behaviour), two Q heads,
and a value head. The value is the tau-expectile of Q over the answers' own tokens, so nothing is ever asked about
tokens that nobody said: good parts of different answers are stitched together, and what was never tried stays unlikely.

Answers are drawn from `log pi + beta (Q - V)`. V is the same for all tokens, so the softmax drops it; and Q is the
output embedding times a low-rank map of the hidden state. So the whole policy is an ordinary adapter with one more
pair, for the output head, and decoding costs nothing.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from storage.errors import UsageError
from trainer.algorithms import maths
from trainer.algorithms.supervised import (
    Course,
    Row,
    TokenMeans,
    make_row,
    measured_parts,
    parts,
    rate_at,
    skipped_after,
)
from trainer.algorithms.updates import take_step
from trainer.config import IlqlConfig, Tuning
from trainer.learner import Figures, StepReport
from trainer.outcomes import Outcome, check_enough
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.backbone import Backbone, ScalarHead
from trainer.policy.full import Snapshot
from trainer.policy.logprobs import chosen_logprobs
from trainer.processes import Processes

# Tokens of the vocabulary that are widened to fp32 at once.
VOCABULARY_CHUNK = 8192
HEADS = 2


@dataclass(frozen=True)
class TokenLosses:
    """Losses of each token (B, R), 0 outside the mask."""

    q: Tensor
    value: Tensor


def token_losses(
    q: Tensor, target_q: Tensor, values: Tensor, rewards: Tensor, mask: Tensor, gamma: float, tau: float
) -> TokenLosses:
    """The losses of Q and V; nothing flows back into what each of them is compared with.

    Q: `(r + gamma V(s') - Q(s, a))^2`, the mean over the heads; the value after the last token is 0. V: the squared
    error to the smallest target Q, weighted tau where V is too low and 1 - tau where it is too high (the
    tau-expectile, Kostrikov et al. 2022).

    Args:
        q, target_q: (heads, B, R) of the tokens that were said. values: (B, R) of the state before each of them.
        rewards: (B, R).
    """
    following = functional.pad((values * mask).detach()[:, 1:], (0, 1))
    target = rewards + gamma * following
    advantage = target_q.detach().amin(0) - values
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

    def turned(self, hidden: Tensor) -> Tensor:
        """(n, size) -> (heads, n, size), fp32: what the output embedding is multiplied with."""
        return hidden.float() @ self.down.mT @ self.up.mT / hidden.shape[-1] ** 0.5

    def chosen(self, hidden: Tensor, turned: Tensor, embeddings: Tensor) -> Tensor:
        """Q of one token a state, (heads, n), fp32; `embeddings` (n, size) are those of the tokens."""
        offset = self.offset_weight @ hidden.float().T / hidden.shape[-1] ** 0.5 + self.offset_bias[:, None]
        return (turned * embeddings.float()).sum(-1) + offset

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


class Ilql:
    """A run of ILQL.

    Args:
        parent: the version to go on from; it cannot be one of ILQL itself.
        processes: those that work on this together, each on its rows of every batch; by default this one alone.

    Raises:
        UsageError: too few outcomes, or a model or setting for which the policy is no adapter.
    """

    stage = "q-learning"

    def __init__(
        self,
        backbone: Backbone,
        found: Sequence[Outcome],
        config: IlqlConfig,
        seed: int,
        parent: Snapshot | None = None,
        processes: Processes | None = None,
    ) -> None:
        check_enough(found, config.minimum)
        _check_possible(backbone, config)
        self.backbone = backbone
        self.config = config
        self.processes = processes or Processes()
        rows = [make_row(backbone, outcome.response, outcome=outcome.value) for outcome in found]
        self.course = Course.of(rows, backbone.config.max_position_embeddings, config, seed)
        self.step = 0
        self.steps = len(self.course.batches)
        self.skipped = 0  # updates in a row
        self.policy = backbone.new_adapter(config, seed + 1, upper=False)
        if parent is not None:
            self.policy.load(parent)
        generator = torch.Generator().manual_seed(seed + 2)
        size = backbone.hidden_size
        self.heads = QHeads(size, config.head_rank, generator).to(backbone.device)
        self.targets = copy.deepcopy(self.heads).requires_grad_(False)
        self.value = ScalarHead(size).to(backbone.device)
        self.policy_optimizer = optim.AdamW(self.policy.parameters(), lr=config.learning_rate, weight_decay=0.0)
        heads = [*self.heads.parameters(), *self.value.parameters()]
        self.head_optimizer = optim.AdamW(heads, lr=config.head_learning_rate, weight_decay=0.0)

    def advance(self) -> StepReport:
        """One update of everything. Raises WorkbenchError when several in a row were not finite."""
        started = time.perf_counter()
        config = self.config
        batch = self.course.batches[self.step]
        tokens = sum(len(row.response) for row in batch)
        means = TokenMeans()
        self.policy_optimizer.zero_grad()
        self.head_optimizer.zero_grad()
        for part in self.processes.cut(self.processes.shares(batch), parts):
            losses, mask = self._losses(part)
            losses["loss/train"] = (
                losses["loss/q"]
                + losses["loss/value"]
                + config.conservative * losses["loss/conservative"]
                + config.language_model * losses["loss/language_model"]
            )
            (losses["loss/train"].sum() / tokens).backward()
            means.add(part, mask, losses)
        figures = means.figures(self.processes) | self._update()
        if self.step == 0:
            figures |= self.course.figures()
        figures["timing/update", None] = time.perf_counter() - started
        self.step += 1
        self.skipped = skipped_after(self.skipped, self.step, taken=not figures["policy/skipped", None])
        if self.course.measures_after(self.step):
            figures |= self.held_out_losses()
        headline = {"loss": figures["loss/train", None], "q": figures["loss/q", None]}
        return StepReport(figures, headline=headline)

    def _update(self) -> Figures:
        """Step both optimizers, and let the targets follow."""
        peaks = {self.policy_optimizer: self.config.learning_rate, self.head_optimizer: self.config.head_learning_rate}
        done = []
        for optimizer, peak in peaks.items():
            optimizer.param_groups[0]["lr"] = rate_at(self.step, self.steps, peak)
            done.append(take_step(optimizer, self.config.max_grad_norm, self.processes))
        follow(self.targets, self.heads, self.config.target_rate)
        return {
            ("policy/grad_norm", None): done[0][0],
            ("policy/skipped", None): float(not all(taken for _, taken in done)),
        }

    @torch.no_grad()
    def held_out_losses(self) -> Figures:
        """The losses of the language model and of Q on the rows kept back, overall and by language."""
        means = TokenMeans()
        for part in measured_parts(self.course.held_out, self.processes):
            losses, mask = self._losses(part)
            shown = {"loss/held_out": losses["loss/language_model"], "loss/held_out_q": losses["loss/q"]}
            means.add(part, mask, shown)
        return means.figures(self.processes)

    def _losses(self, rows: Sequence[Row]) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of each response token, (B, R) each, 0 outside the mask; and the mask."""
        backbone, output = self.backbone, self.backbone.network.head
        layout = backbone.layout([list(row.prompt) for row in rows], [list(row.response) for row in rows])
        tokens = layout.targets[layout.mask]
        hidden = backbone.hidden(layout, self.policy)[layout.predictors[layout.mask]]
        logprobs, _ = output.chosen(hidden, tokens, 1.0, with_entropy=False)
        embeddings = output.weight[tokens]

        turned = self.heads.turned(hidden)
        conservative = [
            -chosen_logprobs(state.to(output.weight.dtype), output.weight, tokens, 1.0, with_entropy=False)[0]
            for state in turned
        ]
        with torch.no_grad():
            target_q = self.targets.chosen(hidden, self.targets.turned(hidden), embeddings)

        def spread(values: Tensor) -> Tensor:
            return backbone.spread(values, layout)

        outcomes = torch.tensor([row.outcome for row in rows], device=backbone.device)
        losses = token_losses(
            torch.stack([spread(q) for q in self.heads.chosen(hidden, turned, embeddings)]),
            torch.stack([spread(q) for q in target_q]),
            spread(self.value(hidden)),
            outcomes[:, None] * maths.last_token(layout.mask),
            layout.mask,
            self.config.gamma,
            self.config.tau,
        )
        return {
            "loss/q": losses.q,
            "loss/value": losses.value,
            "loss/conservative": spread(torch.stack(conservative).mean(0)),
            "loss/language_model": spread(-logprobs),
        }, layout.mask

    def modules(self) -> dict[str, nn.Module]:
        return {"policy": self.policy, "heads": self.heads, "targets": self.targets, "value": self.value}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"policy_optimizer": self.policy_optimizer, "head_optimizer": self.head_optimizer}

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.skipped = state["step"], state["skipped"]

    def result(self) -> Adapter:
        """The policy `log pi + beta (Q - V)`, Q from the target heads, as an adapter of the output head as well."""
        policy, output = self.policy.snapshot(), self.backbone.network.head
        down, up = self.targets.output_update(output.weight)
        up *= self.config.beta / (policy.scale * output.scale)
        return Adapter(policy.pairs | {HEAD: (down, up)}, policy.scale)


def _check_possible(backbone: Backbone, config: IlqlConfig) -> None:
    """Refuse what would make a policy that is no adapter."""
    if config.tuning != Tuning.LORA:
        raise UsageError("ILQL learns adapters: its Q-function is an update of low rank", "use --tuning lora")
    if backbone.network.head.cap is not None:
        raise UsageError(
            f"ILQL cannot train {backbone.folder.name}: it squeezes its logits, so Q cannot be added to them",
            "use another method, such as hindsight or RLOO",
        )
