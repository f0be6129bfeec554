"""Learning to say given answers: what every method that learns from a fixed set of answers has in common.

Prompts that are kept back here (:func:`hold_out`) measure the loss within one run, and nothing else: they are training
prompts, chosen among those of this run's rows. What is held out from all learning is decided where prompts are stored.

Which answer is learned from when is planned before the first step: languages in balance, none repeated too often. The
plan follows from the answers, the configuration and the seed, so that a resumed run needs to know its step alone.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import torch
from torch import Tensor, nn, optim

from storage.errors import UsageError, WorkbenchError
from storage.wording import counted
from trainer.algorithms.updates import take_step
from trainer.evaluation.intervals import Interval, mean_interval
from trainer.examples import Response, fingerprint
from trainer.learner import Figures, StepReport
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot, Update
from trainer.processes import Processes
from trainer.reward.batches import encode
from trainer.supervised_config import SupervisedConfig

# Tokens, padding included, that run through the model at once: bounds the memory of an update.
MOST_TOKENS = 4096
# How often in a run the held-out loss is measured.
HELD_OUT_MEASURES = 10
MOST_SKIPPED = 3


class Lesson(Protocol):
    """Anything that is learned from at once: answers to one prompt. Its length is that of the longest, in tokens."""

    @property
    def group(self) -> str: ...

    @property
    def language(self) -> str: ...

    def __len__(self) -> int: ...


Item = TypeVar("Item", bound=Lesson)


@dataclass(frozen=True)
class Row:
    """One answer to learn to say after one prompt, as token ids.

    Attributes:
        group: the prompt's key. What is learned about a prompt is held out together.
        outcome: how well the answer was received, in standard deviations; 0 where that is not asked.
    """

    group: str
    language: str
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    outcome: float = 0.0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


def make_row(backbone: Backbone, response: Response, asked: Sequence[int] | None = None, outcome: float = 0.0) -> Row:
    """The row of an answer: the tokens that were sampled, or those of the text and an end-of-text token.

    Args:
        asked: the prompt's token ids; by default the plain prompt.
    """
    plain, said = encode(backbone, response)
    prompt = response.prompt
    return Row(prompt.id, prompt.language, tuple(plain if asked is None else asked), tuple(said), outcome)


def hold_out(rows: Sequence[Item], share: float) -> tuple[list[Item], list[Item]]:
    """Rows to learn from and rows to measure the loss of this run with; a prompt's rows go the same way.

    The prompts that come first in a fixed pseudo-random order are kept: which ones depends on what others there are, so
    that a prompt kept back now may be learned from when there are more. With a share above 0, at least one of several
    is kept. Where that makes too few to tell a gain, see :mod:`trainer.algorithms.crossfit`.
    """
    groups = sorted({row.group for row in rows}, key=fingerprint)
    count = min(len(groups) - 1, math.ceil(len(groups) * share))
    return apart(rows, groups[:count])


def apart(rows: Sequence[Item], prompts: Collection[str]) -> tuple[list[Item], list[Item]]:
    """Rows to other prompts, and rows to some prompts."""
    kept = set(prompts)
    return [row for row in rows if row.group not in kept], [row for row in rows if row.group in kept]


def fitting(rows: Sequence[Item], context: int) -> list[Item]:
    """The rows that fit into a context of so many tokens. Raises UsageError when none does."""
    found = [row for row in rows if len(row) <= context]
    if not found:
        raise UsageError(
            f"all {counted(len(rows), 'answer is', 'answers are')} longer with their prompts "
            f"than the model's context of {context} tokens",
            "use a model with a longer context, or add shorter answers",
        )
    return found


def shares(counts: Mapping[str, int], total: int, balance: float, most_repeats: int) -> dict[str, int]:
    """How often to draw from each language: proportional to n^balance, at most `most_repeats` times n.

    What a language cannot take goes to the others.

    Args:
        counts: answers by language, n.
        total: of the draws; at most `most_repeats` times the answers.
    """
    taken: dict[str, int] = {}
    free = dict(counts)
    while True:
        weight = sum(count**balance for count in free.values())
        left = total - sum(taken.values())
        wanted = {language: left * count**balance / weight for language, count in free.items()}
        full = [language for language, draws in wanted.items() if draws > most_repeats * counts[language]]
        if not full:
            break
        for language in full:
            taken[language] = most_repeats * free.pop(language)
    rounded = {language: math.floor(draws) for language, draws in wanted.items()}
    by_remainder = sorted(wanted, key=lambda language: (rounded[language] - wanted[language], language))
    for language in by_remainder[: left - sum(rounded.values())]:
        rounded[language] += 1
    return taken | rounded


def plan(rows: Sequence[Item], config: SupervisedConfig, seed: int) -> list[list[Item]]:
    """The batch of every step. Within a language all rows are used before one is repeated."""
    by_language: dict[str, list[Item]] = {}
    for row in rows:
        by_language.setdefault(row.language, []).append(row)
    most = config.most_repeats * len(rows)
    batch = min(config.batch, most)
    steps = min(config.steps, most // batch)
    counts = {language: len(by_language[language]) for language in sorted(by_language)}
    draws = shares(counts, steps * batch, config.language_balance, config.most_repeats)
    order = [language for language in counts for _ in range(draws[language])]
    random.Random(f"{seed} languages").shuffle(order)
    passes = {language: _passes(by_language[language], draws[language], f"{seed} {language}") for language in counts}
    drawn = [passes[language].pop() for language in order]
    return [drawn[start : start + batch] for start in range(0, len(drawn), batch)]


def _passes(rows: list[Item], count: int, seed: str) -> list[Item]:
    """As many rows as are asked for, pass after pass in a new order; the last ones are to be used first."""
    generator = random.Random(seed)
    found: list[Item] = []
    while len(found) < count:
        found += generator.sample(rows, len(rows))
    return found[count - 1 :: -1] if count else []


def parts(rows: Sequence[Item], most_tokens: int = MOST_TOKENS) -> list[list[Item]]:
    """A batch cut into parts that fit into memory, rows of like length together; a row may be a part of its own."""
    found: list[list[Item]] = []
    for row in sorted(rows, key=len):
        if found and (len(found[-1]) + 1) * len(row) <= most_tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def measured_parts(rows: Sequence[Item], processes: Processes, most_tokens: int | None = None) -> list[list[Item]]:
    """This process's share of rows to measure with, in parts; all of them where there are too few for a share each."""
    shares = processes.shares(rows)
    wanted = shares if all(shares) else [list(rows)] * processes.count
    return processes.cut(wanted, parts if most_tokens is None else lambda share: parts(share, most_tokens))


