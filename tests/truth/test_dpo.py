"""DPO, IPO and KTO: the losses' known optima on problems that can be enumerated, and what a run of them learns."""

from __future__ import annotations

import itertools
import math

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
)
from msgspec.structs import replace

from storage.errors import UsageError
from trainer.algorithms.comparisons import Comparison, check_enough, comparisons, judged, made, told
from trainer.algorithms.supervised import Row, make_row
from trainer.examples import Examples, Labelled, Pair, Scored
from trainer.methods.dpo import METHOD, Dpo, DpoConfig, Loss, kto_loss, mismatched, preference_loss
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.policy_config import Tuning

ARMS, BETA = 6, 0.5
CONFIG = DpoConfig(
    rank=4, minimum=1, batch=10, steps=120, most_repeats=10000, learning_rate=3e-3, held_out=0.0, beta=1.0
)


@pytest.fixture(scope="module")
def backbone(tiny_model) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


# --- the optima ------------------------------------------------------------------------------------------------------


def optimum(loss_of, reference: torch.Tensor) -> torch.Tensor:
    """The policy (arms,) that minimises a loss of its log-ratios to the reference, in fp64, by Newton-like descent."""
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(logits.log_softmax(0) - reference)
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(0)


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(ARMS, generator=generator, dtype=torch.float64)
    return rewards, torch.randn(ARMS, generator=generator, dtype=torch.float64).log_softmax(0)


def gaps(ratios: torch.Tensor) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    pairs = list(itertools.combinations(range(ARMS), 2))
    return torch.stack([ratios[one] - ratios[other] for one, other in pairs]), pairs


@pytest.mark.parametrize("seed", range(5))
def test_dpo_on_preferences_of_bradley_and_terry_ends_in_the_best_policy_under_a_leash(seed):
    rewards, reference = problem(seed)
    wins = torch.stack([torch.sigmoid(rewards[a] - rewards[b]) for a, b in itertools.combinations(range(ARMS), 2)])
    found = optimum(lambda ratios: preference_loss(gaps(ratios)[0], wins, BETA, Loss.DPO).sum(), reference)
    best = (reference + rewards / BETA).softmax(0)
    assert float((reference.exp() - best).abs().sum() / 2) > 0.1, "the reference is not the answer already"
    assert float((found - best).abs().sum() / 2) < 1e-5


def test_dpo_without_doubt_runs_away_and_ipo_does_not():
    """Preferences that always fall the same way: DPO's gap grows without end, IPO's stays at 1 / (2 beta)."""
    gap = torch.linspace(-20, 40, 6001, dtype=torch.float64)
    sure = torch.ones_like(gap)
    assert gap[preference_loss(gap, sure, BETA, Loss.DPO).argmin()] == gap[-1]
    assert float(gap[preference_loss(gap, sure, BETA, Loss.IPO).argmin()]) == pytest.approx(1 / (2 * BETA), abs=0.01)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_ipo_ends_where_its_gap_is_the_lead_over_two_beta(share):
    """Mean of the losses of a share of wins and the rest of losses: as of the share itself, up to a constant."""
    gap = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    won, lost = (preference_loss(gap, torch.full_like(gap, end), BETA, Loss.IPO) for end in (1.0, 0.0))
    mixed = share * won + (1 - share) * lost
    told = (2 * share - 1) / (2 * BETA)
    assert float(gap[mixed.argmin()]) == pytest.approx(told, abs=1e-3)
    assert float(gap[preference_loss(gap, torch.full_like(gap, share), BETA, Loss.IPO).argmin()]) == pytest.approx(
        told, abs=1e-3
    )


def test_the_loss_of_dpo_is_the_negative_log_of_a_sigmoid():
    gap, wins = torch.tensor([0.3, -2.0, 5.0]), torch.tensor([1.0, 0.0, 0.5])
    found = preference_loss(gap, wins, 0.7, Loss.DPO).tolist()
    for value, lead, won in zip(found, gap.tolist(), wins.tolist(), strict=True):
        likely = 1 / (1 + math.exp(-0.7 * lead))
        assert value == pytest.approx(-won * math.log(likely) - (1 - won) * math.log(1 - likely), rel=1e-5)


# --- KTO -------------------------------------------------------------------------------------------------------------


