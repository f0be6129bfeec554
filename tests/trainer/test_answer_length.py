"""How long answers may be: as long as the rated ones, unless it is said; and from what they are sampled."""

from __future__ import annotations

import pytest
from rated_workspace import fill

from storage.errors import UsageError
from storage.records import Sampling
from trainer import pipeline
from trainer.algorithms import ppo
from trainer.algorithms.rollouts import collect, collect_rows
from trainer.setting import LONGEST_ROLLOUT, SHORTEST_ROLLOUT, UNRATED_LENGTH, usual_length

SMALL = ("--batch", "4", "--answers", "2", "--minibatch", "4", "--rank", "4", "--steps", "1")
GATE = ("--gate-prompts", "4", "--gate-answers", "2", "--no-publish")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], UNRATED_LENGTH),
        ([3] * 20, SHORTEST_ROLLOUT),
        ([24] * 20, 24),
        ([25] * 20, 32),
        ([24] * 19 + [200], 200),
        ([24] * 99 + [200], 24),
        ([24] * 94 + [100] * 6, 104),
        ([24] * 96 + [100] * 4, 24),
        ([900] * 20, LONGEST_ROLLOUT),
        ([40], 40),
    ],
)
def test_nearly_all_rated_answers_fit_in_whole_eights(lengths, expected):
    assert usual_length(lengths) == usual_length(lengths[::-1]) == expected


@pytest.fixture
def lengths(monkeypatch):
    """What the learner of a policy and the gate were told of the length of answers."""
    seen = {}
    learner, gate = ppo.Ppo, pipeline.judge

    def policy(backbone, reward, prompts, config, *more, **named):
        seen["rollouts"] = config.max_new_tokens
        made = learner(backbone, reward, prompts, config, *more, **named)
        assert made.sampling.max_new_tokens == config.max_new_tokens
        return made

    def judge(*arguments, **more):
        seen["gate"] = arguments[6].max_new_tokens
        report = gate(*arguments, **more)
        seen["longest"] = max(report.after.tokens)
        return report

    monkeypatch.setattr(ppo, "Ppo", policy)
    monkeypatch.setattr(pipeline, "judge", judge)
    return seen


def rated_length(database, workspace, tiny_model) -> int:
    """What the rated answers of the workspace ask for, counted anew."""
    from trainer.policy.chat import ChatTokenizer

    tokenizer = ChatTokenizer.load(tiny_model)
    rows = database.rows(
        """SELECT DISTINCT samples.text AS text, prompt_id FROM samples JOIN prompts ON prompts.id = prompt_id
           JOIN ratings ON sample_id = samples.id WHERE split = 'train'"""
    )
    return usual_length([len(tokenizer.encode_response(row["text"])) for row in rows])


def test_rollouts_and_gate_take_the_length_of_the_rated_answers(trainer, database, workspace, tiny_model, lengths):
    fill(database)
    code, found = trainer("rloo", "--reward-model", "new", *SMALL, *GATE)
    assert (code, found["state"]) == (0, "done"), found["error"]
    expected = rated_length(database, workspace, tiny_model)
    assert SHORTEST_ROLLOUT < expected < LONGEST_ROLLOUT
    assert lengths["rollouts"] == lengths["gate"] == expected
    assert lengths["longest"] <= expected


def test_a_length_that_is_asked_for_counts(trainer, database, lengths):
    fill(database)
    code, found = trainer("rloo", "--reward-model", "new", *SMALL, *GATE, "--max-new-tokens", "5")
    assert (code, found["state"]) == (0, "done"), found["error"]
    assert (lengths["rollouts"], lengths["gate"], lengths["longest"]) == (5, 5, 5)


def test_methods_without_rollouts_have_a_length_at_their_gate(trainer, database, workspace, tiny_model, lengths):
    fill(database)
    fixed = ("--batch", "8", "--rank", "4", "--steps", "1", *GATE)
    assert trainer("ilql", *fixed)[0] == 0
    assert lengths["gate"] == rated_length(database, workspace, tiny_model)
    assert trainer("ilql", *fixed, "--gate-max-new-tokens", "6")[0] == 0
    assert lengths["gate"] == 6


@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 40}, {"repetition_penalty": 1.1}])
def test_answers_to_learn_from_are_never_sampled_from_a_cut_distribution(backbone, asked, cut):
    decoder = backbone.decoder()
    with pytest.raises(UsageError, match="from the whole distribution"):
        collect_rows(decoder, backbone.tokenizer, asked[:1], Sampling(max_new_tokens=2, **cut), [1])
    with pytest.raises(UsageError, match="from the whole distribution"):
        collect(decoder, backbone.tokenizer, asked[:1], 2, Sampling(max_new_tokens=2, **cut), 1)
    found = collect_rows(decoder, backbone.tokenizer, asked[:1], Sampling(max_new_tokens=2, temperature=0.7), [1])
    assert len(found) == 1
