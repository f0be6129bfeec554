"""Whether the sampler is the policy: the figures against planted ones, and faults that a run must notice at once."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import msgspec
import pytest
import torch
from hand_made import RewardByTokens, merged
from rated_workspace import LANGUAGES
from tiny_model import CORPUS
from torch import nn

from storage.errors import WorkbenchError
from storage.records import Prompt
from trainer.algorithms import ppo, sampler_gap
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.rollouts import Rollout, collect_rows
from trainer.algorithms.rounds import Piece
from trainer.algorithms.sampler_gap import ALIKE, BOUNDS, LEAST_BOUND, SamplerGap
from trainer.policy.backbone import Backbone, Comparison
from trainer.policy.decoding import Decoder
from trainer.policy.linear import Linear
from trainer.policy.models import ModelFolder, resolve
from trainer.policy_config import Advantage, PpoConfig
from trainer.reward.protocol import ConstantReward

CPU = torch.device("cpu")
CONFIG = PpoConfig(rank=4, batch=8, answers=2, minibatch=4, warmup=0, max_new_tokens=12, learning_rate=1e-3)
WITHOUT_VALUE = msgspec.structs.replace(CONFIG, advantage=Advantage.RLOO, max_update_kl=10.0)
PROMPTS = [Prompt(f"p{place}", CORPUS[place], language, "") for place, language in enumerate(LANGUAGES)]


def drawn(seed: int, size: float, n: int = 4000) -> torch.Tensor:
    return size * torch.randn(n, generator=torch.Generator().manual_seed(seed))


# --- the figures -----------------------------------------------------------------------------------------------------


def test_figures_of_differences_that_are_known():
    reference = drawn(1, 1.0) - 3
    policy = reference + 0.2
    found = SamplerGap.between(policy - 0.1, policy, reference)
    assert found.k3 == pytest.approx(math.exp(0.1) - 1 - 0.1, rel=1e-4)
    assert found.largest == pytest.approx(0.1, rel=1e-4)
    assert found.rounding == pytest.approx(0.1, rel=1e-4)
    assert found.shift == pytest.approx(0.2, rel=1e-4)
    assert found.slope == pytest.approx(0.5, rel=1e-4)
    names = {"policy/sampler_gap", "policy/sampler_gap_largest", "policy/sampler_slope"}
    assert found.figures().keys() == names


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_a_sampler_with_a_share_of_the_shift_has_that_slope_and_stops_the_run(noise):
    reference, shift = drawn(1, 1.0), drawn(2, 0.02)
    found = SamplerGap.between(reference + 0.35 * shift + drawn(3, noise), reference + shift, reference)
    assert found.slope == pytest.approx(0.35, abs=1e-4 + noise)
    assert found.k3 < LEAST_BOUND, "the mean alone would let it pass"
    with pytest.raises(WorkbenchError, match=r"only 3[456]% of what the policy has learned") as caught:
        found.check(7, BOUNDS[torch.bfloat16], rounding=0.001**2 / 2)
    assert "round 7" in caught.value.message
    assert "older version" in caught.value.hint


@pytest.mark.parametrize("shift", [0.003, 0.01, 0.03, 0.1, 0.3])
def test_rounding_alone_stops_no_run(shift):
    """Sampler, policy and reference are each rounded by themselves: a young shift drowns in it, and its slope says
    nothing, whatever it is."""
    slopes = []
    for seed in range(100):
        true = drawn(seed, 1.0, n=800)
        meant = true + drawn(seed + 100, shift, n=800)
        sampler, policy = meant + drawn(seed + 200, 0.03, n=800), meant + drawn(seed + 300, 0.03, n=800)
        found = SamplerGap.between(sampler, policy, true + drawn(seed + 400, 0.03, n=800))
        found.check(1, BOUNDS[torch.bfloat16], rounding=2 * 0.03**2 / 2)
        slopes.append(found.slope)
    assert shift > 0.03 or min(slopes) < 0.9, "without an allowance for rounding some of them would stop"


def test_what_is_lost_shows_as_soon_as_it_stands_clear_of_rounding():
    """As merged 16-bit weights do it: four tenths of the shift arrive, with noise as large as the shift."""
    reference, shift = drawn(1, 1.0, n=800), drawn(2, 0.1, n=800)
    found = SamplerGap.between(reference + 0.4 * shift + drawn(3, 0.1, n=800), reference + shift, reference)
    rounding = 0.03**2
    assert found.k3 < 10 * rounding, "the mean alone would let it pass"
    with pytest.raises(WorkbenchError, match=r"of what the policy has learned"):
        found.check(0, 1.0, rounding)


def test_a_run_is_held_to_what_rounding_makes_of_it():
    policy = drawn(1, 1.0)
    found = SamplerGap.between(policy + drawn(2, 0.05), policy, policy)
    bound = BOUNDS[torch.bfloat16]
    assert 1e-3 < found.k3 < bound
    found.check(3, bound, rounding=found.k3 / 5)
    for rounding in (1e-10, found.k3 / 20):
        with pytest.raises(WorkbenchError, match="the sampler is not the policy"):
            found.check(3, bound, rounding)
    SamplerGap.between(policy + drawn(2, 0.005), policy, policy).check(3, bound, rounding=0.0)


def test_without_a_shift_there_is_no_slope():
    policy = drawn(1, 1.0)
    found = SamplerGap.between(policy, policy, policy)
    assert (found.slope, found.k3, found.shift) == (None, 0, 0)
    assert "policy/sampler_slope" not in found.figures()
    found.check(0, 1e-5, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_log_probability_that_is_not_finite_stops_the_run(bad):
    policy = drawn(1, 1.0, n=10)
    sampler = policy.clone()
    sampler[3] = bad
    with pytest.raises(WorkbenchError, match="the sampler is not the policy"):
        SamplerGap.between(sampler, policy, policy).check(0, 5e-3, 0.0)


# --- on models -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), CPU, torch.float32)


@pytest.fixture(scope="module")
def coarse(tiny_model: Path) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), CPU, torch.bfloat16)


def moved(run: Ppo, size: float) -> Ppo:
    """The run with a policy that differs from the base by so much."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for value in run.policy.up.values():
            value.copy_(size * torch.randn(value.shape, generator=generator).sign())
    return run


