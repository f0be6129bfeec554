"""The ratings behind a version with their influence, what its reward weighs, and the versions that a rating shaped."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from storage import conversations, jobs, learned_from, samples, versions
from storage.database import Database
from storage.errors import WorkbenchError
from storage.feedback import log
from storage.learned_from import Shaped
from storage.records import Rating, RatingKind, Version
from storage.records import RewardModel as RewardModelRecord
from storage.wording import counted
from storage.workspace import Workspace
from trainer.config import RewardKind
from trainer.examples import collect
from trainer.explaining.answer import backbone_of, upper_share
from trainer.explaining.influence import influences
from trainer.explaining.weighing import Weighs, tagged, weighs
from trainer.reward.batches import distinct_responses
from trainer.reward.model import RewardModel
from trainer.reward.regression import Answers, regress

BEGINNING = 160  # characters of a text that tell which one it is
LISTED = 20  # ratings
Say = Callable[[str], None]


class Told(msgspec.Struct, frozen=True):
    """A rating and what it did to the reward, in deviations of the reward.

    Attributes:
        said: the rating in words. prompt, answer: their beginnings.
        influence: the standard deviation, over all rated answers, of what it moved their rewards by.
        pull: what it added to its own answer's reward, or to what the first of a pair is ahead by.
    """

    rating: str
    rater: str
    language: str
    said: str
    prompt: str
    answer: str
    influence: float
    pull: float


class VersionBehind(msgspec.Struct, frozen=True):
    """The ratings behind a version.

    Attributes:
        ratings: those that its own job, the jobs of the versions it goes back to, and the reward models that these were
            improved against or judged by learned from.
        by: how many of them by language, kind, rater and source.
        imitated: how many demonstrations and edits were imitated, by language.
        reward_model: the newest of those reward models; None where a version learned from none.
        taught: how many ratings its head was fitted to; the others taught its judge, or a method directly.
        influence_unknown: why there is no influence, where there is none.
        influential: the ratings with the most influence on it.
        refit_apart: how far the reward of the fit made again is from the stored one, at most, over rated answers.
    """

    version: str
    lineage: list[str]
    jobs: list[str]
    ratings: int
    by: dict[str, dict[str, int]]
    reward_model: str | None
    taught: int = 0
    influence_unknown: str = ""
    refit_apart: float | None = None
    weighs: Weighs | None = None
    influential: list[Told] = []
    imitated: dict[str, int] = {}


class RatingShaped(msgspec.Struct, frozen=True):
    """A rating and the versions that it shaped, oldest first."""

    rating: str
    rater: str
    language: str
    said: str
    prompt: str
    answer: str
    counts: bool
    versions: list[Shaped]


def behind(
    workspace: Workspace,
    database: Database,
    version: Version,
    *,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    influence: bool = True,
    say: Say = lambda text: None,
) -> VersionBehind:
    """The ratings behind a version. With `influence` the base model is loaded, and its reward fitted again.

    Raises:
        UsageError: the base model is not where it was.
    """
    lineage = versions.lineage(database, version)
    found = learned_from.jobs_of_lineage(database, version)
    record = next((one for own in lineage.values() if (one := learned_from.reward_of(database, own)) is not None), None)
    made = VersionBehind(
        version.name,
        list(lineage),
        found,
        learned_from.count(database, found),
        learned_from.counts(database, found),
        record.name if record else None,
        imitated=learned_from.imitated(database, found),
    )
    if record is None:
        return msgspec.structs.replace(made, influence_unknown="no reward model was fitted for it or those before it")
    if not influence:
        return msgspec.structs.replace(made, influence_unknown="it was not asked for")
    return _with_influence(made, workspace, database, version, record, model, device, dtype, say)


def behind_reward(
    workspace: Workspace,
    database: Database,
    record: RewardModelRecord,
    *,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    influence: bool = True,
    say: Say = lambda text: None,
) -> VersionBehind:
    """The ratings behind a reward model, in place of a version's; as :func:`behind`."""
    found = [record.job_id] if record.job_id else []
    made = VersionBehind(record.name, [record.name], found, learned_from.count(database, found),
                         learned_from.counts(database, found), record.name)  # fmt: skip
    if not influence:
        return msgspec.structs.replace(made, influence_unknown="it was not asked for")
    base = next(one for one in versions.every(database) if one.base_digest == record.base_digest and one.kind == "base")
    return _with_influence(made, workspace, database, base, record, model, device, dtype, say)


