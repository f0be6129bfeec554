"""Rewards in plain Python: what they may return, how they add up, and a run against them from the command line."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from rated_workspace import fill
from safetensors.torch import load_file

from storage import jobs, metrics, versions
from storage.errors import UsageError
from storage.records import Prompt
from trainer import cli
from trainer.algorithms.rollouts import Rollout
from trainer.policy.decoding import Completion
from trainer.reward.function import RewardFunctionError, curve_names, read, read_all, words
from trainer.reward.mixture import Mixture
from trainer.reward.table import TableReward

TABLE = {"¿Por qué sube el pan?": {"La levadura hace gas.": 5, "No sé.": 1}}
ROUNDS = (
    "--batch", "8", "--answers", "2", "--minibatch", "4", "--max-new-tokens", "6", "--rank", "4", "--steps", "3",
    "--gate-prompts", "4", "--gate-min-gain=-100", "--gate-max-kl", "1000",
)  # fmt: skip
ALONE = ("--reward-model", "none", *ROUNDS)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def written(tmp_path):
    """Write a file of functions; returns its path."""

    def write(text: str, name: str = "rewards.py") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def rollout(said: str, asked: str = "¿Por qué sube el pan?", language: str = "es", tokens: int = 2) -> Rollout:
    prompt = Prompt("p7", asked, language, "", system="Sé breve.")
    return Rollout(prompt, [1, 2], Completion([3] * tokens, finish_reason="length"), said)


def one(text: str, said: str, **more) -> list[float]:
    return read(text).values([rollout(said, **more)])[0]


# --- what is called, and with what ------------------------------------------------------------------------------------


def test_a_function_is_told_prompt_answer_and_every_fact(written):
    file = written(
        "def told(prompt, response, **facts):\n"
        "    assert (prompt, response) == ('¿Por qué sube el pan?', 'Por la levadura.')\n"
        "    assert facts == {'language': 'es', 'system': 'Sé breve.', 'finish_reason': 'length', 'tokens': 5,"
        " 'prompt_id': 'p7'}, facts\n"
        "    return 1\n"
        "def few(prompt, response, tokens, mood='calm'):\n"
        "    return tokens if mood == 'calm' else 0\n"
    )
    assert one(f"{file}:told", "Por la levadura.", tokens=5) == [1.0]
    assert one(f"{file}:few", "Por la levadura.", tokens=5) == [5.0], "it asked for one fact alone"


def test_a_first_parameter_called_prompts_takes_all_answers_at_once_and_numbers_may_come_in_any_form(written):
    file = written(
        "import numpy, torch\n"
        "def many(prompts, responses, language, **facts):\n"
        "    assert language == ['es', 'es'] and facts['tokens'] == [2, 2]\n"
        "    return numpy.array([len(said) for said in responses])\n"
        "def tensor(prompts, responses): return torch.tensor([[1.0, 2.0]] * len(responses))\n"
        "def scalar(prompt, response): return numpy.float32(0.5)\n"
        "def check(prompt, response): return len(response) > 1\n"
        "class Longer:\n"
        "    def __call__(self, prompt, response): return len(response)\n"
        "longer = Longer()\n"
    )
    both = [rollout("a"), rollout("bcd")]
    found = {name: read(f"{file}:{name}").values(both) for name in ("many", "tensor", "scalar", "check", "longer")}
    assert found == {
        "many": [[1.0], [3.0]], "tensor": [[1.0, 2.0]] * 2, "scalar": [[0.5]] * 2, "check": [[0.0], [1.0]],
        "longer": [[1.0], [3.0]],
    }  # fmt: skip


def test_what_lies_beside_the_file_can_be_imported_and_functions_of_one_file_share_what_it_keeps(written):
    written("def length(text): return len(text)\n", "beside_rewards_x.py")
    file = written(
        "import beside_rewards_x\ncount = []\n"
        "def first(prompt, response):\n    count.append(1)\n    return beside_rewards_x.length(response)\n"
        "def second(prompt, response): return len(count)\n"
    )
    first, second = read_all([f"{file}:first", f"{file}:second"])
    assert (first.values([rollout("abc")]), second.values([rollout("abc")])) == ([[3.0]], [[1.0]])


@pytest.mark.parametrize(
    ("text", "what", "weight"),
    [
        ("language", "language", 1.0), ("language=0.5", "language", 0.5), ("language=-2e-1", "language", -0.2),
        ("regex:x=1", "regex:x", 1.0), ("regex:x=1=1", "regex:x=1", 1.0), ("regex:a=b", "regex:a=b", 1.0),
        ("length:1-9=.5", "length:1-9", 0.5), ("length:1-9=0", "length:1-9", 0.0),
    ],
)  # fmt: skip
def test_the_last_equals_sign_before_a_number_gives_the_weight(text, what, weight):
    found = read(text)
    assert (found.what, found.weight) == (what, weight)
    assert read(found.spelled).spelled == found.spelled, "what is stored says the same again"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("polite", "is no reward function"),
        ("FILE", "is no reward function"),
        ("FILE:none_such", "has no none_such"),
        ("nowhere.py:f", "cannot read .*nowhere.py"),
        ("FILE:number", "number is 3 .int., which is no plain function"),
        ("FILE:later", "which is no plain function"),
        ("FILE:alone", "must take a prompt and a response first"),
        ("FILE:named", "must take a prompt and a response first"),
        ("FILE:more", "asks for mood, which nobody tells it"),
        ("length:9-1", "is no range of words"),
        ("length:short", "is no range of words"),
        ("regex:(", "is no regular expression"),
    ],
)
def test_what_cannot_be_called_is_refused_when_it_is_named(written, text, says):
    file = written(
        "number = 3\nasync def later(prompt, response): return 1\ndef alone(response): return 1\n"
        "def named(*, prompt, response): return 1\ndef more(prompt, response, mood): return 1\n"
    )
    with pytest.raises(UsageError, match=says) as caught:
        read(text.replace("FILE", str(file)))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(:\n", "rewards.py, line 1: invalid syntax"),
        (
            "x = 1\ny = x / 0\n",
            r"rewards.py cannot be loaded: ZeroDivisionError: division by zero \(rewards.py, line 2",
        ),
        ("import sys\nsys.exit(3)\n", "rewards.py cannot be loaded: SystemExit: 3"),
        ("import none_such_module\n", "ModuleNotFoundError"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told_with_its_line(written, source, says):
    with pytest.raises(UsageError, match=says):
        read(f"{written(source)}:f")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 1 / 0", r"raised ZeroDivisionError: division by zero \(rewards.py, line 2\)"),
        ("return float('nan')", "returned nan .float., which is no finite number"),
        ("return float('-inf')", "returned -inf"),
        ("pass", "returned None .NoneType."),
        ("return 'good'", "returned 'good' .str."),
        ("return []", "returned .. .list."),
        ("return [1, None]", "returned .1, None. .list."),
    ],
)
def test_an_error_names_function_and_answer(written, body, says):
    function = read(f"{written(f'def bad(prompt, response, **facts):{chr(10)}    {body}{chr(10)}')}:bad")
    with pytest.raises(RewardFunctionError, match=says) as caught:
        function.values([rollout("La levadura hace gas, " + "y más gas, " * 20)])
    message = caught.value.message
    assert "rewards.py:bad" in message
    assert "“La levadura hace gas, y más" in message
    assert "“¿Por qué sube el pan?”" in message
    assert len(message) < 500
    assert "--accept-reward-function" in caught.value.hint


def test_a_batch_names_its_first_answer_and_the_one_that_went_wrong(written):
    file = written(
        "def short(prompts, responses): return [1.0]\n"
        "def number(prompts, responses): return 1.0\n"
        "def raising(prompts, responses): raise KeyError('mood')\n"
        "def second(prompts, responses): return [1.0, float('inf')]\n"
        "def uneven(prompts, responses): return [[1.0], [1.0, 2.0]]\n"
    )
    both = [rollout("Sí."), rollout("No.")]
    for name, says in {
        "short": "returned a list of 1 for 2 answers, the first of them “Sí.” to",
        "number": "returned 1.0 .float. instead of a list",
        "raising": "raised KeyError: 'mood' .rewards.py, line 3. for 2 answers",
        "second": "returned inf .*for the answer “No.”",
        "uneven": "returned 2 parts, and 1 for another answer, for the answer “No.”",
    }.items():
        with pytest.raises(RewardFunctionError, match=says):
            read(f"{file}:{name}").values(both)


# --- checks -----------------------------------------------------------------------------------------------------------


def test_a_regular_expression_is_found_or_not():
    assert one(r"regex:(?i)\bpan\b", "El PAN sube.") == [1.0]
    assert one(r"regex:(?i)\bpan\b", "La panadería.") == [0.0]


@pytest.mark.parametrize(
    ("said", "language", "value"),
    [
        ("La levadura produce gas y la masa sube.", "es", 1.0),
        ("La levadura produce gas y la masa sube.", "es-AR", 1.0),
        ("The yeast makes gas, so the dough rises.", "es", 0.0),
        ("酵母会产生气体，所以面团会发起来。", "zh-Hans", 1.0),
        ("酵母会产生气体，所以面团会发起来。", "ja", 0.0),
        ("Gjæren lager gass, slik at deigen hever seg.", "nb", 1.0),
        ("1 + 1 = 2", "es", 0.0),
        ("La levadura produce gas.", "und", 0.0),
    ],
)
def test_an_answer_in_its_prompts_language_is_told_from_another(said, language, value):
    assert one("language", said, language=language) == [value]


def test_a_length_counts_words_and_falls_off_on_both_sides():
    assert words("Well - it's bread, isn't it?") == 5
    assert words("面包，真好。 OK") == 5
    assert words("रोटी क्यों फूलती है") == 4
    values = [one("length:4-8", " ".join(["pan"] * count))[0] for count in (0, 1, 2, 4, 6, 8, 16)]
    assert values == [0, 0.25, 0.5, 1, 1, 1, 0.5]


# --- mixtures ---------------------------------------------------------------------------------------------------------


def test_parts_are_told_as_they_are_and_add_up_with_their_weights(written):
    file = written(
        "def letters(prompt, response): return len(response)\n"
        "def two(prompt, response): return [1.0, len(response) / 2]\n"
    )
    table = TableReward(TABLE)
    functions = read_all([f"{file}:letters=0.1", "regex:gas", "regex:sé=-2", f"{file}:two=3", "length:1-2=0"])
    assert curve_names(functions) == ["letters", "regex", "regex_2", "two", "length"]
    rows = [rollout("La levadura hace gas."), rollout("No sé."), rollout("Nadie")]
    said = Mixture(table, functions).rate(rows)
    learned = table.rate(rows).rewards
    assert learned.tolist() == [1, -1, pytest.approx(learned[2].item())]
    assert {name: values.tolist() for name, values in said.parts.items() if name != "learned"} == {
        "letters": [21, 6, 5], "regex": [1, 0, 0], "regex_2": [0, 1, 0], "two_part1": [1, 1, 1],
        "two_part2": [10.5, 3, 2.5], "length": [0.5, 1, 1],
    }  # fmt: skip
    assert torch.equal(said.parts["learned"], learned)
    wanted = torch.tensor([2.1 + 1 + 0 + 34.5, 0.6 + 0 - 2 + 12, 0.5 + 0 + 0 + 10.5])
    torch.testing.assert_close(said.rewards, learned + wanted)
    torch.testing.assert_close(said.plain, said.rewards)
    assert not said.outside.any()
    alone = Mixture(None, functions).rate(rows)
    torch.testing.assert_close(alone.rewards, wanted)
    assert "learned" not in alone.parts


def test_a_function_of_several_parts_has_as_many_for_every_answer(written):
    mixture = Mixture(None, [read(f"{written('def f(prompt, response): return [1.0] * len(response)')}:f")])
    mixture.rate([rollout("ab"), rollout("cd")])
    with pytest.raises(RewardFunctionError, match="3 parts for “abc”, and 2 before"):
        mixture.rate([rollout("abc")])


def test_a_mixture_with_a_fitted_model_keeps_its_states_and_what_it_says(backbone, reward_model):
    rows = [
        Rollout(
            Prompt("p", "Warum?", "de", ""),
            backbone.tokenizer.encode_prompt("Warum?"),
            Completion(backbone.tokenizer.encode_response(text), finish_reason="eos"),
            text,
        )
        for text in ("Darum.", "Wegen der Hefe.")
    ]
    layout = backbone.layout([r.prompt_ids for r in rows], [r.completion.token_ids for r in rows])
    trunk = backbone.trunk(layout)
    own, states = reward_model.score(rows, trunk, layout, trunk)
    mixed, mixed_states = Mixture(reward_model, [read("regex:Hefe=0.5")]).score(rows, trunk, layout, trunk)
    assert torch.equal(states, mixed_states)
    assert torch.equal(own.outside, mixed.outside)
    torch.testing.assert_close(mixed.rewards - own.rewards, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(mixed.plain - own.plain, torch.tensor([0.0, 0.5]))


# --- from the command line --------------------------------------------------------------------------------------------


def refused(workspace, capsys, monkeypatch, *arguments: str) -> str:
    """What a command that is refused before it begins says on standard error."""
    monkeypatch.setattr(sys, "argv", ["trainer", *arguments, "--json", "--workspace", str(workspace.root)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.fixture
def prompted(database):
    """Prompts in ten languages, some held out, with ratings that a function alone does not look at."""
    fill(database, 24)
    return database


def test_a_function_alone_needs_no_ratings_is_drawn_and_judges_itself(trainer, database, written, monkeypatch):
    from storage import conversations
    from storage.records import Split

    for number in range(18):
        split = Split.HELD_OUT if number % 3 == 2 else Split.TRAIN
        conversations.add(database, f"Frage {number}", language=("de", "fr")[number % 2], split=split)
    file = written(
        "print('loaded')\ndef letters(prompt, response, **facts):\n    print('asked')\n    return len(response) / 20\n"
    )
    monkeypatch.chdir(file.parent)
    options = ("--reward-function", "rewards.py:letters=2", "--reward-function", "length:2-4")
    code, found = trainer("rloo", *ALONE, *options)
    assert (code, found["state"], found["version"]) == (0, "done", "v1"), found["error"]
    result = found["result"]
    gates = {gate["gate"]: gate for gate in result["gates"]}
    assert gates["judge"]["passed"]
    assert gates["judge"]["detail"] == "judged by the function that was optimised: it is the goal itself"
    assert "support" not in gates, "there are no ratings that an answer could be unlike"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert versions.get(database, "v1").metrics["reward_functions"] == [
        {"name": "letters", "function": f"{file}:letters", "weight": 2.0, "sha256": digest},
        {"name": "length", "function": "length:2-4", "weight": 1.0, "sha256": None},
    ]
    job = jobs.get(database, found["job"])
    assert job.config["reward_function"] == [f"{file}:letters=2", "length:2-4=1"], "found from every folder"
    assert job.config["reward_function_sha256"] == [digest, ""]
    gains = result["reward_gain_by_part"]
    assert gains.keys() == {"letters", "length"}
    assert 2 * gains["letters"]["mean"] + gains["length"]["mean"] == pytest.approx(result["reward_gain"], abs=1e-5)
    for language in (None, "de", "fr"):
        rows = [metrics.series(database, job.id, f"reward/part_{name}", language) for name in ("letters", "length")]
        scores = metrics.series(database, job.id, "objective/scores", language)
        assert len(scores) >= 1
        steps = dict(scores)
        for (step, letters), (_, length) in zip(*rows, strict=True):
            assert steps[step] == pytest.approx(2 * letters + length, abs=1e-5)


@pytest.mark.parametrize("stage", ["ppo", "grpo", "reinforce", "run"])
def test_a_mixture_with_the_learned_reward_is_judged_by_both(stage, trainer, prompted, written):
    file = written("def letters(prompts, responses):\n    return [len(said) / 20 for said in responses]\n")
    options = ("--reward-function", f"{file}:letters=0.5", "--reward-model", "new", "--gate-max-outside", "1")
    options += ("--sft-steps", "1") if stage == "run" else ()
    options += ("--score-clip", "1000")  # the parts are told before the clip
    code, found = trainer(stage, *ROUNDS, *options, "--reward-rank", "4", "--reward-epochs", "1")
    assert (code, found["state"], found["version"]) == (0, "done", "v1"), found["error"]
    parts = {name: found["metrics"][f"reward/part_{name}"] for name in ("learned", "letters")}
    assert found["metrics"]["objective/scores"] == pytest.approx(parts["learned"] + 0.5 * parts["letters"], abs=1e-4)
    gains = found["result"]["reward_gain_by_part"]
    total = gains["learned"]["mean"] + 0.5 * gains["letters"]["mean"]
    assert found["result"]["reward_gain"] == pytest.approx(total, abs=1e-4)
    assert found["result"]["reward_functions"][0]["name"] == "letters"
    assert "goal itself" not in str(found["result"]["gates"])


def test_a_table_and_a_function_go_together_and_parts_are_exported_and_compared(
    trainer, prompted, workspace, written, monkeypatch, capsys
):
    code, found = trainer("rloo", *ROUNDS, "--reward-model", "table", "--reward-function", "regex:a=0.5")
    assert (code, found["state"]) == (0, "done"), found["error"]
    for arguments in (("export-metrics", found["job"]), ("compare", found["job"])):
        monkeypatch.setattr(sys, "argv", ["trainer", *arguments, "--workspace", str(workspace.root)])
        cli.main()
        out = capsys.readouterr().out
        assert "reward/part_regex" in out
        assert "reward/part_learned" in out


# One answer in two is longer than three letters or so: it fails in some round, not in the first look at the base model.
FAILING = """
calls = []
def letters(prompts, responses):
    calls.append(1)
    if len(calls) > FIRST:
        raise ConnectionError("the judge does not answer")
    return [len(said) / 20 for said in responses]
