"""Figures of a workspace: one file a figure, and their list. What draws or writes them is elsewhere."""

from __future__ import annotations

from storage.insight import frontier, win_rates
from storage.insight.figure import Figure

FIGURES: tuple[Figure, ...] = (frontier.FIGURE, win_rates.FIGURE)