def shaped_by(database: Database, rating: Rating) -> RatingShaped:
    """A rating, and the versions whose own jobs, or those of what they go back to, learned from it."""
    prompt, answer, language = _texts(database, rating)
    counts = any(one.id == rating.id for one in log.effective(database, sample_id=rating.sample_id))
    found = learned_from.shaped_by(database, [rating.id]).get(rating.id, [])
    return RatingShaped(rating.id, rating.rater, language, in_words(rating), prompt, answer, counts, found)


def in_words(rating: Rating) -> str:
    """A rating in a few words: `score 4 of 1 to 5`, `pair: a`, `label: bad`."""
    about = "" if rating.attribute == "overall" else f" ({rating.attribute})"
    match rating.kind:
        case RatingKind.SCORE:
            return f"score {rating.value:g} of {rating.scale_low:g} to {rating.scale_high:g}{about}"
        case RatingKind.LABEL:
            return f"label: {'good' if rating.value else 'bad'}{about}"
        case RatingKind.PAIR:
            return f"pair: {rating.choice}{about}"
    return f"{rating.kind}{about}"


def _with_influence(
    made: VersionBehind,
    workspace: Workspace,
    database: Database,
    version: Version,
    record: RewardModelRecord,
    model: str | None,
    device: str,
    dtype: str,
    say: Say,
) -> VersionBehind:
    """With what its reward model was taught, made again from the ratings as they were when its job began."""
    begun = jobs.get(database, record.job_id).begun if record.job_id else None
    backbone = backbone_of(workspace, database, version, model, device, dtype, upper_share(database, record), say)
    stored, facts = RewardModel.read(backbone, workspace.root / record.file)
    if stored.adapter is not None:
        reason = f"{record.name} is of the kind {RewardKind.ADAPTER}, whose fit has no closed form"
        return msgspec.structs.replace(made, influence_unknown=reason)
    learned = set(facts.get("prompts", []))
    examples = [one for one in collect(database, record.base_digest, begun).every() if one.prompt.id in learned]
    if not examples:
        raise WorkbenchError(f"none of the ratings that {record.name} learned from is here any more")
    say(f"reading {counted(len(distinct_responses(examples)), 'rated answer')}")
    answers = Answers.read(stored, distinct_responses(examples))
    found = regress(answers, examples)
    deviation = float(stored.deviation)
    known = influences(answers, examples, found)
    listed = sorted(known, key=lambda key: -known[key].moved)[:LISTED]
    told = []
    for key in listed:
        rating = log.get(database, key)
        prompt, answer, language = _texts(database, rating)
        told.append(Told(key, rating.rater, language, in_words(rating), prompt, answer, known[key].moved / deviation,
                         known[key].pull / deviation))  # fmt: skip
    head = stored.head
    then = answers.features @ head.weight.detach().cpu().double() + head.bias.detach().cpu().double()
    return msgspec.structs.replace(
        made,
        taught=len(known),
        refit_apart=float((then - found.rewards(answers.features)).abs().max()) / deviation,
        weighs=weighs(answers, found, deviation, tagged(database, record.base_digest, begun)),
        influential=told,
    )


def _texts(database: Database, rating: Rating) -> tuple[str, str, str]:
    """The beginnings of prompt and answer that a rating is about, and the prompt's language."""
    if rating.sample_id is None:
        return "", "", "und"
    sample = samples.get(database, rating.sample_id)
    prompt = conversations.get(database, sample.prompt_id)
    return prompt.text[:BEGINNING], sample.text[:BEGINNING], prompt.language
