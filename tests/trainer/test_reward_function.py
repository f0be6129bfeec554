"""Rewards in plain Python: what they are told, what they may return, and how they add up."""

from __future__ import annotations

import pytest
import torch

from storage.errors import UsageError
from storage.records import Prompt
from trainer.algorithms.rollouts import Rollout
from trainer.policy.decoding import Completion
from trainer.reward.function import RewardFunctionError, curve_names, read, read_all, words
from trainer.reward.mixture import Mixture
from trainer.reward.table import TableReward

TABLE = {"¿Por qué sube el pan?": {"La levadura hace gas.": 5, "No sé.": 1}}


pytestmark = pytest.mark.usefixtures("one_thread")


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
