"""What can be configured, with its defaults, bounds and meaning. The command line is made from these classes."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from storage.errors import UsageError

# Fewer held-out prompts than this cannot tell a gain from chance.
FEWEST_HELD_OUT = 4
# A table of fewer prompts is no reward to practise on.
FEWEST_SCORED = 4


def _positive(description: str) -> Meta:
    return Meta(gt=0, description=description)


def _at_least(low: float, description: str) -> Meta:
    return Meta(ge=low, description=description)


class DeviceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model, and where: what all jobs have in common."""

    model: Annotated[str, Meta(description="smollm2, gemma, a folder, a GGUF file or a hub name")] = "smollm2"
    device: Annotated[str, Meta(description="auto, cpu, cuda or cuda:N")] = "auto"
    dtype: Annotated[
        str, Meta(description="bf16, fp16, fp32 or auto: bf16 where it is native, fp32 for small models on a GPU")
    ] = "auto"
    threads: Annotated[int, _at_least(0, "CPU threads; 0 takes all")] = 0


class ModelConfig(DeviceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have in common that learn."""

    seed: Annotated[int, _at_least(0, "of every random choice")] = 0
    upper_share: Annotated[
        float, Meta(gt=0, le=1, description="share of the layers, from the top, that value and reward adapt")
    ] = 1 / 3
    gradient_checkpointing: Annotated[
        bool, Meta(description="compute each layer again in the backward pass: slower, in less memory")
    ] = False


class AdapterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The low-rank adapters."""

    rank: Annotated[int, _positive("rank of the adapters")] = 16
    alpha: Annotated[float, _positive("updates are scaled by alpha / rank")] = 32.0


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


class RewardKind(StrEnum):
    """What a reward model is.

    linear: a direction among the base model's own states, in closed form. adapter: LoRA on the upper layers as well.
    """

    LINEAR = "linear"
    ADAPTER = "adapter"


class RewardConfig(AdapterConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fitting the reward model."""

    kind: Annotated[
        RewardKind, Meta(description="linear (in closed form, seconds) or adapter (LoRA on the upper layers, minutes)")
    ] = RewardKind.LINEAR
    epochs: Annotated[int, _positive("passes over the ratings, of an adapter")] = 3
    batch: Annotated[int, _positive("rated answers (or pairs) an update, of an adapter")] = 16
    learning_rate: Annotated[float, _positive("peak rate of AdamW of an adapter, falling linearly to 0")] = 3e-4
    head_learning_rate: Annotated[float, _positive("peak rate of an adapter's head, falling linearly to 0")] = 1e-2
    held_out: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="share of the rated prompts that the optimised model never sees; the judge of the gate learns "
            "from them, and each is measured on the other's",
        ),
    ] = 0.4
    caution: Annotated[
        float, _at_least(0, "standard deviations of its own uncertainty that a reward is lowered by")
    ] = 1.0
    centring: Annotated[float, _at_least(0, "weight of the penalty that centres pair rewards of an adapter")] = 0.01
    minimum: Annotated[int, _positive("fewest ratings (scores, labels or pairs) to learn from")] = 20


class SupervisedConfig(PolicyConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all methods that learn from a fixed set of answers have in common."""

    steps: Annotated[int, _positive("updates; fewer where the examples would be repeated too often")] = 100
    batch: Annotated[int, _positive("answers an update")] = 16
    learning_rate: Annotated[float, _positive("peak rate of AdamW, falling linearly to 0")] = 2e-4
    max_grad_norm: Annotated[float, _positive("gradients are scaled down to this norm")] = 1.0
    most_repeats: Annotated[int, _positive("most times that an answer is learned from")] = 8
    held_out: Annotated[float, Meta(ge=0, lt=1, description="share of the prompts kept to measure the loss")] = 0.1
    language_balance: Annotated[
        float, Meta(ge=0, le=1, description="languages are drawn with p ~ n^this; 1 follows the answers, 0 is even")
    ] = 0.4
    checkpoint_every: Annotated[int, _positive("updates between checkpoints")] = 20


class SftConfig(SupervisedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Supervised fine-tuning on demonstrations and edits."""

    minimum: Annotated[int, _positive("fewest demonstrations and edits to learn from")] = 8


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
    minimum: Annotated[int, _positive("fewest rated answers to learn from")] = 20


class IlqlConfig(SupervisedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Q-learning for language models, offline from rated answers (Snell et al. 2022).

    `steps` are of `updates` updates each; `learning_rate` and `most_repeats` are of the imitation that `language_model`
    asks for.
    """

    updates: Annotated[int, _positive("updates of the Q and value heads a step")] = 10
    gamma: Annotated[float, Meta(gt=0, le=1, description="discount a token")] = 1.0
    lam: Annotated[
        float, Meta(ge=0, le=1, description="lambda of Q's returns: 0 is the next value, 1 what came of the answer")
    ] = 0.0
    value_lam: Annotated[
        float,
        Meta(ge=0, le=1, description="lambda of the value's returns: 0 is what Q says, 1 what came of the answer"),
    ] = 1.0
    tau: Annotated[float, Meta(gt=0.5, lt=1, description="expectile of the value; nearer 1 is bolder")] = 0.7
    conservative: Annotated[float, _at_least(0, "weight of keeping Q of tokens that nobody said near the value")] = 1.0
    language_model: Annotated[
        float,
        _at_least(
            0,
            "above 0 the answers are imitated first, at this multiple of the learning rate: for answers that the "
            "model did not give itself",
        ),
    ] = 0.0
    target_rate: Annotated[float, Meta(gt=0, le=1, description="how fast the target Q follows, an update")] = 0.05
    head_rank: Annotated[int, _positive("rank of the Q heads")] = 16
    head_learning_rate: Annotated[float, _positive("peak rate of the Q and value heads, falling linearly")] = 1e-2
    beta: Annotated[float, _at_least(0, "weight of Q in decoding: log pi + beta (Q - V)")] = 4.0
    minimum: Annotated[int, _positive("fewest rated answers to learn from")] = 20


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
    steps: Annotated[int, _positive("rounds of rollouts and updates")] = 40
    batch: Annotated[int, _positive("responses a round")] = 16
    answers: Annotated[int, _positive("responses to each prompt of a round; divides the batch")] = 4
    minibatch: Annotated[int, _positive("responses an update; divides the batch")] = 8
    accumulation: Annotated[
        int, _positive("parts that a minibatch is cut into: less memory, the same gradient; divides the minibatch")
    ] = 1
    epochs: Annotated[int, _positive("passes over a round")] = 2
    learning_rate: Annotated[float, _positive("of the policy; adapts to `kl_rounds`")] = 3e-4
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
        float, _positive("of the head on a value adapter; the adapter itself has a thirtieth of it")
    ] = 1e-2
    warmup: Annotated[int, _at_least(0, "first rounds in which only the value learns")] = 0
    max_new_tokens: Annotated[
        int, _at_least(0, "longest response, at the gate as well; 0 is as long as the rated answers are")
    ] = 0
    temperature: Annotated[float, _positive("of sampling, in rollouts and in the update alike")] = 1.0
    gamma: Annotated[float, Meta(gt=0, le=1, description="discount a token")] = 1.0
    lam: Annotated[float, Meta(ge=0, le=1, description="lambda of the policy's advantages")] = 0.95
    value_lam: Annotated[
        float, Meta(ge=0, le=1, description="lambda of the returns that the value learns; 1 is what really came")
    ] = 1.0
    clip: Annotated[float, _positive("of the probability ratio")] = 0.2
    value_clip: Annotated[float, _at_least(0, "of the change of a value adapter's values; 0 is none")] = 0.0
    value_coefficient: Annotated[float, _positive("weight of the value loss of a value adapter")] = 0.1
    max_grad_norm: Annotated[float, _positive("gradients are scaled down to this norm")] = 1.0
    beta: Annotated[float, _at_least(0, "first KL coefficient")] = 0.1
    reference: Annotated[
        Reference, Meta(description="what the KL is charged against: base, start (of the run) or parent (version)")
    ] = Reference.START
    kl_target: Annotated[float, _positive("nats per response; 0 < target")] = 6.0
    kl_target_per_token: Annotated[
        float, _at_least(0, "nats per token instead: the target is it times a round's mean length; 0 is unused")
    ] = 0.0
    kl_rounds: Annotated[
        float,
        _at_least(
            0,
            "rounds in which the policy should reach the KL target: the leash is let out and the learning rate "
            "adapted for that; 0 lets it out at once and leaves the rate alone",
        ),
    ] = 10.0
    kl_horizon_batches: Annotated[
        float, _positive("rounds in which the KL coefficient grows e-fold at twice the target, or falls so at no KL")
    ] = 4.0
    missing_eos_penalty: Annotated[
        float, _at_least(0, "taken from the score of a response that was cut off; no rating pays for it")
    ] = 0.0
    score_clip: Annotated[float, _positive("normalised scores are clipped to this size")] = 5.0
    importance_cap: Annotated[
        float, _at_least(0, "most that a token counts by the policy's probability over its sampler's; 0 leaves it out")
    ] = 2.0
    max_sampler_gap: Annotated[
        float, _at_least(0, "k3 between sampler and policy, nats/token, at which a run stops; 0 is by number format")
    ] = 0.0
    exact_kl: Annotated[
        bool,
        Meta(
            description="PPO charges the exact KL of each place; else, as without a value, the sampler's record serves "
            "where it agrees with the policy, and a pass is saved"
        ),
    ] = True
    max_update_kl: Annotated[
        float, _positive("approximate KL, nats per token, past which a round's updates stop; that one is not taken")
    ] = 0.03
    language_balance: Annotated[
        float, Meta(ge=0, le=1, description="languages are drawn with p ~ n^this; 1 follows the prompts, 0 is even")
    ] = 0.4
    checkpoint_every: Annotated[int, _positive("rounds between checkpoints")] = 5

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


class Control(StrEnum):
    """A run whose ratings say nothing, to see what a run gains without them. It is never published.

    none: an ordinary run. shuffled: ratings permuted among answers of the same language. constant: one reward for all.
    """

    NONE = "none"
    SHUFFLED = "shuffled"
    CONSTANT = "constant"


class GateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate must show before it is published."""

    prompts: Annotated[int, _positive("most held-out prompts to answer")] = 40
    answers: Annotated[
        int, _at_least(0, "answers to each; 0 is as many as make 160 with all prompts, from 2 to 12 each")
    ] = 0
    max_new_tokens: Annotated[
        int, _at_least(0, "longest answer, where the method samples none; 0 is as long as the rated answers are")
    ] = 0
    max_kl: Annotated[float, _positive("nats per response to the base model")] = 15.0
    min_gain: Annotated[float, Meta(description="what the gain must exceed with 95%")] = 0.0
    max_outside: Annotated[
        float, Meta(ge=0, le=1, description="most of the answers that may be unlike any that was rated, as a share")
    ] = 0.3
    win_rate: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="share of blind pairs against its parent that a version must surely win before it is "
            "published; 0 asks for none",
        ),
    ] = 0.0
    suites: Annotated[
        str,
        Meta(
            description="suites of `trainer evaluate` at which a version may become no worse in any language, with "
            "commas between them, such as bias,refusal; or none"
        ),
    ] = "none"


class RewardStage(ModelConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fitting a reward model, and nothing more."""

    reward: RewardConfig = RewardConfig()


class PolicyStage(RewardStage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all stages have in common that end in a new version."""

    reward_model: Annotated[
        str,
        Meta(
            description="what answers are judged by: new (fit one to today's ratings), latest, the name of one "
            "(such as rm2), table (the scores themselves), or auto (the latest, else a new one where ratings suffice)"
        ),
    ] = "auto"
    control: Annotated[
        Control, Meta(description="shuffled or constant ratings instead of the real ones; never published")
    ] = Control.NONE
    gate: GateConfig = GateConfig()
    ask: Annotated[
        int, _at_least(0, "answers of the candidate, to training prompts, that raters are asked about next")
    ] = 48
    publish: Annotated[bool, Meta(description="publish a candidate that passes the gate")] = True


class SftStage(PolicyStage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Supervised fine-tuning."""

    sft: SftConfig = SftConfig()


class HindsightStage(PolicyStage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hindsight relabelling."""

    hindsight: HindsightConfig = HindsightConfig()


class IlqlStage(PolicyStage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Offline Q-learning."""

    ilql: IlqlConfig = IlqlConfig()


class PpoStage(PolicyStage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Policy optimisation against a reward."""

    reward_model: Annotated[
        str,
        Meta(
            description="new (fit one to today's ratings), latest, the name of one (such as rm2), table, or none (what "
            "--reward-function names, alone)"
        ),
    ] = "latest"
    reward_function: Annotated[
        tuple[str, ...],
        Meta(
            description="a reward to add to the learned one: FILE.py:NAME, regex:PATTERN, language or length:LOW-HIGH, "
            "with =WEIGHT behind it or without; may be given several times"
        ),
    ] = ()
    reward_function_sha256: Annotated[
        tuple[str, ...],
        Meta(description="of the file of each; filled in when a job begins, and no other file is taken from then on"),
    ] = ()
    ppo: PpoConfig = PpoConfig()

    def __post_init__(self) -> None:
        if self.reward_model != "none":
            return
        if not self.reward_function:
            raise ValueError("without a reward model there is nothing to learn from: give a reward function")
        if self.control != Control.NONE:
            raise ValueError("a control replaces ratings, and reward functions alone learn from none")


class RunConfig(PpoStage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole pipeline: demonstrations to reward model to policy to gate to publication."""

    reward_model: Annotated[
        str,
        Meta(
            description="new (fit one to today's ratings), latest, the name of one (such as rm2), table, or none (what "
            "--reward-function names, alone)"
        ),
    ] = "new"
    demonstrations: Annotated[
        bool, Meta(description="learn from demonstrations and edits first, where there are enough")
    ] = True
    sft: SftConfig = SftConfig()


Config = TypeVar("Config", bound=msgspec.Struct)


def build(kind: type[Config], values: dict[str, Any], *, where: str = "configuration") -> Config:
    """A validated configuration. Raises UsageError that names the field and the rule."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(kind))
        raise UsageError(f"{where}: {error}", f"fields here: {known}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises UsageError when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "name an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", "mend that line") from error
