"""What the sampler draws is the distribution it was given, cut where it was told to cut it."""

from __future__ import annotations

import pytest
import torch
from architectures import tokens
from scipy import stats

from storage.records import Sampling
from trainer.policy import sampling as choosing
from trainer.policy.decoding import Decoder

DRAWS = 40_000


def logits_of(vocabulary: int, spread: float = 1.5) -> torch.Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * spread


def draw(logits: torch.Tensor, sampling: Sampling, count: int = DRAWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and log-probabilities of many independent draws."""
    uniform = torch.rand(count, 2, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    found = [choosing.choose(logits.repeat(len(part), 1), part, sampling) for part in uniform.split(4000)]
    return torch.cat([token for token, _ in found]), torch.cat([logprob for _, logprob in found])


def agreement(drawn: torch.Tensor, chances: torch.Tensor) -> float:
    """The p value of a chi-square test; tokens that are expected fewer than ten times are counted as one."""
    counts = torch.bincount(drawn, minlength=len(chances)).double()
    expected = chances.double() * len(drawn)
    often = expected >= 10
    observed = [*counts[often].tolist(), float(counts[~often].sum())]
    wanted = [*expected[often].tolist(), float(expected[~often].sum())]
    if wanted[-1] == 0:
        observed, wanted = observed[:-1], wanted[:-1]
    scale = sum(observed) / sum(wanted)
    return float(stats.chisquare(observed, [value * scale for value in wanted]).pvalue)


@pytest.mark.parametrize("vocabulary", [5, 256, 700])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draws_follow_the_softmax_at_the_temperature(vocabulary, temperature):
    logits = logits_of(vocabulary)
    chances = (logits / temperature).softmax(-1)
    drawn, logprobs = draw(logits, Sampling(temperature=temperature))
    assert agreement(drawn, chances) > 0.001
    assert agreement(drawn, (logits / (temperature * 1.2)).softmax(-1)) < 1e-6, "the test would notice"
    torch.testing.assert_close(logprobs, chances.log()[drawn], rtol=1e-4, atol=1e-4)


def test_top_k_draws_from_the_heaviest_alone_in_their_proportion():
    logits = logits_of(300)
    drawn, logprobs = draw(logits, Sampling(top_k=7))
    kept = logits.topk(7).indices
    assert set(drawn.tolist()) == set(kept.tolist())
    cut = torch.full_like(logits, float("-inf"))
    cut[kept] = logits[kept]
    assert agreement(drawn, cut.softmax(-1)) > 0.001
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[drawn], rtol=1e-4, atol=1e-4)  # of the full softmax


@pytest.mark.parametrize("vocabulary", [300, 1500], ids=["all looked at", "the heaviest looked at first"])
@pytest.mark.parametrize("top_p", [0.5, 0.9999])
def test_top_p_draws_from_the_smallest_set_that_holds_the_mass(vocabulary, top_p):
    logits = logits_of(vocabulary, spread=0.5)  # flat: the larger nucleus has more tokens than are looked at first
    chances, order = logits.softmax(-1).double().sort(descending=True)
    size = int((chances.cumsum(-1) < top_p).sum()) + 1
    nucleus = order[:size]
    drawn, _ = draw(logits, Sampling(top_p=top_p), 20_000)
    assert set(drawn.tolist()) <= set(nucleus.tolist())
    cut = torch.zeros(vocabulary, dtype=torch.float64)
    cut[nucleus] = chances[:size]
    assert agreement(drawn, cut / cut.sum()) > 0.001


def test_top_p_counts_the_mass_that_top_k_left():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    drawn, _ = draw(logits, Sampling(top_k=2, top_p=0.5), 2000)  # of .4 and .3, the first holds more than half
    assert set(drawn.tolist()) == {0}


def test_without_temperature_the_likeliest_token_is_said():
    logits = torch.stack([logits_of(50), logits_of(50).flip(0)])
    drawn, logprobs = choosing.choose(logits, torch.tensor([[0.1, 0.2], [0.9, 0.9]]), Sampling(temperature=0))
    assert drawn.tolist() == logits.argmax(-1).tolist()
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).amax(-1))


def test_a_token_without_a_chance_is_never_drawn_whatever_the_random_number():
    logits = torch.tensor([float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")])
    edges = torch.tensor([0.0, 0.5, 1 - 1e-16], dtype=torch.float64)
    uniform = torch.cartesian_prod(edges, edges)
    for sampling in (Sampling(), Sampling(top_p=0.99), Sampling(top_k=4)):
        drawn, _ = choosing.choose(logits.repeat(len(uniform), 1), uniform, sampling)
        assert set(drawn.tolist()) == {1, 3}


def test_repeats_are_penalised_on_both_sides_of_zero():
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert choosing.penalise_repeats(logits, seen, 2.0).tolist() == [[1.0, -4.0, 2.0, -2.0]]


def test_the_same_seed_says_the_same_and_a_longer_answer_begins_the_same(model_of):
    decoder = Decoder.load(model_of("llama"), torch.device("cpu"), torch.float32)
    (prompt,) = tokens(1, 5)

    def say(seed: int, length: int) -> list[int]:
        return decoder.generate([prompt], Sampling(max_new_tokens=length), [seed], frozenset())[0].token_ids

    assert say(1, 20) == say(1, 20)
    assert say(1, 60)[:20] == say(1, 20)
    assert say(1, 20) != say(2, 20)


def test_first_tokens_of_many_seeds_follow_the_model(model_of):
    """Seeds that follow each other are independent draws (a row's seed is the first one plus its place)."""
    decoder = Decoder.load(model_of("llama"), torch.device("cpu"), torch.float32)
    (prompt,) = tokens(2, 4)
    answers = decoder.generate([prompt] * 2000, Sampling(max_new_tokens=1), range(2000), frozenset())
    first, _ = decoder.network.prefill([prompt], torch.tensor([0]), 5)
    drawn = torch.tensor([answer.token_ids[0] for answer in answers])
    assert agreement(drawn, first[0].softmax(-1)) > 0.001