def gap_of(run: Ppo, decoder: Decoder) -> SamplerGap:
    """What a round finds of answers by this sampler."""
    rows = run.rows[: run.config.minibatch]
    asked = [run.prompts.draw(0, 8)[row % 8] for row in rows]
    rollouts = collect_rows(decoder, run.backbone.tokenizer, asked, run.sampling, rows)
    piece = run._prepare(rows, rollouts)
    return SamplerGap.between(*(value[piece.mask] for value in (piece.sampler, piece.old, piece.reference)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_policy_that_has_moved_and_its_sampler_are_one(precision, backbone, coarse):
    used = backbone if precision == "fp32" else coarse
    run = moved(Ppo(used, ConstantReward(), PROMPTS, CONFIG, seed=1), 0.05)
    found = gap_of(run, used.decoder(run.policy.snapshot()))
    assert found.shift > 0.05
    assert found.k3 < 1e-6
    assert found.slope == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_decoding_and_learning_in_16_bits_are_the_same_to_the_bit(seed, coarse):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no products of its own for bf16")
    run = moved(Ppo(coarse, ConstantReward(), PROMPTS, CONFIG, seed), 0.05)
    assert gap_of(run, coarse.decoder(run.policy.snapshot())).largest < 1e-5, "fp32 sums of the softmax alone"


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_last_rows_of_a_batch_are_sampled_as_they_are_learned_from(rows, coarse):
    """One row alone is computed by another kernel, which rounds otherwise."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no products of its own for bf16")
    run = moved(Ppo(coarse, ConstantReward(), PROMPTS, CONFIG, seed=1), 0.05)
    decoder, tokenizer = coarse.decoder(run.policy.snapshot()), coarse.tokenizer
    asked = PROMPTS[:4]
    found = [
        one
        for start in range(0, 4, rows)
        for one in collect_rows(
            decoder, tokenizer, asked[start : start + rows], run.sampling, [*range(start, 4)][:rows]
        )
    ]
    assert [one.prompt for one in found] == asked
    # Any third token ends an answer: rows leave one by one until a single one is left.
    ids = [tokenizer.encode_prompt(one.text) for one in asked]
    ended = decoder.generate(ids, run.sampling, range(4), frozenset(range(0, 400, 3)))
    assert len({len(one.token_ids) for one in ended}) > 1
    found += [Rollout(*one, "") for one in zip(asked, ids, ended, strict=True)]
    piece = run._prepare([*range(8)], found)
    gap = SamplerGap.between(*(value[piece.mask] for value in (piece.sampler, piece.old, piece.reference)))
    assert gap.largest < 1e-5, "fp32 sums of the softmax alone"


class Damaged(torch.nn.Module):
    """A layer's own product with that of a damage added."""

    def __init__(self, own: Linear, damage: torch.Tensor) -> None:
        super().__init__()
        self.own, self.damage = own, Linear(damage)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(x) + self.damage(x)


def corrupted(decoder: Decoder) -> Decoder:
    """The same sampler with one weight matrix damaged."""
    network = copy.copy(decoder.network)
    sizes = network.sizes
    damage = 0.02 * torch.randn((sizes.hidden, sizes.inner), generator=torch.Generator().manual_seed(1))
    layer = network.layers[1].handed(lambda own, names: Damaged(own, damage) if "down_proj" in names[0] else own)
    network.layers = [network.layers[0], layer]
    return Decoder(decoder.folder, decoder.config, network, decoder.device, decoder.dtype, decoder.shared)


@pytest.mark.parametrize("config", [CONFIG, WITHOUT_VALUE], ids=["measured whole", "on one minibatch"])
@pytest.mark.parametrize("fault", ["colder", "damaged", "a version behind"])
def test_a_sampler_that_is_not_the_policy_ends_the_run_in_its_first_round(fault, config, backbone, monkeypatch):
    run = Ppo(backbone, ConstantReward(), PROMPTS, config, seed=1)
    run.advance()
    moved(run, 0.02)
    run.advance()
    before = run.policy.snapshot()
    moved(run, 0.05)
    own = backbone.decoder
    if fault == "colder":
        run.sampling = msgspec.structs.replace(run.sampling, temperature=0.3)
    elif fault == "damaged":
        monkeypatch.setattr(backbone, "decoder", lambda version=None: corrupted(own(version)))
    else:
        monkeypatch.setattr(backbone, "decoder", lambda version=None: own(before))
    with pytest.raises(WorkbenchError, match=r"round 2: (the sampler is not|only \d+% of what)"):
        run.advance()
    assert run.step == 2, "nothing was learned from it"


# --- the record in place of a pass -----------------------------------------------------------------------------------


def scored(run: Ppo, monkeypatch) -> list[Piece]:
    """One round; its pieces."""
    seen: list[Piece] = []
    estimate = run.advantages.estimate
    monkeypatch.setattr(run.advantages, "estimate", lambda pieces, beta: (estimate(pieces, beta), seen.extend(pieces)))
    run.advance()
    return seen


def test_where_the_sampler_is_the_policy_its_record_saves_a_pass_and_the_same_is_learned(backbone, monkeypatch):
    learned, found = [], []
    for bound in (ALIKE, -1.0):
        monkeypatch.setattr(sampler_gap, "ALIKE", bound)
        run = moved(Ppo(backbone, RewardByTokens(lambda said: sum(said) % 7), PROMPTS, WITHOUT_VALUE, seed=1), 0.05)
        before = nn.utils.parameters_to_vector(run.policy.parameters()).detach()
        found.append(scored(run, monkeypatch))
        learned.append(nn.utils.parameters_to_vector(run.policy.parameters()).detach() - before)
    ours, measured = found
    assert [len(piece.hidden) > 0 for piece in ours] == [False, True]
    assert [len(piece.hidden) > 0 for piece in measured] == [True, True]
    assert torch.equal(ours[0].old, ours[0].sampler)
    torch.testing.assert_close(ours[0].old, measured[0].old, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours[0].reference, measured[0].reference)
    torch.testing.assert_close(ours[1].seen.divergence, measured[1].seen.divergence)
    assert nn.functional.cosine_similarity(*learned, 0) > 0.98, "Adam takes slopes near zero either way"


def test_what_a_record_tells_of_entropy_and_divergence_is_right_on_average():
    logits = drawn(5, 1.0, n=2 * 40).view(2, 40)
    policy, reference = torch.log_softmax(logits.double(), -1)
    found = Comparison.recorded(policy, reference)
    share = policy.exp()
    assert float(share @ found.entropy) == pytest.approx(float(-(share @ policy)))
    assert float(share @ found.divergence) == pytest.approx(float(share @ (policy - reference)))
    assert (found.divergence >= 0).all()


def test_a_learned_value_keeps_the_exact_divergence_unless_it_is_told_otherwise(backbone, monkeypatch):
    for exact in (True, False):
        config = msgspec.structs.replace(CONFIG, exact_kl=exact)
        pieces = scored(Ppo(backbone, ConstantReward(), PROMPTS, config, seed=1), monkeypatch)
        assert [len(piece.hidden) > 0 for piece in pieces] == [exact, True]


@pytest.mark.parametrize("size", [0.003, 0.3])
def test_answers_of_which_some_are_sampled_otherwise_are_never_taken_at_their_word(size, backbone, monkeypatch):
    """A fault in the answers that are not measured: the first update finds it."""
    run = moved(Ppo(backbone, ConstantReward(), PROMPTS, WITHOUT_VALUE, seed=1), 0.05)
    own = ppo.collect_rows

    def partly(*args):
        rollouts = own(*args)
        for one in rollouts[: CONFIG.minibatch]:
            one.completion.logprobs = [value + size for value in one.completion.logprobs]
        return rollouts

    monkeypatch.setattr(ppo, "collect_rows", partly)
    with pytest.raises(WorkbenchError, match="the probability ratio is off"):
        run.advance()


def test_a_run_that_goes_on_from_a_version_notices_in_its_first_round_that_half_of_it_is_lost(coarse, monkeypatch):
    """The version was learned before: the first round of the run has no smaller gap to go by."""
    whole, half = (
        moved(Ppo(coarse, ConstantReward(), PROMPTS, CONFIG, seed=1), size).policy.snapshot() for size in (1e-3, 5e-4)
    )
    assert Ppo(coarse, ConstantReward(), PROMPTS, CONFIG, seed=1, start=whole).advance()
    run = Ppo(coarse, ConstantReward(), PROMPTS, CONFIG, seed=1, start=whole)
    own = coarse.decoder
    monkeypatch.setattr(coarse, "decoder", lambda version=None: own(half) if version else own())
    assert gap_of(run, own(half)).k3 < BOUNDS[torch.bfloat16], "the bound alone would let it pass"
    with pytest.raises(WorkbenchError, match=r"round 0: (the sampler is not|only \d+% of what)"):
        run.advance()
    assert run.rounding < LEAST_BOUND


def test_a_coarser_sampler_is_let_pass_where_that_is_meant_and_its_tokens_are_weighed(backbone, monkeypatch):
    own = backbone.decoder
    monkeypatch.setattr(backbone, "decoder", lambda version=None: corrupted(own(version)))
    advantages = {}
    for cap in (0.0, 2.0):
        config = msgspec.structs.replace(CONFIG, max_sampler_gap=1.0, importance_cap=cap, learning_rate=1e-9)
        run = Ppo(backbone, RewardByTokens(lambda said: sum(said) % 7), PROMPTS, config, seed=1)
        seen = []
        estimate = run.advantages.estimate
        monkeypatch.setattr(
            run.advantages, "estimate", lambda pieces, beta, e=estimate, s=seen: (e(pieces, beta), s.extend(pieces))
        )
        figures = run.advance().figures
        assert figures["policy/sampler_gap", None] > BOUNDS[torch.float32]
        advantages[cap] = seen
    for plain, weighed in zip(advantages[0.0], advantages[2.0], strict=True):
        weights = (plain.old - plain.sampler).exp().clamp_max(2.0)
        assert (weights - 1).abs().max() > 0.01
        torch.testing.assert_close(weighed.advantages, plain.advantages * weights * plain.mask)


# --- the bundled model -----------------------------------------------------------------------------------------------


@pytest.mark.model
def test_the_bundled_model_samples_as_it_learns_and_merged_16_bit_weights_would_not(bundled_model_workspace):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no products of its own for bf16")
    folder = resolve("smollm2", bundled_model_workspace)
    used = Backbone(folder, CPU, torch.bfloat16)
    config = PpoConfig(batch=4, answers=1, minibatch=4, warmup=0, max_new_tokens=24)
    run = moved(Ppo(used, ConstantReward(), PROMPTS[:4], config, seed=1), 4e-4)  # as four updates of Adam leave it
    version = run.policy.snapshot()
    beside = gap_of(run, used.decoder(version))
    assert beside.n > 48
    assert beside.k3 < 1e-6
    assert beside.slope == pytest.approx(1, abs=0.03)
    rounded = gap_of(run, merged(folder.path, version, torch.bfloat16))
    assert rounded.slope < 0.7
    with pytest.raises(WorkbenchError, match="the sampler is not the policy"):
        rounded.check(4, BOUNDS[torch.bfloat16], beside.k3)
