"""What came of an answer, told after the fact: whether it worked, why, and how well, or any of the three.

In a rating the reason is its text, the score its value on its scale, and whether it worked the tag `worked`. A record
of a file says it in flat fields, so that a table can hold them:

| field | is |
|---|---|
| `outcome` | `worked`, `failed`, `unclear`, or the reason itself, where nothing else is told |
| `outcome_reason` | why, in words |
| `outcome_score`, `outcome_scale` | how well, on a scale of [low, high], by default [1, 5] |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from storage.exchange.rows import BadFieldError, number, shown

if TYPE_CHECKING:
    from storage.records import Rating

WORKED, FAILED, UNCLEAR = "worked", "failed", "unclear"
VERDICTS: dict[str, bool | None] = {WORKED: True, FAILED: False, UNCLEAR: None}
SAYS = ("text", "tags", "value", "scale_low", "scale_high")
RECORD = ("response", "outcome", "outcome_reason", "outcome_score", "outcome_scale")
USUAL_SCALE = (1.0, 5.0)


class Outcome(msgspec.Struct, frozen=True):
    """What came of an answer. `worked` is None where that is not told, and so is `score`, which lies on `scale`."""

    worked: bool | None = None
    reason: str = ""
    score: float | None = None
    scale: tuple[float, float] = USUAL_SCALE

    @property
    def verdict(self) -> str:
        """`worked`, `failed`, or nothing where neither is told."""
        return "" if self.worked is None else WORKED if self.worked else FAILED

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a rating that say it."""
        low, high = self.scale if self.score is not None else (None, None)
        return {
            "text": self.reason, "tags": None if self.worked is None else {WORKED: self.worked}, "value": self.score,
            "scale_low": low, "scale_high": high,
        }  # fmt: skip


def of(rating: Rating) -> Outcome:
    """What a rating of this kind tells."""
    low, high = rating.scale_low, rating.scale_high
    scale = USUAL_SCALE if low is None or high is None else (low, high)
    worked = (rating.tags or {}).get(WORKED)
    return Outcome(None if worked is None else bool(worked), rating.text or "", rating.value, scale)


def wrong(told: Outcome) -> str:
    """What keeps an outcome from being one; nothing where it can be."""
    (low, high), score = told.scale, told.score
    if told.worked is None and score is None and not told.reason.strip():
        return "must say what came of the answer: that it worked or failed, why, or a score"
    if not low < high:
        return f"its low end {low:g} must lie below its high end {high:g}"
    if score is not None and not low <= score <= high:
        return f"{score:g} lies outside the scale [{low:g}, {high:g}]"
    return ""


def check(rating: Rating) -> None:
    """Raise BadFieldError where a rating tells of no outcome."""
    if told := wrong(of(rating)):
        raise BadFieldError("outcome", told)


def words(rating: Rating) -> str:
    """For a card: `worked 4/5`, `failed`, or that something was told."""
    told = of(rating)
    score = "" if told.score is None else f"{told.score:g}/{told.scale[1]:g}"
    return " ".join(filter(None, (told.verdict, score))) or "outcome told"


def read(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a rating from those of a record. Raises BadFieldError."""
    said, reason, score = fields["outcome"], fields.get("outcome_reason", ""), fields.get("outcome_score")
    if isinstance(said, bool):
        said = WORKED if said else FAILED
    for name, value in (("outcome", said), ("outcome_reason", reason)):
        if not isinstance(value, str):
            raise BadFieldError(name, f"must say in words what came of the answer, not {shown(value)}")
    verdict = said.strip().lower()
    alone = not reason.strip() and score is None
    if verdict not in VERDICTS or (verdict == UNCLEAR and alone):
        if reason.strip():
            raise BadFieldError("outcome", f"must be worked, failed or unclear beside a reason, not {shown(said)}")
        verdict, reason = UNCLEAR, said
    told = Outcome(
        VERDICTS[verdict],
        reason,
        None if score is None else number("outcome_score", score),
        _scale(fields.get("outcome_scale", USUAL_SCALE)),
    )
    if fault := wrong(told):
        raise BadFieldError("outcome" if told.score is None else "outcome_score", fault)
    return told.fields


def write(rating: Rating) -> dict[str, Any]:
    """The fields of a record from a rating; :func:`read` loses nothing of them."""
    told = of(rating)
    if told.worked is None and told.score is None and told.reason.strip().lower() not in (WORKED, FAILED):
        return {"outcome": told.reason}
    found: dict[str, Any] = {"outcome": told.verdict or UNCLEAR}
    if told.reason:
        found["outcome_reason"] = told.reason
    if told.score is not None:
        found |= {"outcome_score": told.score, "outcome_scale": list(told.scale)}
    return found


def _scale(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise BadFieldError("outcome_scale", f"must be [low, high], not {shown(value)}")
    low, high = (number("outcome_scale", bound) for bound in value)
    return low, high
