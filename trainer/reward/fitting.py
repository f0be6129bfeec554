"""Fitting the reward model to every kind of rating at once: scores, labels and pairs share one reward.

What else moves a rating (the rater's habits, the side, the length) is fitted with it and kept out of it:
:mod:`trainer.reward.effects`.

On several processes each learns from its part of every batch, and what is learned is the same.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor, nn, optim

from storage.errors import UsageError
from storage.wording import counted
from trainer.config import RewardConfig, RewardKind
from trainer.examples import Example, Examples
from trainer.learner import Figures, StepReport
from trainer.policy.backbone import Backbone
from trainer.processes import Processes
from trainer.reward.batches import Batch, batch_loss, encode, make_batch, responses_of, within
from trainer.reward.effects import RatingEffects
from trainer.reward.measure import measure
from trainer.reward.model import RewardModel, scaled
from trainer.reward.report import FitReport
from trainer.reward.uncertainty import posterior

# States after the lower layers that are kept between epochs, in bytes; the rest is computed again. About as much as the
# weights of the bundled model: some two thousand answers of a hundred tokens, for which an epoch is a third cheaper.
TRUNK_CACHE = 256 << 20
# An update that holds more tokens than this is computed in parts, so that long answers do not set the peak of memory.
MOST_TOKENS = 2048
# The habits of raters are a few plain numbers: at the rate of the weights they would stay where they start.
EFFECTS_RATE = 0.03
MAX_GRAD_NORM = 1.0


class RewardFit:
    """A fit of a fresh reward model, as a :class:`trainer.learner.Learner` whose steps are updates.

    Args:
        processes: those that work on this together, each on its examples of every batch; by default this one alone.
        kept: what it must not learn from, and is measured on.
        role: what it is fitted for: "reward" or "judge"; its metrics go by that name.

    Raises:
        UsageError: there are more processes than examples in a batch.
    """

    def __init__(
        self,
        backbone: Backbone,
        examples: Examples,
        config: RewardConfig,
        seed: int,
        processes: Processes | None = None,
        kept: Examples | None = None,
        role: str = "reward",
    ) -> None:
        self.role = role
        self.stage = "judge" if role == "judge" else "reward model"
        self.backbone = backbone
        self.config = config
        self.processes = processes or Processes()
        self.model = RewardModel(backbone, msgspec.structs.replace(config, kind=RewardKind.ADAPTER), seed)
        learned, self.kept = examples.every(), kept.every() if kept else []
        self.effects = RatingEffects.of(learned, len(learned)).to(backbone.device)
        self.learned = shuffled_by_prompt(learned, seed)
        updates = in_updates(self.learned, config.batch)
        self.counts = [len(examples) for examples in updates]
        if min(self.counts) < self.processes.count:
            raise UsageError(
                f"{counted(min(self.counts), 'rating')} an update of the reward model "
                f"cannot be shared by {self.processes.count}",
                "choose a larger --reward-batch, or launch fewer processes",
            )
        self.batches = [
            [
                make_batch(backbone, run, self.effects)
                for run in self.processes.cut(self.processes.parts(rows), self._runs)
            ]
            for rows in updates
        ]
        start_pairs(self.effects, [part for parts in self._whole(updates) for part in parts])
        self.step = 0
        self.steps = config.epochs * len(self.batches)
        self.loss = 0.0
        self.parameters = [*self.model.parameters(), *self.effects.parameters()]
        self.rates = (config.learning_rate, config.head_learning_rate, EFFECTS_RATE)
        assert self.model.adapter is not None, "what is fitted in steps has an adapter"
        groups = [{"params": part.parameters()} for part in (self.model.adapter, self.model.head, self.effects)]
        self.optimizer = optim.AdamW(groups, weight_decay=0.0)
        self.trunks: dict[tuple[int, int], Tensor] = {}
        self.room = 0 if self.processes.sharded else TRUNK_CACHE  # what one keeps, all of them would have to

    def advance(self) -> StepReport:
        """One update."""
        place = self.step % len(self.batches)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (1 - self.step / self.steps)
        self.optimizer.zero_grad()
        penalty = self.effects.penalty() / self.processes.count
        penalty.backward()
        loss = float(penalty.detach())
        for number, part in enumerate(self.batches[place]):
            rewards = self.model.raw(self._trunk(place, number), part.layout)
            share = batch_loss(rewards, part, self.effects, self.config.centring)
            share = share / self.counts[place]
            share.backward()
            loss += float(share.detach())
        self.processes.add_gradients(self.parameters)
        loss = self.processes.sum(loss)
        norm = nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.loss = loss
        self.step += 1
        figures: Figures = {
            (f"loss/{self.role}", None): self.loss,
            (f"{self.role}/grad_norm", None): float(norm) if finite else math.nan,
            (f"{self.role}/skipped", None): float(not finite),
        }
        return StepReport(figures, headline={"loss": self.loss})

    def report(self) -> FitReport:
        """How well the fitted model does on the ratings that were kept; gives it its uncertainty as well.

        To be called once, after the last step and before the model is normalised.
        """
        found = self._measured()
        parts = [(place, number) for place, parts in enumerate(self.batches) for number in range(len(parts))]

        def features_of(number: int) -> tuple[Tensor, Tensor]:
            place, part = parts[number]
            features = self.model.last_states(self._trunk(place, part), self.batches[place][part].layout)
            return scaled(features), self.model.head(features)

        flat = [self.batches[place][number] for place, number in parts]
        noise = 1.0 if found.score_noise is None else found.score_noise  # that of standardised scores
        self.model.keep(posterior(flat, features_of, self.effects, noise, self.processes))
        self.trunks.clear()
        return found

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "effects": self.effects}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"optimizer": self.optimizer}

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.loss = state["step"], state["loss"]

    def _runs(self, examples: Sequence[Example]) -> list[list[Example]]:
        """Examples in parts that fit into memory."""
        return list(within(self.backbone, examples, MOST_TOKENS))

    def _whole(self, updates: Sequence[Sequence[Example]]) -> list[list[Batch]]:
        """All updates' examples, those of the other processes among them."""
        if self.processes.count == 1:
            return self.batches
        return [[make_batch(self.backbone, run, self.effects) for run in self._runs(rows)] for rows in updates]

    def _trunk(self, place: int, number: int) -> Tensor:
        """The states after the lower layers, of a part of a batch."""
        found = self.trunks.get((place, number))
        if found is None:
            found = self.backbone.trunk(self.batches[place][number].layout)
            size = found.numel() * found.element_size()
            if size <= self.room:
                self.trunks[place, number] = found
                self.room -= size
        return found

    def _measured(self) -> FitReport:
        answers = list(dict.fromkeys(answer for example in self.kept for answer in responses_of(example)))
        encoded = [encode(self.backbone, answer) for answer in answers]
        asked, said = [asked for asked, _ in encoded], [said for _, said in encoded]
        scores = self.model.score_responses(asked, said, [answer.prompt.language for answer in answers]).tolist()
        tokens = {answer: len(said) for answer, (_, said) in zip(answers, encoded, strict=True)}
        rewards = dict(zip(answers, scores, strict=True))
        return measure(self.learned, self.kept, rewards, tokens, copy.deepcopy(self.effects).cpu(), self.loss)


