"""PPO on a tiny model: it learns, says what it does, and its guards hold."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import msgspec
import pytest
import torch
from rated_workspace import LANGUAGES

from storage.errors import WorkbenchError
from trainer.algorithms import maths
from trainer.algorithms.leash import Leash
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import PromptSampler, round_seed
from trainer.policy_config import PpoConfig
from trainer.reward.protocol import Scores

CONFIG = PpoConfig(
    rank=4, batch=8, answers=2, minibatch=4, epochs=2, warmup=0, max_new_tokens=8, learning_rate=1e-3
)  # fmt: skip


@pytest.fixture
def new_run(backbone, reward_model, asked):
    def make(start=None, reference=None, rated=(), **changes) -> Ppo:
        config = msgspec.structs.replace(CONFIG, **changes)
        return Ppo(backbone, reward_model, asked, config, 1, start, reference=reference, rated=rated)

    return make


def weights(run: Ppo) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.policy.parameters()])


def moments_of(run: Ppo) -> torch.Tensor:
    """What the policy's optimizer remembers."""
    states = run.policy_optimizer.state_dict()["state"].values()
    return torch.cat([value.flatten() for state in states for value in state.values()])


def scatter(run: Ppo, size: float = 1.0) -> None:
    """Move the policy anywhere."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in run.policy.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def same_for_all(value: float):
    """A reward's `score` that gives every answer the same."""
    return lambda rollouts, trunk, layout, reference: (Scores.certain(torch.full((len(rollouts),), value)), reference)


def test_a_reward_for_some_tokens_is_learned(new_run, monkeypatch):
    run = new_run(batch=32, answers=8, minibatch=16, learning_rate=3e-3, alpha=8.0)

    def score(rollouts, trunk, layout, reference):
        """4 times the share of tokens in the upper half of the vocabulary."""
        liked = (layout.targets >= 192) & layout.mask
        return Scores.certain(4 * liked.sum(1) / layout.mask.sum(1)), reference

    monkeypatch.setattr(run.reward, "score", score)
    reports = [run.advance().figures for _ in range(14)]
    rewards = [figures["objective/scores", None] for figures in reports]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.4, rewards
    assert reports[0]["objective/kl", None] == pytest.approx(0, abs=1e-4)
    assert reports[-1]["objective/kl", None] > 0.05


@pytest.mark.parametrize(
    ("advantage", "batch", "answers"),
    [("gae", 1, 1), ("gae", 2, 2), ("reinforce", 2, 1), ("reinforce", 2, 2), ("rloo", 2, 2), ("grpo", 2, 2)],
)
@pytest.mark.parametrize("tokens", [1, 3])
def test_the_smallest_rounds_and_minibatches_stay_finite(new_run, advantage, batch, answers, tokens):
    run = new_run(advantage=advantage, batch=batch, answers=answers, minibatch=1, max_new_tokens=tokens)
    for _ in range(2):
        figures = run.advance().figures
        told = {name: value for name, value in figures.items() if name[0] != "value/explained_variance"}
        assert all(math.isfinite(value) for value in told.values()), told
    assert weights(run).isfinite().all()


def test_the_first_rounds_teach_the_value_alone(new_run):
    run = new_run(warmup=2)
    start = weights(run)
    first = run.advance().figures
    assert torch.equal(weights(run), start)
    assert run.value.size > 0, "it has learned"
    assert ("loss/policy", None) not in first
    run.advance()
    assert torch.equal(weights(run), start)
    run.advance()
    assert not torch.equal(weights(run), start)


def test_before_the_first_update_of_each_round_the_ratio_is_one(new_run, monkeypatch):
    """With an adapter that has moved, sampled and recomputed log-probabilities still agree."""
    run = new_run(temperature=0.7)
    seen = []
    check = run._check_ratio
    monkeypatch.setattr(run, "_check_ratio", lambda ratio, mask: (seen.append((ratio, mask)), check(ratio, mask)))
    for _ in range(3):
        report = run.advance()
    assert len(seen) == 3
    assert all(((ratio - 1).abs() * mask).max() < 1e-4 for ratio, mask in seen)
    assert report.figures["objective/kl", None] > 0


