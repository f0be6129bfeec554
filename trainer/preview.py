"""What a method would learn from, word for word and before anything is learned; no model is read for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import msgspec
from safetensors import safe_open

from storage import reward_models, versions
from storage.database import Database
from storage.errors import UsageError
from storage.records import Message
from storage.signs import one_line, safe_text
from storage.wording import counted
from storage.workspace import Workspace
from trainer import demonstrations as imitation
from trainer import outcomes
from trainer.config import Control, RewardStage
from trainer.demonstrations import Demonstrations
from trainer.examples import Example, Examples, Pair, Response, Scored, check_enough, collect
from trainer.outcomes import Outcome, TextOutcome
from trainer.prompt_split import split_prompts
from trainer.reward.folds import controlled, folds, without

if TYPE_CHECKING:
    from trainer.algorithms.hindsight import Relabelled
    from trainer.methods.method import Method


class Taught(msgspec.Struct, frozen=True):
    """One thing that is learned from.

    Attributes:
        messages: what is asked, word for word, what hindsight puts behind it included.
        answer: what is to be said, or what is judged. over: the answer that it is compared with; empty where none is.
        says: what the answer is taken for, in a few words.
        value: its score in deviations, 1 or 0 for good or bad, how often it wins over the other; None where it is
            imitated.
        weight: beside others.
    """

    language: str
    messages: tuple[Message, ...]
    answer: str
    says: str
    over: str = ""
    value: float | None = None
    weight: float = 1.0


class Preview(msgspec.Struct, frozen=True):
    """The first of `count` examples, how many there are by language, and what else there is to know of them. `name` is
    the method's as it is set: DPO by KTO's loss is KTO."""

    method: str
    name: str
    count: int
    languages: dict[str, int]
    remarks: tuple[str, ...]
    shown: tuple[Taught, ...]


@dataclass(frozen=True)
class Material:
    """What there is to learn from, each part read when it is asked for.

    Attributes:
        examples: what ratings teach a reward model, or a method that learns from ratings itself.
    """

    database: Database
    base_digest: str
    examples: Examples
    control: Control
    seed: int

    @cached_property
    def demonstrations(self) -> Demonstrations:
        """Demonstrations and edits; those of a control belong to other prompts."""
        found = imitation.demonstrations(self.database, self.base_digest)
        return found if self.control == Control.NONE else found.shuffled(self.seed)

    @cached_property
    def told(self) -> list[TextOutcome]:
        """What came of answers; a control has nothing to say of it."""
        return outcomes.text_outcomes(self.database, self.base_digest) if self.control == Control.NONE else []


def preview(workspace: Workspace, database: Database, method: Method, config: RewardStage, count: int) -> Preview:
    """The first `count` examples that a method would learn from today, of each language in turn.

    Raises:
        UsageError: there is too little to learn from, as when the method is started.
    """
    split = split_prompts(database)
    served = versions.served(database)
    digest = "" if served is None else served.base_digest
    control = getattr(config, "control", Control.NONE)
    everything = controlled(collect(database, digest), control, config.seed)
    examples, remarks = _apart_from_the_judge(workspace, database, digest, config, everything)
    material = Material(database, digest, examples, control, config.seed)
    made = of_examples(examples) if method.preview is None else method.preview(material, config)
    by_language: dict[str, list[Taught]] = {}
    for one in made:
        by_language.setdefault(one.language, []).append(one)
    turns = [one for place in range(count) for own in by_language.values() for one in own[place : place + 1]]
    if control != Control.NONE:
        remarks.insert(0, f"a control: its ratings are {control}, and say nothing")
    remarks.append(
        f"{counted(len(split.practice), 'prompt trains', 'prompts train')}, "
        f"and {counted(len(split.held_out), 'is', 'are')} held out to measure with"
    )
    languages = dict(Counter(one.language for one in made).most_common())
    return Preview(method.name, method.called(config), len(made), languages, tuple(remarks), tuple(turns[:count]))


def page(found: Preview, columns: int) -> str:
    """A preview as text, at most so many columns wide where a line is ours."""
    by_language = ", ".join(f"{one_line(name, 12)} {n}" for name, n in found.languages.items())
    shown = f"; the first {len(found.shown)}, of each language in turn" if len(found.shown) < found.count else ""
    head = [f"{found.name} learns from {counted(found.count, 'example')}{': ' * bool(by_language)}{by_language}{shown}"]
    head += [f"  {remark}" for remark in found.remarks]
    blocks = ["\n".join(head)]
    for number, one in enumerate(found.shown, 1):
        weight = "" if one.weight == 1 else f", weight {one.weight:.2f}"
        lines = [one_line(f"{number}  {one.language}  {one.says}{weight}", columns)]
        lines += [_turn(message.role, message.content) for message in one.messages]
        lines.append(_turn("answer", one.answer))
        if one.over:
            lines.append(_turn("beside", one.over))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _turn(role: str, text: str) -> str:
    first, *rest = safe_text(text).split("\n")
    lines = "\n".join([f"   {role + ' ▸':<12}{first}", *(indent(line, " " * 15) for line in rest)])
    return lines.rstrip()


def _apart_from_the_judge(
    workspace: Workspace, database: Database, digest: str, config: RewardStage, examples: Examples
) -> tuple[Examples, list[str]]:
    """The examples that teach, which the judge of the gate must not learn from; and where the reward comes from.

    As :func:`trainer.rewards.obtain` decides it, which needs the model.
    """
    from trainer.rewards import FILES, JUDGE

    control = getattr(config, "control", Control.NONE)
    wanted = str(getattr(config, "reward_model", "new"))
    if control == Control.CONSTANT or wanted == "none":
        return examples, []
    if wanted == "table":
        return examples, ["scores are taken as they are, from a table"]
    if control == Control.NONE and wanted != "new":
        name = None if wanted in ("latest", "auto") else wanted
        record = reward_models.find(database, digest, name)
        if record is not None:
            judge = (workspace.root / record.file).parent.parent / JUDGE / FILES[JUDGE]
            apart = _prompts_of(judge) if judge.exists() else set()
            kept = without(examples, apart)
            return kept, [
                f"answers are judged by {record.name}, which is fitted already",
                f"{counted(examples.count() - kept.count(), 'rating')} of other prompts for its judge",
            ]
    if wanted == "auto":
        try:
            check_enough(examples, config.reward.minimum)
        except UsageError as error:
            return examples, [f"nothing judges the answers: {error.message}"]
    check_enough(examples, config.reward.minimum)
    kept, judged = folds(examples, config.reward.held_out, config.reward.minimum)
    return kept, [f"{counted(judged.count(), 'more rating')} of other prompts for the judge of the gate"]


def _prompts_of(judge: Path) -> set[str]:
    """The prompts that a stored judge learned from."""
    with safe_open(str(judge), framework="pt") as file:
        return set(json.loads((file.metadata() or {}).get("facts", "{}")).get("prompts", ()))


def of_examples(examples: Examples) -> list[Taught]:
    """What a reward model is fitted to: scores, labels and pairs."""
    return [_of_example(one) for one in examples.every()]


def of_pairs(pairs: Iterable[Pair]) -> list[Taught]:
    """What comparisons teach."""
    return [_of_example(pair) for pair in pairs]


def of_outcomes(found: Sequence[Outcome]) -> list[Taught]:
    """Answers with how well they were received."""
    return [
        _taught(one.response, f"received at {one.value:+.2f}, by {counted(one.count, 'rating')}", value=one.value)
        for one in found
    ]


def of_demonstrations(found: Demonstrations) -> list[Taught]:
    """Answers to be imitated."""
    return [_taught(response, "imitated") for response in found.responses]


def of_relabelled(found: Iterable[Relabelled]) -> list[Taught]:
    """Answers under what hindsight asks for."""
    return [Taught(one.response.prompt.language, one.messages, one.response.text, one.says) for one in found]


def _taught(response: Response, says: str, **more: Any) -> Taught:
    return Taught(response.prompt.language, response.prompt.messages, response.text, says, **more)


def _of_example(one: Example) -> Taught:
    who = f" by {one.rater}" if one.rater else ""
    about = "" if one.attribute == "overall" else f" ({one.attribute})"
    if isinstance(one, Scored):
        return _taught(one.response, f"scored {one.value:+.2f}{who}{about}", value=one.value, weight=one.weight)
    if isinstance(one, Pair):
        wins = "as good as the other" if one.first_wins == 0.5 else f"wins {one.first_wins:.0%}"
        return _taught(one.first, f"{wins}{who}{about}", over=one.second.text, value=one.first_wins, weight=one.weight)
    word = "good" if one.good else "bad"
    return _taught(one.response, f"{word}{who}{about}", value=float(one.good), weight=one.weight)
