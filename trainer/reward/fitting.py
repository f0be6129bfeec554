"""Fitting the reward model to every kind of rating at once.

Squared error on scores (with an offset and a gain for each rater), logistic loss on labels, Bradley-Terry on pairs
(a tie counts half), and a small penalty that keeps the rewards of pairs centred at 0.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import RewardConfig
from trainer.examples import Examples, Labelled, Pair, Response, Scored, fingerprint
from trainer.policy.backbone import Backbone
from trainer.policy.layout import TokenLayout
from trainer.reward.model import RewardModel

Example = Scored | Labelled | Pair
# A response is read up to this many tokens.
LONGEST_RESPONSE = 512
# Trunk states kept between epochs, in bytes; beyond it they are computed again.
TRUNK_CACHE = 1 << 30
RATER_PRIOR = 2.0  # in ratings: it fades as there are more of them
# The habits of raters are a few plain numbers: at the rate of the weights they would stay where they start.
RATER_RATE = 0.03


class RaterEffects(nn.Module):
    """`score = offset + gain * reward` for each rater, drawn towards offset 0 and gain 1.

    Args:
        examples: how many are learned from; the more, the weaker the draw.
    """

    def __init__(self, raters: Sequence[str], examples: int) -> None:
        super().__init__()
        self.examples = examples
        self.index = {rater: place for place, rater in enumerate(raters)}
        self.offset = nn.Parameter(torch.zeros(len(raters)))
        self.log_gain = nn.Parameter(torch.zeros(len(raters)))

    def forward(self, rewards: Tensor, raters: Tensor) -> Tensor:
        """(n,) rewards and (n,) rater places -> (n,) expected standardised scores."""
        return self.offset[raters] + self.log_gain[raters].exp() * rewards

    def penalty(self) -> Tensor:
        return RATER_PRIOR * (self.offset.square().sum() + self.log_gain.square().sum()) / max(1, self.examples)


@dataclass(frozen=True)
class Batch:
    """A few examples with their distinct responses laid out; index tensors point at rows of the layout."""

    layout: TokenLayout
    scored: tuple[Tensor, Tensor, Tensor]  # row, value, rater
    labelled: tuple[Tensor, Tensor, Tensor]  # row, good, weight
    paired: tuple[Tensor, Tensor, Tensor]  # first row, second row, first wins


@dataclass(frozen=True)
class FitReport:
    """How well the fitted model agrees with ratings it never saw; None where there were too few to say."""

    examples: int
    held_out: int
    train_loss: float
    spearman: float | None
    spearman_n: int
    pair_accuracy: float | None
    pair_n: int
    raters: dict[str, tuple[float, float]]  # offset and gain

    def sentence(self) -> str:
        """The figures in words, each with its sample size."""
        words = f"learned from {self.examples}, held out {self.held_out}"
        if self.spearman is not None:
            words += f", rank correlation {self.spearman:+.2f} (n {self.spearman_n})"
        if self.pair_accuracy is not None:
            words += f", pair accuracy {self.pair_accuracy:.0%} (n {self.pair_n})"
        return words


def fit(
    backbone: Backbone,
    examples: Examples,
    config: RewardConfig,
    seed: int,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> tuple[RewardModel, FitReport]:
    """Fit a fresh reward model.

    Args:
        on_step: told step, number of steps and the loss after each update; may raise to stop.
    """
    torch.manual_seed(seed)
    model = RewardModel(backbone, config, seed)
    everything: list[Example] = [*examples.scores, *examples.labels, *examples.pairs]
    learn, keep = hold_out(everything, config.held_out)
    raters = RaterEffects(sorted({score.rater for score in examples.scores}), len(learn)).to(backbone.device)
    learn = shuffled_by_prompt(learn, seed)
    batches = [
        make_batch(backbone, learn[start : start + config.batch], raters)
        for start in range(0, len(learn), config.batch)
    ]
    trunks: list[Tensor | None] = [None] * len(batches)
    room = TRUNK_CACHE

    parameters = [*model.parameters(), *raters.parameters()]
    groups = [
        {"params": model.parameters(), "lr": config.learning_rate},
        {"params": raters.parameters(), "lr": RATER_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    steps = config.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    order = [(epoch, place) for epoch in range(config.epochs) for place in range(len(batches))]
    loss_value = 0.0
    for step, (_, place) in enumerate(order):
        batch = batches[place]
        trunk = trunks[place]
        if trunk is None:
            trunk = backbone.trunk(batch.layout)
            room -= trunk.numel() * trunk.element_size()
            if room > 0:
                trunks[place] = trunk
        loss = batch_loss(model.raw(trunk, batch.layout), batch, raters, config.centring)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        schedule.step()
        loss_value = float(loss.detach())
        on_step(step + 1, steps, loss_value)
    return model, _report(model, keep, raters, len(learn), loss_value)


def batch_loss(rewards: Tensor, batch: Batch, raters: RaterEffects, centring: float) -> Tensor:
    """The mean loss over the examples of a batch; `rewards` (rows,)."""
    total = rewards.new_zeros(())
    row, value, rater = batch.scored
    if len(row):
        total = total + (raters(rewards[row], rater) - value).square().sum() / 2
    row, good, weight = batch.labelled
    if len(row):
        total = (
            total + (weight * functional.binary_cross_entropy_with_logits(rewards[row], good, reduction="none")).sum()
        )
    first, second, wins = batch.paired
    if len(first):
        margin = rewards[first] - rewards[second]
        total = total + functional.binary_cross_entropy_with_logits(margin, wins, reduction="sum")
        total = total + centring * (rewards[first] + rewards[second]).square().sum()
    count = len(batch.scored[0]) + len(batch.labelled[0]) + len(first)
    return total / max(1, count) + raters.penalty()


def hold_out(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Examples to learn from and to measure with; all of a prompt's examples go the same way."""
    prompts = sorted({_prompt_id(example) for example in examples}, key=fingerprint)
    kept = set(prompts[: int(len(prompts) * share)])
    learn = [example for example in examples if _prompt_id(example) not in kept]
    return learn, [example for example in examples if _prompt_id(example) in kept]


