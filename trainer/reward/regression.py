"""A reward in closed form: Bayesian regression on what the base model already knows of an answer.

The features are what :mod:`trainer.reward.model` reads: the mean of the answer's token embeddings (which words), the
mean of its states two thirds up the base model (what they say), each normalised, the logarithm of its length, and how
much it is in its prompt's language, which the others, being of the answer alone, cannot say. With a hundred ratings
nothing deeper can be learned of a taste than a direction among them, and that can be learned exactly: the weights of
all ratings at once, scores by least squares, labels and pairs by their logistic loss, and beside them what else moves a
rating (:mod:`trainer.reward.effects`: offset, leniency, side, length).

Answers to some prompts are rated lower than those to others. A policy cannot choose its prompts, so that this says
nothing of what it should answer: each prompt has a level of its own, a random effect that is no part of the reward
(a mixed model; Henderson 1975). What is left to learn from are differences between answers to a prompt, and as much of
those between prompts as the spread of the levels leaves to believe.

How strongly the weights of each part of the features are drawn to zero, how noisy scores are and how far levels spread
is what makes the ratings likeliest (the evidence; MacKay 1992): where ratings say nothing, all rewards come out alike.
The posterior comes with it, without any feature having been fitted to the ratings first, so that its uncertainty can be
taken at its word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.examples import OVERALL, Example, Habit, Response
from trainer.reward.batches import RatedRows, distinct_responses, encode, rated_rows
from trainer.reward.effects import ATTRIBUTE_GAIN, RatingEffects
from trainer.reward.mixed_model import Design, Prior, Solution, solve
from trainer.reward.model import RewardModel, scaled
from trainer.reward.uncertainty import Posterior

# Of these the likeliest are taken: the variance of rewards of rated answers that each part of the features brings
# before any rating, that of a score around what is predicted, and that of the levels of prompts.
SPREADS = (0.002, 0.01, 0.04, 0.1, 0.25, 0.6, 1.5, 4.0)
NOISES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
LEVELS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
MOST_SWEEPS = 4
# Prior deviations of what else moves a rating.
EFFECT_DEVIATION = 0.5
BIAS_DEVIATION = 1.0
ROUNDING = 1e-9  # of variances of rewards, so that answers that are alike have a Cholesky factor
# A part of the features that hardly varies among the rated answers is not blown up further than this, relative to its
# size: of lengths that are all alike nobody can tell what another length would be worth.
LEAST_VARIATION = 0.02
LEAST_OF_NUMBER = 0.1  # the same of a part that is a single number, in its own units: its size says nothing


@dataclass(frozen=True)
class Answers:
    """Answers as the head reads them.

    Attributes:
        rows: where each stands. tokens: how many it has.
        features: (n, K), those of :func:`trainer.reward.model.scaled`, fp64, on the CPU: what follows is many small
            steps, which take a GPU far longer.
        parts: how many of the K features each part has; a part has a prior of its own.
    """

    rows: dict[Response, int]
    tokens: list[int]
    features: Tensor
    parts: tuple[int, ...]

    @classmethod
    def read(cls, model: RewardModel, responses: Sequence[Response]) -> Answers:
        """What a model reads of some answers."""
        encoded = [encode(model.backbone, response) for response in responses]
        languages = [response.prompt.language for response in responses]
        features = model.features_of_ids([asked for asked, _ in encoded], [said for _, said in encoded], languages)
        rows = {response: row for row, response in enumerate(responses)}
        return cls(rows, [len(said) for _, said in encoded], scaled(features).double().cpu(), model.parts)


@dataclass(frozen=True)
class Choice:
    """What the evidence chooses: the variance of rewards that each part of the features brings before any rating, that
    of a score around what is predicted, and that of the levels of prompts."""

    spreads: tuple[float, ...]
    noise: float
    level: float


@dataclass(frozen=True)
class Regression:
    """A reward that is linear in K features, as some ratings tell it.

    Attributes:
        weights: (K,). bias: (), of features as they are.
        centre, size: (K,) of the features that were learned from.
        variance: (K,) of the weights before any rating, of centred features of size 1; `turn` (m, K) leads from these
            to the coordinates of the solution.
        effects: the raters' habits and gamma.
        design: what was solved: scores, then labels, then pairs, each in their order.
    """

    weights: Tensor
    bias: Tensor
    centre: Tensor
    size: Tensor
    variance: Tensor
    turn: Tensor
    solution: Solution
    choice: Choice
    effects: RatingEffects
    design: Design

    def rewards(self, features: Tensor) -> Tensor:
        """(n, K) -> (n,)."""
        return features @ self.weights + self.bias

    def posterior(self) -> Posterior:
        """What is known of weights and bias: their precision is the prior's, and what ratings add along the
        coordinates."""
        found, turn, (told, count) = self.solution, self.turn, self.turn.shape
        covariance = torch.cholesky_inverse(found.factor)[: told + 1, : told + 1]
        added = torch.linalg.inv(covariance) - torch.diag(found.prior.parameters[: told + 1])
        wide = turn.new_zeros(told + 1, count + 1)
        wide[:told, :count], wide[told, count] = turn, 1.0
        precision = wide.T @ added @ wide
        precision.diagonal().add_(torch.cat([1 / self.variance, found.prior.parameters[told : told + 1]]))
        stretch = torch.cat([self.size, torch.ones_like(self.size[:1])])
        factor = torch.linalg.cholesky(_symmetric(stretch[:, None] * precision * stretch))
        return Posterior(self.centre.float(), factor.float().contiguous())


@torch.no_grad()
def regress(answers: Answers, examples: Sequence[Example], choice: Choice | None = None) -> Regression:
    """The reward that some ratings tell, of answers that are known.

    Args:
        choice: taken as it is; by default what makes these ratings likeliest.
    """
    responses = distinct_responses(examples)
    places = [answers.rows[response] for response in responses]
    effects = RatingEffects.of(examples, len(examples)).to(answers.features.device)
    tokens = [answers.tokens[place] for place in places]
    ratings = rated_rows(examples, {response: row for row, response in enumerate(responses)}, tokens, effects)
    prompts: dict[str, int] = {}
    asked = [prompts.setdefault(response.prompt.id, len(prompts)) for response in responses]
    x = answers.features[places]
    centre = x.mean(0)
    unit = x.shape[1] ** -0.5  # what `scaled` makes of 1
    sizes = torch.stack([_size(own, less, unit) for own, less in _parts(x, centre, answers.parts)])
    size = sizes.repeat_interleave(torch.tensor(answers.parts, device=x.device))
    space = Coordinates((x - centre) / size, answers.parts)
    evidence = Evidence(space, ratings, torch.tensor(asked, device=x.device), effects)
    choice = choice or evidence.likeliest()
    found, design = evidence.solution(choice), evidence.design(choice.spreads)
    turn, variance = space.turn(choice.spreads), space.variance(choice.spreads)
    told = len(turn)
    weights, bias = variance * (found.parameters[:told] @ turn) / size, found.parameters[told]
    offset, leniency, side = found.parameters[told + 1 : -1].float().view(3, -1)
    effects.offset.copy_(offset)
    effects.leniency.copy_(leniency)
    effects.side.copy_(side)
    effects.gamma.copy_(found.parameters[-1])
    return Regression(weights, bias - centre @ weights, centre, size, variance, turn, found, choice, effects, design)


class Coordinates:
    """Coordinates of answers in which weights have a prior of unit variance, as few as tell all.

    With fewer answers than features only the rewards of the answers matter: their coordinates are then the Cholesky
    factor of the covariance of these rewards before any rating.

    Args:
        x: (n, K) features. parts: how many of them each part has.
    """

    def __init__(self, x: Tensor, parts: tuple[int, ...]) -> None:
        self.x, self.parts = x, parts
        self.few = len(x) <= x.shape[1]
        self._products = [own @ own.T for own in x.split(parts, 1)] if self.few else []

    def variance(self, spreads: Sequence[float]) -> Tensor:
        """(K,) of each weight, from the spread of each part."""
        return self.x.new_tensor(spreads).repeat_interleave(torch.tensor(self.parts, device=self.x.device))

    def rows(self, spreads: Sequence[float]) -> Tensor:
        """(n, m) coordinates."""
        if not self.few:
            return self.x * self.variance(spreads).sqrt()
        covariance = ROUNDING * torch.eye(len(self.x), dtype=self.x.dtype, device=self.x.device)
        for spread, product in zip(spreads, self._products, strict=True):
            covariance = covariance + spread * product
        return torch.linalg.cholesky(covariance)

    def turn(self, spreads: Sequence[float]) -> Tensor:
        """(m, K) the way there: `x = rows @ turn`, and weights w of features are `turn @ w` in them."""
        if not self.few:
            return torch.diag(self.variance(spreads).rsqrt())
        return torch.linalg.solve_triangular(self.rows(spreads), self.x, upper=False)


class Evidence:
    """How likely ratings are under each choice.

    Args:
        space: of n answers, whose features are centred and each part of size 1. asked: (n,) numbers of their prompts.
    """

    def __init__(self, space: Coordinates, ratings: RatedRows, asked: Tensor, effects: RatingEffects) -> None:
        self.space, self.ratings, self.asked, self.effects = space, ratings, asked, effects
        self._designs: dict[tuple[float, ...], Design] = {}
        self._solutions: dict[Choice, Solution] = {}

    def design(self, spreads: tuple[float, ...]) -> Design:
        """The linear predictors of the ratings, in these coordinates."""
        if spreads not in self._designs:
            self._designs[spreads] = design_of(self.space.rows(spreads), self.ratings, self.asked, self.effects)
        return self._designs[spreads]

    def solution(self, choice: Choice) -> Solution:
        """The solution, in these coordinates."""
        if choice not in self._solutions:
            design = self.design(choice.spreads)
            own, others = design.rows.new_ones(design.rows.shape[1]), 3 * len(self.effects.index) + 1
            own[-others:] = EFFECT_DEVIATION**-2
            own[-others - 1] = BIAS_DEVIATION**-2
            self._solutions[choice] = solve(design, Prior(own, choice.noise, choice.level))
        return self._solutions[choice]

    def likeliest(self) -> Choice:
        """The best spread of each part, noise and level, one after the other until none changes.

        Along each of them one climbs from where one stands, up or down, while the evidence rises: it has one top in a
        variance but for odd data, and all values would take thrice as long.
        """
        scores = len(self.ratings.scored.row) > 0
        values = [*([SPREADS] * len(self.space.parts)), NOISES if scores else NOISES[-1:], LEVELS]

        def at(places: list[int]) -> Choice:
            return self._choice(tuple(options[place] for options, place in zip(values, places, strict=True)))

        best = [len(options) // 2 for options in values]
        for _ in range(MOST_SWEEPS):
            before = list(best)
            for which, options in enumerate(values):
                for way in (1, -1):
                    start = best[which]
                    while 0 <= best[which] + way < len(options):
                        step = [*best[:which], best[which] + way, *best[which + 1 :]]
                        if self.solution(at(step)).evidence <= self.solution(at(best)).evidence:
                            break
                        best = step
                    if best[which] != start:
                        break
            if best == before:
                break
        return at(best)

    def _choice(self, numbers: tuple[float, ...]) -> Choice:
        return Choice(numbers[:-2], *numbers[-2:])


def _parts(x: Tensor, centre: Tensor, parts: tuple[int, ...]) -> zip[tuple[Tensor, Tensor]]:
    return zip(x.split(parts, 1), (x - centre).split(parts, 1), strict=True)


def _size(own: Tensor, centred: Tensor, unit: float) -> Tensor:
    """() how large a part of the features (n, k) is, about its mean; `unit` is what a number of 1 is in them."""
    size, least = (rows.square().sum(1).mean().sqrt() for rows in (centred, LEAST_VARIATION * own))
    if own.shape[1] == 1:
        least = torch.full_like(size, LEAST_OF_NUMBER * unit)
    return torch.maximum(size, least).clamp_min(1e-9)


def _symmetric(matrix: Tensor) -> Tensor:
    """Without what rounding has left of a difference between both halves."""
    return (matrix + matrix.T) / 2


def design_of(x: Tensor, ratings: RatedRows, asked: Tensor, effects: RatingEffects) -> Design:
    """The linear predictor of every rating: coordinates (n, m) of answers, bias, then offset, leniency and side of each
    habit, and gamma; and beside these the level of the prompt, which is in what is rated as the reward is."""
    habits: list[Habit] = sorted(effects.index, key=effects.index.__getitem__)
    gains = x.new_tensor([1.0, *(1.0 if habit.attribute == OVERALL else ATTRIBUTE_GAIN for habit in habits)])
    count, places = x.shape[1], len(habits)
    one, other, pair = ratings.scored, ratings.labelled, ratings.paired

    def block(answers: Tensor, habit: Tensor, bias: float, column: int, value: Tensor) -> Tensor:
        """Rows of one kind; `column` is where the habits' own parameters of that kind stand."""
        made = answers.new_zeros(len(answers), count + 1 + 3 * places + 1)
        gain = gains[habit]
        made[:, :count] = gain[:, None] * answers
        made[:, count] = gain * bias
        known = habit > 0
        made[known, count + column * places + habit[known]] = value.to(answers)[known]
        return made

    compared = block(x[pair.first] - x[pair.second], pair.habit, 0.0, 2, pair.side)
    compared[:, -1] = pair.length
    ones = torch.ones_like
    rows = [block(x[one.row], one.habit, 1.0, 0, ones(one.value))]
    rows += [block(x[other.row], other.habit, 1.0, 1, ones(other.good)), compared]
    sizes = [len(kind) for kind in rows]
    return Design(
        rows=torch.cat(rows),
        target=torch.cat([one.value, other.good, pair.wins]).double(),
        weight=torch.cat([one.weight, other.weight, pair.weight]).double(),
        scored=torch.arange(sum(sizes), device=x.device) < sizes[0],
        prompt=torch.cat([asked[one.row], asked[other.row], asked[pair.first]]),
        share=torch.cat([gains[one.habit], gains[other.habit], torch.zeros_like(pair.wins, dtype=x.dtype)]),
    )