@pytest.fixture
def old_at_temperature_one(monkeypatch):
    """A function that makes a run ignore its temperature where it computes the old log-probabilities."""

    def plant(run: Ppo) -> Ppo:
        prepare = run._prepare

        def at_another_temperature(rows, rollouts, **how):
            piece = prepare(rows, rollouts, **how)
            hidden = run.backbone.hidden(piece.layout, run.policy)
            old = run.backbone.logprobs(hidden, piece.layout, 1.0).chosen.detach()
            piece.seen = dataclasses.replace(piece.seen, chosen=old)
            return piece

        monkeypatch.setattr(run, "_prepare", at_another_temperature)
        return run

    return plant


def test_a_temperature_that_is_ignored_on_one_side_is_noticed(new_run, old_at_temperature_one):
    with pytest.raises(WorkbenchError, match="the sampler is not the policy") as caught:
        old_at_temperature_one(new_run(temperature=0.7)).advance()
    assert "temperature" in caught.value.hint


def test_the_first_update_of_a_round_checks_its_own_ratio(new_run, old_at_temperature_one):
    """Whatever gap to the sampler is allowed: the update has log-probabilities of its own to compare."""
    with pytest.raises(WorkbenchError, match="ratio is off by") as caught:
        old_at_temperature_one(new_run(temperature=0.7, max_sampler_gap=100.0)).advance()
    assert "temperature" in caught.value.hint


def test_a_round_whose_divergence_explodes_is_undone_and_the_leash_shortened(new_run):
    run = new_run(kl_target=0.5)
    run.advance()
    good, moments = weights(run), moments_of(run)
    run.advance()
    assert not torch.equal(moments_of(run), moments)
    scatter(run)
    beta, rate = run.leash.controller.beta, run.leash.rate.scale
    figures = run.advance().figures
    assert figures["objective/kl", None] > 3 * 0.5
    assert figures["policy/rolled_back", None] == 1
    assert torch.equal(weights(run), good)
    assert torch.equal(moments_of(run), moments), "the optimizer is what it was with these weights"
    assert run.leash.controller.beta == pytest.approx(2 * beta)
    assert run.leash.rate.scale == pytest.approx(rate / 2)
    assert run.step == 3


def test_divergence_that_explodes_again_and_again_ends_the_run_kindly(new_run):
    run = new_run(kl_target=1e-9)
    run.advance()
    scatter(run)
    run.last_good.load_state_dict(run.policy.state_dict())
    for _ in range(3):
        run.advance()
    with pytest.raises(WorkbenchError, match="for the 4th time") as caught:
        run.advance()
    assert "--learning-rate" in caught.value.hint
    assert run.step == 4


def test_a_run_that_begins_far_from_its_reference_is_not_rolled_back_to_where_it_began(new_run, backbone):
    far = new_run()
    scatter(far, 0.1)
    start = far.policy.snapshot()
    kl = new_run(start=start).advance().figures["objective/kl", None]
    run = new_run(start=start, kl_target=kl / 10)
    figures = [run.advance().figures for _ in range(3)]
    assert figures[0]["objective/kl", None] > 3 * run.config.kl_target
    assert run.rollbacks == 0
    assert not torch.equal(weights(run), weights(far))
    held = new_run(start=start, reference=start, kl_target=kl / 10)
    assert held.advance().figures["objective/kl", None] == pytest.approx(0, abs=1e-4)
    assert 0 < held.advance().figures["objective/kl", None] < kl / 2


def test_updates_stop_early_when_the_policy_moved_far_enough(new_run):
    far = new_run(learning_rate=0.3, epochs=4, max_update_kl=1e-3).advance().figures
    near = new_run(learning_rate=1e-6, epochs=4, max_update_kl=1e-3).advance().figures
    assert far["policy/stopped_early", None] == 1
    assert near["policy/stopped_early", None] == 0


def test_the_update_past_the_stop_is_not_taken(new_run, monkeypatch):
    """With one minibatch a round: the first update is taken, the second finds the policy too far."""
    once = new_run(minibatch=8, epochs=1, learning_rate=0.3, max_update_kl=1e-3)
    often = new_run(minibatch=8, epochs=5, learning_rate=0.3, max_update_kl=1e-3)
    figures = once.advance().figures
    stopped = often.advance().figures
    assert (figures["policy/stopped_early", None], stopped["policy/stopped_early", None]) == (0, 1)
    assert stopped["policy/round_kl", None] > 8 * 1e-3
    assert torch.equal(weights(once), weights(often))
    assert torch.equal(moments_of(once), moments_of(often))


