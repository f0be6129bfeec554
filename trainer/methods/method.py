"""What a kind of job declares of itself, which is mostly a way of learning: everything but its work is made from this.

The command line, the list in `trainer --help`, the recipes of the app and their forms, the charts of a running job, the
estimate of memory and `trainer methods --json` are read from here. Nothing here, nor at the top of a method's file,
imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from trainer.config import DeviceConfig, RewardStage
from trainer.policy_config import Tuning

if TYPE_CHECKING:
    from storage.workspace import Workspace
    from trainer.algorithms.critics import Critic
    from trainer.evaluation.intervals import Interval
    from trainer.job import HeldJob
    from trainer.learner import PolicyLearner
    from trainer.preview import Material, Taught
    from trainer.task import Task

Result = dict[str, Any]  # of a job, as it is stored

# What the help of many commands says.
PASSES = "The candidate passes the gate and is published, or is kept as rejected, as with `trainer run`."
GATED = f"{PASSES} With --control shuffled or constant its ratings say nothing, and it is never published."
SHUFFLED = f"{PASSES} With --control shuffled its ratings say nothing, and it is never published."


class Supply(StrEnum):
    """What a method learns from, as the app counts it; of training prompts alone.

    judged: a reward model, or enough ratings to fit one to. answers: of models, whoever has rated them.
    """

    RATINGS = "ratings"
    DEMONSTRATIONS = "demonstrations"
    REWARD_MODEL = "reward model"
    SCORED = "scored prompts"
    RATED = "rated answers"
    OUTCOMES = "outcomes"
    COMPARED = "compared prompts"
    JUDGED = "judged"
    ANSWERS = "answers"


@dataclass(frozen=True)
class Ask:
    """A setting that the form of a recipe asks for; its default and bounds are those of the settings.

    Attributes:
        path: where it is kept, such as `ppo.steps`.
        label: by default the name of the setting.
        hint: by default what the settings say of it.
        choices: what can be typed, and the value that it stands for; by default the values themselves.
    """

    path: str
    label: str = ""
    hint: str = ""
    choices: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """An entry in the app's list of ways to train.

    Attributes:
        key: the letter that chooses it.
        purpose: what it does and when to choose it, in a sentence or two.
        needs: what it learns from and how much of it is wanted; the first is the one to name when all are met.
        fixed: what of the settings it decides itself, by path.
    """

    key: str
    name: str
    purpose: str
    asks: tuple[Ask, ...]
    needs: tuple[tuple[Supply, int], ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """One curve of a running job to watch.

    Attributes:
        title: with the unit; it is the frame of the plot.
        label: one or two words, for the line of figures and the table of languages.
        metric: as it is recorded. form: how a value is printed.
        aim: 1 where more is better, -1 where less is, 0 where neither.
        count: the metric that says of how many answers it is.
        languages: whether it is told by language as well.
    """

    title: str
    label: str
    metric: str
    form: str
    aim: int = 0
    count: str = ""
    languages: bool = False


@dataclass(frozen=True)
class Need:
    """What a job holds in memory at once.

    Attributes:
        rows: answers sampled together. minibatch: answers learned from together.
        prompt_tokens: of the longest prompt. response_tokens: of the longest answer.
        value: whether the value has an adapter of its own.
        optimised: whether the policy is optimised against a reward, so that it may be rolled back.
        reference: whether it is held near a version, which is kept beside it.
        upper_share: of the layers that value and reward adapt.
        processes: how many share the weights of the layers.
    """

    rows: int
    minibatch: int
    prompt_tokens: int
    response_tokens: int
    rank: int
    tuning: Tuning = Tuning.LORA
    value: bool = True
    optimised: bool = False
    reference: bool = False
    upper_share: float = 1 / 3
    checkpointing: bool = False
    processes: int = 1


@dataclass(frozen=True)
class Learned:
    """What a method ends with.

    Attributes:
        learner: after its last step.
        loss_gain: how far the loss fell on prompts that were not learned from, nats/token, where that was measured.
        remark: what there is to say about the run, if anything.
        critic: what it foretold answers by, to be kept with the version; None where it foretold none.
    """

    learner: PolicyLearner
    loss_gain: Interval | None = None
    remark: str | None = None
    critic: Critic | None = None


def as_it_is(config: RewardStage, whole: Need, sampled_tokens: int) -> Need:
    """The memory of a stage that holds no more than the fitting of a reward model."""
    return whole


def as_given(config: Any, changed: bool) -> Any:
    """The settings of a method that names no files."""
    return config


def _at(config: object, path: str, value: object) -> bool:
    """Whether a configuration has a value at a path such as `dpo.loss`."""
    return bool(attrgetter(path)(config) == value)


@dataclass(frozen=True)
class Method:
    """A way of learning, or another kind of job. It learns a policy (`learn`) or does its work by itself (`work`).

    Attributes:
        name: of its command, and the kind of its jobs.
        summary: when to choose it, on a line of `trainer --help`; methods that share one stand on one line.
        manual: the help of its command.
        settings: the class of its settings.
        own: the section of them whose options need no prefix.
        learn: takes a task to its end: the policy that it ends with goes through the gate.
        work: does a job that ends with no policy, and returns its result, in which `sentence` says what came of it.
        preview: what it learns from, of what there is; None where that is what a reward model is fitted to.
        memory: what it holds at once, from its settings, what fitting a reward model holds, and the tokens of the
            longest answer that is sampled.
        defaults: what it changes in the defaults; options, a TOML file and a stored job go over it.
        board: which charts the app shows of it: those of another method by its name ("ppo", "sft", "ilql", "reward"),
            or curves of its own, two or four of them.
        watched: whether the over-optimisation watch sees what it learns.
        ready: the settings of a new or stored job with the files that they name as they are, named from everywhere;
            whether other files than those of the stored ones are taken. Raises UsageError where one cannot be used.
        plan: says what a job would do, without doing it, as the document that --dry-run prints.
        tells: what of its result stands at the top of the document of its command.
    """

    name: str
    summary: str
    manual: str
    settings: type[DeviceConfig]
    own: str
    recipes: tuple[Recipe, ...]
    learn: Callable[[Task[Any]], Learned] | None = None
    work: Callable[[HeldJob, Any], Result] | None = None
    preview: Callable[[Material, Any], list[Taught]] | None = None
    memory: Callable[[Any, Need, int], Need] = as_it_is
    defaults: Mapping[str, Any] = field(default_factory=dict)
    board: str | tuple[Chart, ...] = "ppo"
    watched: bool = True
    ready: Callable[[Any, bool], Any] = as_given
    plan: Callable[[Workspace, Any], Result] | None = None
    tells: tuple[str, ...] = ("remark",)

    @property
    def learns(self) -> bool:
        """Whether it learns from ratings, be it a policy or a reward model."""
        return issubclass(self.settings, RewardStage)

    def called(self, config: DeviceConfig) -> str:
        """Its name, or that of the recipe whose fixed settings are the configuration's: DPO by KTO's loss is KTO."""
        fixed = (one for one in self.recipes if one.fixed)
        return next((one.name for one in fixed if all(_at(config, *pair) for pair in one.fixed.items())), self.name)

    def section(self, config: DeviceConfig) -> Any:
        """Its own part of a configuration."""
        return getattr(config, self.own)

    def steps(self, config: DeviceConfig) -> int:
        """How many steps a configuration asks for; 0 where the number of ratings decides."""
        return getattr(self.section(config), "steps", 0)
