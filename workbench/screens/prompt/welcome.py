"""What stands on Prompt before the first prompt."""

from __future__ import annotations

from textual.content import Content

from workbench.shell.actions import spoken

_WELCOME = (
    "Ask something, in any language.",
    "The answers appear here side by side, to be scored, compared and edited.",
)


def welcome(keys: dict[str, tuple[str, ...]]) -> Content:
    """Two lines, and the keys that set what comes."""
    hints = [(keys[f"prompt.{word}"][0], word) for word in ("language", "parameters", "history")]
    offered = [Content.assemble((spoken(key), "bold $accent"), (f" {word}", "$text-muted")) for key, word in hints]
    first, second = _WELCOME
    lines = [Content.styled(first, "bold"), Content.styled(second, "$text-muted"), Content("")]
    return Content("\n").join([*lines, Content("   ").join(offered)])