"""


def test_a_function_that_fails_loses_nothing_and_the_mended_one_goes_on_when_it_is_accepted(
    trainer, prompted, workspace, written, monkeypatch, capsys
):
    good = FAILING.replace("FIRST", "1000000")
    file = written(good)
    options = ("rloo", *ALONE, "--reward-function", f"{file}:letters", "--no-publish", "--gate-answers", "2")
    code, whole = trainer(*options)
    assert (code, whole["version"]) == (0, "v1")

    # The base model's answers, and the two minibatches of two rounds; the third round fails.
    file = written(FAILING.replace("FIRST", "5"))
    code, failed = trainer(*options)
    assert (code, failed["state"]) == (2, "failed")
    assert "letters raised ConnectionError: the judge does not answer (rewards.py, line 6)" in failed["error"]
    assert "“" in failed["error"]
    assert (workspace.root / jobs.get(prompted, failed["job"]).checkpoint).name == "step-2", "two rounds are kept"

    written(good)
    err = refused(workspace, capsys, monkeypatch, "resume", failed["job"])
    assert f"{file}:letters has changed since the job began" in err
    assert "begin a new run" in err
    assert jobs.get(prompted, failed["job"]).state == "failed"
    code, resumed = trainer("resume", failed["job"], "--accept-reward-function", model=False)
    assert (code, resumed["state"], resumed["version"]) == (0, "done", "v2")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert jobs.get(prompted, failed["job"]).config["reward_function_sha256"] == [digest]
    assert versions.get(prompted, "v2").metrics["reward_functions"][0]["sha256"] == digest
    first, second = (load_file(str(workspace.root / versions.get(prompted, name).file)) for name in ("v1", "v2"))
    assert all(torch.equal(first[name], second[name]) for name in first), "bit by bit as if nothing had happened"


def test_a_function_that_fails_at_once_ends_before_any_step(trainer, prompted, written):
    file = written("def f(prompt, response):\n    return None\n")
    code, found = trainer("rloo", *ALONE, "--reward-function", f"{file}:f")
    assert (code, found["state"], found["steps"]) == (2, "failed", 0)
    assert "returned None (NoneType)" in found["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--reward-model", "none"), "give a reward function"),
        (("--reward-model", "none", "--reward-function", "language", "--control", "shuffled"), "a control replaces"),
        (("--reward-function", "none_such.py:f"), "cannot read"),
        (
            ("--reward-function", "language", "--reward-function-sha256", "a", "--reward-function-sha256", "b"),
            "digests",
        ),
    ],
)
def test_wrong_usage_is_told_before_anything_is_queued(arguments, says, workspace, database, capsys, monkeypatch):
    assert says in refused(workspace, capsys, monkeypatch, "rloo", *arguments)
    assert jobs.every(database) == []


def test_without_a_reward_model_it_is_said_that_a_function_alone_needs_none(trainer, prompted):
    code, found = trainer("rloo", *ROUNDS, "--reward-function", "language")
    assert code == 2
    assert "--reward-model none" in jobs.get(prompted, found["job"]).hint


def test_functions_can_come_from_a_file_of_settings(trainer, prompted, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('reward_model = "none"\nreward_function = ["regex:a=0.5", "length:1-3"]\n')
    code, found = trainer("rloo", *ROUNDS, "--config", str(recipe))
    assert (code, found["state"]) == (0, "done"), found["error"]
    assert json.loads(json.dumps(jobs.get(prompted, found["job"]).config["reward_function"])) == [
        "regex:a=0.5", "length:1-3=1",
    ]  # fmt: skip
