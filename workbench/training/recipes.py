"""The ways to train that the app offers: what each is for, what it needs, what it asks, and the job that comes of it.

All of it is read from what the trainer's methods declare of themselves (:mod:`trainer.methods`), which is without
torch: names, texts, settings with their defaults and bounds. Here it meets what there is in the workspace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from storage.feedback.stock import Stock
from trainer.config import FEWEST_HELD_OUT, RewardConfig, SettingError, build
from trainer.declared import Setting as Declared
from trainer.declared import settings_of
from trainer.methods import METHODS
from trainer.methods.method import Ask, Method, Supply
from trainer.methods.method import Recipe as DeclaredRecipe
from workbench.widgets.parsing import one_of

# No whole number is larger: a database takes it.
LARGEST = 2**31 - 1
MODEL = "model"  # the setting that, left empty, is the model in use
# How far above a number that does not fit one that does is looked for.
FARTHEST = 64


@dataclass(frozen=True)
class Setting:
    """One field of a recipe. `path` is where the trainer keeps it, such as `ppo.steps`; `parse` raises ValueError."""

    path: str
    label: str
    default: str
    parse: Callable[[str], Any]
    hint: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """Something to learn from: how much of it is wanted, and how much there is, `judged` of it by judge models. The
    `remedy` says where to get it."""

    wanted: int
    what: str
    has: int
    remedy: str
    name: str = ""
    judged: int = 0

    @property
    def met(self) -> bool:
        return self.has >= self.wanted

    @property
    def words(self) -> str:
        """`needs 20 examples, has 35`; where one thing is wanted that has a name, `needs a reward model, has rm2`."""
        if self.wanted == 1:
            return f"needs {self.what}, has {self.name or self.has or 'none'}"
        by_ai = f" ({self.judged} by AI)" if self.judged else ""
        return f"needs {self.wanted} {self.what}, has {self.has}{by_ai}"


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes:
        key: the letter that chooses it.
        method: what the trainer declares of it.
        needs: what it learns from and how much of it; the first is the one to name when all are met.
        fixed: what of the trainer's settings it decides itself.
    """

    key: str
    name: str
    purpose: str
    method: Method
    settings: tuple[Setting, ...]
    needs: tuple[tuple[Supply, int], ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The trainer's command."""
        return self.method.name

    def need(self, stock: Stock) -> Need:
        """What is missing first, or else what it mainly learns from."""
        needs = [needed(supply, count, stock) for supply, count in self.needs]
        needs.append(Need(1, "a training prompt", stock.prompts, "ask more prompts on Prompt"))
        return next((need for need in needs if not need.met), needs[0])

    def config(self, values: dict[str, Any], model: str) -> dict[str, Any]:
        """The configuration of a job, from the values of the settings by path, and the model in use."""
        return _nested({**self.fixed, **values, MODEL: values.get(MODEL) or model})

    def wrong(self, values: dict[str, Any]) -> str:
        """What the trainer has against these values together; empty where it takes them."""
        refused = _refused(self.method, {**self.fixed, **values})
        if refused is None:
            return ""
        return refused.told(".".join(refused.path) if refused.is_bound else "", refused.rule)

    def steps(self, values: dict[str, Any]) -> int:
        """How many steps are asked for; 0 where the number of ratings decides."""
        return int(values.get(f"{self.method.own}.steps", 0))


def recipe_of(stage: str, config: dict[str, Any]) -> str:
    """The name of what a job does, from its kind and configuration; the kind itself where no recipe fits."""

    def fits(recipe: Recipe) -> bool:
        return recipe.stage == stage and all(_at(config, path) == value for path, value in recipe.fixed.items())

    # The one that decides most fits best: a table reward is a whole pipeline too.
    found = sorted(filter(fits, RECIPES), key=lambda recipe: -len(recipe.fixed))
    plain = next((recipe for recipe in RECIPES if recipe.stage == stage), None)
    return found[0].name if found else plain.name if plain else stage


def learns(kind: str) -> bool:
    """Whether jobs of a kind learn from ratings; one that this program does not know is taken to."""
    return kind not in METHODS or METHODS[kind].learns


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


def needed(supply: Supply, count: int, stock: Stock) -> Need:
    """Something to learn from, as much of it as there is, and where to get more."""
    rate = "rate more answers to prompts not held out, or `workbench import FILE`"
    name = stock.reward_model
    match supply:
        case Supply.DEMONSTRATIONS:
            remedy = "correct answers with e, or `workbench import FILE` demonstrations"
            return Need(count, "demonstrations or edits", stock.imitable, remedy)
        case Supply.REWARD_MODEL:
            return Need(1, "a reward model", int(bool(name)), "fit one first: m in this list", name)
        case Supply.SCORED:
            remedy = "score answers 1 to 5, or `workbench import FILE` a table"
            return Need(count, "prompts with scored answers", stock.scored, remedy)
        case Supply.RATED:
            return Need(count, "rated answers", stock.rated, rate)
        case Supply.OUTCOMES:
            return Need(count, "rated answers or told outcomes", stock.rated + stock.told, rate)
        case Supply.COMPARED:
            remedy = "rate several answers to the same prompt, one higher than the other"
            return Need(count, "a prompt with two rated answers", stock.compared, remedy)
        case Supply.JUDGED if name:
            return Need(1, "a reward model", 1, "", name)
        case Supply.JUDGED:
            return Need(RewardConfig().minimum, "examples", stock.examples, rate, judged=stock.judged)
        case Supply.RATINGS:
            return Need(count, "examples", stock.examples, rate, judged=stock.judged)
        case Supply.ANSWERS:
            return Need(count, "an answer to judge", stock.answers, "ask something on Prompt")


def measured(stock: Stock) -> str:
    """What there is to measure the outcome with: `6 prompts are held out to measure with`."""
    few = ": too few to tell what is gained" if stock.held_out < FEWEST_HELD_OUT else ""
    are = "prompt is" if stock.held_out == 1 else "prompts are"
    return f"{stock.held_out or 'no'} {are} held out to measure with{few}"


# What a person sets.


def _setting(method: Method, recipe: DeclaredRecipe, ask: Ask, declared: Declared) -> Setting:
    """A field of the form: what is asked, and the default and bounds of the trainer."""
    name = ask.path.rpartition(".")[2].replace("_", " ")
    label = ask.label or ("KL" + name[2:] if name.startswith("kl ") else name)
    choices = dict(ask.choices) or {one: one for one in declared.choices}
    default = next((typed for typed, value in choices.items() if value == declared.default), _typed(declared))
    hint = ask.hint or ", ".join(choices) or declared.description
    return Setting(ask.path, label, default, partial(_parsed, method, recipe, declared, choices), hint, tuple(choices))


def _typed(declared: Declared) -> str:
    """A default as it would be typed."""
    match declared.default:
        case _ if declared.path == MODEL:
            return ""
        case None:
            return ""
        case float(value):
            return f"{value:g}"
        case tuple(values):
            return ", ".join(map(str, values))
        case value:
            return str(value)


def _parsed(method: Method, recipe: DeclaredRecipe, declared: Declared, choices: Mapping[str, str], text: str) -> Any:
    """What was typed, as the trainer takes it. Raises ValueError with what is wrong with it."""
    if choices:
        return choices[one_of(*choices)(text)]
    if declared.type in ("int", "float"):
        return _number(method, recipe, declared, text)
    if declared.type != "tuple":
        return text
    several = tuple(text.replace(",", " ").split())
    if wrong := _refused(method, {**recipe.fixed, declared.path: several}):
        raise ValueError(wrong)
    return several


def _number(method: Method, recipe: DeclaredRecipe, declared: Declared, text: str) -> Any:
    """A number as it was typed; nothing where nothing need be set. Raises ValueError as :func:`_parsed`."""
    value: Any
    if not text and declared.default is None:
        return None
    try:
        value = {"int": int, "float": float}[declared.type](text)
    except ValueError:
        kind = "a whole number" if declared.type == "int" else "a number"
        raise ValueError(f"want {kind}, not {text or 'nothing'}") from None
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"want at most {LARGEST}")

    def refused(value: Any) -> SettingError | None:
        return _refused(method, {**recipe.fixed, declared.path: value})

    if wrong := refused(value):
        if wrong.is_bound:
            raise ValueError(f"want {declared.bounds}")
        fitting = next((n for n in range(int(value) + 1, int(value) + FARTHEST) if not refused(n)), None)
        raise ValueError(wrong.rule + (f"; say {fitting}" if fitting else ""))
    return value


def _refused(method: Method, values: Mapping[str, Any]) -> SettingError | None:
    """What the trainer has against some settings, by path; None where it takes them."""
    try:
        build(method.settings, _merged(method.defaults, _nested(values)))
    except SettingError as error:
        return error
    return None


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"ppo.steps": 4}` as `{"ppo": {"steps": 4}}`."""
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *sections, name = path.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return nested


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: {**under[key], **over[key]} for key in under.keys() & over.keys() if isinstance(under[key], dict)}
    return {**under, **over, **both}


def _recipe(method: Method, recipe: DeclaredRecipe) -> Recipe:
    declared = settings_of(method.settings, method.defaults)
    settings = tuple(_setting(method, recipe, ask, declared[ask.path]) for ask in recipe.asks)
    return Recipe(recipe.key, recipe.name, recipe.purpose, method, settings, recipe.needs, recipe.fixed)


# The first recipe of every method, and after them their variants.
RECIPES = tuple(
    _recipe(method, recipe)
    for variant in (False, True)
    for method in METHODS.values()
    for place, recipe in enumerate(method.recipes)
    if variant == (place > 0)
)
