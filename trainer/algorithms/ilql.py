"""Implicit language Q-learning (Snell et al. 2022): offline reinforcement learning from rated answers.

A token is an action, the text before it the state; the outcome of an answer is the reward of its last token. The model
stays as it is (or imitates the answers first, where `language_model` asks for it), so the states of all answers are
computed once. Over them two Q heads and a value head learn for thousands of updates, in seconds: nothing runs through
the model any more, and nothing over the vocabulary.

Q of a token is fitted to the value of the state that it leads to, and the value to the tau-expectile of what came of
the answers (each to other lambda-returns, where asked). Nothing is asked about tokens that nobody said, but that Q of
some, which the model itself would say there or which are drawn from the whole vocabulary, is kept near the value of the
state. So without outcomes Q - V is 0, and the policy is what it was.

Answers are drawn from `log pi + beta (Q - V)`. V is the same for all tokens, so the softmax drops it; and Q is the
output embedding times a low-rank map of the hidden state. So the whole policy is an ordinary adapter with one more
pair, for the output head, and decoding costs nothing.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn, optim

from storage.errors import UsageError
from trainer.algorithms import maths
from trainer.algorithms.q_values import DRAWS, QHeads, States, follow, token_losses
from trainer.algorithms.supervised import (
    Course,
    Row,
    SupervisedLearner,
    TokenMeans,
    make_row,
    parts,
    plan,
    rate_at,
    skipped_after,
)
from trainer.algorithms.updates import take_step
from trainer.learner import Figures, StepReport
from trainer.outcomes import Outcome, check_enough
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.backbone import Backbone, ScalarHead
from trainer.policy.full import Snapshot, Update
from trainer.policy_config import Tuning
from trainer.processes import Processes
from trainer.supervised_config import IlqlConfig

# How often in a run the heads are measured, and on how many answers where none are held out.
MEASURES = 10
MOST_MEASURED = 64


def relative_outcomes(found: Sequence[Outcome]) -> list[float]:
    """How much better each answer was received than others to its prompt, in deviations of all such differences.

    Some prompts and languages are answered better than others; that is no merit of any token. An answer is compared
    with the mean of its prompt, and one that is its prompt's only answer with the mean of its language. Where all
    differences are 0, so are the results.
    """
    by_prompt: dict[str, list[float]] = {}
    by_language: dict[str, list[float]] = {}
    for outcome in found:
        by_prompt.setdefault(outcome.response.prompt.id, []).append(outcome.value)
        by_language.setdefault(outcome.response.prompt.language, []).append(outcome.value)
    differences = []
    for outcome in found:
        prompt = outcome.response.prompt
        others = by_prompt[prompt.id]
        differences.append(
            outcome.value - statistics.fmean(others if len(others) > 1 else by_language[prompt.language])
        )
    deviation = math.sqrt(statistics.fmean(difference**2 for difference in differences))
    return [difference / deviation if deviation > 1e-9 else 0.0 for difference in differences]


class Ilql:
    """A run of ILQL: where `language_model` asks for it the answers are imitated first, then each step is `updates`
    updates of the heads on states that stay as they are.

    Args:
        parent: the version to go on from; it cannot be one of ILQL itself.
        processes: those that work on this together, each on its rows of every batch; by default this one alone.
        states: of these answers under the parent, where they were computed before.

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
        states: States | None = None,
    ) -> None:
        check_enough(found, config.minimum)
        _check_possible(backbone, config)
        self.backbone = backbone
        self.config = config
        self.processes = processes or Processes()
        self.seed = seed
        rows = [
            make_row(backbone, outcome.response, outcome=value)
            for outcome, value in zip(found, relative_outcomes(found), strict=True)
        ]
        # Imitation as it is anywhere else; without it, its policy is what the states are computed with.
        rate = config.learning_rate * (config.language_model or 1.0)
        own = replace(config, learning_rate=rate)
        self.imitation = SupervisedLearner("imitation", backbone, rows, own, seed, parent, self.processes)
        self.imitated = self.imitation.steps if config.language_model else 0  # steps
        self.course: Course = self.imitation.course
        updates = config.steps * config.updates
        self.batches = plan(
            self.course.learned, replace(config, steps=updates, most_repeats=updates * config.batch), seed
        )
        self.step = 0
        self.steps = self.imitated + config.steps
        self.skipped = 0  # updates in a row
        generator = torch.Generator().manual_seed(seed + 2)
        size = backbone.hidden_size
        self.heads = QHeads(size, config.head_rank, generator).to(backbone.device)
        self.targets = copy.deepcopy(self.heads).requires_grad_(False)
        self.value = ScalarHead(size).to(backbone.device)
        heads = [*self.heads.parameters(), *self.value.parameters()]
        self.head_optimizer = optim.AdamW(heads, lr=config.head_learning_rate, weight_decay=0.0)
        self._states = states

    @property
    def policy(self) -> Update:
        """What the states are computed with: pi in `log pi + beta (Q - V)`."""
        return self.imitation.policy

    @property
    def states(self) -> States:
        """Of all rows, under the policy; computed when they are first asked for, which is after imitation."""
        if self._states is None:
            rows = [*self.course.learned, *self.course.held_out]
            self._states = States.of(self.backbone, rows, self.policy, self.seed + 3)
        return self._states

    def advance(self) -> StepReport:
        """One update of imitation, or `updates` of the heads.

        Raises:
            WorkbenchError: several updates in a row were not finite.
        """
        if self.step < self.imitated:
            return self._imitate()
        started = time.perf_counter()
        means = TokenMeans()
        block = self.step - self.imitated
        norms, skipped = [], 0
        for update in range(block * self.config.updates, (block + 1) * self.config.updates):
            norm, taken = self._update(update, means)
            norms.append(norm)
            skipped += not taken
            self.skipped = skipped_after(self.skipped, self.step, taken=taken)
        figures = means.figures(self.processes)
        figures["policy/grad_norm", None] = statistics.fmean(norms)
        figures["policy/skipped", None] = float(skipped)
        if self.step == 0:
            figures |= self.course.figures()
        self.step += 1
        if block in (0, self.config.steps - 1) or (block + 1) % max(1, self.config.steps // MEASURES) == 0:
            figures |= self.measured()
        figures["timing/update", None] = time.perf_counter() - started
        headline = {"loss": figures["loss/train", None], "q": figures["loss/q", None]}
        return StepReport(figures, headline=headline)

    def _imitate(self) -> StepReport:
        """A step of imitation; its losses under the names that they have in this method."""
        report = self.imitation.advance()
        self.step = self.imitation.step
        figures = {
            ("loss/language_model" if name == "loss/train" else name, language): value
            for (name, language), value in report.figures.items()
        }
        return StepReport(figures, headline=report.headline)

    def _update(self, update: int, means: TokenMeans) -> tuple[float, bool]:
        """One update of the heads: the norm of its gradient, and whether it was taken."""
        config, batch = self.config, self.batches[update]
        tokens = sum(len(row.response) for row in batch)
        self.head_optimizer.zero_grad()
        own = self.processes.shares(batch)[self.processes.rank]
        if own:
            losses, mask = self.losses(own, update)
            (losses["loss/train"].sum() / tokens).backward()
            means.add(own, mask, losses)
        rate = rate_at(update, len(self.batches), config.head_learning_rate)
        self.head_optimizer.param_groups[0]["lr"] = rate
        norm, taken = take_step(self.head_optimizer, config.max_grad_norm, self.processes)
        follow(self.targets, self.heads, config.target_rate)
        return norm, taken

    def losses(self, rows: Sequence[Row], update: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of each response token, (B, R) each, 0 outside the mask; and the mask.

        Args:
            update: chooses, in turns, which of the drawn tokens the conservative loss asks about.
        """
        config, states = self.config, self.states
        places, mask = states.places(rows)
        turn = update % DRAWS
        hidden = states.hidden[places]
        asked = torch.stack([states.tokens[places], states.drawn[places, turn], states.any[places, turn]], 1)
        embeddings = self.backbone.network.head.weight[asked]
        q, values = self.heads(hidden, embeddings), self.value(hidden)
        with torch.no_grad():
            target_q = self.targets(hidden, embeddings[:, :1])[..., 0]
        conservative = (q[..., 1:] - values.detach()[:, None]).square().mean((0, 2))

        def laid_out(column: Tensor) -> Tensor:
            return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, column)

        outcomes = torch.tensor([row.outcome for row in rows], device=mask.device)
        found = token_losses(
            torch.stack([laid_out(one) for one in q[..., 0]]),
            torch.stack([laid_out(one) for one in target_q]),
            laid_out(values),
            outcomes[:, None] * maths.last_token(mask),
            mask,
            config.gamma,
            config.tau,
            config.lam,
            config.value_lam,
        )
        losses = {"loss/q": found.q, "loss/value": found.value, "loss/conservative": laid_out(conservative)}
        losses["loss/train"] = found.q + found.value + config.conservative * losses["loss/conservative"]
        return losses, mask

    @torch.no_grad()
    def advantages(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Q less its mean under the policy (estimated from the drawn tokens), which is what decoding adds.

        Returns:
            of the tokens that were said (B, R), 0 outside the mask; of the drawn ones (m, DRAWS), all rows in reading
            order; and the mask.
        """
        states = self.states
        places, mask = states.places(rows)
        asked = torch.cat([states.tokens[places, None], states.drawn[places]], 1)
        q = self.targets(states.hidden[places], self.backbone.network.head.weight[asked]).mean(0)
        q = q - q[:, 1:].mean(1, keepdim=True)
        return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, q[:, 0]), q[:, 1:], mask

    @torch.no_grad()
    def measured(self) -> Figures:
        """On the rows kept back (on those learned from where there are none): the loss of Q, overall and by language;
        how much Q differs among tokens that the policy would say; and how well it foretells outcomes.

        An answer is foretold by the sum of its tokens' advantages. The correlation is that of differences within
        prompts; it is not a number where no two answers to a prompt were kept back, or all are alike.
        """
        rows = self.course.held_out or self.course.learned[:MOST_MEASURED]
        means, spread, foretold = TokenMeans(), [], []
        for part in parts(rows):
            losses, mask = self.losses(part)
            means.add(part, mask, {"loss/held_out_q": losses["loss/q"]} if self.course.held_out else {})
            said, drawn, _ = self.advantages(part)
            spread.append(drawn.square().sum(1) / (DRAWS - 1))
            foretold += [(row.group, total, row.outcome) for row, total in zip(part, said.sum(1).tolist(), strict=True)]
        figures = means.figures(self.processes)
        figures["q/advantage_sd", None] = float(torch.cat(spread).mean().sqrt())
        if self.course.held_out:
            figures["q/held_out_correlation", None] = within_prompts(foretold)
        return figures

    def modules(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"heads": self.heads, "targets": self.targets, "value": self.value}
        return {"policy": self.policy, **found} if self.imitated else found

    def optimizers(self) -> dict[str, optim.Optimizer]:
        found: dict[str, optim.Optimizer] = {"head_optimizer": self.head_optimizer}
        return {"policy_optimizer": self.imitation.optimizer, **found} if self.imitated else found

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "skipped": self.skipped, "imitation": self.imitation.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.skipped = state["step"], state["skipped"]
        self.imitation.restore(state["imitation"])
        self._states = None  # the policy may be another now

    def result(self) -> Adapter:
        """The policy `log pi + beta (Q - V)`, Q from the target heads, as an adapter of the output head as well."""
        policy, output = self.policy.snapshot(), self.backbone.network.head
        assert isinstance(policy, Adapter), "full tuning was refused"
        down, up = self.targets.output_update(output.weight)
        up *= self.config.beta / (policy.scale * output.scale)
        return Adapter(policy.pairs | {HEAD: (down, up)}, policy.scale)


def within_prompts(found: Iterable[tuple[str, float, float]]) -> float:
    """The correlation of two figures of answers, each less its mean over the prompt's answers.

    Args:
        found: (prompt, one figure, the other) of each answer.

    Returns:
        not a number where either does not differ within any prompt.
    """
    by_prompt: dict[str, list[tuple[float, float]]] = {}
    for prompt, left, right in found:
        by_prompt.setdefault(prompt, []).append((left, right))
    lefts: list[float] = []
    rights: list[float] = []
    for pairs in by_prompt.values():
        for values, differences in zip(zip(*pairs, strict=True), (lefts, rights), strict=True):
            mean = statistics.fmean(values)
            differences += [value - mean for value in values]
    norm = math.hypot(*lefts) * math.hypot(*rights)
    return sum(left * right for left, right in zip(lefts, rights, strict=True)) / norm if norm > 1e-12 else math.nan


def _check_possible(backbone: Backbone, config: IlqlConfig) -> None:
    """Refuse what would make a policy that is no adapter."""
    if config.tuning != Tuning.LORA:
        raise UsageError("ILQL learns adapters: its Q-function is an update of low rank", "use --tuning lora")
    if backbone.network.head.cap is not None:
        raise UsageError(
            f"ILQL cannot train {backbone.folder.name}: it squeezes its logits, so Q cannot be added to them",
            "use another method, such as hindsight or RLOO",
        )
