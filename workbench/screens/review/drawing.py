"""What Review draws around the answers: where one is, what is asked of the item, and what was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from storage.feedback import revisiting
from storage.records import RatingKind
from workbench.screens.review.pile import Pile
from workbench.screens.review.ranking import LETTERS
from workbench.shell.screen import packed
from workbench.text import one_line
from workbench.training.curves import bar
from workbench.widgets.answers import CardFacts, card_of
from workbench.widgets.judging import use_of, verdict

if TYPE_CHECKING:
    from storage.feedback.progress import Progress
    from storage.feedback.queue import ReviewItem
    from storage.records import Rating


def names_of(item: ReviewItem) -> tuple[str, ...]:
    """What the answers are called, from left to right."""
    return {"single": ("answer",), "pair": ("left", "right")}.get(item.kind, tuple(LETTERS[: len(item.samples)]))


def cards(item: ReviewItem, *, said: Sequence[Rating] | None, markdown: bool) -> list[CardFacts]:
    """One card an answer; `said` is what was said of an item that is looked at again: its versions are told, if any."""
    told = said is not None and is_told(said)
    return [
        card_of(
            name, sample.text, item.prompt.language, said_by=(sample.version or "") if told else "",
            tokens=None if sample.token_ids is None else len(sample.token_ids), markdown=markdown,
            verdict=verdict(list(said or ()), sample) if item.kind == "single" else "",
        )
        for name, sample in zip(names_of(item), item.shown, strict=True)
    ]  # fmt: skip


def is_told(said: Sequence[Rating]) -> bool:
    """Whether the versions of an item may be told: not of one that is only skipped, which is asked again, blind."""
    return any(rating.kind != RatingKind.SKIP for rating in said) or not said


def versions_of(item: ReviewItem) -> str:
    """Which versions answered, said once the item is judged."""
    names = [sample.version for sample in item.shown]
    if not any(names):
        return ""
    if len(set(names)) == 1:
        return str(names[0])
    told = zip(names_of(item), names, strict=True)
    return " · ".join(f"{name} {version or 'imported'}" for name, version in told)


def head(item: ReviewItem, place: str) -> Content:
    """Which item it is, in which language, and why it is asked."""
    blind = {"pair": " · blind pair", "ranking": " · blind ranking"}.get(item.kind, "")
    if item.old_against_new:
        blind = " · old against new, blind"
    return Content.assemble(
        (place, "bold"), " · ", (one_line(item.prompt.language, 12), "bold $accent"),
        (f"{use_of(item.prompt)}{blind} · why: {one_line(item.reason)}", "$text-muted"),
    )  # fmt: skip


def revisited(item: ReviewItem, back: int, keys: tuple[str, str]) -> Content:
    """The head of an item that is looked at again, `back` items before the one that waits."""
    return Content.assemble(
        (f"judged, {back} back", "bold $warning"), " · ", (one_line(item.prompt.language, 12), "bold $accent"),
        (f"{use_of(item.prompt)} · a key changes it · {keys[0]} earlier {keys[1]} later", "$text-muted"),
    )  # fmt: skip


def nothing(waits: str, keys: tuple[str, str] | None) -> Content:
    """What stands where no item does: why none waits, and the keys of the session, where something was judged in it."""
    if not waits:
        return Content.styled("Opening the workspace.", "bold")
    lines = ["New answers appear here as they are sampled on Prompt or by training.", waits]
    if keys is not None:
        lines.append(f"{keys[0]} sums up the session, {keys[1]} goes back through it.")
    muted = [Content.styled(line, "$text-muted") for line in lines]
    return Content("\n").join([Content.styled("Nothing waits for review.", "bold"), *muted])


def beside(left: Content, facts: Sequence[str], width: int) -> Content:
    """A line with facts at its right edge: those that there is room for, the last ones before all others."""
    room, told = width - left.cell_length - 2, list(facts)
    while told and len(" · ".join(told)) > room:
        told.pop(0)
    right = " · ".join(told)
    return Content.assemble(left, " " * (room + 2 - len(right)), (right, "$text-muted")) if right else left


def session(found: Progress, goal: int) -> list[str]:
    """How a session stands: against its goal, where there is one, and how fast it goes."""
    against = [f"{found.items}/{goal}{' ✓' * (found.items >= goal)}"] if goal else []
    return against + ([f"pace {found.pace:.1f} s"] if found.pace is not None else [])


def asked(pile: Pile, item: ReviewItem, width: int, short: bool) -> Content | None:
    """A row for each attribute with what is said of it, the scale's words with their keys, and the ranking so far.

    None where there is nothing to tell beside what the footer tells.
    """
    guideline, row, order = pile.guideline, pile.row, pile.order
    lines = []
    if len(guideline.attributes) > 1:
        rows = []
        for n, attribute in enumerate(guideline.attributes):
            words = revisiting.words(pile.said, attribute.name, item.shown) or (
                "–" if attribute.required else "may be left"
            )
            mark, style = ("▸ ", "bold $accent") if n == row else ("  ", "")
            rows.append(Content.assemble((mark, style), (attribute.name, style or "bold"), f" {one_line(words)}"))
        lines.append(packed(rows[row:] if short else rows, width))
    scale = guideline.scale
    if scale.anchors and item.kind == "single":
        levels = [
            Content.assemble((str(scale.key_of(value)), "bold $accent"), f" {one_line(scale.anchor(value))}")
            for value in scale.levels
        ]
        lines.append(packed(levels, width))
    if order.tiers:
        lines.append(Content.assemble(("ranking ", "$text-muted"), (order.words, "bold $accent")))
    if short and lines:
        lines = [lines[-1] if order.tiers else lines[0].split("\n")[0]]
    return Content("\n").join(lines) if lines else None


def standing(counts: Sequence[tuple[str, int]], shares: Mapping[str, float], progress: Progress, room: int) -> Content:
    """Ratings by language as bars; where shares are wanted, what the session has of each against that."""
    if shares:
        pieces = [
            _share(language, progress.languages.get(language, 0), max(1, round(share * progress.items)))
            for language, share in shares.items()
        ]
    else:
        most = max((n for _, n in counts), default=0)
        pieces = [
            Content.assemble((f"{one_line(language, 8)} ", "$text-muted"), (bar(n, most, 5), "$primary"),
                             (f" {n}", "$text-muted"))
            for language, n in counts
        ]  # fmt: skip
    shown = []
    for piece in pieces:
        room -= piece.cell_length + 2
        if room < 0:
            break
        shown.append(piece)
    return Content("  ").join(shown)


def _share(language: str, have: int, wanted: int) -> Content:
    """`fr ▇▇▇ 3/5`: items in a language, of those that its share asks for by now."""
    behind = have < wanted - 1
    return Content.assemble(
        (f"{one_line(language, 8)} ", "$text-muted"), (bar(min(have, wanted), wanted, 5), "$primary"),
        (f" {have}/{wanted}{' ↓' if behind else ''}", "$text-warning" if behind else "$text-muted"),
    )  # fmt: skip
