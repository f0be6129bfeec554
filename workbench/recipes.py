"""The ways to train that the app offers: what each is for, what it needs, what it asks, and the job that comes of it.

A recipe names a stage of the trainer and the few settings that a person sets here; all others keep the trainer's
defaults. The app never loads the trainer: that these settings are the trainer's own, and their defaults the same, is
what a test sees to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.parsing import multiple_of, number, one_of, whole_number
from workbench.stock import Stock

# What the trainer asks for at least; a test compares these with its defaults.
FEWEST_RATINGS, FEWEST_DEMONSTRATIONS, FEWEST_SCORED = 20, 8, 4
# With fewer held-out prompts training goes on, but nobody can tell what it gained.
FEWEST_HELD_OUT = 4
MINIBATCH = 8
# The kinds of policy optimisation by their names, and the advantage by which the trainer tells them apart.
METHODS = {"ppo": "gae", "rloo": "rloo", "reinforce": "reinforce", "grpo": "grpo"}
# The ratings themselves, or ones that say nothing, to see what a run gains without them.
CONTROLS = ("none", "shuffled", "constant")


@dataclass(frozen=True)
class Setting:
    """One field of a recipe. `path` is where the trainer keeps it, such as `ppo.steps`; `parse` raises ValueError."""

    path: str
    label: str
    default: str
    parse: Callable[[str], Any]
    hint: str


@dataclass(frozen=True)
class Need:
    """Something to learn from: how much of it is wanted, and how much there is. `remedy` says where to get it."""

    wanted: int
    what: str
    has: int
    remedy: str
    name: str = ""

    @property
    def met(self) -> bool:
        return self.has >= self.wanted

    @property
    def words(self) -> str:
        """`needs 20 ratings, has 35`; where one thing is wanted that has a name, `needs a reward model, has rm2`."""
        if self.wanted == 1:
            return f"needs {self.what}, has {self.name or self.has or 'none'}"
        return f"needs {self.wanted} {self.what}, has {self.has}"


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes:
        key: the letter that chooses it.
        stage: the trainer's command.
        own: the section of its settings that says how many steps there are.
        needs: what it learns from, given what there is; the first is the one to name when all are met.
        fixed: what of the trainer's settings it decides itself.
    """

    key: str
    name: str
    purpose: str
    stage: str
    own: str
    settings: tuple[Setting, ...]
    needs: Callable[[Stock], list[Need]]
    fixed: dict[str, Any] = field(default_factory=dict)

    def need(self, stock: Stock) -> Need:
        """What is missing first, or else what it mainly learns from."""
        needs = [*self.needs(stock), *_prompts(stock)]
        return next((need for need in needs if not need.met), needs[0])

    def config(self, values: dict[str, Any], model: str) -> dict[str, Any]:
        """The configuration of a job, from the values of the settings by path."""
        nested: dict[str, Any] = {"model": model}
        for path, value in (self.fixed | values).items():
            *sections, name = path.split(".")
            place = nested
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
        return nested

    def steps(self, values: dict[str, Any]) -> int:
        """How many steps are asked for; 0 where the number of ratings decides."""
        return int(values.get(f"{self.own}.steps", 0))


def recipe_of(stage: str, config: dict[str, Any]) -> str:
    """The name of what a job does, from its kind and configuration; the kind itself where no recipe fits."""

    def fits(recipe: Recipe) -> bool:
        return recipe.stage == stage and all(_at(config, path) == value for path, value in recipe.fixed.items())

    # The one that decides most fits best: a table reward is a whole pipeline too.
    found = sorted(filter(fits, RECIPES), key=lambda recipe: -len(recipe.fixed))
    plain = next((recipe for recipe in RECIPES if recipe.stage == stage), None)
    return found[0].name if found else plain.name if plain else stage


def control_of(config: dict[str, Any]) -> str:
    """`shuffled` or `constant` where a job's ratings say nothing on purpose; else empty."""
    control = str(config.get("control") or "none")
    return "" if control == "none" else control


