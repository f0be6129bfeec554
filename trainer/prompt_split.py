"""Which prompts a run practises on, and which it is measured with; nobody moves one from the one part to the other."""

from __future__ import annotations

from dataclasses import dataclass

from storage import conversations
from storage.database import Database
from storage.errors import UsageError
from storage.records import Begun, Prompt, Split
from storage.wording import counted
from trainer.config import FEWEST_SCORED
from trainer.evaluation.suites import refuse_leaked
from trainer.examples import OVERALL, Examples
from trainer.leaks import learnable


@dataclass(frozen=True)
class PromptSplit:
    """Prompts that the policy practises on, and held-out prompts to measure it; of these there may be none.

    `leaked` counts the training prompts that nothing learns from, since they ask what is held out.
    """

    practice: list[Prompt]
    held_out: list[Prompt]
    leaked: int = 0


def split_prompts(database: Database, begun: Begun | None = None) -> PromptSplit:
    """The training prompts and the held-out ones, as was decided when they were stored.

    No prompt is ever moved from one to the other here, so there may be few held-out prompts, or none: a policy can
    learn all the same, and only what it gained cannot be told. Of a job that has
    begun, only prompts that were there by then.

    Raises:
        UsageError: there is no training prompt, or one of the suites of `trainer evaluate` is among them.
    """
    upto = None if begun is None else begun.prompts
    practice, leaked = learnable(database, upto)
    held_out = conversations.by_split(database, Split.HELD_OUT, upto=upto)
    if not practice:
        asked = f", {leaked} ask what is held out" if leaked else ""
        raise UsageError(
            f"there are no training prompts to learn from ({len(held_out)} are held out{asked})",
            "ask more prompts, or import some; a share of them is held out to measure with",
        )
    refuse_leaked(practice)
    return PromptSplit(practice, held_out, leaked)


def table_split(split: PromptSplit, examples: Examples, apart: Examples) -> PromptSplit:
    """Of either part the prompts that have scores: a table knows nothing of others.

    Args:
        examples: what teaches, of training prompts. apart: the same of held-out prompts, to measure with alone.

    Raises:
        UsageError: too few training prompts have scores.
    """
    taught, known = ({one.prompt.id for one in part.scores if one.attribute == OVERALL} for part in (examples, apart))
    practice = [prompt for prompt in split.practice if prompt.id in taught]
    if len(practice) < FEWEST_SCORED:
        raise UsageError(
            f"only {counted(len(practice), 'training prompt has', 'training prompts have')} scored answers: "
            "too few to learn from a table",
            f"score answers to at least {FEWEST_SCORED} different training prompts, or import a table of them",
        )
    return PromptSplit(practice, [prompt for prompt in split.held_out if prompt.id in known], split.leaked)
