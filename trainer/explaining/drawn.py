"""An explained answer for the eye: heat lines for a terminal, and a page of HTML.

What raises the reward stands above its words, what lowers it below them, the higher the more: nothing hangs on colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from storage import html_page
from storage.signs import one_line, safe_text, width
from trainer.explaining.answer import Explanation, Token

UP, DOWN = "▁▃▅▇", "▔▔▀█"  # by size; a terminal has fewer that hang than that stand
FEW = 6  # tokens that are named with their figures
_BREAKS = str.maketrans({"\n": "⏎", "\t": "⇥"})


def page(found: Explanation, columns: int, *, colored: bool) -> str:
    """The explanation as text, at most so many columns wide."""
    lines = dict(heat_lines(found))
    head = (
        f"{found.sample}  {found.version} under {found.reward_model}\n"
        f"{one_line(found.language, 12)} ▸ {one_line(found.prompt, columns - 14)}\n"
    )
    unsure = "" if found.deviation is None else f" ± {found.deviation:.2f}"
    sums = (
        f"reward {found.reward:+.3f}{unsure} = baseline {found.baseline:+.3f} + tokens "
        f"{found.reward - found.baseline:+.3f}  (deviations of the reward)\n"
        f"the baseline is {found.baseline_is}"
    )
    parts = "  ".join(f"{name} {value:+.2f}" for name, value in found.parts.items())
    blocks = [head + sums]
    if parts:
        blocks.append(f"of the reward, by what is read: {parts}")
    for title, (texts, values) in lines.items():
        blocks.append(title)
        blocks.append("\n".join(heat(texts, values, columns, colored=colored)))
    if found.value_unknown:
        blocks.append(f"value by token is not known: {found.value_unknown}")
    blocks.append("\n".join(_figures(found)))
    return "\n\n".join(blocks)


def heat_lines(found: Explanation) -> Iterator[tuple[str, tuple[list[str], list[float]]]]:
    """What is drawn over the answer, each with a title: reward, value, advantage, KL; those alone that are known."""
    tokens, reference = found.tokens, found.reference
    yield "reward by token: above raises it, below lowers it", whole(tokens, lambda token: token.reward)
    if not found.value_unknown:
        values = whole(tokens, lambda token: token.value or 0.0, adds=False)
        yield f"value by token: what {found.version}'s run expected of the answer before it", values
        gains = whole(tokens, lambda token: token.value_advantage or 0.0)
        yield "advantage by token: how much better the run then expected it to come out", gains
    chances = whole(tokens, lambda token: token.advantage)
    if any(chances[1]):
        yield f"log-probability by token, above that by {reference}, in nats", chances
    kls = whole(tokens, lambda token: token.kl)
    if any(kls[1]):
        yield f"KL by token from {reference}: {sum(kls[1]):.2f} nats in all", kls


def heat(texts: Sequence[str], values: Sequence[float], columns: int, *, colored: bool = False) -> Iterator[str]:
    """Lines of text, each with bars above it for what is positive and below it for what is negative."""
    most = max(map(abs, values), default=0.0) or 1.0
    for line in _wrapped(texts, columns):
        above = "".join(_bar(texts[place], values[place], most, UP) for place in line)
        below = "".join(_bar(texts[place], -values[place], most, DOWN) for place in line)
        said = "".join(
            _tinted(texts[place], values[place] / most) if colored else texts[place] for place in line
        )  # fmt: skip
        yield from (part for part in (above.rstrip(), said.rstrip(), below.rstrip()) if part)


def whole(
    tokens: Sequence[Token], value: Callable[[Token], float], *, adds: bool = True
) -> tuple[list[str], list[float]]:
    """What is drawn, and its value: tokens that begin a character count with the one that ends it, or where values do
    not add up, that one alone does."""
    texts: list[str] = []
    values: list[float] = []
    begun = 0.0
    for token in tokens:
        begun = begun + value(token) if adds else value(token)
        if token.text:
            texts.append(shown(token.text))
            values.append(begun)
            begun = 0.0
    if begun and values and adds:  # a character that was cut off
        values[-1] += begun
    return texts, values


def shown(text: str) -> str:
    """The text of a token on one line."""
    return safe_text(text).translate(_BREAKS)


def document(found: Explanation) -> str:
    """The explanation as one HTML page."""
    unsure = "" if found.deviation is None else f" ± {found.deviation:.2f}"
    parts = [
        html_page.paragraph(f"Answer {found.sample}, to a prompt in {found.language}, of {found.version} under "
                            f"{found.reward_model}."),
        html_page.quotation(found.prompt),
        html_page.paragraph(
            f"Reward {found.reward:+.3f}{unsure}, in deviations of the reward: baseline {found.baseline:+.3f}, and "
            f"{found.reward - found.baseline:+.3f} from the tokens. The baseline is {found.baseline_is}."
        ),
        html_page.paragraph("Below, a line above a word raises, a dotted line below it lowers; the stronger the more.",
                            "faint"),
    ]  # fmt: skip
    for title, (texts, values) in heat_lines(found):
        head, _, more = title.partition(": ")
        parts += [f"<h2>{html_page.escaped(head[0].upper() + head[1:])}</h2>", html_page.paragraph(more, "faint"),
                  _heat_of(texts, values)]  # fmt: skip
    if found.value_unknown:
        parts.append(html_page.paragraph(f"Value by token is not known: {found.value_unknown}.", "faint"))
    names = ["token", "reward", "left out", "value", "advantage", "log-probability", "above reference", "KL"]
    parts += [
        "<h2>Figures</h2>",
        html_page.table(
            names,
            [[shown(token.text), token.reward, token.left_out, token.value, token.value_advantage, token.logprob,
              token.advantage, token.kl] for token in found.tokens],
        ),
    ]  # fmt: skip
    if found.parts:
        parts += ["<h2>By what the reward model reads</h2>",
                  html_page.table(["part", "reward"], [list(item) for item in found.parts.items()])]  # fmt: skip
    return html_page.page(f"{found.version}: an answer explained", parts)


def _heat_of(texts: Sequence[str], values: Sequence[float]) -> str:
    most = max(map(abs, values), default=0.0) or 1.0
    spans = []
    for text, own in zip(texts, values, strict=True):
        drawn = html_page.escaped(text).replace("⏎", "⏎\n")
        kind = "up" if own >= 0 else "down"
        spans.append(f'<span class="{kind}" style="--much:{abs(own) / most:.3f}" title="{own:+.4f}">{drawn}</span>')
    return f'<p class="heat" dir="auto">{"".join(spans)}</p>'


def _figures(found: Explanation) -> Iterator[str]:
    """The tokens with the largest shares, each with all that is known of it."""
    yield "the largest shares:   reward  left out  log-probability  above reference     KL"
    ordered = sorted(found.tokens, key=lambda token: -abs(token.reward))[:FEW]
    for token in ordered:
        name = one_line(repr(safe_text(token.text)), 18)
        without = "       -" if token.left_out is None else f"{token.left_out:+8.3f}"
        yield (f"  {name}{' ' * (18 - width(name))}  {token.reward:+8.3f}  {without}  {token.logprob:15.2f}  "
               f"{token.advantage:+15.2f}  {token.kl:5.2f}")  # fmt: skip


def _wrapped(texts: Sequence[str], columns: int) -> Iterator[list[int]]:
    """Places of tokens, a line after the other: a line ends where it is full, or where the text has a break."""
    line: list[int] = []
    room = columns
    for place, text in enumerate(texts):
        size = width(text)
        if line and size > room:
            yield line
            line, room = [], columns
        line.append(place)
        room -= size
        if text.endswith("⏎"):
            yield line
            line, room = [], columns
    if line:
        yield line


def _bar(text: str, value: float, most: float, signs: str) -> str:
    """Over the width of a token: a bar for a positive value, blanks for any other."""
    level = round(len(signs) * value / most)
    return (signs[level - 1] if level > 0 else " ") * width(text)


def _tinted(text: str, share: float) -> str:
    """The text on blue where it raises the reward, on red where it lowers it."""
    strength = round(5 * abs(share))
    if not strength:
        return text
    shade = 16 + (strength if share > 0 else 36 * strength)  # the cube of 256 colours
    return f"\x1b[48;5;{shade}m\x1b[38;5;231m{text}\x1b[0m"
