"""What is known of one version, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual.content import Content

from storage.feedback import winning
from storage.feedback.winning import Verdict, WinRate
from storage.records import Version
from workbench.shell.screen import packed
from workbench.text import one_line
from workbench.training import verdict

MOST_WORDS = 4000  # of a gate: one by language names them all

_VERDICTS = {
    Verdict.BETTER: ("▲ STOP: better", "bold $text-success"),
    Verdict.WORSE: ("▼ STOP: worse", "bold $text-error"),
    Verdict.EQUIVALENT: ("= STOP: equivalent", "bold"),
    Verdict.UNDECIDED: ("? not decided", "bold $text-warning"),
}


def detail(version: Version, rates: Sequence[WinRate] = (), width: int = 0) -> Content:
    """What is known of one version: what its rater prefers, flags and figures in words, the gates, failed ones first.

    Figures are packed into lines of `width` cells; 0 leaves the breaking of lines to the widget.
    """
    file = one_line(version.file or "the base model, untouched")
    lines = [_won(rate) for rate in rates if rate.version == version.name and rate.part != "language"]
    lines += [line for line in [_by_language(version, rates)] if line is not None]
    lines += [Content.assemble(f"{version.kind} of {one_line(version.base_model)}", (f"   {file}", "$text-muted"))]
    lines += verdict.flags(version.metrics)
    if told := verdict.figures(version.metrics):
        lines.append(packed(told, width) if width else Content("   ").join(told))
    lines += [_gate(gate) for gate in sorted(version.gates, key=lambda gate: bool(gate.get("passed")))]
    lines += filter(None, (verdict.by_language(version.metrics), verdict.others(version.metrics)))
    return Content("\n").join(lines)


def offer(rate: WinRate, key: str) -> Content:
    """That the served version lost to the one served before it, and the key that goes back."""
    lost, before = one_line(rate.version, 12), one_line(rate.against, 12)
    return Content.assemble(
        (f"▼ {key} goes back to {before}", "bold $text-error"),
        f": {lost} lost to it, {rate.short} blind pairs",
    )  # fmt: skip


def _won(rate: WinRate) -> Content:
    sign, style = _VERDICTS[rate.verdict]
    where = " on held-out prompts" if rate.part == "held-out" else ""
    who = "" if rate.source == "human" else f" ({rate.source} rater)"
    pairs = f" of {rate.n} blind pair{'' if rate.n == 1 else 's'} against {one_line(rate.against, 12)}{where}{who}"
    more = f"; some {max(1, rate.more)} more would tell, if they come like these" if rate.more is not None else ""
    share = f"  won {rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}]"
    return Content.assemble((sign, style), share, (pairs + more, "$text-muted"))


def _by_language(version: Version, rates: Sequence[WinRate]) -> Content | None:
    """Win rates by language, against the version that it was compared with most."""
    first = winning.headline(rates, version)
    if first is None:
        return None
    marks = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.EQUIVALENT: "=", Verdict.UNDECIDED: "?"}
    parts = [
        f"{one_line(rate.language or '', 12)} {marks[rate.verdict]} {rate.short}"
        for rate in rates
        if rate.part == "language"
        and (rate.version, rate.against, rate.source) == (version.name, first.against, first.source)
    ]
    return Content.styled("   ".join(parts), "$text-muted") if parts else None


def _gate(gate: dict[str, Any]) -> Content:
    sign, style = ("✓ passed", "$text-success") if gate.get("passed") else ("✕ failed", "$text-error")
    words = one_line(str(gate.get("detail") or ""), MOST_WORDS)
    if not words:
        words = "  ".join(f"{name} {_number(gate[name])}" for name in ("value", "bound") if gate.get(name) is not None)
    return Content.assemble((f"{sign}  ", style), (f"{one_line(str(gate.get('gate', '')))}  ", "bold"), words)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value), 60)
