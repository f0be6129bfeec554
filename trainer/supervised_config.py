"""The settings of methods that learn from a fixed set of answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from trainer.bounds import at_least, positive
from trainer.policy_config import PolicyConfig


class SupervisedConfig(PolicyConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all methods that learn from a fixed set of answers have in common."""

    steps: Annotated[int, positive("updates; fewer where the examples would be repeated too often")] = 100
    batch: Annotated[int, positive("answers an update")] = 16
    learning_rate: Annotated[float, positive("peak rate of AdamW, falling linearly to 0")] = 2e-4
    max_grad_norm: Annotated[float, positive("gradients are scaled down to this norm")] = 1.0
    most_repeats: Annotated[int, positive("most times that an answer is learned from")] = 8
    held_out: Annotated[float, Meta(ge=0, lt=1, description="share of the prompts kept to measure the loss")] = 0.1
    language_balance: Annotated[
        float, Meta(ge=0, le=1, description="languages are drawn with p ~ n^this; 1 follows the answers, 0 is even")
    ] = 0.4
    checkpoint_every: Annotated[int, positive("updates between checkpoints")] = 20


class SftConfig(SupervisedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Supervised fine-tuning on demonstrations and edits."""

    minimum: Annotated[int, positive("fewest demonstrations and edits to learn from")] = 8


class Relabelling(StrEnum):
    """How hindsight tells an outcome.

    instruction: the prompt asks for the outcome that the answer then had. chain: a worse answer comes before a better.
    """

    INSTRUCTION = "instruction"
    CHAIN = "chain"


class HindsightConfig(SupervisedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning from all answers by telling the model afterwards what became of them."""

    relabelling: Annotated[Relabelling, Meta(description="instruction or chain")] = Relabelling.INSTRUCTION
    levels: Annotated[int, Meta(ge=2, le=10, description="grades that outcomes are told in")] = 5
    minimum: Annotated[int, positive("fewest rated answers to learn from")] = 20


class IlqlConfig(SupervisedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Q-learning for language models, offline from rated answers (Snell et al. 2022).

    `steps` are of `updates` updates each; `learning_rate` and `most_repeats` are of the imitation that `language_model`
    asks for.
    """

    updates: Annotated[int, positive("updates of the Q and value heads a step")] = 10
    gamma: Annotated[float, Meta(gt=0, le=1, description="discount a token")] = 1.0
    lam: Annotated[
        float, Meta(ge=0, le=1, description="lambda of Q's returns: 0 is the next value, 1 what came of the answer")
    ] = 0.0
    value_lam: Annotated[
        float,
        Meta(ge=0, le=1, description="lambda of the value's returns: 0 is what Q says, 1 what came of the answer"),
    ] = 1.0
    tau: Annotated[float, Meta(gt=0.5, lt=1, description="expectile of the value; nearer 1 is bolder")] = 0.7
    conservative: Annotated[float, at_least(0, "weight of keeping Q of tokens that nobody said near the value")] = 1.0
    language_model: Annotated[
        float,
        at_least(
            0,
            "above 0 the answers are imitated first, at this multiple of the learning rate: for answers that the "
            "model did not give itself",
        ),
    ] = 0.0
    target_rate: Annotated[float, Meta(gt=0, le=1, description="how fast the target Q follows, an update")] = 0.05
    head_rank: Annotated[int, positive("rank of the Q heads")] = 16
    head_learning_rate: Annotated[float, positive("peak rate of the Q and value heads, falling linearly")] = 1e-2
    beta: Annotated[float, at_least(0, "weight of Q in decoding: log pi + beta (Q - V)")] = 4.0
    minimum: Annotated[int, positive("fewest rated answers to learn from")] = 20
