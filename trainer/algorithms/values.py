"""What an answer is worth before each of its tokens: foretold, so that a token is credited with what it changes.

Two ways. :class:`FittedValue` is a regression in closed form on the base model's states, refitted every round on all
rounds so far: it explains from the first round on, and has no rate to choose. :class:`AdaptedValue` has an adapter of
its own, learned by gradient steps; it can explain what the base model's states do not tell.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from trainer.algorithms import maths
from trainer.algorithms.rollouts import Rollout
from trainer.algorithms.rounds import Piece
from trainer.algorithms.updates import adamw, take_step
from trainer.examples import Examples
from trainer.policy.backbone import Backbone, ScalarHead
from trainer.policy.decoding import Completion
from trainer.policy.layout import TokenLayout
from trainer.policy_config import PpoConfig
from trainer.processes import Processes
from trainer.reward.batches import encode, responses_of
from trainer.reward.mixture import model_of
from trainer.reward.model import NUMBERS
from trainer.reward.protocol import Reward

# States are projected at random to so many numbers: what a few hundred answers can tell apart.
PROJECTED = 128
# How strongly weights of states are drawn to zero, in answers, of which the one that foretold best is taken; and how
# strongly the few others are. The last strength is for states that tell nothing.
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e6)
OTHERS_STRENGTH = 1.0
# What earlier rounds count for, a round: the policy, and with it what comes of a beginning, moves on.
MEMORY = 0.9
# The adapter of a value learns this many times slower than its head.
ADAPTER_SHARE = 1 / 30
RATED_PASSES = 4
# Below this explained variance the other answers to a prompt are as good a comparison as a value is.
EXPLAINS = 0.2
LAST_ROUNDS = 10


class Value(Protocol):
    """Foretells what comes of an answer, before each of its tokens."""

    def states(self, trunk: Tensor, hidden: Tensor, layout: TokenLayout) -> Tensor | None:
        """(B, R, size) what it foretells a batch from, where that stays the same during a round.

        Args:
            trunk: (N, hidden) after the lower layers. hidden: (N, hidden) what the reward gave to read a value from.
        """
        ...

    def foretell(self, piece: Piece) -> Tensor:
        """(B, R) the value before each response token, 0 outside the mask."""
        ...

    def update(self, minibatch: list[Piece], processes: Processes) -> dict[str, float]:
        """One step towards the returns of a minibatch; gives its figures."""
        ...

    def absorb(self, pieces: list[Piece], processes: Processes, *, fresh: bool) -> None:
        """Learn from the returns of a whole round, or where it is not `fresh` of some answers that were rated."""
        ...

    def parts(self) -> Mapping[str, nn.Module]:
        """What holds tensors that change, by name."""
        ...

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The optimizers, by name."""
        ...


