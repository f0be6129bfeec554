"""What each token of a round is worth learning from: its advantage, by a value model or by comparing answers.

PPO compares with what a value foretold (generalised advantage estimation); its kin compare an answer with the others of
the round (REINFORCE) or of its prompt (RLOO, GRPO).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainer.algorithms import maths
from trainer.algorithms.rollouts import Rollout
from trainer.algorithms.rounds import Piece
from trainer.algorithms.sampler_gap import importance
from trainer.algorithms.values import AdaptedValue, FittedValue, Value, by_prompt
from trainer.policy.backbone import Backbone
from trainer.policy_config import Advantage, PpoConfig
from trainer.processes import Processes, concatenate
from trainer.reward.function import RewardFunctionError
from trainer.reward.protocol import Reward


class Advantages:
    """The advantages of a run's rounds, and the value that they are told by.

    Attributes:
        value: what foretells the value of tokens; None where answers are compared with each other.
        explained: the share of the variance of what came that the value foretold, of each round so far; None where
            it could not be told.
    """

    def __init__(self, backbone: Backbone, reward: Reward, config: PpoConfig, seed: int, processes: Processes) -> None:
        self.backbone = backbone
        self.reward = reward
        self.config = config
        self.seed = seed
        self.processes = processes
        self.value = self._new_value()
        self.explained: list[float | None] = []

    def _new_value(self) -> Value | None:
        if self.config.advantage != Advantage.GAE:
            return None
        if self.config.value_adapter:
            return AdaptedValue(self.backbone, self.reward, self.config, self.seed + 2)
        return FittedValue(self.backbone, self.reward, self.config.max_new_tokens, self.seed + 2)

    def learn_from_rated(self, rated: Sequence[Rollout], unsampled: Callable[[Sequence[Rollout]], Piece]) -> None:
        """Fit the value to the rewards of rated answers, a round's worth at a time, before the first round.

        Args:
            unsampled: makes a piece of answers that no policy of this run sampled.
        """
        if self.value is None:
            return
        try:
            self._learn_from_rated(self.value, rated, unsampled)
        except RewardFunctionError:  # what goes on from here learns from all of them, none twice
            self.value = self._new_value()
            raise

    def estimate(self, pieces: list[Piece], beta: float) -> None:
        """Set every token's advantage, and for PPO its value and return; `beta`: the KL coefficient."""
        if self.value:
            self._from_values(pieces, self.value, beta)
        else:
            self._from_returns(pieces, beta)
        for piece in pieces:
            piece.advantages = piece.advantages * importance(piece.old, piece.sampler, self.config.importance_cap)

    def _learn_from_rated(
        self, value: Value, rated: Sequence[Rollout], unsampled: Callable[[Sequence[Rollout]], Piece]
    ) -> None:
        for run in by_prompt(rated, self.config.batch, self.seed):
            if len(run) < self.processes.count:
                continue
            piece = unsampled(self.processes.part(run))
            scores = concatenate(self.processes, piece.scores)
            if not bool(torch.isfinite(scores).all()):
                continue
            others = maths.mean_of_others(scores, [rollout.prompt.id for rollout in run])
            piece.peers = others[torch.tensor(self.processes.part([*range(len(run))]))]
            piece.returns = piece.scores[:, None] * piece.mask
            piece.values = value.foretell(piece)
            value.absorb([piece], self.processes, fresh=False)

    def _from_values(self, pieces: list[Piece], value: Value, beta: float) -> None:
        """Advantages by GAE, whitened once over all response tokens of the round.

        The value foretells the round before it learns from it: what it explains is what it had not seen. One that
        explains less than nothing would add noise: the other answers to the prompt stand in for it in that round.
        """
        config = self.config
        peers = maths.mean_of_others(
            self._returns(pieces, beta), [row // config.answers for row in range(config.batch)]
        )
        for piece in pieces:
            piece.peers = peers[piece.rows]
            piece.values = value.foretell(piece)
        rewards = [maths.token_rewards(one.scores, one.seen.divergence, one.mask, beta) for one in pieces]
        explained = self._explained(pieces, rewards)
        for piece, given in zip(pieces, rewards, strict=True):
            if explained < 0:
                piece.values = peers[piece.rows].nan_to_num(0.0)[:, None] * piece.mask
            advantages, _ = maths.gae(given, piece.values, piece.mask, config.gamma, config.lam)
            k1 = maths.k1(piece.old, piece.reference)
            piece.advantages = maths.own_charge(advantages, k1, piece.seen.divergence, piece.mask, beta)
            _, piece.returns = maths.gae(given, piece.values, piece.mask, config.gamma, config.value_lam)
        mine = torch.cat([piece.advantages[piece.mask] for piece in pieces])
        everything = concatenate(self.processes, mine)
        white = maths.whiten_like(mine, everything)
        for piece, part in zip(pieces, white.split([piece.tokens for piece in pieces]), strict=True):
            piece.advantages = piece.layout.spread(part)
        if bool(torch.isfinite(everything).all()):
            value.absorb(pieces, self.processes, fresh=True)
        self.explained.append(explained if math.isfinite(explained) else None)

    def _explained(self, pieces: list[Piece], rewards: list[Tensor]) -> float:
        """The share of the variance of what really came after each token that the values foretold."""
        came = [
            maths.gae(given, piece.values, piece.mask, self.config.gamma, 1.0)[1][piece.mask]
            for piece, given in zip(pieces, rewards, strict=True)
        ]
        target = concatenate(self.processes, torch.cat(came))
        foretold = concatenate(self.processes, torch.cat([piece.values[piece.mask] for piece in pieces]))
        return float(maths.explained_variance(foretold, target, torch.ones_like(target, dtype=torch.bool)))

    def _from_returns(self, pieces: list[Piece], beta: float) -> None:
        """One advantage a response: its score less the KL penalty, against the round or against its prompt's others."""
        answers, returns = self.config.answers, self._returns(pieces, beta)
        match self.config.advantage:
            case Advantage.REINFORCE:
                advantages = maths.leave_one_out(returns[None])[0]
            case Advantage.RLOO:
                advantages = maths.leave_one_out(returns.view(-1, answers)).flatten()
            case _:
                advantages = maths.group_normalised(returns.view(-1, answers)).flatten()
        for piece in pieces:
            piece.advantages = advantages[torch.tensor(piece.rows)][:, None] * piece.mask

    def _returns(self, pieces: list[Piece], beta: float) -> Tensor:
        """(batch,) what each answer of the round came to, of all processes: its score less the KL charge (k1)."""
        mine = torch.cat([piece.scores - beta * piece.k1() for piece in pieces])
        returns = torch.empty(self.config.batch, dtype=mine.dtype, device=mine.device)
        returns[torch.tensor(self.processes.gather([row for piece in pieces for row in piece.rows]))] = concatenate(
            self.processes, mine
        )
        return returns
