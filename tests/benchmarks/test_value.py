"""What the report on the value and the leash makes of its rounds."""

from __future__ import annotations

import pytest

from benchmarks import value


def rounds(explained: list[float], kl: list[float]) -> dict:
    found = [
        {"explained": share, "reward": 0.1 * place, "kl": nats, "beta": 0.1, "rollout_s": 1.0, "score_s": 2.0,
         "update_s": 3.0 + place}
        for place, (share, nats) in enumerate(zip(explained, kl, strict=True))
    ]  # fmt: skip
    return {"kind": "fitted", "seed": 0, "rounds": found, "rolled_back": 0}


@pytest.mark.parametrize(
    ("explained", "kl", "passes"),
    [
        ([0.3] + [0.5] * 7, [0.0, 1, 2, 3, 4, 5, 6, 7], True),
        ([0.1] + [0.5] * 7, [0.0, 1, 2, 3, 4, 5, 6, 7], False),
        ([0.6] * 3 + [0.3] * 5, [0.0, 1, 2, 3, 4, 5, 6, 7], False),
        ([0.3] + [0.5] * 7, [0.0, 1, 2, 3, 4, 5, 6, 12.5], False),
    ],
)
def test_a_run_passes_where_the_value_explains_early_and_late_within_the_leash(explained, kl, passes):
    row = rounds(explained, kl)
    found = value.summary(row, kl_target=6.0)
    assert found["passes"] is passes
    assert not value.summary({**row, "rolled_back": 1}, 6.0)["passes"]
    assert found["reward_last"] == pytest.approx(0.5)
    assert found["seconds"] == pytest.approx(9.5)
    assert len(value.line(row, 6.0)) == len(value.HEAD)