def shuffled_by_prompt(examples: Sequence[Example], seed: int) -> list[Example]:
    """A random order that keeps the examples of a prompt together: a batch computes the prompt's tokens only once."""
    prompts = sorted({_prompt_id(example) for example in examples})
    random.Random(seed).shuffle(prompts)
    place = {prompt: number for number, prompt in enumerate(prompts)}
    return sorted(examples, key=lambda example: place[_prompt_id(example)])


def make_batch(backbone: Backbone, examples: Sequence[Example], raters: RaterEffects) -> Batch:
    """Lay out the distinct responses of some examples."""
    rows: dict[Response, int] = {}

    def row(response: Response) -> int:
        return rows.setdefault(response, len(rows))

    def columns(values: list[tuple[float, float, float]], kinds: tuple[torch.dtype, ...]) -> tuple[Tensor, ...]:
        turned = list(zip(*values, strict=True)) or [(), (), ()]
        pairs = zip(turned, kinds, strict=True)
        return tuple(torch.tensor(column, dtype=kind, device=backbone.device) for column, kind in pairs)

    scored: list[tuple[float, float, float]] = []
    labelled: list[tuple[float, float, float]] = []
    paired: list[tuple[float, float, float]] = []
    for example in examples:
        match example:
            case Scored(response, value, rater):
                scored.append((row(response), value, raters.index[rater]))
            case Labelled(response, good, weight):
                labelled.append((row(response), good, weight))
            case Pair(first, second, wins):
                paired.append((row(first), row(second), wins))
    encoded = [encode(backbone, response) for response in rows]
    layout = backbone.layout([prompt for prompt, _ in encoded], [said for _, said in encoded])
    long, real = torch.long, torch.float32
    return Batch(
        layout,
        columns(scored, (long, real, long)),  # type: ignore[arg-type]
        columns(labelled, (long, real, real)),  # type: ignore[arg-type]
        columns(paired, (long, long, real)),  # type: ignore[arg-type]
    )


def encode(backbone: Backbone, response: Response) -> tuple[list[int], list[int]]:
    """Token ids of prompt and response: the sampled ones where this model's tokenizer made them."""
    prompt = backbone.tokenizer.encode_prompt(response.prompt.text, response.prompt.system)
    if response.token_ids is not None:
        said = list(response.token_ids)
    else:
        said = backbone.tokenizer.encode_response(response.text)
    return prompt, said[:LONGEST_RESPONSE]


def _prompt_id(example: Example) -> str:
    return example.first.prompt.id if isinstance(example, Pair) else example.response.prompt.id


@torch.no_grad()
def _report(model: RewardModel, keep: list[Example], raters: RaterEffects, learned: int, loss: float) -> FitReport:
    def rewards(responses: list[Response]) -> Tensor:
        encoded = [encode(model.backbone, response) for response in responses]
        return model.score_responses([prompt for prompt, _ in encoded], [said for _, said in encoded])

    scores = [example for example in keep if isinstance(example, Scored)]
    pairs = [example for example in keep if isinstance(example, Pair) and example.first_wins != 0.5]
    spearman = accuracy = None
    if len(scores) >= 5:
        spearman = rank_correlation(rewards([score.response for score in scores]).tolist(), [s.value for s in scores])
    if pairs:
        margin = rewards([pair.first for pair in pairs]) - rewards([pair.second for pair in pairs])
        wins = torch.tensor([pair.first_wins for pair in pairs], device=margin.device)
        accuracy = float(((margin > 0) == (wins > 0.5)).float().mean())
    effects = {
        rater: (float(raters.offset[place]), float(raters.log_gain[place].exp()))
        for rater, place in raters.index.items()
    }
    return FitReport(learned, len(keep), loss, spearman, len(scores), accuracy, len(pairs), effects)


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 when either side is constant."""
    if len(set(left)) < 2 or len(set(right)) < 2:
        return 0.0
    return float(stats.spearmanr(left, right).statistic)
