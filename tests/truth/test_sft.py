"""Imitation: the loss is that of the answers' tokens alone, and its optimum is how often each answer was given."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch
from architectures import reference_logits, reference_model
from fixed_answers import (
    ANSWERS,
    QUESTIONS,
    advance,
    assert_resumes_exactly,
    finished,
    log_likelihood,
    prompt_in,
    written,
)  # fmt: skip
from msgspec.structs import replace

from storage.errors import UsageError, WorkbenchError
from storage.records import Sampling
from trainer.algorithms import supervised
from trainer.algorithms.sft import sft
from trainer.algorithms.supervised import Row, SupervisedLearner, hold_out, make_row, parts, plan, shares
from trainer.demonstrations import Demonstrations
from trainer.examples import Response
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.policy_config import Tuning
from trainer.supervised_config import SftConfig

CONFIG = SftConfig(
    rank=4, minimum=2, batch=8, steps=60, most_repeats=1000, learning_rate=2e-3, held_out=0.0, language_balance=1.0
)


@pytest.fixture(scope="module")
def backbone(tiny_model) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


def one_each() -> Demonstrations:
    """An answer in every language."""
    responses = [
        written(prompt_in(language), ANSWERS[place % len(ANSWERS)]) for place, language in enumerate(QUESTIONS)
    ]
    return Demonstrations(responses, [f"sample {place}" for place in range(len(responses))], [])


# --- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_answers_tokens_and_their_end(backbone):
    learner = sft(backbone, one_each(), CONFIG, seed=1)
    batch = learner.course.batches[0]
    figures = learner.advance().figures
    model = reference_model(backbone.folder.path)
    sums: Counter[str | None] = Counter()
    counts: Counter[str | None] = Counter()
    for row in batch:
        assert row.response[-1] in backbone.tokenizer.eos_ids
        with torch.no_grad():
            logprobs = reference_logits(model, [*row.prompt, *row.response]).log_softmax(-1)
        for place, token in enumerate(row.response):
            nll = -float(logprobs[len(row.prompt) + place - 1, token])
            for language in (None, row.language):
                sums[language] += nll
                counts[language] += 1
    for language, total in sums.items():
        assert figures["loss/train", language] == pytest.approx(total / counts[language], rel=1e-4)


def test_the_tokens_that_were_sampled_are_those_that_are_learned(backbone):
    prompt = prompt_in("zh")
    sampled = make_row(backbone, Response(prompt, "whatever it decodes to", (7, 8, 9), "v0"))
    assert sampled.response == (7, 8, 9)
    assert sampled.prompt == tuple(backbone.tokenizer.encode_prompt(prompt.text))
    outside = make_row(backbone, written(prompt, "在那边"))
    assert outside.response == tuple(backbone.tokenizer.encode_response("在那边"))


def test_how_a_batch_is_cut_for_memory_changes_nothing(backbone, monkeypatch):
    whole = sft(backbone, one_each(), CONFIG, seed=1)
    at_once = advance(whole, 3)
    monkeypatch.setattr(supervised, "parts", lambda rows: parts(rows, 60))
    cut = sft(backbone, one_each(), CONFIG, seed=1)
    assert len(supervised.parts(cut.course.batches[0])) > 2
    for one, other in zip(at_once, advance(cut, 3), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    for one, other in zip(whole.policy.parameters(), cut.policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


# --- the optimum -----------------------------------------------------------------------------------------------------


def test_answers_become_as_likely_as_they_were_given(backbone):
    prompt = prompt_in("es")
    given = {"left": 4, "right": 2, "up": 1, "back": 1}
    rows = [make_row(backbone, written(prompt, text)) for text, times in given.items() for _ in range(times)]
    config = replace(CONFIG, steps=150, batch=8)
    learner = SupervisedLearner("imitation", backbone, rows, config, seed=1)
    finished(learner)
    decoder = backbone.decoder(learner.result())
    asked = backbone.tokenizer.encode_prompt(prompt.text)
    for text, times in given.items():
        likely = math.exp(log_likelihood(decoder, asked, backbone.tokenizer.encode_response(text)))
        assert likely == pytest.approx(times / 8, abs=0.03)


@pytest.mark.parametrize("tuning", Tuning)
def test_demonstrations_in_every_language_are_learned_by_heart(backbone, tuning):
    found = one_each()
    config = replace(CONFIG, steps=80, tuning=tuning, learning_rate=2e-3)
    learner = sft(backbone, found, config, seed=1)
    assert finished(learner)["loss/train", None] < 0.1
    result = learner.result()
    assert result.kind == tuning
    decoder = backbone.decoder(result)
    prompts = [backbone.tokenizer.encode_prompt(response.prompt.text) for response in found.responses]
    sampling = Sampling(temperature=0.0, max_new_tokens=16)
    answers = decoder.generate(prompts, sampling, range(len(prompts)), backbone.tokenizer.eos_ids)
    assert [backbone.tokenizer.decode(answer.token_ids) for answer in answers] == [r.text for r in found.responses]
    assert {answer.finish_reason for answer in answers} == {"eos"}


def test_a_parent_is_gone_on_from(backbone):
    parent = sft(backbone, one_each(), CONFIG, seed=1)
    last = finished(parent)["loss/train", None]
    child = sft(backbone, one_each(), CONFIG, 2, parent.result())
    fresh = sft(backbone, one_each(), CONFIG, 2)
    assert child.advance().figures["loss/train", None] <= last + 0.01
    assert fresh.advance().figures["loss/train", None] > last + 1


# --- what is learned from when ---------------------------------------------------------------------------------------


def rows_in(counts: dict[str, int]) -> list[Row]:
    return [Row(f"{lang} {n}", lang, (n,), (n,)) for lang, count in counts.items() for n in range(count)]


def drawn(batches: list[list[Row]]) -> Counter[Row]:
    return Counter(row for batch in batches for row in batch)


@pytest.mark.parametrize("balance", [0.0, 0.4, 1.0])
def test_languages_are_drawn_in_balance(balance):
    counts = {"en": 900, "sw": 90, "zh": 10}
    config = SftConfig(steps=100, batch=10, language_balance=balance, most_repeats=1000)
    found = Counter(row.language for row in drawn(plan(rows_in(counts), config, 1)).elements())
    weight = sum(count**balance for count in counts.values())
    for language, count in counts.items():
        assert found[language] == pytest.approx(1000 * count**balance / weight, abs=1)


def test_no_answer_is_learned_from_too_often_and_the_others_take_its_place():
    counts = {"en": 900, "sw": 90, "zh": 10}
    config = SftConfig(steps=100, batch=10, language_balance=0.0, most_repeats=3)
    found = drawn(plan(rows_in(counts), config, 1))
    by_language = Counter(row.language for row in found.elements())
    assert by_language == {"zh": 30, "sw": 270, "en": 700}
    assert max(found.values()) == 3
    assert shares(counts, 3000, 0.4, 3) == {language: 3 * count for language, count in counts.items()}


@pytest.mark.parametrize(("answers", "batch", "steps"), [(8, 16, 4), (3, 16, 1), (1, 16, 1), (500, 16, 100)])
def test_there_are_fewer_steps_where_answers_would_be_repeated_too_often(answers, batch, steps):
    config = SftConfig(steps=100, batch=batch, most_repeats=8)
    batches = plan(rows_in({"sw": answers}), config, 1)
    assert len(batches) == steps
    assert {len(one) for one in batches} == {min(batch, 8 * answers)}
    assert max(drawn(batches).values()) <= 8


def test_within_a_language_all_answers_come_before_one_comes_again():
    rows = rows_in({"hi": 7, "ar": 5})
    seen: dict[str, Counter[Row]] = {"hi": Counter(), "ar": Counter()}
    for batch in plan(rows, SftConfig(steps=20, batch=4), 1):
        for row in batch:
            seen[row.language][row] += 1
            counts = [seen[row.language][other] for other in rows if other.language == row.language]
            assert max(counts) - min(counts) <= 1


def test_the_plan_follows_from_the_seed():
    rows = rows_in({"hi": 30, "ar": 20})
    assert plan(rows, CONFIG, 1) == plan(rows, CONFIG, 1)
    assert plan(rows, CONFIG, 1) != plan(rows, CONFIG, 2)


def test_what_is_learned_about_a_prompt_is_held_out_together():
    rows = [Row(f"prompt {n % 10}", "fr", (n % 10,), (n,)) for n in range(40)]
    learned, kept = hold_out(rows, 0.2)
    assert (len(learned), len(kept)) == (32, 8)
    assert not {row.group for row in learned} & {row.group for row in kept}
    assert hold_out(rows, 0.0) == (rows, [])
    assert len(hold_out(rows[:2], 0.01)[1]) == 1
    assert hold_out(rows[:1], 0.5) == (rows[:1], [])


def test_the_held_out_loss_is_measured_first_last_and_in_between(backbone):
    learner = sft(backbone, one_each(), replace(CONFIG, held_out=0.25, steps=23), seed=1)
    figures = advance(learner, 23)
    measured = [step for step, found in enumerate(figures, 1) if ("loss/held_out", None) in found]
    assert measured[0] == 1
    assert measured[-1] == 23
    assert 10 <= len(measured) <= 13
    languages = {row.language for row in learner.course.held_out}
    assert len(languages) == 2
    assert {language for name, language in figures[0] if name == "loss/held_out"} == {None, *languages}
    assert figures[0]["data/examples", None] == 6


def test_going_on_from_a_checkpoint_is_going_on(backbone, tmp_path):
    config = replace(CONFIG, steps=6, held_out=0.25)
    assert_resumes_exactly(lambda: sft(backbone, one_each(), config, seed=1), tmp_path / "checkpoint")


# --- refusals --------------------------------------------------------------------------------------------------------


def test_too_few_demonstrations_are_refused_with_numbers(backbone):
    with pytest.raises(UsageError, match=r"8 demonstrations and 0 edits .* 8 different answers; 10") as caught:
        sft(backbone, one_each(), replace(CONFIG, minimum=10), seed=1)
    assert "correct 2 more answers" in caught.value.hint


def test_what_does_not_fit_into_the_context_is_left_out_and_told(backbone, monkeypatch):
    found = one_each()
    longest = max(len(make_row(backbone, response)) for response in found.responses)
    shorter = dataclasses.replace(backbone.config, max_position_embeddings=longest - 1)
    monkeypatch.setattr(backbone, "config", shorter)
    learner = sft(backbone, found, CONFIG, seed=1)
    assert all(len(row) < longest for row in learner.course.learned)
    assert learner.advance().figures["data/too_long", None] >= 1
    monkeypatch.setattr(backbone, "config", dataclasses.replace(backbone.config, max_position_embeddings=5))
    with pytest.raises(UsageError, match=r"all 8 answers are longer .* context of 5 tokens"):
        sft(backbone, found, CONFIG, seed=1)


def test_a_run_whose_gradients_are_never_finite_is_stopped_and_keeps_its_weights(backbone):
    learner = sft(backbone, one_each(), CONFIG, seed=1)
    with torch.no_grad():
        next(iter(learner.policy.up.values()))[0, 0] = math.inf
    before = learner.policy.snapshot()
    assert learner.advance().figures["policy/skipped", None] == 1
    with pytest.raises(WorkbenchError, match="3 updates in a row were not finite") as caught:
        advance(learner, 2)
    assert "--learning-rate" in caught.value.hint
    for name, pair in learner.policy.snapshot().pairs.items():
        assert all(torch.equal(one, other) for one, other in zip(pair, before.pairs[name], strict=True))
