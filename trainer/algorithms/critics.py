"""What a run foretold answers by, kept beside its version: how each token of an answer changed what was expected.

PPO keeps its value, ILQL its value and its Q-function. The other methods compare whole answers, and have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from storage.durable import sync_file
from storage.errors import WorkbenchError
from storage.records import Prompt
from trainer.algorithms.ilql import Ilql
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.q_values import QHeads
from trainer.algorithms.rollouts import Rollout
from trainer.algorithms.rounds import Piece, laid_out
from trainer.algorithms.values import AdaptedValue, FittedValue, Value
from trainer.config import PpoConfig
from trainer.policy.backbone import Backbone, Comparison, ScalarHead
from trainer.policy.decoding import Completion, Decoder
from trainer.policy.llama import LlamaNetwork
from trainer.reward.mixture import model_of
from trainer.reward.model import RewardModel
from trainer.reward.protocol import ConstantReward, Reward

FILE = "value.safetensors"


class Kind(StrEnum):
    """How values are foretold; see :mod:`trainer.algorithms.values` and :mod:`trainer.algorithms.q_values`."""

    FITTED = "fitted"
    ADAPTED = "adapted"
    ILQL = "ilql"


@dataclass(frozen=True)
class Foretold:
    """Of an answer of n tokens, in deviations of the reward that the run learned from.

    Attributes:
        values: what was expected to come of it, before each token.
        advantages: how much better it is expected to come out for each token: of PPO what the expectation rises by, and
            with the last what came above it, so that they sum to the reward less the first value (None of the last
            where the run's reward is not there any more); of ILQL Q - V.
    """

    values: list[float]
    advantages: list[float | None]


@dataclass(frozen=True)
class Critic:
    """The tensors of a value, and the facts that it is read with."""

    kind: Kind
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write it into a version's folder, synced."""
        file = folder / FILE
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, str(file), metadata={"format": "pt", "kind": self.kind, "facts": json.dumps(self.facts)})
        sync_file(file)

    @classmethod
    def read(cls, folder: Path) -> Critic | None:
        """The one beside a version; None where none was kept. Raises WorkbenchError: it cannot be used."""
        file = folder / FILE
        if not file.exists():
            return None
        try:
            with safe_open(str(file), framework="pt") as opened:
                tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
                told = opened.metadata() or {}
                return cls(Kind(told["kind"]), tensors, json.loads(told["facts"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise WorkbenchError(f"the value {file} cannot be used: {error}", "explanations do without it") from error


def of_ppo(run: Ppo) -> Critic | None:
    """The value of a run; None where its answers were compared with each other."""
    value, config = run.value, run.config
    if value is None:
        return None
    tensors = {f"{name}.{key}": tensor for name, part in value.parts().items()
               for key, tensor in part.state_dict().items()}  # fmt: skip
    facts = {"rank": config.rank, "alpha": config.alpha, "longest": config.max_new_tokens, "seed": run.advantages.seed,
             "learned_reward": model_of(run.reward) is not None, "split": run.backbone.split}  # fmt: skip
    return Critic(Kind.ADAPTED if isinstance(value, AdaptedValue) else Kind.FITTED, tensors, facts)


def of_ilql(run: Ilql) -> Critic:
    """The value and the target Q-function of a run."""
    parts = {"value": run.value, "targets": run.targets}
    tensors = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}
    return Critic(Kind.ILQL, tensors, {"rank": run.config.head_rank})


def foretold(
    critic: Critic,
    backbone: Backbone,
    decoder: Decoder | None,
    reward: RewardModel | None,
    prompt: Prompt,
    asked: list[int],
    said: list[int],
) -> Foretold:
    """What a critic makes of an answer.

    Args:
        decoder: of the critic's version; only ILQL reads its states. reward: the model that its run was rewarded by.

    Raises:
        WorkbenchError: the critic cannot be read with these.
    """
    try:
        if critic.kind == Kind.ILQL:
            return _by_q(critic, backbone, decoder, asked, said)
        return _by_value(critic, backbone, reward, prompt, asked, said)
    except RuntimeError as error:  # of another shape than the model's
        raise WorkbenchError(f"the value does not fit the model: {error}", "explanations do without it") from error


@torch.no_grad()
def _by_value(
    critic: Critic, backbone: Backbone, model: RewardModel | None, prompt: Prompt, asked: list[int], said: list[int]
) -> Foretold:
    facts = critic.facts
    if facts["learned_reward"] and model is None:
        raise WorkbenchError("the reward model that its run learned from is not there", "nothing can be done")
    if facts["split"] != backbone.split:
        raise WorkbenchError("its run split the layers elsewhere", "nothing can be done")
    reward: Reward = model if facts["learned_reward"] and model is not None else ConstantReward()
    value: Value
    if critic.kind == Kind.ADAPTED:
        config = PpoConfig(rank=facts["rank"], alpha=facts["alpha"])
        value = AdaptedValue(backbone, reward, config, facts["seed"] + 2)
    else:
        value = FittedValue(backbone, reward, facts["longest"], facts["seed"] + 2)
    for name, part in value.parts().items():
        _load(critic, name, part)
    rollout = Rollout(prompt, asked, Completion(said, [], "eos"), "")
    piece, plain = _piece(backbone, reward, value, rollout)
    values = value.foretell(piece)[piece.mask].tolist()
    rises: list[float | None] = [after - before for before, after in pairwise(values)]
    return Foretold(values, [*rises, plain - values[-1] if facts["learned_reward"] else None])


def _piece(backbone: Backbone, reward: Reward, value: Value, rollout: Rollout) -> tuple[Piece, float]:
    """One answer as a value reads it, with no others to its prompt, and its reward."""
    layout = laid_out(backbone, [rollout])
    trunk = backbone.trunk(layout)
    said, readable = reward.score([rollout], trunk, layout, backbone.upper(trunk, layout, None))
    nothing = torch.zeros(layout.mask.shape, device=layout.mask.device)
    piece = Piece(
        [], [rollout], layout, trunk, trunk, trunk[:0], Comparison(nothing, nothing, nothing, nothing), nothing,
        said.rewards, said, states=value.states(trunk, readable, layout),
    )  # fmt: skip
    return piece, float(said.plain[0])


@torch.no_grad()
def _by_q(
    critic: Critic, backbone: Backbone, decoder: Decoder | None, asked: Sequence[int], said: Sequence[int]
) -> Foretold:
    if decoder is None or not isinstance(decoder.network, LlamaNetwork):
        raise WorkbenchError("ILQL's states are read of models of the llama family alone", "nothing can be done")
    size, network = backbone.hidden_size, decoder.network
    heads = QHeads(size, critic.facts["rank"], torch.Generator()).to(backbone.device)
    value = ScalarHead(size).to(backbone.device)
    _load(critic, "targets", heads)
    _load(critic, "value", value)
    layout = backbone.layout([list(asked)], [list(said)])
    hidden = network.run(network.embed(layout), layout, None)[layout.before]
    own = backbone.network.head.weight[torch.tensor(said, device=backbone.device)]
    values = value(hidden)
    gained = heads(hidden, own[:, None]).mean(0)[:, 0] - values
    return Foretold(values.tolist(), gained.tolist())


def _load(critic: Critic, name: str, part: nn.Module) -> None:
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in critic.tensors.items() if key.startswith(f"{name}.")}
    part.load_state_dict(own)
