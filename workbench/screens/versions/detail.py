"""What is known of one version, in words."""

from __future__ import annotations

from typing import Any

from textual.content import Content

from storage.records import Version
from workbench.shell.screen import packed
from workbench.text import one_line
from workbench.training import verdict


def detail(version: Version, width: int = 0) -> Content:
    """What is known of one version: flags and figures in words, then the gates, failed ones first.

    Figures are packed into lines of `width` cells; 0 leaves the breaking of lines to the widget.
    """
    file = one_line(version.file or "the base model, untouched")
    lines = [Content.assemble(f"{version.kind} of {one_line(version.base_model)}", (f"   {file}", "$text-muted"))]
    lines += verdict.flags(version.metrics)
    if told := verdict.figures(version.metrics):
        lines.append(packed(told, width) if width else Content("   ").join(told))
    lines += [_gate(gate) for gate in sorted(version.gates, key=lambda gate: bool(gate.get("passed")))]
    lines += filter(None, (verdict.by_language(version.metrics), verdict.others(version.metrics)))
    return Content("\n").join(lines)


def _gate(gate: dict[str, Any]) -> Content:
    sign, style = ("✓ passed", "$text-success") if gate.get("passed") else ("✕ failed", "$text-error")
    words = one_line(str(gate.get("detail") or ""))
    if not words:
        words = "  ".join(f"{name} {_number(gate[name])}" for name in ("value", "bound") if gate.get(name) is not None)
    return Content.assemble((f"{sign}  ", style), (f"{one_line(str(gate.get('gate', '')))}  ", "bold"), words)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value), 60)
