"""Our two themes, and the colours that every theme gains: one for the policy, one for the reference, and for tabs."""

from __future__ import annotations

from collections.abc import Mapping

from textual.color import Color
from textual.theme import Theme

THEMES = (
    Theme(
        name="workbench",
        primary="#7f9ccf",
        secondary="#9aa5b8",
        accent="#6fc3b2",
        warning="#e0a458",
        error="#e07a7a",
        success="#93c47d",
        foreground="#d5d9e2",
        background="#11141a",
        surface="#161a22",
        panel="#1d222c",
        boost="#232936",
        dark=True,
        variables={
            "policy": "#e0a458",
            "reference": "#7f9ccf",
            "tab-background": "#2a3140",
            "border": "#39414f",
            "border-blurred": "#2a303b",
            "block-cursor-foreground": "#e8ebf1",
            "block-cursor-background": "#2f3a4d",
            "block-cursor-text-style": "none",
            "input-selection-background": "#6fc3b2 30%",
            "text-success": "#93c47d",
            "text-warning": "#e0a458",
            "text-error": "#e07a7a",
            "text-muted": "#8791a3",
            "scrollbar": "#2a303b",
            "scrollbar-background": "#11141a",
        },
    ),
    Theme(
        name="workbench-light",
        primary="#3f5f9f",
        secondary="#5b6577",
        accent="#0f766e",
        warning="#9a5b00",
        error="#b3261e",
        success="#2f6b1f",
        foreground="#1f2430",
        background="#f7f7f4",
        surface="#ffffff",
        panel="#ecece7",
        dark=False,
        variables={
            "policy": "#9a5b00",
            "reference": "#3f5f9f",
            "tab-background": "#dfe3ea",
            "border": "#bfc4cd",
            "border-blurred": "#d8dbe0",
            "block-cursor-foreground": "#1f2430",
            "block-cursor-background": "#d5dde9",
            "block-cursor-text-style": "none",
            "text-muted": "#646c7a",
        },
    ),
)


def not_offered(available: Mapping[str, Theme]) -> list[str]:
    """Themes of the terminal's own colours: nobody knows these, so nobody can say whether they can be read."""
    return [name for name, theme in available.items() if theme.ansi]


def completed(variables: Mapping[str, str]) -> dict[str, str]:
    """The colours of a theme with those that it lacks: ours made of its own, and a muted text in its own tone.

    (Textual's muted text is black or white, and so stands out more than the text in many a light theme.)
    """
    foreground, background = Color.parse(variables["foreground"]), Color.parse(variables["background"])
    muted = (
        {} if not variables["text-muted"].startswith("auto") else {"text-muted": foreground.blend(background, 0.3).hex}
    )
    ours = {
        "policy": variables["warning"],
        "reference": variables["primary"],
        "tab-background": background.blend(foreground, 0.16).hex,
    }
    return {**ours, **variables, **muted}