def test_the_learning_rate_adapts_to_what_a_round_should_move(new_run):
    run = new_run(learning_rate=1e-6, kl_target=6.0, steps=20, final_rate=1.0)
    rates = [run.advance().figures["policy/learning_rate", None] for _ in range(4)]
    assert rates == pytest.approx([1e-6, 1.5e-6, 2.25e-6, 3e-6]), "too small a rate grows, to three times itself"
    fixed = new_run(learning_rate=1e-4, steps=4, kl_rounds=0, final_rate=0.2)
    rates = [fixed.advance().figures["policy/learning_rate", None] for _ in range(4)]
    assert rates == pytest.approx([1e-4, 0.8e-4, 0.6e-4, 0.4e-4]), "it only decays"


def test_a_round_should_move_less_the_further_it_is_past_its_leash():
    leash = Leash(msgspec.structs.replace(CONFIG, kl_target=6.0, steps=20))
    leash.let_out(0, 0.0, 48.0)
    assert leash.controller.target == pytest.approx(0.6), "a tenth of the target in the first of ten rounds"
    leash.let_out(9, 3.0, 48.0)
    assert leash.controller.target == 6.0
    inside = leash.wanted(9, 3.0)
    assert inside == leash.wanted(9, 6.0) == pytest.approx(6.0 / 10**1.25)
    assert leash.wanted(9, 12.0) == pytest.approx(inside / 4)
    assert leash.wanted(19, 3.0) < inside / 4, "and less at the end of the run"


def test_the_kl_target_may_be_told_a_token(new_run):
    figures = new_run(kl_target_per_token=0.125).advance().figures
    length = figures["response/length", None]
    assert figures["objective/kl_target", None] == pytest.approx(0.125 * length)
    assert new_run().advance().figures["objective/kl_target", None] == 6.0


def test_a_reward_that_is_not_finite_changes_no_weight(new_run, monkeypatch):
    run = new_run()
    start = weights(run)
    monkeypatch.setattr(run.reward, "score", same_for_all(torch.nan))
    figures = run.advance().figures
    assert torch.equal(weights(run), start)
    assert torch.isfinite(run.value.gram).all()
    assert figures["policy/skipped", None] == 1


def test_scores_are_clipped_and_an_answer_that_was_cut_off_pays(new_run, monkeypatch):
    run = new_run(missing_eos_penalty=1.0, score_clip=2.0, batch=32, answers=4)
    monkeypatch.setattr(run.reward, "score", same_for_all(50.0))
    scores = {rollout.completion.finish_reason: score for rollout, score, _ in run.advance().rollouts}
    assert scores["length"] == 1.0
    assert scores.get("eos", 2.0) == 2.0


def test_figures_over_all_languages_are_the_mean_of_those_of_each(new_run):
    report = new_run(batch=16).advance()
    figures = report.figures
    languages = [rollout.prompt.language for rollout, _, _ in report.rollouts]
    assert len(set(languages)) > 1
    for name in ("objective/scores", "objective/kl", "objective/entropy", "response/length", "response/truncated"):
        each = {language: figures[name, language] for language in set(languages)}
        assert figures[name, None] == pytest.approx(sum(each[language] for language in languages) / 16, abs=1e-5)
    lengths = [len(rollout.completion.token_ids) for rollout, _, _ in report.rollouts]
    assert figures["response/length", None] == pytest.approx(sum(lengths) / 16)
    assert figures["throughput/tokens_per_second", None] == pytest.approx(
        sum(lengths) / figures["timing/rollout", None]
    )


def test_entropy_and_divergence_count_real_tokens_alone(new_run, backbone):
    """The figures of a round against sums over each answer by itself, without padding."""
    run = new_run(temperature=0.8)
    run.advance()
    policy = run.policy.snapshot()
    report = run.advance()
    run.policy.load(policy)
    entropies, k1s = [], []
    with torch.no_grad():
        for rollout, _, kl in report.rollouts:
            layout = backbone.layout([rollout.prompt_ids], [rollout.completion.token_ids])
            own = backbone.logprobs(backbone.hidden(layout, run.policy), layout, 0.8)
            reference = backbone.logprobs(backbone.hidden(layout, None), layout, 0.8)
            divergence = [exact_kl(backbone, layout, run.policy, place) for place in layout.predictors[0].tolist()]
            assert kl == pytest.approx(sum(divergence), abs=1e-4)
            k1s.append(float(maths.k1(own.chosen, reference.chosen).sum()))
            assert list(own.chosen[0]) == pytest.approx(rollout.completion.logprobs, abs=1e-3)
            entropies.append(float(own.entropy.mean()))
    assert report.figures["objective/entropy", None] == pytest.approx(sum(entropies) / len(entropies), abs=1e-4)
    assert report.figures["objective/kl_k1", None] == pytest.approx(sum(k1s) / len(k1s), abs=1e-4)
    length = report.figures["response/length", None]
    assert report.figures["objective/kl_per_token", None] == pytest.approx(
        report.figures["objective/kl", None] / length
    )