def rate_at(step: int, steps: int, peak: float) -> float:
    """The learning rate of a step (from 0): falls linearly from the peak; it would be 0 after the last."""
    return peak * (1 - step / steps)


class TokenMeans:
    """Sums over tokens, by figure and language, and their means."""

    def __init__(self) -> None:
        self.sums: Counter[tuple[str, str | None]] = Counter()
        self.tokens: Counter[str | None] = Counter()

    def add(self, rows: Sequence[Row], mask: Tensor, values: Mapping[str, Tensor]) -> None:
        """Count a part in. `mask` and each of the values are (B, R), B rows; only masked places count."""
        lengths = mask.sum(1).tolist()
        for row, length in zip(rows, lengths, strict=True):
            self.tokens[row.language] += length
            self.tokens[None] += length
        for name, value in values.items():
            for row, total in zip(rows, (value.detach() * mask).sum(1).tolist(), strict=True):
                self.sums[name, row.language] += total
                self.sums[name, None] += total

    def figures(self, processes: Processes) -> Figures:
        """The mean of each figure over the tokens of all processes, overall and by language."""
        sums: Counter[tuple[str, str | None]] = Counter()
        tokens: Counter[str | None] = Counter()
        for part_sums, part_tokens in processes.gather([(dict(self.sums), dict(self.tokens))]):
            for key, total in part_sums.items():
                sums[key] += total
            tokens.update(part_tokens)
        return {(name, language): total / tokens[language] for (name, language), total in sums.items()}


