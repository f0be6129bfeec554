"""One HTML page that needs nothing beside it: no script, no font, no address. What others wrote is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from storage.signs import safe_text

# The page may load nothing and run nothing, whatever stands in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fdfdfc; --faint: #6b7280; --line: #d8d8d4; --own: #2563eb }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --paper: #17181a; --faint: #9aa0a6; --line: #3a3c40;
  --own: #7aa2ff } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line) }
h3 { font-size: 1rem; margin-bottom: .3rem } .faint, figcaption { color: var(--faint); font-size: .9rem }
table { border-collapse: collapse; margin: .6rem 0 } td, th { padding: .2rem .8rem .2rem 0; text-align: start;
  border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: end; font-variant-numeric: tabular-nums }
blockquote { margin: .4rem 0; padding: .2rem .8rem; border-inline-start: 3px solid var(--line); white-space: pre-wrap;
  overflow-wrap: anywhere } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
figure { display: inline-block; margin: .4rem 1rem .4rem 0 } svg text { font: 11px system-ui; fill: var(--faint) }
.heat { line-height: 2.4; white-space: pre-wrap; overflow-wrap: anywhere }
.heat span { --faded: calc(var(--much) * .35) }
.heat .up { border-top: 3px solid rgb(37 99 235 / var(--much)); background: rgb(37 99 235 / var(--faded)) }
.heat .down { border-bottom: 3px dotted rgb(220 38 38 / var(--much)); background: rgb(220 38 38 / var(--faded)) }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts that are HTML already; the title is plain text."""
    name = escaped(title)
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n{body}\n</body>\n</html>\n"
    )


def escaped(text: object) -> str:
    """Plain text as HTML shows it: no markup, no control character, none that turns the direction of others."""
    return html.escape(safe_text(str(text)))


def paragraph(text: object, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"


def quotation(text: object) -> str:
    """What somebody wrote, in its own direction and with its own line breaks."""
    return f'<blockquote dir="auto">{escaped(text)}</blockquote>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of plain values; numbers stand at the right, None is a dash."""
    lines = ["<tr>" + "".join(f"<th>{escaped(name)}</th>" for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def curve(title: str, points: Sequence[tuple[int, float | None]], width: int = 360, height: int = 150) -> str:
    """One series over its steps as an SVG figure; a point that is None leaves a gap. Empty where there is no point."""
    known = [(step, value) for step, value in points if value is not None]
    if not known:
        return ""
    left, right, top, bottom = 52, 8, 10, 22
    first, last = points[0][0], points[-1][0]
    low, high = min(value for _, value in known), max(value for _, value in known)

    def x(step: int) -> float:
        return left + (width - left - right) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - ((value - low) / (high - low) if high > low else 0.5))

    runs: list[list[str]] = [[]]
    for step, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{x(step):.1f},{y(value):.1f}")
    drawn = "".join(
        f'<polyline points="{" ".join(run)}" fill="none" stroke="var(--own)" stroke-width="1.6"/>'
        for run in runs
        if run
    )
    dots = "".join(f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="1.8" fill="var(--own)"/>' for s, v in known[-1:])
    edge = f'<path d="M{left} {top}V{height - bottom}H{width - right}" fill="none" stroke="var(--line)"/>'
    marks = "".join(
        f'<text x="{left - 4}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        for value in sorted({high, low})
    )
    marks += (
        f'<text x="{left}" y="{height - 6}">{first}</text>'
        f'<text x="{width - right}" y="{height - 6}" text-anchor="end">{last}</text>'
    )
    told = escaped(
        f"{title}: from {known[0][1]:.3g} at step {known[0][0]} to {known[-1][1]:.3g} at step {known[-1][0]}"
    )
    return (
        f'<figure><svg role="img" aria-label="{told}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{edge}{drawn}{dots}{marks}</svg>'
        f"<figcaption>{escaped(title)}</figcaption></figure>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "<td>-</td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, int | float):
        return f'<td class="n">{value:,}</td>' if isinstance(value, int) else f'<td class="n">{value:.3g}</td>'
    return f'<td dir="auto">{escaped(value)}</td>'
