"""A prompt, an answer, and what was said of it and when, in words."""

from __future__ import annotations

from textual.content import Content

from storage.feedback import kinds
from storage.library import Answered, Shelved, Standing, Told
from storage.records import Change, Prompt, Rating, RatingKind, Source
from workbench.text import content, one_line
from workbench.widgets.answers import card_of

_STANDINGS = {
    Standing.COUNTS: ("✓ counts", "$text-success"),
    Standing.REPLACED: ("↺ replaced", "$text-muted"),
    Standing.TAKEN_BACK: ("↶ taken back", "$text-muted"),
    Standing.TURN: ("", ""),
}
MOST_NAMED = 6  # versions
_TURNS = {RatingKind.UNDO: "took a rating back", RatingKind.REDO: "brought a rating back"}


def turns(prompt: Prompt) -> Content:
    """All turns of a prompt, each after the name of who said it; the one that is answered stands out."""
    before = [Content.assemble((f"{turn.role} ▸ ", "$text-muted"), content(turn.content))
              for turn in prompt.messages[:-1]]  # fmt: skip
    return Content("\n").join([*before, content(prompt.text, "bold")])


def head(shelved: Shelved, answered: Answered | None) -> Content:
    """Which prompt it is, and which of its answers."""
    facts = [shelved.split, one_line(shelved.task, 20)]
    which = "no answer yet" if answered is None else f"answer {answered.place + 1} of {answered.count}"
    return Content.assemble(
        (one_line(shelved.language, 12), "bold $accent"), " · ", (which, "bold"),
        (" · " + " · ".join(filter(None, facts)), "$text-muted"),
    )  # fmt: skip


def answer_text(answered: Answered) -> Content:
    """An answer in full, above it what is known of it."""
    sample = answered.sample
    tokens = None if sample.token_ids is None else len(sample.token_ids)
    origin = "" if sample.origin == "model" else sample.origin
    said_by = sample.version or origin
    facts = card_of("", sample.text, "", tokens=tokens, said_by=said_by, ended=sample.finish_reason).footnote
    text = content(sample.text) if sample.text else Content.styled("(an empty answer)", "$text-muted italic")
    return Content("\n").join([Content.styled(one_line(facts), "$text-muted"), text] if facts else [text])


def history(answered: Answered) -> Content:
    """What was said of an answer, oldest first, a line each, with what was written below it."""
    if not answered.told:
        return Content.styled("Nobody has said anything of this answer yet.", "$text-muted")
    return Content("\n").join(_event(told, answered.sample.id) for told in answered.told)


def corrections(changes: list[Change]) -> Content:
    """What was corrected about a prompt, oldest first, a line each."""
    return Content("\n").join(
        Content.assemble(
            (f"{_when(one.created_at)}  ", "$text-muted"), (one_line(one.made_by or "-", 20), "bold"),
            f"  {one.field}: {one_line(one.was, 30) or '-'} → {one_line(one.became, 30) or '-'}",
        )
        for one in changes
    )  # fmt: skip


def _when(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _how(rating: Rating) -> str:
    """On which scale, by which guideline, and under which circumstances something was said."""
    usual = rating.scale_low in (None, 1) and rating.scale_high in (None, 5)
    parts = [
        "" if usual else f"on {rating.scale_low:g} to {rating.scale_high:g}",
        one_line(rating.guideline, 24),
        "blind" if rating.blind else "",
        "" if rating.duration_ms is None else f"{rating.duration_ms / 1000:.1f} s",
    ]
    return " · ".join(filter(None, parts))


def _event(told: Told, sample_id: str) -> Content:
    rating = told.rating
    sign, style = _STANDINGS[told.standing]
    source = "" if rating.source == Source.HUMAN else f" ({rating.source})"
    attribute = "" if rating.attribute == "overall" else f" of {one_line(rating.attribute, 24)}"
    line = Content.assemble(
        (f"{_when(rating.created_at)}  ", "$text-muted"),
        (one_line(rating.rater, 20), "bold"), (source, "$text-muted"), f"  {_words(rating, sample_id)}{attribute}  ",
        (sign, style), (f"  {how}" if (how := _how(rating)) else "", "$text-muted"),
        (f"  shaped {_versions(told.shaped)}" if told.shaped else "", "$policy"),
    )  # fmt: skip
    if not rating.text:
        return line
    return Content("\n").join([line, *(Content.assemble("    ", part) for part in content(rating.text).split("\n"))])


def _versions(names: tuple[str, ...]) -> str:
    """The first and the last few of the versions that a rating shaped."""
    listed = names if len(names) <= MOST_NAMED else (*names[:1], "…", *names[1 - MOST_NAMED :])
    return " ".join(one_line(name, 20) for name in listed)


def _words(rating: Rating, sample_id: str) -> str:
    if rating.kind in _TURNS:
        return _TURNS[rating.kind]
    words = kinds.words(rating, sample_id) or ("another preferred" if rating.kind == RatingKind.PAIR else rating.kind)
    other = {rating.sample_id, rating.other_sample_id} - {None, sample_id}
    return f"{words}, beside {other.pop()[-8:]}" if other else words  # type: ignore[index]  # None was taken out
