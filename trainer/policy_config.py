"""The settings of a policy that is learned: its adapters, and policy optimisation."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from trainer.bounds import at_least, positive


class AdapterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The low-rank adapters."""

    rank: Annotated[int, positive("rank of the adapters")] = 16
    alpha: Annotated[float, positive("updates are scaled by alpha / rank")] = 32.0


class Tuning(StrEnum):
    """What of the model is learned.

    lora: low-rank updates of its linear layers. full: all weights of its decoder layers.
    """

    LORA = "lora"
    FULL = "full"


class PolicyConfig(AdapterConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all methods that learn a policy have in common."""

    tuning: Annotated[
        Tuning, Meta(description="lora, or full (all weights of the layers; wants a tenth of the learning rate)")
    ] = Tuning.LORA
    policy_share: Annotated[
        float, Meta(gt=0, le=1, description="share of the layers, from the top, that the policy's adapter changes")
    ] = 1.0

    def __post_init__(self) -> None:
        if self.tuning == Tuning.FULL and self.policy_share < 1:
            raise ValueError("policy_share is for adapters: full tuning learns all layers")


class Advantage(StrEnum):
    """How good an answer was, compared with what.

    gae: a learned value of every token (PPO). reinforce: the other answers of the round. rloo: the other answers to
    the same prompt. grpo: as rloo, divided by their spread.
    """

    GAE = "gae"
    REINFORCE = "reinforce"
    RLOO = "rloo"
    GRPO = "grpo"


class Reference(StrEnum):
    """What a policy is held near.

    base: the base model. start: what the run goes on from, which is the parent version, or what a run has just learned
    from demonstrations. parent: the version that was served when the run began.
    """

    BASE = "base"
    START = "start"
    PARENT = "parent"


class PpoConfig(PolicyConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Policy optimisation: PPO, or with another `advantage` its kin without a value model."""

    advantage: Annotated[Advantage, Meta(description="gae (PPO), reinforce, rloo or grpo")] = Advantage.GAE
    steps: Annotated[int, positive("rounds of rollouts and updates")] = 40
    batch: Annotated[int, positive("responses a round")] = 16
    answers: Annotated[int, positive("responses to each prompt of a round; divides the batch")] = 4
    minibatch: Annotated[int, positive("responses an update; divides the batch")] = 8
    accumulation: Annotated[
        int, positive("parts that a minibatch is cut into: less memory, the same gradient; divides the minibatch")
    ] = 1
    epochs: Annotated[int, positive("passes over a round")] = 2
    learning_rate: Annotated[float, positive("of the policy; adapts to `kl_rounds`")] = 3e-4
    final_rate: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of the learning rate at the end; it falls linearly after `kl_rounds`; 1 keeps it",
        ),
    ] = 0.3
    value_adapter: Annotated[
        bool, Meta(description="an adapter of its own for the value, else a regression on the base model's states")
    ] = False
    value_learning_rate: Annotated[
        float, positive("of the head on a value adapter; the adapter itself has a thirtieth of it")
    ] = 1e-2
    warmup: Annotated[int, at_least(0, "first rounds in which only the value learns")] = 0
    max_new_tokens: Annotated[
        int, at_least(0, "longest response, at the gate as well; 0 is as long as the rated answers are")
    ] = 0
    temperature: Annotated[float, positive("of sampling, in rollouts and in the update alike")] = 1.0
    gamma: Annotated[float, Meta(gt=0, le=1, description="discount a token")] = 1.0
    lam: Annotated[float, Meta(ge=0, le=1, description="lambda of the policy's advantages")] = 0.95
    value_lam: Annotated[
        float, Meta(ge=0, le=1, description="lambda of the returns that the value learns; 1 is what really came")
    ] = 1.0
    clip: Annotated[float, positive("of the probability ratio")] = 0.2
    value_clip: Annotated[float, at_least(0, "of the change of a value adapter's values; 0 is none")] = 0.0
    value_coefficient: Annotated[float, positive("weight of the value loss of a value adapter")] = 0.1
    max_grad_norm: Annotated[float, positive("gradients are scaled down to this norm")] = 1.0
    beta: Annotated[float, at_least(0, "first KL coefficient")] = 0.1
    reference: Annotated[
        Reference, Meta(description="what the KL is charged against: base, start (of the run) or parent (version)")
    ] = Reference.START
    kl_target: Annotated[float, positive("nats per response; 0 < target")] = 6.0
    kl_target_per_token: Annotated[
        float, at_least(0, "nats per token instead: the target is it times a round's mean length; 0 is unused")
    ] = 0.0
    kl_rounds: Annotated[
        float,
        at_least(
            0,
            "rounds in which the policy should reach the KL target: the leash is let out and the learning rate "
            "adapted for that; 0 lets it out at once and leaves the rate alone",
        ),
    ] = 10.0
    kl_horizon_batches: Annotated[
        float, positive("rounds in which the KL coefficient grows e-fold at twice the target, or falls so at no KL")
    ] = 4.0
    missing_eos_penalty: Annotated[
        float, at_least(0, "taken from the score of a response that was cut off; no rating pays for it")
    ] = 0.0
    score_clip: Annotated[float, positive("normalised scores are clipped to this size")] = 5.0
    importance_cap: Annotated[
        float, at_least(0, "most that a token counts by the policy's probability over its sampler's; 0 leaves it out")
    ] = 2.0
    max_sampler_gap: Annotated[
        float, at_least(0, "k3 between sampler and policy, nats/token, at which a run stops; 0 is by number format")
    ] = 0.0
    exact_kl: Annotated[
        bool,
        Meta(
            description="PPO charges the exact KL of each place; else, as without a value, the sampler's record serves "
            "where it agrees with the policy, and a pass is saved"
        ),
    ] = True
    max_update_kl: Annotated[
        float, positive("approximate KL, nats per token, past which a round's updates stop; that one is not taken")
    ] = 0.03
    language_balance: Annotated[
        float, Meta(ge=0, le=1, description="languages are drawn with p ~ n^this; 1 follows the prompts, 0 is even")
    ] = 0.4
    checkpoint_every: Annotated[int, positive("rounds between checkpoints")] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.advantage == Advantage.REINFORCE and self.batch < 2:
            raise ValueError("reinforce compares an answer with the others of its round: batch must be 2 or more")
        if self.batch % self.minibatch:
            raise ValueError(f"minibatch {self.minibatch} does not divide batch {self.batch}")
        if self.minibatch % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide minibatch {self.minibatch}")
        if self.batch % self.answers:
            raise ValueError(f"answers {self.answers} does not divide batch {self.batch}")
        if self.advantage in (Advantage.RLOO, Advantage.GRPO) and self.answers < 2:
            raise ValueError(f"{self.advantage} compares answers to the same prompt: answers must be 2 or more")
