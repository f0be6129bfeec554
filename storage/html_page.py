"""One HTML page that needs nothing beside it: no script, no font, no address. What others wrote is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from storage.signs import safe_text

# The page may load nothing and run nothing, whatever stands in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fdfdfc; --faint: #60666f; --line: #e2e2de; --own: #2563eb;
  --soft: #f3f3f0; --good: #15803d; --bad: #b91c1c }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --paper: #17181a; --faint: #9aa0a6; --line: #34363a;
  --own: #7aa2ff; --soft: #202225; --good: #4ade80; --bad: #f87171 } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2.5rem auto 5rem; padding: 0 1.2rem;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.9rem; letter-spacing: -.01em; margin-bottom: .2rem }
h2 { font-size: 1.25rem; margin-top: 2.8rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem } .faint, figcaption { color: var(--faint); font-size: .9rem }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .6rem 0; font-size: .94rem }
td, th { padding: .3rem 1.1rem .3rem 0; text-align: start; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--faint); font-weight: 500; font-size: .85rem; vertical-align: bottom }
td.n, th.n { text-align: end; font-variant-numeric: tabular-nums }
.good { color: var(--good); font-weight: 600 } .bad { color: var(--bad); font-weight: 600 }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem; margin: 1.4rem 0 }
.card { background: var(--soft); border-radius: .5rem; padding: .8rem 1rem }
.card b { display: block; font-size: 1.35rem; font-weight: 600 } .card span { color: var(--faint); font-size: .9rem }
.bar { position: relative; display: inline-block; width: 9rem; height: .9rem; margin-inline-end: .7rem;
  vertical-align: -.1rem; background: var(--soft); border-radius: .2rem }
.bar i { position: absolute; top: .35rem; height: .2rem; background: var(--own); opacity: .45 }
.bar b { position: absolute; top: .15rem; width: .2rem; height: .6rem; margin-left: -.1rem; background: var(--own) }
.bar u { position: absolute; top: 0; bottom: 0; border-left: 1px dashed var(--faint) }
blockquote { margin: .4rem 0; padding: .3rem .9rem; border-inline-start: 3px solid var(--line); white-space: pre-wrap;
  overflow-wrap: anywhere } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem }
@media (max-width: 40rem) { .pair { grid-template-columns: 1fr } }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: .4rem 1.6rem }
figure { margin: .6rem 0 } svg { max-width: 100%; height: auto } svg text { font: 11px system-ui; fill: var(--faint) }
details { margin: .6rem 0 } summary { cursor: pointer; color: var(--faint) }
.heat { line-height: 2.4; white-space: pre-wrap; overflow-wrap: anywhere }
.heat span { --faded: calc(var(--much) * .35) }
.heat .up { border-top: 3px solid rgb(37 99 235 / var(--much)); background: rgb(37 99 235 / var(--faded)) }
.heat .down { border-bottom: 3px dotted rgb(220 38 38 / var(--much)); background: rgb(220 38 38 / var(--faded)) }
@media print { body { max-width: none; margin: 0 } h2 { break-after: avoid } .card, figure, tr { break-inside: avoid } }
"""


class Html(str):
    """Text that is HTML already: what a table takes as it is."""


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
    """A table of plain values; numbers stand at the right, None is a dash. One that is too wide scrolls by itself."""
    listed = list(rows)
    numbers = [any(_is_number(row[place]) for row in listed if place < len(row)) for place in range(len(head))]
    names = (f'<th class="n">{escaped(name)}</th>' if right else f"<th>{escaped(name)}</th>"
             for name, right in zip(head, numbers, strict=True))  # fmt: skip
    lines = ["<tr>" + "".join(names) + "</tr>"] if any(head) else []
    lines += ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in listed]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def marked(text: object, *, good: bool) -> Html:
    """A word that stands out as good or bad; it says so itself, so that nothing hangs on colour."""
    return Html(f'<span class="{"good" if good else "bad"}">{escaped(text)}</span>')


def cards(shown: Iterable[tuple[object, object]]) -> str:
    """What matters most: of each a figure, and below it what it is."""
    made = (f'<div class="card"><b>{escaped(figure)}</b><span>{escaped(what)}</span></div>' for figure, what in shown)
    return f'<div class="cards">{"".join(made)}</div>'


def interval(
    value: float, low: float | None, high: float | None, axis: tuple[float, float], zero: float, told: str
) -> Html:
    """A value on an axis with its interval as a bar and a line at `zero`, and in words beside it."""
    least, most = axis
    size = (most - least) or 1.0

    def at(place: float) -> float:
        return 100 * min(1.0, max(0.0, (place - least) / size))

    known = low is not None and high is not None
    span = f'<i style="left:{at(low):.1f}%;width:{at(high) - at(low):.1f}%"></i>' if known else ""  # type: ignore[arg-type]
    line = f'<u style="left:{at(zero):.1f}%"></u>' if least <= zero <= most else ""
    return Html(f'<span class="bar">{line}{span}<b style="left:{at(value):.1f}%"></b></span>{escaped(told)}')


def curve(title: str, points: Sequence[tuple[int, float | None]], width: int = 440, height: int = 160) -> str:
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
    now = "" if len(known) < 2 else f", {known[-1][1]:.3g} at the end"
    return (
        f'<figure><svg role="img" aria-label="{told}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{edge}{drawn}{dots}{marks}</svg>'
        f"<figcaption>{escaped(title)}{now}</figcaption></figure>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if isinstance(value, Html):
        return f"<td>{value}</td>"
    if value is None:
        return "<td>-</td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, int | float):
        return f'<td class="n">{value:,}</td>' if isinstance(value, int) else f'<td class="n">{value:.3g}</td>'
    return f'<td dir="auto">{escaped(value)}</td>'