def test_kto_makes_good_answers_likelier_and_bad_ones_less_most_where_it_is_undecided():
    ratio = torch.tensor([2.0, 2.0, 9.0, -30.0], requires_grad=True)
    good = torch.tensor([True, False, True, True])
    losses = kto_loss(ratio, good, 2.0, BETA, (3.0, 0.5))
    losses.sum().backward()
    assert losses.tolist()[:2] == pytest.approx([1.5, 0.25])
    # The derivative is weight * beta * s (1 - s), s the sigmoid of how far the answer is on its right side.
    assert ratio.grad[0] == pytest.approx(-3.0 * BETA / 4)
    assert ratio.grad[1] == pytest.approx(0.5 * BETA / 4)
    assert -0.05 < ratio.grad[2] < 0, "what is far on the right side is left alone"
    assert abs(ratio.grad[3]) < 1e-5, "and so is what is far on the wrong side"


def test_the_reference_point_is_the_mean_over_answers_to_other_prompts_and_never_below_zero(backbone):
    rows = [
        replace_outcome(make_row(backbone, written(prompt_in(language), answer)), 1.0 if place % 2 else -1.0)
        for place, (language, answer) in enumerate(itertools.product(("es", "sw", "hi"), ("left", "right")))
    ]
    swapped = mismatched(rows)
    assert len(swapped) == len(rows)
    for own, other in zip(rows, swapped, strict=True):
        assert (own.prompt, own.group) == (other.prompt, other.group)
        assert other.response in {row.response for row in rows if row.group != own.group}
    assert mismatched(rows[:2]) == [], "two answers to one prompt belong to it both"

    learner = Dpo(backbone, rows, replace(CONFIG, loss=Loss.KTO, batch=6), seed=1)
    assert learner._reference_point(rows) == 0, "nothing has moved yet"
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in learner.policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    asked = [(list(row.prompt), list(row.response)) for row in swapped]
    moved, base = backbone.decoder(learner.result()), backbone.decoder()
    apart = sum(log_likelihood(moved, *one) - log_likelihood(base, *one) for one in asked) / len(asked)
    assert abs(apart) > 0.1
    assert learner._reference_point(rows) == pytest.approx(max(0.0, apart), abs=1e-3)


def test_the_reference_point_is_clamped_at_zero(backbone, monkeypatch):
    rows = [replace_outcome(make_row(backbone, written(prompt_in(language), "left")), 1.0) for language in ("es", "sw")]
    learner = Dpo(backbone, rows, replace(CONFIG, loss=Loss.KTO), seed=1)
    for shift, expected in ((-3.0, 0.0), (2.5, 2.5)):
        monkeypatch.setattr(
            learner, "_log_likelihoods",
            lambda part, policy, shift=shift: torch.full((len(part),), shift if policy is learner.policy else 0.0),
        )  # fmt: skip
        assert learner._reference_point(rows) == expected


def test_classes_weigh_alike_in_all_unless_it_is_said(backbone):
    rows = [
        replace_outcome(make_row(backbone, written(prompt_in(language), answer)), 1.0 if answer == "left" else -1.0)
        for language, answer in itertools.product(("es", "sw", "hi"), ("left", "right", "back"))
    ]
    balanced = Dpo(backbone, rows, replace(CONFIG, loss=Loss.KTO, bad_weight=1.5), seed=1)
    assert balanced.weights == (1.5 * 6 / 3, 1.5)
    assert Dpo(backbone, rows, replace(CONFIG, loss=Loss.KTO, good_weight=2.0), seed=1).weights == (2.0, 1.0)


def replace_outcome(row: Row, outcome: float) -> Row:
    return Row(row.group, row.language, row.prompt, row.response, outcome)


# --- a run -----------------------------------------------------------------------------------------------------------


def four_of_five(backbone: Backbone, language: str = "es") -> list[Comparison]:
    """`left` wins over `right` four times and loses once; `up` and `back` were never compared."""
    prompt = prompt_in(language)
    left, right = written(prompt, "left"), written(prompt, "right")
    return comparisons(backbone, [*[Pair(left, right, 1.0)] * 4, Pair(left, right, 0.0)])


