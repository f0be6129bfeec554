"""What raters are asked about next: answers of the candidate, to prompts that it may learn from.

A reward model fitted to the answers of one version is soon asked about answers that nobody has rated. A handful of
ratings of the new ones mends that, so a run leaves such answers behind, with what its reward model expects of them. The
review queue (`storage.feedback.queue`) leads with those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage import clock, samples
from storage.database import Database
from storage.records import Sampling
from trainer.algorithms.rollouts import PromptSampler, Rollout, collect, round_seed
from trainer.policy.full import Snapshot
from trainer.reward.mixture import model_of
from trainer.reward.protocol import Reward
from trainer.rewards import LANGUAGE_BALANCE
from trainer.setting import Setting

ANSWERS = 4  # to each prompt: which of them is the better one is what ratings teach
SEED_ROUND = 1 << 43  # no round of rollouts has this number


@dataclass(frozen=True)
class Asked:
    """An answer to be rated, its place among those to its prompt, and what is expected of it, where a model says so."""

    rollout: Rollout
    seed: int
    position: int
    expected: tuple[float, float] | None


def answers_to_rate(
    setting: Setting, candidate: Snapshot, reward: Reward | None, sampling: Sampling, count: int, seed: int
) -> list[Asked]:
    """About `count` answers of the candidate to training prompts, in balance over languages."""
    practice = setting.split.practice
    asked = min(len(practice), count // ANSWERS)
    if not asked:
        return []
    drawn = PromptSampler(practice, LANGUAGE_BALANCE, seed).draw(0, asked)
    prompts = list({prompt.id: prompt for prompt in drawn}.values())
    decoder, tokenizer = setting.backbone.decoder(candidate), setting.backbone.tokenizer
    first = round_seed(seed, SEED_ROUND)
    said = collect(decoder, tokenizer, prompts, ANSWERS, sampling, first)
    expected = _expected(reward, said)
    return [
        Asked(rollout, first + place, place % ANSWERS, expected[place] if expected else None)
        for place, rollout in enumerate(said)
    ]


def _expected(reward: Reward | None, said: Sequence[Rollout]) -> list[tuple[float, float]] | None:
    """The reward and its standard deviation of each answer; None where no model knows how unsure it is."""
    model = model_of(reward) if reward is not None else None
    if model is None or model.precision_factor is None:
        return None
    rewards, deviations = model.score_with_uncertainty(
        [one.prompt_ids for one in said],
        [list(one.completion.token_ids) for one in said],
        [one.prompt.language for one in said],
    )
    return list(zip(rewards.tolist(), deviations.tolist(), strict=True))


def store(database: Database, version: str, sampling: Sampling, asked: Sequence[Asked]) -> None:
    """Store them as answers of the version; to be called within the transaction that records it."""
    groups: dict[str, str] = {}
    for one in asked:
        completion, prompt = one.rollout.completion, one.rollout.prompt
        made = samples.new(
            prompt.id, one.rollout.text, version=version, token_ids=list(completion.token_ids),
            finish_reason=completion.finish_reason, sampling=sampling, seed=one.seed,
            group_id=groups.setdefault(prompt.id, clock.new_id()), position=one.position,
        )  # fmt: skip
        database.insert("samples", made)
        if one.expected is not None:
            samples.expect(database, made.id, *one.expected)