class FittedValue(nn.Module):
    """Ridge regression of what came after each token on the answer so far.

    The value before token t of an answer to prompt x is linear in

    - 1, and the share p of the longest answer that has been said;
    - the mean return of the other answers to the same prompt, as it is and times p: how much it is trusted (shrunken)
      is learned with the rest;
    - where the reward is a model: what its head makes of the answer so far, as it is and times p;
    - the base model's state there, and the mean of its states so far, both projected at random.

    Sums of squares and products over all rounds are kept, older rounds counting less (`MEMORY`). Each new round is
    foretold at every strength of regularisation before it is learned from, and the strength that foretold best so far
    is used (Dawid 1984: prequential). All tokens of an answer have nearly the same return, so that an answer of average
    length counts as one example, not as many.

    Args:
        longest: tokens of the longest answer.
    """

    gram: Tensor
    moment: Tensor
    errors: Tensor
    centre: Tensor
    size: Tensor

    def __init__(self, backbone: Backbone, reward: Reward, longest: int, seed: int) -> None:
        super().__init__()
        self.__dict__["backbone"], self.__dict__["reward"] = backbone, reward  # shared, so not saved
        self.longest = longest
        width, device = backbone.hidden_size, backbone.device
        self.projected = min(PROJECTED, width)
        draw = torch.randn(width, self.projected, generator=torch.Generator().manual_seed(seed))
        self.__dict__["projection"] = (draw / math.sqrt(width)).to(device)
        self.others = 8
        count = self.others + 2 * self.projected

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.register_buffer("gram", zeros(count, count))
        self.register_buffer("moment", zeros(count))
        self.register_buffer("errors", zeros(len(STRENGTHS)))
        self.register_buffer("centre", zeros(2 * self.projected))
        self.register_buffer("size", zeros())  # 0 until something was seen

    backbone: Backbone
    reward: Reward
    projection: Tensor

    @torch.no_grad()
    def states(self, trunk: Tensor, hidden: Tensor, layout: TokenLayout) -> Tensor | None:
        """(B, R, 1 + 2 projected): what the reward's head makes of the answer so far, state, mean of states so far."""
        model = model_of(self.reward)
        adapted = model is not None and model.adapter is not None
        states = hidden.float() if adapted else self.backbone.plain_states(trunk, layout)
        here = states[layout.predictors]
        so_far = _mean_so_far(here)
        if model is None:
            judged = here.new_zeros(here.shape[:2])
        elif adapted:
            judged = (model.head(here) - model.mean) / model.deviation
        else:  # how long the answer will be, and in which language, is not known yet: for all beginnings the same
            words = _mean_so_far(self.backbone.embeddings(layout)[layout.predictors])
            read = torch.cat([words, so_far, torch.zeros_like(so_far[..., : len(NUMBERS)])], -1)
            judged = (model.head(read) - model.mean) / model.deviation
        return torch.cat([judged[..., None], here @ self.projection, so_far @ self.projection], -1)

    @torch.no_grad()
    def foretell(self, piece: Piece) -> Tensor:
        """(B, R); 0 before anything was learned."""
        if not bool(self.size):
            return torch.zeros(piece.mask.shape, device=piece.mask.device)
        values = self._inputs(piece) @ self._weights(STRENGTHS[int(self.errors.argmin())])
        return piece.layout.spread(values.float())

    def update(self, minibatch: list[Piece], processes: Processes) -> dict[str, float]:
        """Nothing: it learns from whole rounds."""
        return {}

    @torch.no_grad()
    def absorb(self, pieces: list[Piece], processes: Processes, *, fresh: bool) -> None:
        """Note how well each strength foretold the round, then add it to the sums."""
        returns = torch.cat([piece.returns[piece.mask] for piece in pieces]).double()
        if not bool(self.size):
            self._look(pieces, processes)
            inputs = torch.cat([self._inputs(piece) for piece in pieces])
        else:
            inputs = torch.cat([self._inputs(piece) for piece in pieces])
            weights = torch.stack([self._weights(strength) for strength in STRENGTHS], 1)
            missed = (returns[:, None] - inputs @ weights).square().sum(0)
            self.errors.mul_(MEMORY).add_(processes.add(missed) / processes.sum(len(returns)))
        answers = sum(len(piece.rollouts) for piece in pieces)
        each = processes.sum(answers) / processes.sum(len(returns))
        kept = MEMORY if fresh else 1.0
        self.gram.mul_(kept).add_(processes.add(inputs.T @ inputs) * each)
        self.moment.mul_(kept).add_(processes.add(inputs.T @ returns) * each)

    def _look(self, pieces: list[Piece], processes: Processes) -> None:
        """Take centre and size of the states from the first ones seen."""
        seen = torch.cat([piece.states[piece.mask] for piece in pieces if piece.states is not None])[:, 1:].double()
        count = processes.sum(len(seen))
        self.centre.copy_(processes.add(seen.sum(0)) / count)
        self.size.copy_((processes.add((seen - self.centre).square().sum()) / count).sqrt().clamp_min(1e-9))

    def _inputs(self, piece: Piece) -> Tensor:
        """(n, P) of the real tokens, fp64."""
        assert piece.states is not None, "made with the piece"
        states = piece.states[piece.mask].double()
        said = torch.arange(1, piece.mask.shape[1] + 1, device=states.device).double() / self.longest
        part = said.expand(piece.mask.shape)[piece.mask]
        peers = piece.peers if piece.peers is not None else torch.full_like(piece.scores, math.nan)
        around = peers.double()[:, None].expand(piece.mask.shape)[piece.mask]
        known = around.isfinite().double()
        around = around.nan_to_num(0.0)
        judged = states[:, 0]
        few = torch.stack(
            [torch.ones_like(part), part, known, known * part, around, around * part, judged, judged * part], 1
        )
        return torch.cat([few, (states[:, 1:] - self.centre) / self.size], 1)

    def _weights(self, strength: float) -> Tensor:
        """(P,) at one strength of regularisation."""
        drawn = self.gram.new_full((len(self.moment),), strength)
        drawn[: self.others] = OTHERS_STRENGTH
        factor = torch.linalg.cholesky(self.gram + torch.diag(drawn))
        return torch.cholesky_solve(self.moment[:, None], factor)[:, 0]

    def parts(self) -> Mapping[str, nn.Module]:
        """Itself: its sums are what it knows."""
        return {"value": self}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None."""
        return {}


def _mean_so_far(values: Tensor) -> Tensor:
    """(B, R, size) -> the same: at each place the mean of all up to it."""
    return values.cumsum(1) / torch.arange(1, values.shape[1] + 1, device=values.device)[:, None]


class AdaptedValue:
    """An adapter on the upper layers with a head, learned by gradient steps on the squared error.

    It starts from the adapter and head of the reward model where those fit: what tells a good answer tells a promising
    beginning.
    """

    def __init__(self, backbone: Backbone, reward: Reward, config: PpoConfig, seed: int) -> None:
        self.backbone = backbone
        self.config = config
        self.adapter = backbone.new_adapter(config, seed, upper=True)
        self.head = ScalarHead(backbone.hidden_size).to(backbone.device)
        taught = model_of(reward)
        if taught and taught.adapter and taught.adapter.rank == config.rank:
            self.adapter.load(taught.adapter.snapshot())
            with torch.no_grad():
                self.head.weight.copy_(taught.head.weight / taught.deviation)
                self.head.bias.copy_((taught.head.bias - taught.mean) / taught.deviation)
        rate = config.value_learning_rate
        self.optimizer = adamw(
            [
                {"params": [*self.head.parameters()], "lr": rate},
                {"params": [*self.adapter.parameters()], "lr": rate * ADAPTER_SHARE},
            ]
        )

    def states(self, trunk: Tensor, hidden: Tensor, layout: TokenLayout) -> Tensor | None:
        """None: they change with the adapter."""
        return None

    def _values(self, piece: Piece) -> Tensor:
        """(B, R), differentiable."""
        hidden = self.backbone.upper(piece.trunk, piece.layout, self.adapter)
        return self.head(hidden[piece.layout.predictors]) * piece.mask

    @torch.no_grad()
    def foretell(self, piece: Piece) -> Tensor:
        """(B, R)."""
        return self._values(piece)

    def update(self, minibatch: list[Piece], processes: Processes) -> dict[str, float]:
        """One step; the figures are means over the minibatch's tokens."""
        config = self.config
        self.optimizer.zero_grad()
        sums = torch.zeros(2, device=self.backbone.device)
        tokens = processes.sum(sum(piece.tokens for piece in minibatch))
        for piece in minibatch:
            values = self._values(piece)
            loss, clipped = maths.value_loss(values, piece.values, piece.returns, piece.mask, config.value_clip)
            share = piece.tokens / tokens
            (config.value_coefficient * loss * share).backward()
            sums += torch.stack([loss.detach(), clipped]) * share
        take_step(self.optimizer, config.max_grad_norm, processes)
        return dict(zip(("loss/value", "value/clipfrac"), processes.add(sums).tolist(), strict=True))

    def absorb(self, pieces: list[Piece], processes: Processes, *, fresh: bool) -> None:
        """Rated answers are gone through a few times; a round was learned from already, minibatch by minibatch."""
        if fresh:
            return
        for _ in range(RATED_PASSES):
            for piece in pieces:
                self.update([piece], processes)

    def parts(self) -> Mapping[str, nn.Module]:
        """Adapter and head."""
        return {"value_adapter": self.adapter, "value_head": self.head}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Of both."""
        return {"value_optimizer": self.optimizer}


def by_prompt(rated: Sequence[Rollout], size: int, seed: int) -> Iterator[list[Rollout]]:
    """Rated answers in runs of at most `size`, all answers to a prompt in the same run if it holds them, prompts
    shuffled."""
    answers: dict[str, list[Rollout]] = {}
    for rollout in rated:
        answers.setdefault(rollout.prompt.id, []).append(rollout)
    prompts = sorted(answers)
    random.Random(seed).shuffle(prompts)
    run: list[Rollout] = []
    for prompt in prompts:
        for start in range(0, len(answers[prompt]), size):
            part = answers[prompt][start : start + size]
            if len(run) + len(part) > size:
                yield run
                run = []
            run = run + part
    if run:
        yield run


def rated_answers(backbone: Backbone, examples: Examples) -> list[Rollout]:
    """The answers that some ratings are about, as they would have been sampled."""
    found = []
    for response in dict.fromkeys(answer for example in examples.every() for answer in responses_of(example)):
        asked, said = encode(backbone, response)
        ended = said[-1] in backbone.tokenizer.eos_ids
        completion = Completion(said, [], "eos" if ended else "length")
        found.append(Rollout(response.prompt, asked, completion, response.text))
    return found


def verdict(explained: Sequence[float | None]) -> str | None:
    """What to say of a run whose value explained little in its last rounds; None where it explained enough."""
    told = [share for share in explained[-LAST_ROUNDS:] if share is not None]
    mean = sum(told) / len(told) if told else math.nan
    if not told or mean >= EXPLAINS:
        return None
    return (
        f"the value explained {max(mean, 0):.0%} of what came of the answers (under {EXPLAINS:.0%}): "
        "`trainer rloo`, which needs none, would do as well"
    )
