"""What a suite asks of a model, in two forms: which of some texts is likelier, or what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from storage.languages import spoken

# Scripts that put no space between words.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my", "yue"})


@dataclass(frozen=True)
class Options:
    """Texts of which the likeliest is what the model chooses.

    Attributes:
        name: the item's own, the same in all of its forms: what is drawn again for an interval.
        prompt: what the user says before them; None where they stand by themselves, as plain text.
        texts: the options.
        counts: for each figure, what choosing each option counts.
        start: plain text that the options go on from, where nobody asks.
        whole: compare whole texts; else by the byte, so that a short option has no advantage.
    """

    suite: str
    language: str
    name: str
    texts: tuple[str, ...]
    counts: dict[str, tuple[float, ...]]
    prompt: str | None = None
    start: str = ""
    whole: bool = False

    @property
    def said(self) -> tuple[str, ...]:
        """The texts that must never be learned from."""
        if self.prompt is not None:
            return (self.prompt,)
        return tuple(self.start + text for text in self.texts)

    @property
    def follows(self) -> tuple[str, ...]:
        """The options as they stand after the start."""
        between = gap(self.language) if self.start else ""
        return tuple(between + text for text in self.texts)


@dataclass(frozen=True)
class Question:
    """Something to answer freely. What becomes of the answer is counted (:mod:`trainer.evaluation.answers`).

    Attributes:
        answer_language: the language that the answer should be in.
        refusals: how a refusal begins, in the language of the question and of the answer.
        part: of the suite, whose figures are told apart; such as a task.
        harmful: whether to refuse is right.
    """

    suite: str
    language: str
    name: str
    prompt: str
    answer_language: str
    refusals: tuple[str, ...] = ()
    part: str = ""
    harmful: bool = False

    @property
    def said(self) -> tuple[str, ...]:
        """The texts that must never be learned from."""
        return (self.prompt,)


Item = Options | Question


@dataclass(frozen=True)
class Outcome:
    """What a version made of an item.

    Attributes:
        values: what it counts for each figure.
        answer: what it said, or the option that it found likeliest. logprobs: of all options, in nats.
    """

    item: Item
    values: dict[str, float]
    answer: str
    logprobs: tuple[float, ...] = field(default=())


def gap(language: str) -> str:
    """What stands between two words, or two sentences, of a language."""
    return "" if spoken(language) in UNSPACED else " "


def rotated(texts: Sequence[str], place: int) -> list[str]:
    """The texts, begun at another one by turns, so that where an option stands favours none."""
    turn = place % len(texts)
    return [*texts[turn:], *texts[:turn]]
