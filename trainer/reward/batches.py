"""Ratings as tensors: the distinct answers of a few examples laid out, and what was said about each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.examples import Example, Labelled, Pair, Response, Scored
from trainer.policy.backbone import Backbone
from trainer.policy.layout import TokenLayout
from trainer.reward.effects import RatingEffects, weight_of

# A response is read up to this many tokens.
LONGEST_RESPONSE = 512


@dataclass(frozen=True)
class ScoredRows:
    """(n,) tensors: row of the layout, standardised score, habit, weight."""

    row: Tensor
    value: Tensor
    habit: Tensor
    weight: Tensor


@dataclass(frozen=True)
class LabelledRows:
    """(n,) tensors: row of the layout, 1 for good and 0 for bad, habit, weight."""

    row: Tensor
    good: Tensor
    habit: Tensor
    weight: Tensor


@dataclass(frozen=True)
class PairedRows:
    """(n,) tensors: two rows of the layout, 1, 0 or 0.5 as the first wins, habit, weight, side, log length ratio."""

    first: Tensor
    second: Tensor
    wins: Tensor
    habit: Tensor
    weight: Tensor
    side: Tensor
    length: Tensor


@dataclass(frozen=True)
class RatedRows:
    """Ratings of responses that have rows somewhere: in a layout, or in a table of features."""

    scored: ScoredRows
    labelled: LabelledRows
    paired: PairedRows

    @property
    def count(self) -> int:
        """How many examples there are."""
        return len(self.scored.row) + len(self.labelled.row) + len(self.paired.first)


@dataclass(frozen=True)
class Batch(RatedRows):
    """A few examples with their distinct responses laid out."""

    layout: TokenLayout


def make_batch(backbone: Backbone, examples: Sequence[Example], effects: RatingEffects) -> Batch:
    """Lay out the distinct responses of some examples."""
    encoded = {response: encode(backbone, response) for response in distinct_responses(examples)}
    lengths = [len(said) for _, said in encoded.values()]
    found = rated_rows(examples, {response: row for row, response in enumerate(encoded)}, lengths, effects)
    layout = backbone.layout([prompt for prompt, _ in encoded.values()], [said for _, said in encoded.values()])
    return Batch(found.scored, found.labelled, found.paired, layout)


def rated_rows(
    examples: Sequence[Example], rows: Mapping[Response, int], lengths: Sequence[int], effects: RatingEffects
) -> RatedRows:
    """The ratings as tensors on the device of the effects.

    Args:
        rows: where each response stands. lengths: tokens of the response of each row.
    """
    device = effects.overall.device

    def whole(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    def real(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    def longer(pair: Pair) -> float:
        return math.log(lengths[rows[pair.first]] / lengths[rows[pair.second]])

    scores = [example for example in examples if isinstance(example, Scored)]
    labels = [example for example in examples if isinstance(example, Labelled)]
    pairs = [example for example in examples if isinstance(example, Pair)]
    return RatedRows(
        ScoredRows(
            whole([rows[score.response] for score in scores]),
            real([score.value for score in scores]),
            whole([effects.place(score.habit) for score in scores]),
            real([score.weight * weight_of(score.habit) for score in scores]),
        ),
        LabelledRows(
            whole([rows[label.response] for label in labels]),
            real([float(label.good) for label in labels]),
            whole([effects.place(label.habit) for label in labels]),
            real([label.weight * weight_of(label.habit) for label in labels]),
        ),
        PairedRows(
            whole([rows[pair.first] for pair in pairs]),
            whole([rows[pair.second] for pair in pairs]),
            real([pair.first_wins for pair in pairs]),
            whole([effects.place(pair.habit) for pair in pairs]),
            real([pair.weight * weight_of(pair.habit) for pair in pairs]),
            real([side_of(pair) for pair in pairs]),
            real([longer(pair) for pair in pairs]),
        ),
    )


def batch_loss(rewards: Tensor, batch: RatedRows, effects: RatingEffects, centring: float) -> Tensor:
    """The loss summed over the examples of a batch, from the rewards (rows,) of its responses.

    Half the squared error of scores, the logistic loss of labels, Bradley-Terry (1952) for pairs, of which a tie counts
    half, and `centring * (r_1 + r_2)^2`, which keeps the rewards of pairs around 0.
    """
    scored, labelled, paired = batch.scored, batch.labelled, batch.paired
    error = effects.score(rewards[scored.row], scored.habit) - scored.value
    logit = effects.label(rewards[labelled.row], labelled.habit)
    first, second = rewards[paired.first], rewards[paired.second]
    preference = effects.pair(first - second, paired.habit, paired.side, paired.length)
    return (
        (scored.weight * error.square()).sum() / 2
        + functional.binary_cross_entropy_with_logits(logit, labelled.good, labelled.weight, reduction="sum")
        + functional.binary_cross_entropy_with_logits(preference, paired.wins, paired.weight, reduction="sum")
        + centring * (first + second).square().sum()
    )


def within(backbone: Backbone, examples: Sequence[Example], most_tokens: int) -> Iterator[list[Example]]:
    """Runs of examples that hold at most so many tokens of padded prompts and responses (one example may hold more)."""
    run: list[Example] = []
    seen: set[Response] = set()
    longest = 0
    for example in examples:
        new = set(responses_of(example)) - seen
        reach = max([longest, *(sum(map(len, encode(backbone, response))) for response in new)])
        if run and reach * len(seen | new) > most_tokens:
            yield run
            run, seen = [], set()
            new = set(responses_of(example))
            reach = max(sum(map(len, encode(backbone, response))) for response in new)
        run.append(example)
        seen |= new
        longest = reach
    if run:
        yield run


def encode(backbone: Backbone, response: Response) -> tuple[list[int], list[int]]:
    """Token ids of prompt and response: the sampled ones where this model's tokenizer made them."""
    prompt = backbone.tokenizer.encode_messages(response.prompt.messages)
    if response.token_ids is not None:
        said = list(response.token_ids)
    else:
        said = backbone.tokenizer.encode_response(response.text)
    return prompt, said[:LONGEST_RESPONSE]


def distinct_responses(examples: Iterable[Example]) -> list[Response]:
    """The answers that some examples are about, in the order in which they first appear."""
    return list(dict.fromkeys(response for example in examples for response in responses_of(example)))


def responses_of(example: Example) -> tuple[Response, ...]:
    """The answers that an example is about."""
    return example.responses


def side_of(pair: Pair) -> float:
    """1 where the first stood left, -1 where it stood right, 0 where that is not known."""
    return 0.0 if pair.first_left is None else 1.0 if pair.first_left else -1.0