def skipped_after(skipped: int, step: int, *, taken: bool) -> int:
    """How many updates in a row could not be taken, the one of this step included.

    Raises:
        WorkbenchError: so many that this run learns nothing any more.
    """
    skipped = 0 if taken else skipped + 1
    if skipped >= MOST_SKIPPED:
        raise WorkbenchError(
            f"the gradients of {counted(skipped, 'update')} in a row were not finite (the last at step {step})",
            "lower --learning-rate, or use --dtype fp32; the versions published so far are untouched",
        )
    return skipped


@dataclass(frozen=True)
class Course(Generic[Item]):
    """What a run learns from, and when.

    Attributes:
        batches: what each step learns from. held_out: what the loss is measured on.
        too_long: how many rows were left out, since they do not fit into the model's context.
    """

    learned: list[Item]
    held_out: list[Item]
    batches: list[list[Item]]
    too_long: int

    @classmethod
    def of(
        cls,
        rows: Sequence[Item],
        context: int,
        config: SupervisedConfig,
        seed: int,
        kept: Collection[str] | None = None,
    ) -> Course[Item]:
        """The course through some rows; `context` in tokens. Raises UsageError when no row fits into it.

        Args:
            kept: the prompts to measure with; by default the configured share of them.
        """
        usable = fitting(rows, context)
        learned, held_out = hold_out(usable, config.held_out) if kept is None else apart(usable, kept)
        return cls(learned, held_out, plan(learned, config, seed), len(rows) - len(usable))

    def measures_after(self, step: int) -> bool:
        """Whether the held-out loss is due once this many steps are done."""
        steps = len(self.batches)
        return bool(self.held_out) and (step % max(1, steps // HELD_OUT_MEASURES) == 0 or step in (1, steps))

    def figures(self) -> Figures:
        """How many answers are learned from, overall and by language; told with the first step."""
        counts = Counter(row.language for row in self.learned)
        figures: Figures = {("data/examples", language): float(count) for language, count in counts.items()}
        figures["data/examples", None] = float(len(self.learned))
        figures["data/held_out", None] = float(len(self.held_out))
        figures["data/too_long", None] = float(self.too_long)
        return figures


class PromptLoss(msgspec.Struct, frozen=True):
    """The loss of the answers to a prompt, in nats over all their `tokens`, before learning and after it."""

    language: str
    tokens: int
    before: float
    after: float

    @property
    def gain(self) -> float:
        """How many nats a token it fell."""
        return (self.before - self.after) / self.tokens


class SupervisedLearner:
    """Maximum likelihood: the negative log-likelihood of the response tokens, in nats per token, on an adapter or on
    all weights of the layers.

    Args:
        stage: what it does, in a word or two.
        rows: what to learn to say; None where :meth:`take_up` gives it.
        parent: the version to go on from.
        processes: those that work on this together, each on its rows of every batch; by default this one alone.
        kept: the prompts to measure the loss with; by default the configured share of them.
    """

    def __init__(
        self,
        stage: str,
        backbone: Backbone,
        rows: Sequence[Row] | None,
        config: SupervisedConfig,
        seed: int,
        parent: Snapshot | None = None,
        processes: Processes | None = None,
        kept: Collection[str] | None = None,
    ) -> None:
        self.stage = stage
        self.processes = processes or Processes()
        self.backbone = backbone
        self.config = config
        self.course: Course[Row] = Course([], [], [], 0)
        self.step = self.steps = 0
        if rows is not None:
            self.take_up(rows, seed, kept)
        self.skipped = 0  # updates in a row
        self.parent = parent
        self.policy = backbone.new_policy(config, seed + 1)
        if parent is not None:
            self.policy.load(parent)
        self.optimizer = optim.AdamW(self.policy.parameters(), lr=config.learning_rate, weight_decay=0.0)

    def take_up(self, rows: Sequence[Row], seed: int, kept: Collection[str] | None = None) -> None:
        """Learn from these rows from here on, with the weights and the optimizer as they are."""
        self.course = Course.of(rows, self.backbone.config.max_position_embeddings, self.config, seed, kept)
        self.step, self.steps = 0, len(self.course.batches)

    def advance(self) -> StepReport:
        """One update. Raises WorkbenchError when several in a row were not finite."""
        started = time.perf_counter()
        batch = self.course.batches[self.step]
        tokens = sum(len(row.response) for row in batch)
        means = TokenMeans()
        self.optimizer.zero_grad()
        for part in self.processes.cut(self.processes.shares(batch), parts):
            loss, mask = self._nll(part, self.policy)
            (loss.sum() / tokens).backward()
            means.add(part, mask, {"loss/train": loss})
        self.optimizer.param_groups[0]["lr"] = rate_at(self.step, self.steps, self.config.learning_rate)
        norm, taken = take_step(self.optimizer, self.config.max_grad_norm, self.processes)
        figures = means.figures(self.processes) | (self.course.figures() if self.step == 0 else {})
        figures["policy/grad_norm", None] = norm
        figures["policy/skipped", None] = float(not taken)
        figures["timing/update", None] = time.perf_counter() - started
        self.step += 1
        self.skipped = skipped_after(self.skipped, self.step, taken=taken)
        if self.course.measures_after(self.step):
            figures |= self.held_out_loss()
        return StepReport(figures, headline={"loss": figures["loss/train", None]})

    @torch.no_grad()
    def held_out_loss(self) -> Figures:
        """Nats per token on the rows kept back, overall and by language."""
        means = TokenMeans()
        for part in measured_parts(self.course.held_out, self.processes):
            loss, mask = self._nll(part, self.policy)
            means.add(part, mask, {"loss/held_out": loss})
        return means.figures(self.processes)

    def held_out_gain(self) -> Interval | None:
        """How many nats a token the loss fell since the start on the rows kept back, prompts as units; None without."""
        losses = self.held_out_losses()
        return mean_interval([loss.gain for loss in losses.values()]) if losses else None

    @torch.no_grad()
    def held_out_losses(self) -> dict[str, PromptLoss]:
        """The loss of the rows kept back, by prompt, at the start and now."""
        if not self.course.held_out:
            return {}
        start = self.backbone.new_policy(self.config, 0)
        if self.parent is not None:
            start.load(self.parent)
        tokens: Counter[str] = Counter()
        before: Counter[str] = Counter()
        after: Counter[str] = Counter()
        for policy, sums in ((start, before), (self.policy, after)):
            for part in parts(self.course.held_out):
                loss, mask = self._nll(part, policy)
                for row, total, length in zip(part, loss.sum(1).tolist(), mask.sum(1).tolist(), strict=True):
                    sums[row.group] += total
                    tokens[row.group] += length if policy is start else 0
        language = {row.group: row.language for row in self.course.held_out}
        return {key: PromptLoss(language[key], tokens[key], before[key], after[key]) for key in tokens}

    def _nll(self, rows: Sequence[Row], policy: Update) -> tuple[Tensor, Tensor]:
        """Loss of each response token (B, R) in nats, 0 outside the mask; and the mask."""
        layout = self.backbone.layout([list(row.prompt) for row in rows], [list(row.response) for row in rows])
        return -self.backbone.log_likelihood(self.backbone.hidden(layout, policy), layout, 1.0), layout.mask

    def modules(self) -> dict[str, nn.Module]:
        return {"policy": self.policy}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"optimizer": self.optimizer}

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.skipped = state["step"], state["skipped"]

    def result(self) -> Snapshot:
        return self.policy.snapshot()
