"""Recipes: their settings and defaults are the trainer's own, and they count feedback as the trainer does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storage import conversations, jobs, reward_models, samples, versions
from storage.database import Database
from storage.feedback import log
from storage.feedback.stock import Stock, take_stock
from storage.records import Choice, RatingKind, Split
from trainer.algorithms.hindsight import comparisons
from trainer.config import GateConfig, build
from trainer.demonstrations import demonstrations
from trainer.examples import collect
from trainer.methods import METHODS, method_of
from trainer.options import configuration
from trainer.outcomes import outcomes, text_outcomes
from workbench.training import recipes
from workbench.training.boards import MOST_OUTSIDE
from workbench.training.recipes import RECIPES, Recipe, recipe_of

DIGEST = "0" * 64
PLENTY = Stock(100, 10, 200, 50, 150, 40, 100, 5, "rm2", 30)
TOGETHER = {"judge.endpoint", "judge.endpoint_model"}


def filled(recipe: Recipe, **typed: str) -> dict[str, Any]:
    """The values of a form, with the defaults for what is not typed."""
    return {one.path: one.parse(typed.get(one.label.replace(" ", "_"), one.default)) for one in recipe.settings}


def named(name: str) -> Recipe:
    return next(recipe for recipe in RECIPES if recipe.name == name)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_an_untouched_form_asks_for_what_the_command_does_by_itself(recipe: Recipe):
    method = METHODS[recipe.stage]
    job = recipe.config(filled(recipe), "gemma")
    # As a worker reads it: the stored configuration instead of the stage's own defaults.
    read = configuration(method.settings, {}, None, job)
    given = {path.replace(".", "__"): value for path, value in recipe.fixed.items()} | {"model": "gemma"}
    assert read == configuration(method.settings, given, None, method.defaults)
    assert recipe.steps(filled(recipe)) == method.steps(read)
    assert not recipe.wrong(filled(recipe))


def test_what_a_stage_decides_itself_is_in_its_recipe():
    fixed = {recipe.stage: recipe.fixed for recipe in RECIPES if recipe.stage in ("rloo", "reinforce", "grpo")}
    for stage, decided in fixed.items():
        assert decided == {f"ppo.{name}": value for name, value in METHODS[stage].defaults["ppo"].items()}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_whatever_a_field_lets_pass_the_trainer_takes(recipe: Recipe):
    tries = (
        "",
        "en",
        "x:y",
        "pairs",
        "1",
        "2",
        "7",
        "8",
        "16",
        "24",
        "0.00001",
        "0.01",
        "0.5",
        "1000",
        "ppo",
        "rloo",
        "reinforce",
        "grpo",
    )
    for setting in recipe.settings:
        taken = []
        for text in (setting.default, *tries):
            try:
                value = setting.parse(text)
            except ValueError:
                continue
            values = filled(recipe) | {setting.path: value}
            if setting.path in TOGETHER and text:
                assert recipe.wrong(values), "what only fits with another field is said of the form"
            else:
                build(METHODS[recipe.stage].settings, recipe.config(values, "smollm2"))
            taken.append(text)
        assert setting.default in taken, setting.path


def test_every_stage_of_the_trainer_has_a_recipe():
    assert {recipe.stage for recipe in RECIPES} == set(METHODS)
    keys = [recipe.key for recipe in RECIPES]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {"j", "k"}  # these move


def test_the_least_that_is_needed_is_what_the_trainer_asks_for():
    for recipe in RECIPES:
        minimum = getattr(getattr(METHODS[recipe.stage].settings(), METHODS[recipe.stage].own), "minimum", None)
        assert minimum in (None, recipe.need(Stock()).wanted), recipe.name
    assert GateConfig().max_outside == MOST_OUTSIDE


def test_what_fits_in_no_field_alone_is_said_of_the_form():
    together = {"ppo.batch": 8, "ppo.answers": 16}
    assert named("RLOO").wrong({**filled(named("RLOO")), **together}) == "answers 16 does not divide batch 8"
    with pytest.raises(ValueError, match="minibatch 8 does not divide batch 13; say 16"):
        next(one for one in named("PPO").settings if one.path == "ppo.batch").parse("13")
    with pytest.raises(ValueError, match="want 2 to 10"):
        next(one for one in named("hindsight").settings if one.label == "grades").parse("11")
    for text in ("nan", "inf", "1e400"):
        with pytest.raises(ValueError, match="want at most"):
            next(one for one in named("SFT").settings if one.label == "learning rate").parse(text)


def test_methods_that_share_settings_hold_and_are_judged_alike():
    for method in METHODS.values():
        same = method_of(method.settings())
        assert (same.memory, same.own) == (method.memory, method.own)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_job_is_called_by_the_recipe_that_made_it(recipe: Recipe):
    assert recipe_of(recipe.stage, recipe.config(filled(recipe), "smollm2")) == recipe.name
    whole = msgspec.to_builtins(build(METHODS[recipe.stage].settings, recipe.config(filled(recipe), "smollm2")))
    assert recipe_of(recipe.stage, whole) == recipe.name


def test_a_job_whose_ratings_say_nothing_is_a_control():
    assert recipes.control_of(named("PPO").config(filled(named("PPO"), control="Shuffled"), "smollm2")) == "shuffled"
    assert recipes.control_of({"control": "none"}) == recipes.control_of({}) == ""


def test_a_job_of_an_unknown_kind_is_called_by_its_kind():
    assert recipe_of("distil", {}) == "distil"
    assert recipe_of("hindsight", {}) == "hindsight"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_each_recipe_says_what_is_missing_and_what_to_do(recipe: Recipe):
    assert recipe.need(PLENTY).met
    lacking = recipe.need(Stock())
    assert not lacking.met
    assert lacking.words.startswith("needs ")
    assert lacking.words.endswith((", has 0", ", has none"))
    assert lacking.remedy


def test_held_out_prompts_are_no_need_but_are_told():
    enough = named("whole pipeline")
    assert enough.need(Stock(held_out=4, examples=40)).words == "needs a training prompt, has none"
    assert enough.need(Stock(prompts=3, examples=40)).words == "needs 20 examples, has 40"
    assert recipes.measured(Stock(held_out=4)) == "4 prompts are held out to measure with"
    assert recipes.measured(Stock()) == "no prompts are held out to measure with: too few to tell what is gained"
    assert recipes.measured(Stock(held_out=1)).startswith("1 prompt is held out to measure with: too few")


def test_offline_learning_wants_something_that_judges_it():
    assert named("ILQL").need(Stock(prompts=9, examples=12, rated=24)).words == "needs 20 examples, has 12"
    assert named("ILQL").need(Stock(prompts=9, examples=12, rated=24, reward_model="rm1")).met


def test_feedback_is_counted_as_the_trainer_counts_it(database: Database):
    base = versions.ensure_base(database, "smollm2", DIGEST)
    words = {"fr": "Qu'est-ce qu'un fjord ?", "ar": "ما هو النهر؟", "hi": "झील क्या है?", "sw": "Bahari ni nini?"}
    made = {}
    for language, text in words.items():
        prompt = conversations.add(database, text, language=language, split=Split.TRAIN)
        made[language] = [samples.new(prompt.id, f"{language} {n}", version="v0", token_ids=[n, 2]) for n in range(3)]
        samples.add(database, made[language])
    shown = samples.new(made["sw"][0].prompt_id, "Maji mengi ya chumvi.", origin="demonstration")
    blank = samples.new(made["sw"][0].prompt_id, " \n", origin="demonstration")
    apart = conversations.add(database, "¿Qué es el mar?", language="es", split=Split.HELD_OUT)
    secret = samples.new(apart.id, "agua", version="v0")
    samples.add(database, [shown, blank, secret])
    fr, ar, hi, sw = made.values()
    told = msgspec.structs.replace(log.note(ar[1].id, "the reader asked again", "li"), kind=RatingKind.OUTCOME)
    for event in (
        log.score(fr[0].id, 5, "amina"), log.score(fr[1].id, 2, "amina"), log.score(fr[0].id, 4, "li"),
        log.score(ar[0].id, 4, "amina", attribute="politeness"), log.score(secret.id, 1, "amina"),
        log.label(ar[0].id, True, "li"), log.pair(hi[0].id, hi[1].id, Choice.A, "li"),
        log.pair(hi[1].id, hi[2].id, Choice.BOTH_BAD, "li"), log.edit(sw[0].id, "Ziwa kubwa.", "li"),
        log.edit(sw[1].id, "Maji mengi ya chumvi.", "li"), told,
        log.tags(fr[2].id, {"harm": "insult", "severity": 2}, "li"),
        log.tags(sw[2].id, {"harm": "none", "severity": 0}, "li"),
        log.tags(ar[2].id, {"topic": "water"}, "li"), log.note(ar[2].id, "odd", "li"),
        log.skip(ar[2].id, "li"),
    ):  # fmt: skip
        log.append(database, event)
    reward_models.add(
        database, base=base, file="r", sha256=DIGEST, data_digest="1", job_id=jobs.enqueue(database, "reward", {}).id,
        metrics={},
    )  # fmt: skip

    examples = collect(database, DIGEST)
    found = outcomes(examples)
    assert take_stock(database, DIGEST) == Stock(
        prompts=4,
        held_out=1,
        examples=examples.count(),
        imitable=demonstrations(database, DIGEST).count(),
        rated=len(found),
        compared=len({worse.prompt.id for worse, _ in comparisons(found)}),
        scored=len({score.prompt.id for score in examples.scores if score.attribute == "overall"}),
        told=len(text_outcomes(database, DIGEST)),
        reward_model="rm1",
        answers=13,
    )
    assert take_stock(database, "1" * 64).reward_model == ""