def in_updates(examples: list[Example], batch: int) -> list[list[Example]]:
    """Examples cut into updates of at most a batch, of sizes that differ by one at most: no last one of a few."""
    count = max(1, math.ceil(len(examples) / batch))
    borders = [len(examples) * place // count for place in range(count + 1)]
    return [examples[begin:end] for begin, end in itertools.pairwise(borders)]


def start_pairs(effects: RatingEffects, batches: Sequence[Batch]) -> None:
    """Fit gamma and the sides to the pairs as if all rewards were 0.

    A reward could hold what goes with length as well as gamma can. As gamma starts with all of it, what is left for
    the reward to learn does not go with length.
    """
    optimizer = optim.LBFGS([effects.side, effects.gamma], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = effects.penalty()
        for batch in batches:
            rewards = total.new_zeros(len(batch.layout.mask))
            total = total + batch_loss(rewards, batch, effects, 0.0) / max(1, effects.examples)
        total.backward()
        return total

    optimizer.step(loss)


def fit(
    backbone: Backbone,
    examples: Examples,
    config: RewardConfig,
    seed: int,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    kept: Examples | None = None,
) -> tuple[RewardModel, FitReport]:
    """Fit a fresh reward model from beginning to end.

    Args:
        on_step: told step, number of steps and the loss after each update; may raise to stop.
        kept: what it must not learn from, and is measured on.
    """
    run = RewardFit(backbone, examples, config, seed, kept=kept)
    while run.step < run.steps:
        run.advance()
        on_step(run.step, run.steps, run.loss)
    return run.model, run.report()


def shuffled_by_prompt(examples: Sequence[Example], seed: int) -> list[Example]:
    """A random order that keeps the examples of a prompt together: a batch computes the prompt's tokens only once."""
    prompts = sorted({example.prompt.id for example in examples})
    random.Random(seed).shuffle(prompts)
    place = {prompt: number for number, prompt in enumerate(prompts)}
    return sorted(examples, key=lambda example: place[example.prompt.id])
