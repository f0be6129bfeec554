"""Figures of a workspace: each tells what was planted in it."""

from __future__ import annotations

from typing import Any

import pytest

from storage import versions
from storage.database import Database
from storage.insight import FIGURES
from storage.insight.figure import Found, Point


def read(database: Database, name: str) -> Found:
    (figure,) = [one for one in FIGURES if one.name == name]
    return figure.read(database)


def dots(found: Found, series: str) -> dict[str, Point]:
    assert found.plot is not None
    (chosen,) = [one for one in found.plot.series if one.name == series]
    return {point.label: point for point in chosen.points}


def version(database: Database, parent: str = "v0", state: str = "published", **metrics: Any) -> str:
    """A version with what its gate measured."""
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    made = versions.add_candidate(database, base=base, parent=parent, file="x.safetensors", sha256="0", metrics=metrics)
    database.execute("UPDATE versions SET state = ? WHERE name = ?", (state, made.name))
    return made.name


def gained(mean: float, half: float, n: int = 12) -> dict[str, Any]:
    return {"reward_gain": mean, "reward_gain_interval": [mean - half, mean + half], "held_out_prompts": n}


def test_the_frontier_adds_up_the_steps_from_the_reference(database: Database) -> None:
    version(database, kl=2.0, **gained(0.5, 0.3))
    version(database, "v1", kl=5.0, **gained(0.25, 0.4, 8))
    version(database, "v1", "rejected", kl=9.0, **gained(-1.0, 0.4))
    version(database, kl=1.0, control="shuffled", **gained(0.1, 0.1))
    version(database, kl=1.0)
    found = read(database, "frontier")
    own = dots(found, "published")
    assert (own["v1"].x, own["v1"].y, own["v1"].n) == (2.0, 0.5, 12)
    assert (own["v2"].x, own["v2"].y, own["v2"].n) == (5.0, 0.75, 8)
    assert (own["v2"].low, own["v2"].high) == (pytest.approx(0.25), pytest.approx(1.25))  # 0.3 and 0.4 make 0.5
    assert dots(found, "rejected")["v3"].y == -0.5
    assert dots(found, "control")["v4"].y == 0.1
    assert list(dots(found, "most for its KL")) == ["", "v1", "v2"], "controls and what was rejected are no frontier"
    (lacking,) = [row for row in found.table.rows if row[0] == "v5"]
    assert lacking[-1] == "no gate measured its reward"
    assert any("v4" in note for note in found.notes)
