"""The demo's table: gains with intervals over prompts, and none of one prompt."""

from __future__ import annotations

import pytest

from workbench.commands.demo import _row
from workbench.demo.figures import bootstrap


def test_of_one_prompt_no_interval_is_told():
    assert bootstrap([0.4], 1) is bootstrap([], 1) is None
    row = {"language": "sw", "prompts": 1, "before": 2.0, "after": 2.4, "gain": 0.4, "interval": None}
    assert _row(row) == ["sw", "1", "2.00", "2.40", "+0.40", "- (1 prompt)"]


def test_of_several_the_interval_lies_around_their_mean():
    low, high = bootstrap([0.1, 0.5, 0.3, 0.2], 1)
    assert 0.1 <= low < 0.275 < high <= 0.5
    row = {"language": None, "prompts": 4, "before": 2.0, "after": 2.275, "gain": 0.275, "interval": [low, high]}
    assert _row(row)[-1] == f"[{low:+.2f}, {high:+.2f}]"
    assert low == pytest.approx(bootstrap([0.1, 0.5, 0.3, 0.2], 1)[0])
