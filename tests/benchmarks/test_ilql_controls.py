"""The benchmark of ILQL: its outcomes, its intervals, and that a run without outcomes has nothing to foretell."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import ilql
from benchmarks.tastes import LANGUAGES

ANSWERS = [
    {"prompt": f"{language} {place}", "language": language, "text": "Well, you and I, we " + "walk, " * place + "home."}
    for language in LANGUAGES
    for place in range(6)
]


def test_outcomes_are_standardised_and_shuffling_keeps_them_in_their_language():
    true, shuffled, none = (ilql.outcomes_of(ANSWERS, "linked", 1, kind) for kind in ilql.KINDS)
    assert sum(true) == pytest.approx(0)
    assert sum(value**2 for value in true) == pytest.approx(len(true))
    assert shuffled != true
    for language in LANGUAGES:
        places = [place for place, one in enumerate(ANSWERS) if one["language"] == language]
        assert Counter(true[place] for place in places) == Counter(shuffled[place] for place in places)
    assert set(none) == {0.0}
    assert ilql.outcomes_of(ANSWERS, "linked", 1, "true") == true
    assert ilql.outcomes_of(ANSWERS, "linked", 2, "true") != true


def test_an_interval_is_over_prompts_and_null_where_nothing_differs():
    sure = {f"p{place}": [(1.0, 2.0), (3.0, 6.0)] for place in range(9)}
    assert ilql.interval_of(sure) == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    mixed = {f"p{place}": [(1.0, 2.0), (3.0, 6.0 if place % 2 else -2.0)] for place in range(9)}
    found = ilql.interval_of(mixed)
    assert found["low"] < found["value"] < found["high"]
    assert ilql.interval_of({"p": [(0.0, 1.0), (0.0, 2.0)]}) == {"value": None, "low": None, "high": None}
