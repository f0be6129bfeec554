"""What is asked about next: nats by brute force, no near-duplicates, and nothing that is known already."""

from __future__ import annotations

import pytest
import torch

from trainer.reward.acquisition import chances, most_telling
from trainer.reward.uncertainty import Posterior

FEATURES = 6


def posterior(seed: int = 0) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(20, FEATURES + 1, generator=generator, dtype=torch.float64)
    return Posterior(torch.zeros(FEATURES), torch.linalg.cholesky(wide.T @ wide / 4 + torch.eye(FEATURES + 1)))


def differences(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def told(known: Posterior, told_of: torch.Tensor, sharpness: float) -> Posterior:
    """The posterior after the outcome of a pair, as precisions add up."""
    row = torch.cat([told_of, told_of.new_zeros(1)])
    return Posterior(
        known.centre, torch.linalg.cholesky(known.factor @ known.factor.T + sharpness * torch.outer(row, row))
    )


def nats(known: Posterior, pairs: torch.Tensor, margins: torch.Tensor, which: int) -> float:
    """What the outcome of one pair tells of all, by computing each variance anew."""
    before = known.difference_deviations(pairs)
    chance = chances(margins, before)[which]
    after = told(known, pairs[which], float(chance * (1 - chance))).difference_deviations(pairs)
    return float((before / after).log().mean())


def test_the_first_is_the_best_of_all_by_brute_force() -> None:
    known, pairs = posterior(), differences(30)
    margins = torch.linspace(-2, 2, 30, dtype=torch.float64)
    worth = [nats(known, pairs, margins, which) for which in range(30)]
    ((first, told_nats),) = most_telling(known, pairs, margins, range(30), 1)
    assert first == max(range(30), key=worth.__getitem__)
    assert told_nats == pytest.approx(worth[first], rel=1e-6)


def test_each_is_chosen_as_if_those_before_had_been_told() -> None:
    known, pairs = posterior(), differences(30)
    margins = torch.zeros(30, dtype=torch.float64)
    before = known
    for place, told_nats in most_telling(known, pairs, margins, range(30), 5):
        assert told_nats == pytest.approx(nats(before, pairs, margins, place), rel=1e-6)
        before = told(before, pairs[place], 0.25)  # of a margin of 0 both outcomes are as likely


def test_a_pair_like_one_that_was_chosen_waits() -> None:
    known = posterior()
    pairs = differences(12)
    pairs[1] = pairs[0] = 3 * pairs[0]  # the most telling one, twice
    found = most_telling(known, pairs, torch.zeros(12), range(12), 12)
    places = [place for place, _ in found]
    assert sorted(places) == list(range(12))
    assert places[0] in (0, 1)
    assert places.index(1 - places[0]) > 1, "another one tells more first"
    assert found[places.index(1 - places[0])][1] < found[0][1] / 1.5


def test_labels_spread_over_prompts() -> None:
    known, pairs = posterior(), differences(40)
    pairs[:20] *= 1.5  # all of one prompt, and each more telling than others
    crowded = [place for place, _ in most_telling(known, pairs, torch.zeros(40), range(40), 10)]
    spread = [place for place, _ in most_telling(known, pairs, torch.zeros(40), [0] * 20 + list(range(1, 21)), 10)]
    assert sum(place < 20 for place in spread) < sum(place < 20 for place in crowded)


def test_what_is_certain_tells_nothing() -> None:
    known, pairs = posterior(), differences(10)
    margins = torch.zeros(10, dtype=torch.float64)
    margins[:5] = 100.0
    assert {place for place, _ in most_telling(known, pairs, margins, range(10), 5)} == set(range(5, 10))


def test_chances_are_moderated_by_what_is_not_known() -> None:
    margins = torch.tensor([1.0, 1.0, 0.0])
    found = chances(margins, torch.tensor([0.0, 3.0, 5.0]))
    assert found[0] == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert 0.5 < found[1] < found[0]
    assert found[2] == 0.5