def lead(backbone: Backbone, learner: Dpo, start=None) -> float:
    """log(pi / ref) of `left` less that of `right`, nats, as the served model says them."""
    decoder, base = backbone.decoder(learner.result()), backbone.decoder(start)
    asked = backbone.tokenizer.encode_prompt(prompt_in("es").text)
    said = [backbone.tokenizer.encode_response(text) for text in ("left", "right")]
    one, other = (log_likelihood(decoder, asked, text) - log_likelihood(base, asked, text) for text in said)
    return one - other


@pytest.mark.parametrize(("loss", "expected"), [(Loss.DPO, math.log(4)), (Loss.IPO, 0.6 / 2)])
@pytest.mark.parametrize("tuning", Tuning)
def test_a_run_ends_at_the_lead_that_its_loss_asks_for(backbone, loss, expected, tuning):
    # At three times this rate a run is still tossed about at its end: where it stops hangs on how a processor rounds.
    config = replace(CONFIG, loss=loss, tuning=tuning, learning_rate=1e-3)
    learner = Dpo(backbone, four_of_five(backbone), config, seed=1)
    first = learner.advance().figures
    assert first["loss/train", None] == pytest.approx(math.log(2) if loss == Loss.DPO else 0.25, abs=1e-3)
    finished_figures = advance(learner, learner.steps - 1)[-1]
    assert lead(backbone, learner) == pytest.approx(expected, abs=0.05)
    assert finished_figures["preference/accuracy", None] == pytest.approx(0.8)


def test_the_loss_is_that_of_whole_answers_against_the_parent(backbone):
    parent = Dpo(backbone, four_of_five(backbone), replace(CONFIG, steps=10), seed=1)
    finished(parent)
    start = parent.result()
    child = Dpo(backbone, four_of_five(backbone, "sw"), replace(CONFIG, beta=0.3), seed=2, parent=start)
    assert child.advance().figures["loss/train", None] == pytest.approx(math.log(2), abs=1e-4), (
        "it is its own reference"
    )
    advance(child, 4)
    expected = 0.0
    batch = child.course.batches[5]
    served, before = backbone.decoder(child.result()), backbone.decoder(start)
    for item in batch:
        ratios = [
            log_likelihood(served, row.prompt, row.response) - log_likelihood(before, row.prompt, row.response)
            for row in (item.first, item.second)
        ]
        likely = 1 / (1 + math.exp(-0.3 * (ratios[0] - ratios[1])))
        expected -= math.log(likely if item.wins else 1 - likely) / len(batch)
    assert child.advance().figures["loss/train", None] == pytest.approx(expected, abs=1e-4)


def test_what_is_known_of_the_reference_is_what_another_implementation_says(backbone):
    items = four_of_five(backbone)
    learner = Dpo(backbone, items, CONFIG, seed=1)
    model = reference_model(backbone.folder.path)
    for row in (items[0].first, items[0].second):
        with torch.no_grad():
            logprobs = reference_logits(model, [*row.prompt, *row.response]).log_softmax(-1)
        told_apart = sum(float(logprobs[len(row.prompt) + n - 1, token]) for n, token in enumerate(row.response))
        assert learner.known[row] == pytest.approx(told_apart, rel=1e-4)


def test_kto_parts_good_from_bad(backbone):
    rows = [
        replace_outcome(make_row(backbone, written(prompt_in(language), answer)), 1.0 if answer == "left" else -1.0)
        for language, answer in itertools.product(QUESTIONS, ANSWERS)
    ]
    learner = Dpo(backbone, rows, replace(CONFIG, loss=Loss.KTO, batch=16, steps=60, beta=0.5), seed=1)
    figures = advance(learner, 60)
    assert figures[-1]["preference/accuracy", None] == 1
    assert figures[-1]["loss/train", None] < 0.5 * figures[0]["loss/train", None]
    assert all(one["preference/reference_point", None] >= 0 for one in figures)
    assert lead(backbone, learner) > 2


def alike(backbone: Backbone, loss: Loss) -> list[Comparison] | list[Row]:
    """The same taste in four languages, as each of the losses takes it."""
    languages = ("es", "sw", "hi", "fr")
    if loss != Loss.KTO:
        return [item for language in languages for item in four_of_five(backbone, language)]
    return [
        replace_outcome(make_row(backbone, written(prompt_in(language), answer)), 1.0 if answer == "left" else -1.0)
        for language, answer in itertools.product(languages, ("left", "right"))
    ]


