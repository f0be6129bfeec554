"""Figures of a workspace: one file a figure, and their list. What draws or writes them is elsewhere."""

from __future__ import annotations

from storage.insight import agreement, balance, evaluation, frontier, languages, length, proxy, win_rates
from storage.insight.figure import Figure

FIGURES: tuple[Figure, ...] = (
    frontier.FIGURE, proxy.FIGURE, languages.FIGURE, win_rates.FIGURE, evaluation.FIGURE, balance.FIGURE,
    agreement.FIGURE, length.FIGURE,
)  # fmt: skip