def _at(config: dict[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


# What a workspace must hold.

_RATE = "rate more answers to prompts not held out, or `workbench import FILE`"


def _prompts(stock: Stock) -> list[Need]:
    """Something to practise on; held-out prompts are no part of it."""
    return [Need(1, "a training prompt", stock.prompts, "ask more prompts on Prompt")]


def _ratings(stock: Stock) -> list[Need]:
    return [Need(FEWEST_RATINGS, "ratings", stock.ratings, _RATE)]


def _demonstrations(stock: Stock) -> list[Need]:
    remedy = "correct answers with e, or `workbench import FILE` demonstrations"
    return [Need(FEWEST_DEMONSTRATIONS, "demonstrations or edits", stock.imitable, remedy)]


def _reward_model(stock: Stock) -> list[Need]:
    name = stock.reward_model
    return [Need(1, "a reward model", int(bool(name)), "fit one first: m in this list", name)]


def _scores(stock: Stock) -> list[Need]:
    remedy = "score answers 1 to 5, or `workbench import FILE` a table"
    return [Need(FEWEST_SCORED, "prompts with scored answers", stock.scored, remedy)]


def _rated_and_judged(stock: Stock) -> list[Need]:
    """Rated answers, and something that judges the new ones: a reward model, or ratings to fit one to."""
    return [_rated(stock), *([] if stock.reward_model else _ratings(stock))]


def _rated(stock: Stock) -> Need:
    return Need(FEWEST_RATINGS, "rated answers", stock.rated, _RATE)


def _outcomes(stock: Stock) -> list[Need]:
    return [Need(FEWEST_RATINGS, "rated answers or told outcomes", stock.rated + stock.told, _RATE)]


def _comparisons(stock: Stock) -> list[Need]:
    remedy = "rate several answers to the same prompt, one higher than the other"
    return [_rated(stock), Need(1, "a prompt with two rated answers", stock.compared, remedy)]


def measured(stock: Stock) -> str:
    """What there is to measure the outcome with: `6 prompts are held out to measure with`."""
    few = ": too few to tell what is gained" if stock.held_out < FEWEST_HELD_OUT else ""
    are = "prompt is" if stock.held_out == 1 else "prompts are"
    return f"{stock.held_out or 'no'} {are} held out to measure with{few}"


# What a person sets.

SEED = Setting("seed", "seed", "0", whole_number(0, 2**31 - 1), "the same seed, the same run")
KL_TARGET = Setting("ppo.kl_target", "KL target", "6", number(0.01, 1000), "nats a response")
ROUNDS = Setting("ppo.steps", "steps", "40", whole_number(1, 1_000_000), "rounds of rollouts")
BATCH = Setting("ppo.batch", "batch", "16", multiple_of(MINIBATCH, 4096), "answers a round")
ANSWERS = Setting("ppo.answers", "answers", "4", lambda text: int(one_of("2", "4", "8")(text)), "a prompt: 2, 4 or 8")
LENGTH = Setting(
    "ppo.max_new_tokens", "longest answer", "0", whole_number(0, 100_000), "0: as long as the rated answers"
)
CONTROL = Setting("control", "control", "none", one_of(*CONTROLS), ", ".join(CONTROLS))
METHOD = Setting("ppo.advantage", "method", "ppo", lambda text: METHODS[one_of(*METHODS)(text)], ", ".join(METHODS))


def _supervised(section: str, *more: Setting) -> tuple[Setting, ...]:
    return (
        Setting(f"{section}.steps", "steps", "100", whole_number(1, 1_000_000), "updates"),
        Setting(f"{section}.batch", "batch", "16", whole_number(1, 4096), "answers an update"),
        Setting(f"{section}.learning_rate", "learning rate", "0.0002", number(1e-9, 1), "falls to 0"),
        *more,
        SEED,
    )


REWARD = (
    Setting("reward.epochs", "epochs", "3", whole_number(1, 1000), "passes over the ratings"),
    Setting("reward.batch", "batch", "16", whole_number(1, 4096), "ratings an update"),
    Setting("reward.learning_rate", "learning rate", "0.0003", number(1e-9, 1), "falls to 0"),
    SEED,
)
POLICY = (LENGTH, SEED, CONTROL)
LEVELS = Setting("hindsight.levels", "grades", "5", whole_number(2, 10), "of outcomes, 2 to 10")
BETA = Setting("ilql.beta", "beta", "4", number(0, 100), "weight of Q - V")


RECIPES = (
    Recipe("w", "whole pipeline", "Imitate demonstrations if there are any, fit a reward model and a judge to the "
           "ratings, improve the policy on the one, and publish what passes the gate by the other.",
           "run", "ppo", (ROUNDS, METHOD, KL_TARGET, BATCH, *POLICY), _ratings),
    Recipe("s", "SFT", "Imitate demonstrations and edits: for when you can show better answers than the model gives.",
           "sft", "sft", _supervised("sft"), _demonstrations),
    Recipe("m", "reward model", "Fit a reward model and a judge to different ratings, and see how well each foretells "
           "the other's; the model you talk to stays as it is.",
           "reward", "reward", REWARD, _ratings),
    Recipe("p", "PPO", "Improve the policy on the latest reward model, with a learned value of every token.",
           "ppo", "ppo", (ROUNDS, KL_TARGET, BATCH, *POLICY), _reward_model),
    Recipe("r", "RLOO", "Improve the policy on the latest reward model; an answer is compared with the others to the "
           "same prompt, without a value model.",
           "rloo", "ppo", (ROUNDS, KL_TARGET, BATCH, ANSWERS, *POLICY), _reward_model, {"ppo.advantage": "rloo"}),
    Recipe("e", "REINFORCE", "Improve the policy on the latest reward model by the plain policy gradient; an answer is "
           "compared with all others of the round.",
           "reinforce", "ppo", (ROUNDS, KL_TARGET, BATCH, *POLICY), _reward_model,
           {"ppo.advantage": "reinforce", "ppo.epochs": 1}),
    Recipe("g", "GRPO", "As RLOO, with the advantage divided by the spread of the answers to the prompt.",
           "grpo", "ppo", (ROUNDS, KL_TARGET, BATCH, ANSWERS, *POLICY), _reward_model, {"ppo.advantage": "grpo"}),
    Recipe("t", "table reward", "Improve the policy on the scores themselves: known answers get their score, others "
           "one by likeness. No reward model is fitted.",
           "run", "ppo", (ROUNDS, METHOD, KL_TARGET, BATCH, *POLICY), _scores, {"reward_model": "table"}),
    Recipe("q", "ILQL", "Learn the value of every token from the rated answers alone, and say what is worth more. "
           "Nothing is sampled.",
           "ilql", "ilql", (
               Setting("ilql.steps", "steps", "100", whole_number(1, 1_000_000), "of 10 updates each"),
               Setting("ilql.batch", "batch", "16", whole_number(1, 4096), "answers an update"),
               Setting("ilql.head_learning_rate", "learning rate", "0.01", number(1e-9, 1), "falls to 0"),
               BETA, SEED), _rated_and_judged),
    Recipe("h", "hindsight", "Learn from all answers, good and bad: each prompt is extended by the outcome that its "
           "answer then had.",
           "hindsight", "hindsight", _supervised("hindsight", LEVELS), _outcomes,
           {"hindsight.relabelling": "instruction"}),
    Recipe("c", "hindsight chain", "Learn to give the better answer after a worse one to the same prompt.",
           "hindsight", "hindsight", _supervised("hindsight"), _comparisons, {"hindsight.relabelling": "chain"}),
)  # fmt: skip
