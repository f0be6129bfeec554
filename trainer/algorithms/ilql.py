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
from dataclasses import dataclass
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn, optim
from torch.nn import functional

from storage.errors import UsageError
from trainer.algorithms import maths
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
from trainer.config import IlqlConfig, Tuning
from trainer.learner import Figures, StepReport
from trainer.outcomes import Outcome, check_enough
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.backbone import Backbone, ScalarHead
from trainer.policy.full import Snapshot, Update
from trainer.policy.logprobs import CHUNK
from trainer.processes import Processes

# Tokens of the vocabulary that are widened to fp32 at once.
VOCABULARY_CHUNK = 8192
HEADS = 2
# Tokens that are drawn at each state for the conservative loss, from the model and as many from the whole vocabulary;
# an update asks about one of either.
DRAWS = 8
# How often in a run the heads are measured, and on how many answers where none are held out.
MEASURES = 10
MOST_MEASURED = 64
# The tokens of a prompt and of an answer.
Said = tuple[tuple[int, ...], tuple[int, ...]]


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
            hidden.append(backbone.hidden(layout, policy)[layout.predictors[layout.mask]])
            tokens.append(layout.targets[layout.mask])
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
