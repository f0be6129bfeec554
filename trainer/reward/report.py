"""How well a fitted reward model agrees with ratings that it never saw, and what else moves the ratings.

What a policy learns from is which of several answers to one prompt is better. So the headline is the share of such
pairs that the model puts in the order of their ratings; how well it knows which prompts are rated low stands beside it.

A figure that the ratings do not tell is None, and its reason stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from storage.wording import counted
from trainer.evaluation.measures import Calibration

# What twice as many ratings brought, in words.
HELP, NO_GAIN, WORSE, TOO_FEW = "more would help", "no gain beyond noise", "worse than with half", "too few to tell"
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Agreement:
    """How often model and held-out ratings agree; None where there were too few to say.

    Attributes:
        spearman: rank correlation of reward and standardised score.
        pair_accuracy: share of decided pairs whose winner has the higher reward.
        label_accuracy: share of labels that the model, knowing the rater's leniency, foretells.
        reasons: why a figure is None, by its name.
    """

    spearman: float | None
    spearman_n: int
    pair_accuracy: float | None
    pair_n: int
    label_accuracy: float | None
    label_n: int
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RaterReport:
    """A rater's habits (:mod:`trainer.reward.effects`), how many of the ratings were learned from, and agreement.

    A habit is None where the rater gave none of the ratings that show it: scores the offset, labels the leniency, pairs
    whose sides are known the side.
    """

    offset: float | None
    gain: float | None
    leniency: float | None
    side: float | None
    learned: int
    agreement: Agreement


@dataclass(frozen=True)
class LanguageReport:
    """Mean reward, before normalisation, of the held-out answers in a language, how many they are, and agreement."""

    reward: float
    answers: int
    agreement: Agreement


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt that were rated differently: by one rater in the same way, or as a pair.

    Attributes:
        right: 1 where the better-rated has the higher reward, 0 where the other has, a half where they are equal.
    """

    prompt: str
    language: str
    right: float


@dataclass(frozen=True)
class Curve:
    """Within-prompt accuracy of models taught by half of the other prompts and by all; None where too few tell it.

    Attributes:
        gain: of all over half, with its 95% interval over prompts.
        n: comparisons. prompts: that they are of.
        verdict: whether more ratings would help: one of :data:`HELP`, :data:`NO_GAIN`, :data:`WORSE`, :data:`TOO_FEW`.
        reason: why there are too few; empty otherwise.
    """

    half: float | None
    all: float | None
    gain: float | None
    gain_interval: Bounds | None
    n: int
    prompts: int
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class LearningCurve:
    """What twice as many ratings brought, over all languages and by language; and in words."""

    overall: Curve
    languages: dict[str, Curve]
    words: str

    @classmethod
    def of(cls, overall: Curve, languages: dict[str, Curve]) -> LearningCurve:
        """With the words."""
        words = overall.verdict + (f" ({overall.reason})" if overall.reason else "")
        if overall.half is not None:
            words = f"half to all of the ratings {overall.half:.0%} to {overall.all:.0%}, {words}"
            verdicts = dict.fromkeys(curve.verdict for curve in languages.values())
            parts = [
                f"{verdict}: {' '.join(name for name, curve in languages.items() if curve.verdict == verdict)}"
                for verdict in verdicts
            ]
            words += f" ({', '.join(parts)})"
        return cls(overall, languages, words)


@dataclass(frozen=True)
class FitReport:
    """The quality of a fit. Held-out figures are of overall ratings, with 95% intervals that draw whole prompts.

    Attributes:
        within_prompt_accuracy: of two answers to a prompt that were rated differently, the share in which the
            better-rated has the higher reward; `within_prompt_n` such pairs of `within_prompt_prompts` prompts.
        between_prompts_spearman: rank correlation of the mean rewards and mean ratings of `between_prompts_n` prompts,
            less those of their languages.
        score_slope: of standardised scores on the predicted ones; 1 is calibrated.
        score_noise: variance of a standardised score around its prediction.
        gamma: what the log ratio of token counts adds to the logit of a pair.
        length_correlation: rank correlation of reward and log token count over `length_n` held-out answers.
        language_spread: standard deviation, between languages, of the mean reward.
        reasons: why a figure or its interval is None, by its name.
        folds: into so many parts the prompts were cut, and what is held out is every rating, each foretold by a model
            of the other parts; 0 where one model was measured on ratings kept apart.
        learning_curve: what twice as many ratings brought; None where it was not measured.
    """

    examples: int
    held_out: int
    held_out_prompts: int
    train_loss: float
    within_prompt_accuracy: float | None
    within_prompt_n: int
    within_prompt_prompts: int
    within_prompt_accuracy_interval: Bounds | None
    between_prompts_spearman: float | None
    between_prompts_n: int
    between_prompts_spearman_interval: Bounds | None
    spearman: float | None
    spearman_n: int
    spearman_interval: Bounds | None
    pair_accuracy: float | None
    pair_n: int
    pair_accuracy_interval: Bounds | None
    label_accuracy: float | None
    label_n: int
    label_accuracy_interval: Bounds | None
    label_auc: float | None
    label_auc_interval: Bounds | None
    pair_calibration: Calibration | None
    label_calibration: Calibration | None
    score_slope: float | None
    score_slope_interval: Bounds | None
    score_noise: float | None
    gamma: float | None
    length_correlation: float | None
    length_n: int
    language_spread: float | None
    languages: dict[str, LanguageReport]
    raters: dict[str, RaterReport]
    reasons: dict[str, str] = field(default_factory=dict)
    folds: int = 0
    learning_curve: LearningCurve | None = None

    def sentence(self) -> str:
        """The figures in words, each with its sample size; where there is none, why."""
        told = [
            (
                "better of two answers to a prompt",
                "within_prompt_accuracy",
                self.within_prompt_accuracy,
                self.within_prompt_accuracy_interval,
                self.within_prompt_n,
                ".0%",
            ),
            (
                "prompts' means",
                "between_prompts_spearman",
                self.between_prompts_spearman,
                self.between_prompts_spearman_interval,
                self.between_prompts_n,
                "+.2f",
            ),
            ("rank correlation", "spearman", self.spearman, self.spearman_interval, self.spearman_n, "+.2f"),
            ("pair accuracy", "pair_accuracy", self.pair_accuracy, self.pair_accuracy_interval, self.pair_n, ".0%"),
            (
                "label accuracy",
                "label_accuracy",
                self.label_accuracy,
                self.label_accuracy_interval,
                self.label_n,
                ".0%",
            ),
        ]
        measured = (
            f"held out {self.held_out}"
            if not self.folds
            else f"foretold {self.held_out} in {counted(self.folds, 'fold')}"
        )
        words = [f"learned from {self.examples}, {measured}"]
        for label, name, value, bounds, count, form in told:
            if value is not None:
                span = f" [{bounds[0]:{form}}, {bounds[1]:{form}}]" if bounds else ""
                lacks = "" if bounds else f", no interval: {self.reasons.get(f'{name}_interval', 'not known')}"
                words.append(f"{label} {value:{form}}{span} (n {count}{lacks})")
            elif count:
                words.append(f"{label} - ({self.reasons.get(name, 'not known')})")
        if self.learning_curve is not None:
            words.append(self.learning_curve.words)
        return ", ".join(words)
