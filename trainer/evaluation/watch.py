"""The over-optimisation watch: does the policy still learn what people like, or only what the reward likes?

A policy that learns what people like makes the answers likelier that they rated high. So the watch correlates the shift
`(log pi - log ref)` per token of answers to held-out prompts with what people said of them. When the reward rises while
this agreement lies below zero beyond its interval, the reward is being gamed (Gao et al. 2022 describe how a proxy and
the truth part).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from storage.database import Database
from storage.records import Begun, Source, Split
from storage.wording import counted
from trainer.algorithms.rollouts import Rollout
from trainer.evaluation.intervals import Interval, bootstrap_interval
from trainer.evaluation.measures import rank_correlation
from trainer.examples import OVERALL, Examples, Labelled, Pair, Response, Scored, collect, fingerprint
from trainer.learner import Figures
from trainer.policy.backbone import Backbone
from trainer.policy.full import Update
from trainer.policy.layout import TokenLayout
from trainer.reward.batches import encode
from trainer.reward.model import RewardModel

MOST_ROWS = 64
# With fewer rows or prompts no agreement is told.
FEWEST_ROWS, FEWEST_PROMPTS = 8, 4
BATCH = 16
PEOPLE = (Source.HUMAN, Source.IMPORTED, Source.SIMULATED)


@dataclass(frozen=True)
class HeldOutRow:
    """An answer and how people found it: the mean of standardised scores, and of 1 and -1 for good and bad, won and
    lost."""

    response: Response
    value: float


def held_out_rows(
    database: Database, base_digest: str, begun: Begun | None = None, most: int = MOST_ROWS
) -> list[HeldOutRow]:
    """Answers to held-out prompts that people rated, whole prompts together: nothing ever learned from them.

    Ratings of an AI do not count, nor those of another attribute than overall.

    Args:
        begun: as in :func:`trainer.examples.collect`.
        most: rows; the prompts that come first in a fixed pseudo-random order are taken.
    """
    rows = _rows(collect(database, base_digest, begun, split=Split.HELD_OUT, sources=PEOPLE))
    return sorted(rows, key=lambda row: fingerprint(row.response.prompt.id))[:most]


@dataclass(frozen=True)
class WatchReport:
    """What the watch saw.

    Attributes:
        agreement: rank correlation of shift and human value, with its interval over prompts; None with too few rows,
            or where either is the same for all.
        rows: how many answers it is of.
        uncertainty_ratio: mean deviation of the reward of rollouts over that of the reference's answers; above 1 the
            policy has gone where the reward model knows less. None where it is not known.
        rollouts: how many answers that is of.
    """

    agreement: Interval | None
    rows: int
    uncertainty_ratio: float | None
    rollouts: int
    reason: str = ""  # why no agreement can be told

    @property
    def against(self) -> bool:
        """Whether the policy moves against what people said, beyond chance."""
        return self.agreement is not None and self.agreement.high < 0

    def gamed(self, reward_gain: float) -> bool:
        """Whether the reward rose while the policy moved against what people said."""
        return self.against and reward_gain > 0

    def figures(self) -> Figures:
        """The metrics, with their sample sizes."""
        found: Figures = {}
        if self.agreement is not None:
            found["watch/human_agreement", None] = self.agreement.mean
            found["watch/human_agreement_low", None] = self.agreement.low
            found["watch/human_agreement_high", None] = self.agreement.high
            found["watch/human_rows", None] = float(self.rows)
            found["watch/human_prompts", None] = float(self.agreement.n)
        elif self.rows:  # stored as null, lest an older agreement be taken for today's
            found |= {(f"watch/human_agreement{end}", None): math.nan for end in ("", "_low", "_high")}
            found["watch/human_rows", None] = float(self.rows)
        if self.uncertainty_ratio is not None:
            found["watch/uncertainty_ratio", None] = self.uncertainty_ratio
            found["watch/uncertainty_rollouts", None] = float(self.rollouts)
        return found


class Watch:
    """Held-out rows with what never changes about them, to measure a policy every few steps.

    Args:
        rows: at most 64 are used. A measurement costs one forward pass over them.
        reward_model: whose uncertainty to watch; None, or one that does not know it, leaves that out.
        reference: answers of the reference policy, to compare the uncertainty of rollouts with.
    """

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[HeldOutRow],
        reward_model: RewardModel | None = None,
        reference: Sequence[Rollout] = (),
    ) -> None:
        self.backbone = backbone
        self.rows = list(rows[:MOST_ROWS])
        prompts = {row.response.prompt.id for row in self.rows}
        self.enough = len(self.rows) >= FEWEST_ROWS and len(prompts) >= FEWEST_PROMPTS
        self.parts = _layouts(backbone, self.rows) if self.enough else []
        self.likelihood = torch.cat([_per_token(backbone, part, None) for part in self.parts]) if self.parts else None
        knows = reward_model is not None and reward_model.knows_uncertainty and bool(reference)
        self.reward_model = reward_model if knows else None
        self.usual = self._uncertainty(reference) if knows else math.nan

    def measure(self, policy: Update, rollouts: Sequence[Rollout] = ()) -> WatchReport:
        """Look at a policy and, where given, at what it said."""
        agreement, rows = None, 0
        unseen = counted(
            len(self.rows),
            "rated answer that the reward model did not learn from is",
            "rated answers that the reward model did not learn from are",
        )
        reason = f"{unseen} too few"
        if self.likelihood is not None:
            own = torch.cat([_per_token(self.backbone, part, policy) for part in self.parts])
            agreement, rows = _agreement((own - self.likelihood).tolist(), self.rows), len(self.rows)
            reason = (
                ""
                if agreement
                else f"the shifts or the ratings of all {counted(rows, 'answer is', 'answers are')} equal"
            )
        ratio = None
        if self.reward_model is not None and rollouts and self.usual > 0:
            ratio = self._uncertainty(rollouts) / self.usual
        return WatchReport(agreement, rows, ratio, len(rollouts) if ratio is not None else 0, reason)

    def _uncertainty(self, rollouts: Sequence[Rollout]) -> float:
        """Mean standard deviation of the rewards of some answers."""
        assert self.reward_model is not None
        prompts = [rollout.prompt_ids for rollout in rollouts]
        responses = [rollout.completion.token_ids for rollout in rollouts]
        languages = [rollout.prompt.language for rollout in rollouts]
        _, deviations = self.reward_model.score_with_uncertainty(prompts, responses, languages)
        return float(deviations.mean())


def agreement(backbone: Backbone, policy: Update, rows: Sequence[HeldOutRow]) -> tuple[float, Interval, int] | None:
    """Rank correlation of a policy's shift and human values, its 95% interval over prompts, and the number of rows.

    None where there are too few rows or prompts to say.
    """
    report = Watch(backbone, rows).measure(policy)
    return (report.agreement.mean, report.agreement, report.rows) if report.agreement else None


@torch.no_grad()
def _per_token(backbone: Backbone, layout: TokenLayout, policy: Update | None) -> Tensor:
    """(B,) mean log-probability of the tokens of each response, in nats; of the reference without a policy."""
    chosen = backbone.log_likelihood(backbone.hidden(layout, policy), layout, 1.0)
    return chosen.sum(1) / layout.mask.sum(1)


def _layouts(backbone: Backbone, rows: Sequence[HeldOutRow]) -> list[TokenLayout]:
    encoded = [encode(backbone, row.response) for row in rows]
    parts = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
    return [backbone.layout([asked for asked, _ in part], [said for _, said in part]) for part in parts]


def _agreement(shifts: Sequence[float], rows: Sequence[HeldOutRow]) -> Interval | None:
    shift, value = np.array(shifts), np.array([row.value for row in rows])
    prompts = [row.response.prompt.id for row in rows]
    return bootstrap_interval(prompts, lambda chosen: rank_correlation(shift[chosen], value[chosen]))


def _rows(examples: Examples) -> list[HeldOutRow]:
    """One row an answer, in the order in which they were first rated."""
    said: dict[Response, list[float]] = {}
    for example in examples.every():
        if example.attribute != OVERALL:
            continue
        match example:
            case Scored(response, value):
                said.setdefault(response, []).append(value)
            case Labelled(response, good):
                said.setdefault(response, []).append(1.0 if good else -1.0)
            case Pair(first, second, wins):
                said.setdefault(first, []).append(2 * wins - 1)
                said.setdefault(second, []).append(1 - 2 * wins)
    return [HeldOutRow(response, statistics.fmean(values)) for response, values in said.items()]
