"""What can be configured of a job, with its defaults, bounds and meaning: the model, rewards, the gate, and what each
stage takes. The command line is made from these classes, and those of policy_config.py and supervised_config.py."""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from storage.errors import UsageError
from trainer.bounds import at_least, positive
from trainer.policy_config import AdapterConfig, PpoConfig
from trainer.supervised_config import HindsightConfig, IlqlConfig, SftConfig

# Fewer held-out prompts than this cannot tell a gain from chance.
FEWEST_HELD_OUT = 4
# A table of fewer prompts is no reward to practise on.
FEWEST_SCORED = 4


class DeviceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model, and where: what all jobs have in common."""

    model: Annotated[str, Meta(description="smollm2, gemma, a folder, a GGUF file or a hub name")] = "smollm2"
    device: Annotated[str, Meta(description="auto, cpu, cuda or cuda:N")] = "auto"
    dtype: Annotated[
        str, Meta(description="bf16, fp16, fp32 or auto: bf16 where it is native, fp32 for small models on a GPU")
    ] = "auto"
    threads: Annotated[int, at_least(0, "CPU threads; 0 takes all")] = 0


class ModelConfig(DeviceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have in common that learn."""

    seed: Annotated[int, at_least(0, "of every random choice")] = 0
    upper_share: Annotated[
        float, Meta(gt=0, le=1, description="share of the layers, from the top, that value and reward adapt")
    ] = 1 / 3
    gradient_checkpointing: Annotated[
        bool, Meta(description="compute each layer again in the backward pass: slower, in less memory")
    ] = False


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
    epochs: Annotated[int, positive("passes over the ratings, of an adapter")] = 3
    batch: Annotated[int, positive("rated answers (or pairs) an update, of an adapter")] = 16
    learning_rate: Annotated[float, positive("peak rate of AdamW of an adapter, falling linearly to 0")] = 3e-4
    head_learning_rate: Annotated[float, positive("peak rate of an adapter's head, falling linearly to 0")] = 1e-2
    held_out: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="share of the rated prompts that the optimised model never sees; the judge of the gate learns "
            "from them, and each is measured on the other's",
        ),
    ] = 0.4
    caution: Annotated[float, at_least(0, "standard deviations of its own uncertainty that a reward is lowered by")] = (
        1.0
    )
    centring: Annotated[float, at_least(0, "weight of the penalty that centres pair rewards of an adapter")] = 0.01
    minimum: Annotated[int, positive("fewest ratings (scores, labels or pairs) to learn from")] = 20


class Control(StrEnum):
    """A run whose ratings say nothing, to see what a run gains without them. It is never published.

    none: an ordinary run. shuffled: ratings permuted among answers of the same language. constant: one reward for all.
    """

    NONE = "none"
    SHUFFLED = "shuffled"
    CONSTANT = "constant"


class GateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate must show before it is published."""

    prompts: Annotated[int, positive("most held-out prompts to answer")] = 40
    answers: Annotated[
        int, at_least(0, "answers to each; 0 is as many as make 160 with all prompts, from 2 to 12 each")
    ] = 0
    max_new_tokens: Annotated[
        int, at_least(0, "longest answer, where the method samples none; 0 is as long as the rated answers are")
    ] = 0
    max_kl: Annotated[float, positive("nats per response to the base model")] = 15.0
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
        int, at_least(0, "answers of the candidate, to training prompts, that raters are asked about next")
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


_RULE = re.compile(r"Expected `(?P<type>int|float)` (?P<side><=?|>=?) (?P<bound>\S+)")
_TYPES = {"int": "a whole number", "float": "a number"}
_SIDES = {"<": "below", "<=": "of at most", ">": "above", ">=": "of at least"}


class SettingError(UsageError):
    """A value that cannot be: `path` is its field, or the section that the rule is of; `rule` says what must be,
    which `is_bound` where it is one of a number by itself."""

    def __init__(self, where: str, path: tuple[str, ...], rule: str, hint: str, *, is_bound: bool) -> None:
        super().__init__(f"{where}: {self.told('.'.join(path), rule)}", hint)
        self.path, self.rule, self.is_bound = path, rule, is_bound

    @staticmethod
    def told(name: str, rule: str) -> str:
        """The rule of what is called so; of nothing in particular where the name is empty."""
        return f"{name} {rule}" if name and rule.startswith("must ") else f"{name}: {rule}" if name else rule


def build(kind: type[Config], values: dict[str, Any], *, where: str = "configuration") -> Config:
    """A validated configuration. Raises SettingError that names the field and the rule."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(kind))
        said, _, place = str(error).partition(" - at `$")
        path = tuple(part for part in place.rstrip("`").split(".") if part)
        if bound := _RULE.fullmatch(said):
            said = f"must be {_TYPES[bound['type']]} {_SIDES[bound['side']]} {float(bound['bound']):g}"
        raise SettingError(where, path, said, f"fields here: {known}", is_bound=bound is not None) from error


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises UsageError when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "name an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", "mend that line") from error
