"""Our two themes, and the two colours that every theme gains: one for the policy, one for the reference."""

from __future__ import annotations

from textual.theme import Theme

VARIABLES = {"policy": "#e0a458", "reference": "#7f9ccf", "tab-background": "#2a3140"}

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