@pytest.mark.parametrize("loss", Loss)
def test_the_curves_that_are_drawn_are_recorded_and_what_is_kept_back_is_measured(backbone, loss):
    config = replace(CONFIG, loss=loss, steps=6, held_out=0.25, batch=4)
    learner = Dpo(backbone, alike(backbone, loss), config, seed=1)
    figures = learner.advance().figures
    assert isinstance(METHOD.board, tuple)
    assert {(curve.metric, None) for curve in METHOD.board} <= figures.keys()
    (language,) = {item.language for item in learner.course.held_out}
    assert figures["loss/held_out", language] == figures["loss/held_out", None] > 0
    assert 0 <= figures["preference/held_out_accuracy", None] <= 1


@pytest.mark.parametrize("loss", Loss)
def test_going_on_from_a_checkpoint_is_going_on(backbone, tmp_path, loss):
    config = replace(CONFIG, loss=loss, steps=6, held_out=0.25, batch=4)
    assert_resumes_exactly(lambda: Dpo(backbone, alike(backbone, loss), config, seed=1), tmp_path / "checkpoint")


# --- what is learned from --------------------------------------------------------------------------------------------


def rated() -> Examples:
    """Two prompts: one compared and scored, one with labels and an edit."""
    es, sw = prompt_in("es"), prompt_in("sw")
    a, b, c = (written(es, text) for text in ("left", "right", "up"))
    d, e, edited = (written(sw, text) for text in ("left", "right", "back"))
    return Examples(
        scores=[Scored(a, 1.2, "amina"), Scored(b, -0.8, "amina"), Scored(c, 1.0, "amina"),
                Scored(c, -9.0, "amina", "politeness")],
        labels=[Labelled(d, True, 1.0, "li"), Labelled(e, False, 1.0, "li")],
        pairs=[Pair(b, a, 1.0, "li"), Pair(edited, e, 1.0, "li"), Pair(a, c, 1.0, "li", attribute="politeness")],
    )  # fmt: skip


def test_what_was_compared_counts_as_it_was_said_and_the_rest_by_scores_and_labels():
    pairs, invented = told(rated()), made(rated(), 0.5)
    assert [(pair.first.text, pair.second.text) for pair in pairs] == [("right", "left"), ("back", "right")]
    # Neither left against right (it was said) nor left against up (of politeness alone, and too near).
    assert [(pair.prompt.language, pair.first.text, pair.second.text) for pair in invented] == [
        ("es", "up", "right"), ("sw", "left", "right"),
    ]  # fmt: skip
    assert not [pair for pair in made(rated(), 1.9) if pair.prompt.language == "es"]


def test_for_kto_an_answer_is_good_or_bad_by_the_mean_of_its_rater(backbone):
    rows = judged(backbone, rated(), 5)
    signs = {(row.language, backbone.tokenizer.decode(list(row.response))): row.outcome > 0 for row in rows}
    assert signs["sw", "left"]
    assert not signs["sw", "right"]
    assert signs["es", "up"]
    assert all(row.outcome for row in rows)
    with pytest.raises(UsageError, match="all 2 answers are good"):
        judged(backbone, Examples(scores=[Scored(written(prompt_in("es"), text), value, "amina")
                                          for text, value in (("left", 1.0), ("right", 0.5))]), 1)  # fmt: skip


def test_too_few_comparisons_are_refused_with_numbers():
    pairs = [*told(rated()), Pair(written(prompt_in("es"), "up"), written(prompt_in("es"), "back"), 0.5)]
    message = r"3 pairs and edits \(1 of them ties\), and 2 made from scores and labels that differ by 0.5"
    with pytest.raises(UsageError, match=message):
        check_enough(pairs, made(rated(), 0.5), 0.5, 5)
    check_enough(pairs, made(rated(), 0.5), 0.5, 4)


def test_answers_of_the_same_tokens_teach_nothing(backbone):
    prompt = prompt_in("es")
    same = Pair(written(prompt, "left"), written(prompt, "left "), 1.0)
    kept = comparisons(backbone, [same, Pair(written(prompt, "left"), written(prompt, "up"), 1.0)])
    assert all(one.first.response != one.second.response for one in kept)
