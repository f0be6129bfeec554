"""The reward model in closed form, as a learner: :mod:`trainer.reward.regression`, with a cross-fitted report."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn, optim

from trainer.config import RewardConfig
from trainer.examples import Examples
from trainer.learner import Figures, StepReport
from trainer.policy.backbone import Backbone
from trainer.processes import Processes
from trainer.reward.batches import distinct_responses
from trainer.reward.crossfit import cross_fit
from trainer.reward.effects import RatingEffects
from trainer.reward.measure import measure
from trainer.reward.model import RewardModel
from trainer.reward.regression import Answers, regress
from trainer.reward.report import FitReport
from trainer.reward.uncertainty import Posterior


class LinearFit:
    """A fit in closed form, as a :class:`trainer.learner.Learner` of one step.

    Args:
        kept: what it must not learn from, and is measured on.
        role: what it is fitted for: "reward" or "judge"; its metrics go by that name.
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
        self.learned, self.kept = examples.every(), kept.every() if kept else []
        self.model = RewardModel(backbone, config, seed)
        size = sum(self.model.parts)  # a checkpoint finds a place for the posterior
        self.model.keep(Posterior(self.model.head.weight.new_zeros(size), torch.eye(size + 1, device=backbone.device)))
        self.effects = RatingEffects.of(self.learned, len(self.learned)).to(backbone.device)
        self.step, self.steps = 0, 1
        self.loss = 0.0
        self.noise, self.level = 1.0, 0.0
        self.answers: Answers | None = None

    def advance(self) -> StepReport:
        """The whole fit."""
        found = regress(self._known(), self.learned)
        with torch.no_grad():
            self.model.head.weight.copy_(found.weights)
            self.model.head.bias.copy_(found.bias)
        self.model.keep(found.posterior())
        self.effects.load_state_dict(found.effects.state_dict())
        self.loss, self.noise, self.level = found.solution.loss, found.choice.noise, found.choice.level
        self.step = 1
        figures: Figures = {(f"loss/{self.role}", None): self.loss}
        return StepReport(figures, headline={"loss": self.loss})

    def report(self) -> FitReport:
        """How well ratings foretell each other, for the reward: what was kept and what was learned from, each by models
        that did not see its prompt. For a judge: how well the fitted model does on the ratings that were kept."""
        answers = self._known()
        if self.role != "judge":
            everything = [*self.learned, *self.kept]
            return cross_fit(answers, everything, regress(answers, everything), len(self.learned))
        head = self.model.head
        found = (answers.features.float() @ head.weight.detach().cpu() + head.bias.detach().cpu()).tolist()
        kept = distinct_responses(self.kept)
        rewards = {response: found[answers.rows[response]] for response in kept}
        tokens = {response: answers.tokens[answers.rows[response]] for response in kept}
        return measure(self.learned, self.kept, rewards, tokens, self.effects.cpu(), self.loss)

    def _known(self) -> Answers:
        """All that was rated, read once."""
        if self.answers is None:
            self.answers = Answers.read(self.model, distinct_responses([*self.learned, *self.kept]))
        return self.answers

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "effects": self.effects}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "noise": self.noise, "level": self.level}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.loss, self.noise = state["step"], state["loss"], state["noise"]
        self.level = state["level"]
