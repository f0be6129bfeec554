"""Configuration: defaults, a stored one, a file and options, in this order; mistakes are blamed on where they stand."""

from __future__ import annotations

import click
import msgspec
import pytest
from click.testing import CliRunner

from storage.database import open_database
from storage.errors import UsageError
from storage.workspace import Workspace
from trainer.cli import cli
from trainer.config import RunConfig, build
from trainer.options import configuration, options_of
from trainer.policy_config import PpoConfig


def given_by(*arguments: str) -> dict:
    """What click hands over for these arguments."""
    seen = {}

    @click.command()
    @options_of(RunConfig, "ppo")
    def command(**given):
        seen.update(given)

    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen


def test_without_anything_the_defaults_hold():
    assert configuration(RunConfig, given_by(), None) == RunConfig()


def test_every_option_reaches_its_field_and_no_other():
    given = given_by(
        "--steps", "7", "--reward-epochs", "3", "--gate-min-gain=-1.5", "--no-publish", "--upper-share", "0.5",
        "--model", "some/model",
    )  # fmt: skip
    found = configuration(RunConfig, given, None)
    expected = {**msgspec.to_builtins(RunConfig()), "publish": False, "upper_share": 0.5, "model": "some/model"}
    expected["ppo"]["steps"], expected["reward"]["epochs"], expected["gate"]["min_gain"] = 7, 3, -1.5
    assert msgspec.to_builtins(found) == expected


def test_options_win_over_the_file_and_the_file_over_the_stored_configuration(tmp_path):
    stored = msgspec.to_builtins(RunConfig(seed=1, ppo=PpoConfig(steps=1, epochs=5, rank=2)))
    file = tmp_path / "recipe.toml"
    file.write_text("seed = 2\n[ppo]\nsteps = 2\nepochs = 6\n")
    found = configuration(RunConfig, given_by("--steps", "3"), file, stored)
    assert (found.ppo.rank, found.seed, found.ppo.epochs, found.ppo.steps) == (2, 2, 6, 3)
    assert stored["ppo"]["steps"] == 1, "what was stored stays as it was"


def test_a_batch_that_does_not_divide_is_refused_with_both_numbers():
    with pytest.raises(UsageError, match="minibatch 5 does not divide batch 16"):
        configuration(RunConfig, given_by("--minibatch", "5"), None)
    with pytest.raises(UsageError, match="answers 3 does not divide batch 16"):
        configuration(RunConfig, given_by("--answers", "3"), None)


@pytest.mark.parametrize("advantage", ["reinforce", "rloo", "grpo"])
def test_an_answer_that_has_no_other_to_be_compared_with_is_refused(advantage):
    with pytest.raises(UsageError, match=r"2 or more|does not divide"):
        configuration(RunConfig, given_by("--advantage", advantage, "--batch", "1", "--minibatch", "1"), None)
    alone = ("--advantage", advantage, "--batch", "1", "--minibatch", "1", "--answers", "1")
    with pytest.raises(UsageError, match=f"{advantage} compares .* must be 2 or more"):
        configuration(RunConfig, given_by(*alone), None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stepz = 3", "stepz"),
        ("[ppo]\nstepz = 3", r"ppo: .*stepz"),
        ("[ppo]\nsteps = 0", r"ppo\.steps(: | must be a whole number of at least 1)"),
        ('[ppo]\nsteps = "many"', r"ppo\.steps(: | must be a whole number of at least 1)"),
        ("[ppo]\nminibatch = 5", "does not divide"),
        ("[reward]\nheld_out = 1.0", r"reward\.held_out must be a number below 1"),
        ("[ppo\nsteps = 3", "is not TOML.*line 1"),
    ],
)
def test_a_mistake_in_a_file_is_blamed_on_the_file(tmp_path, text, says):
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=f"recipe.toml.*{says}|{says}.*recipe.toml") as caught:
        configuration(RunConfig, given_by(), file)
    assert caught.value.hint


def test_a_mistake_in_an_option_is_not_blamed_on_the_file(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text("[ppo]\nsteps = 3\n")
    with pytest.raises(UsageError) as caught:
        configuration(RunConfig, given_by("--lam", "2"), file)
    assert "recipe.toml" not in caught.value.message
    assert "ppo.lam" in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--gate-win-rate", "2"), "--gate-win-rate must be a number below 1"),
        (("run", "--steps", "0"), "--steps must be a whole number of at least 1"),
        (("run", "--minibatch", "5"), "minibatch 5 does not divide batch 16"),
        (("judge", "--limit", "-1"), "--limit must be a whole number of at least 0"),
        (("judge", "--endpoint", "http://127.0.0.1:9/v1"), "an endpoint and its model go together: give both"),
    ],
)
def test_a_mistake_in_an_option_is_told_by_its_name(tmp_path, arguments, says):
    with open_database(Workspace(tmp_path / "workspace").prepare()):
        pass
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(cli, [*arguments, "--workspace", str(tmp_path / "workspace")], catch_exceptions=False)
    assert caught.value.message == says
    assert caught.value.hint.endswith("--help` tells what each option takes")


def test_a_missing_file_and_an_unknown_key_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*none\.toml"):
        configuration(RunConfig, given_by(), tmp_path / "none.toml")
    with pytest.raises(UsageError, match="unknown field `colour`") as caught:
        build(RunConfig, {"colour": "blue"})
    assert "ppo" in caught.value.hint


def test_a_configuration_survives_its_way_through_the_database():
    config = RunConfig(seed=3, ppo=PpoConfig(steps=4, temperature=0.5))
    again = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(config)))
    assert configuration(RunConfig, given_by(), None, again) == config


def test_help_names_every_option_with_its_meaning_and_default():
    text = CliRunner().invoke(cli, ["run", "--help"]).output
    for option in ("--steps", "--reward-learning-rate", "--gate-max-kl", "--publish / --no-publish", "--upper-share"):
        assert option in text
    assert "[default: 40]" in text
    assert "longest response" in text