def exact_kl(backbone, layout, policy, place: int) -> float:
    """Over the whole vocabulary, at temperature 0.8, at one place."""
    ours, theirs = (
        (backbone.network.head.logits(backbone.hidden(layout, who)[place][None]) / 0.8).log_softmax(-1)[0]
        for who in (policy, None)
    )
    return float((ours.exp() * (ours - theirs)).sum())


def test_a_run_goes_on_from_its_parent(new_run, backbone, reward_model, asked):
    first = new_run()
    first.advance()
    parent = first.policy.snapshot()
    second = Ppo(backbone, reward_model, asked, CONFIG, seed=2, start=parent)
    assert torch.equal(weights(second), weights(first))
    with pytest.raises(WorkbenchError, match="updates of rank 4") as caught:
        Ppo(backbone, reward_model, asked, msgspec.structs.replace(CONFIG, rank=2), seed=2, start=parent)
    assert "--rank 4" in caught.value.hint
    wider = Ppo(backbone, reward_model, asked, msgspec.structs.replace(CONFIG, rank=8), seed=2, start=parent)
    layout = backbone.layout([[5, 9, 2]], [[7, 3]])
    torch.testing.assert_close(backbone.hidden(layout, wider.policy), backbone.hidden(layout, first.policy))


def test_a_policy_of_the_upper_layers_learns_there_alone_and_computes_the_same(new_run, backbone):
    run = new_run(policy_share=0.5)
    assert run.policy.first_layer == len(backbone.network.layers) // 2 > 0
    assert all(int(name.split(".")[2]) >= run.policy.first_layer for name in run.policy.names)
    start = weights(run)
    for _ in range(2):
        run.advance()
    assert not torch.equal(weights(run), start)
    layout = backbone.layout([[5, 6, 7]], [[8, 9, 10]])
    with torch.no_grad():
        whole = backbone.network.run(backbone.network.embed(layout), layout, run.policy)
        torch.testing.assert_close(backbone.hidden(layout, run.policy), whole)


# --- which prompts ---------------------------------------------------------------------------------------------------


def test_no_prompt_is_repeated_before_all_of_its_language_were_used(asked):
    sampler = PromptSampler(asked[:1] * 1 + [msgspec.structs.replace(asked[0], id=f"q{n}") for n in range(5)], 1.0, 0)
    drawn = [prompt.id for number in range(6) for prompt in sampler.draw(number, 2)]
    assert len(set(drawn[:6])) == len(set(drawn[6:])) == 6


def test_a_round_draws_the_same_whatever_was_drawn_before(asked):
    one, other = PromptSampler(asked, 0.4, 7), PromptSampler(asked[::-1], 0.4, 7)
    for number in range(5):
        one.draw(number, 8)
    assert one.draw(5, 8) == other.draw(5, 8)
    assert one.draw(5, 8) != PromptSampler(asked, 0.4, 8).draw(5, 8)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 0.9)])
def test_languages_are_drawn_by_their_size_to_a_power(asked, balance, share):
    many = [msgspec.structs.replace(asked[0], id=f"m{n}") for n in range(9)]
    sampler = PromptSampler([*many, asked[1]], balance, 3)
    drawn = [prompt.language for number in range(10) for prompt in sampler.draw(number, 200)]
    assert drawn.count(LANGUAGES[0]) / len(drawn) == pytest.approx(share, abs=0.04)


def test_rounds_and_seeds_never_share_a_seed_of_a_row():
    blocks = sorted(round_seed(seed, number) for seed in range(5) for number in range(200))
    assert all(later - earlier >= 4096 for earlier, later in pairwise(blocks))
