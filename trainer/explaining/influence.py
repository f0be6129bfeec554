"""How far each rating moved the reward, in closed form: what the fit would be without it.

A ridge regression without one of its rows is known from the whole one (Cook 1977): with the precision A of all
parameters, the row x, its slope s and its curvature b at the solution, the parameters move by
`-A^-1 x s / (1 - b x' A^-1 x)`. It is exact of scores. Of labels and pairs it is one Newton step, which is exact to
the second order (Pregibon 1981). What the evidence chose (how strongly weights are drawn, how noisy scores are, how
far the levels of prompts spread), the units of the features and of each rater's scores are held as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.examples import Example, Labelled, Pair, Scored
from trainer.reward.batches import responses_of
from trainer.reward.mixed_model import Design, Solution
from trainer.reward.regression import Answers, Regression

AT_ONCE = 256  # ratings whose effect on all answers is held in memory


@dataclass(frozen=True)
class Influence:
    """Of a rating, in units of the reward before normalisation.

    Attributes:
        moved: the standard deviation over all rated answers of what it moved their rewards by: what all move alike by
            says nothing of which answer is better.
        pull: what it added to the reward of its own answer, or to what the first of a pair is ahead by.
    """

    moved: float
    pull: float


def in_order(examples: Sequence[Example]) -> list[Example]:
    """Examples as the rows of a design stand: scores, labels, pairs."""
    return [example for kind in (Scored, Labelled, Pair) for example in examples if isinstance(example, kind)]


def without(design: Design, solution: Solution, groups: Sequence[Sequence[int]]) -> Tensor:
    """(groups, P) how the parameters move when the rows of each group are left out."""
    level, rows = solution.prior.level, design.rows
    share = design.share if level else torch.zeros_like(design.share)
    predicted = rows @ solution.parameters + share * solution.levels[design.prompt]
    chance = torch.sigmoid(predicted)
    noise = solution.prior.noise
    slope = design.weight * torch.where(design.scored, (design.target - predicted) / noise, design.target - chance)
    sharp = torch.full_like(chance, 1 / noise)
    bend = design.weight * torch.where(design.scored, sharp, chance * (1 - chance))
    count = len(solution.levels)
    beside = rows.new_zeros(count, rows.shape[1]).index_add(0, design.prompt, rows * (bend * share)[:, None])
    alone = rows.new_full((count,), 1 / level if level else 1.0).index_add(0, design.prompt, bend * share.square())
    # The levels of prompts are eliminated, as they are in the fit.
    own = rows - share[:, None] * (beside / alone[:, None])[design.prompt]
    solved = torch.cholesky_solve(own.T, solution.factor).T  # (n, P)
    moved = rows.new_empty(len(groups), rows.shape[1])
    for place, group in enumerate(groups):
        some = list(group)
        prompts, shares = design.prompt[some], share[some]
        same = (prompts[:, None] == prompts) * shares[:, None] * shares / alone[prompts]
        leverage = own[some] @ solved[some].T + same
        left = torch.eye(len(some), dtype=rows.dtype) - bend[some][:, None] * leverage
        moved[place] = -torch.linalg.solve(left, slope[some]) @ solved[some]
    return moved


@torch.no_grad()
def influences(answers: Answers, examples: Sequence[Example], found: Regression) -> dict[str, Influence]:
    """The influence of each rating, by its key."""
    ordered, groups = in_order(examples), dict[str, list[int]]()
    for row, example in enumerate(ordered):
        if example.rating is not None:
            groups.setdefault(example.rating, []).append(row)
    told = len(found.turn)
    known = [answers.rows[one] for example in ordered for one in responses_of(example)]
    features = answers.features[sorted(set(known))]
    place_of = {row: place for place, row in enumerate(sorted(set(known)))}
    reach = ((features - found.centre) / found.size * found.variance) @ found.turn.T  # rewards are `reach @ parameters`
    moved = without(found.design, found.solution, list(groups.values()))
    result: dict[str, Influence] = {}
    keys = list(groups)
    for start in range(0, len(keys), AT_ONCE):
        change = -(moved[start : start + AT_ONCE, :told] @ reach.T)  # (some, answers): with the rating, less without
        change -= change.mean(1, keepdim=True)
        for key, row in zip(keys[start : start + AT_ONCE], change, strict=True):
            one = [place_of[answers.rows[answer]] for answer in responses_of(ordered[groups[key][0]])]
            pull = row[one[0]] - row[one[1]] if len(one) == 2 else row[one[0]]
            result[key] = Influence(float(row.square().mean().sqrt()), float(pull))
    return result
