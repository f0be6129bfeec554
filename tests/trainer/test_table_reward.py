"""The table reward: known answers get their score, unknown ones by likeness, and it serves as a reward."""

from __future__ import annotations

import math
import unicodedata

import pytest
import torch

from storage.errors import UsageError
from storage.records import Prompt
from trainer.algorithms.rollouts import Rollout
from trainer.examples import Examples, Response, Scored
from trainer.policy.decoding import Completion
from trainer.reward.table import TableReward, f_score, folded, grams

TABLE = {
    "¿Por qué sube el pan?": {"La levadura hace gas.": 5, "No sé.": 1},
    "面包为什么会发起来？": {"酵母产生气体。": 4, "不知道。": 2},
}


def rollout(asked: str, said: str) -> Rollout:
    return Rollout(Prompt("p", asked, "es", ""), [1, 2], Completion([3, 4], finish_reason="eos"), said)


def test_scores_have_mean_0_and_deviation_1_over_the_table():
    table = TableReward(TABLE)
    values = [table.value(asked, answer) for asked, answers in TABLE.items() for answer in answers]
    assert values == pytest.approx([(score - 3) / math.sqrt(2.5) for score in (5, 1, 4, 2)])
    assert len(table) == 4


@pytest.mark.parametrize(
    "said", ["la  LEVADURA\nhace gas. ", unicodedata.normalize("NFD", "La levadura hace gas.")], ids=["case", "form"]
)
def test_case_white_space_and_unicode_form_make_no_difference(said):
    table = TableReward(TABLE)
    asked = unicodedata.normalize("NFD", "¿POR QUÉ sube el pan?")
    assert table.value(asked, said) == table.value("¿Por qué sube el pan?", "La levadura hace gas.")


def test_an_unknown_answer_gets_the_score_of_the_likest_as_far_as_it_is_alike():
    table = TableReward(TABLE)
    asked, best = "¿Por qué sube el pan?", "La levadura hace gas."
    near = table.value(asked, "La levadura hace mucho gas.")
    likeness = f_score(grams(folded("La levadura hace mucho gas.")), grams(folded(best)))
    assert 0.5 < likeness < 1
    assert near == pytest.approx(likeness * table.value(asked, best))
    assert table.value(asked, "No lo sé.") < 0 < near
    assert table.value(asked, "酵母") == 0, "nothing in common is the table's mean"
    assert table.value("Warum?", best) == 0, "so is an input that is not in the table"
    assert table.value(asked, "") == 0


def test_likeness_counts_the_runs_of_characters_that_are_shared():
    assert f_score(grams("ab"), grams("ab")) == 1
    # One character: a a b | a c c: 2 * 1 / 6; two: aa ab | ac cc: 0; three: aab | acc: 0.
    assert f_score(grams("aab"), grams("acc")) == pytest.approx((1 / 3) / 3)
    assert f_score(grams("pan pan"), grams("panpan")) == 1
    assert f_score(grams("أزرق"), grams("مكتب")) == 0


def test_a_workspace_gives_the_mean_over_raters_of_overall_scores():
    prompt = Prompt("p1", "Kwa nini mkate huumuka?", "sw", "")
    yeast, no = Response(prompt, "Hamira.", None, None), Response(prompt, "Sijui.", None, None)
    scores = [Scored(yeast, 1.0, "amina"), Scored(yeast, 2.0, "juma"), Scored(no, -0.5, "amina")]
    table = TableReward.of(Examples(scores=[*scores, Scored(no, 9.0, "amina", "polite")]))
    assert table.mean == pytest.approx(0.5)
    assert [table.value(prompt.text, text) for text in ("Hamira.", "Sijui.")] == pytest.approx([1, -1])


def test_scores_of_held_out_inputs_measure_and_change_nothing_of_the_table():
    apart = {"¿Qué es un faro?": {"Una torre.": 5, "Un perro.": 1}, "¿POR QUÉ sube el pan?": {"No sé.": 5}}
    alone, measuring = TableReward(TABLE), TableReward(TABLE, apart)
    assert (measuring.mean, measuring.deviation) == (alone.mean, alone.deviation)
    for asked in TABLE:
        for said in ("La levadura hace gas.", "No sé.", "酵母产生气体。", "quizás"):
            assert measuring.value(asked, said) == alone.value(asked, said)
    assert measuring.value("¿Qué es un faro?", "Una torre.") == pytest.approx((5 - 3) / math.sqrt(2.5))
    assert alone.value("¿Qué es un faro?", "Una torre.") == 0


@pytest.mark.parametrize("values", [[], [2.0, 2.0]], ids=["empty", "equal"])
def test_a_table_that_tells_nothing_apart_is_refused(values):
    prompt = Prompt("p1", "Warum?", "de", "")
    scores = [Scored(Response(prompt, f"{number}", None, None), value, "a") for number, value in enumerate(values)]
    with pytest.raises(UsageError, match=f"needs two different scores; this one has {len(values)} entries"):
        TableReward.of(Examples(scores=scores))


def test_model_and_table_are_rewards_alike(backbone, reward_model):
    """Both score a laid-out batch as they score the same rollouts alone."""
    texts = ["La levadura hace gas.", "No sé.", "Quizás."]
    asked = "¿Por qué sube el pan?"
    rollouts = [
        Rollout(
            Prompt("p", asked, "es", ""),
            backbone.tokenizer.encode_prompt(asked),
            Completion(backbone.tokenizer.encode_response(text), finish_reason="eos"),
            text,
        )
        for text in texts
    ]
    layout = backbone.layout([r.prompt_ids for r in rollouts], [r.completion.token_ids for r in rollouts])
    trunk = backbone.trunk(layout)
    for reward in (TableReward(TABLE), reward_model):
        said, _ = reward.score(rollouts, trunk, layout, trunk)
        alone = reward.rate(rollouts)
        assert said.rewards.shape == said.outside.shape == (3,)
        assert len(set(said.rewards.tolist())) == 3
        for name in ("rewards", "plain"):
            torch.testing.assert_close(getattr(said, name), getattr(alone, name), rtol=1e-5, atol=1e-5)
        assert torch.equal(said.outside, alone.outside)
