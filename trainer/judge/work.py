"""The job of a judge: what there is to judge, who is asked, what it cost, and how far it agrees with people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from storage import metrics, raters
from storage.database import read_database
from storage.errors import UsageError
from storage.feedback import calibration, unjudged
from storage.feedback.calibration import Calibration
from storage.feedback.kinds import RatingKind
from storage.feedback.unjudged import Asked
from storage.languages import normal
from storage.wording import counted
from storage.workspace import Workspace
from trainer.job import HeldJob
from trainer.judge import judging
from trainer.judge.asked import opened, rater_of
from trainer.judge.judging import Done
from trainer.judge.rubric import Rubric
from trainer.judge.spending import Purse, about

if TYPE_CHECKING:
    from trainer.methods.judge import JudgeStage

Document = dict[str, Any]


def with_file(config: JudgeStage) -> JudgeStage:
    """The settings with the rubric's file named from everywhere. Raises UsageError where it is none."""
    if not config.judge.rubric:
        return config
    file = Path(config.judge.rubric).expanduser().absolute()
    Rubric.read(file)
    return msgspec.structs.replace(config, judge=msgspec.structs.replace(config.judge, rubric=str(file)))


def plan(workspace: Workspace, config: JudgeStage) -> Document:
    """What would be judged, and about how many tokens it takes."""
    rubric = _rubric(config)
    with read_database(workspace) as database:
        items, already = unjudged.items(database, _asked(config, rubric, Done()))
    questions = [question for item in items for question in rubric.questions(item)]
    tokens = sum(about(question.text) + 1 for question in questions)
    kinds = Counter(str(item.kind) for item in items)
    calibrating = sum(item.calibrates for item in items)
    languages = dict(Counter(item.prompt.language for item in items).most_common())
    rater = rater_of(config)
    sentence = (
        f"{rater} would judge {by_kind(kinds)}, {calibrating} of which people have judged; {already} are judged\n"
        f"{counted(len(questions), 'question')} of about {counted(tokens, 'token')} in all\n"
        + "  ".join(f"{language} {count}" for language, count in languages.items())
    )
    return {
        "rater": rater, "rubric": rubric.name, "dry_run": True, "would_judge": dict(kinds), "calibrating": calibrating,
        "already": already, "languages": languages, "questions": len(questions), "tokens": tokens, "sentence": sentence,
    }  # fmt: skip


def work(held: HeldJob, config: JudgeStage) -> Document:
    """Judge, and say what came of it; a job that goes on judges what is left of what it was asked to.

    Raises:
        UsageError: several processes, or what is asked cannot be.
        CancelledError: it was told to stop. WorkbenchError: the judge failed. What it said before is stored.
    """
    if held.processes.count > 1:
        raise UsageError("a judge works in one process", "start it without accelerate launch")
    database, rubric, rater = held.database, _rubric(config), rater_of(config)
    recorded = {name: one.value or 0.0 for (name, language), one in metrics.latest(database, held.job.id).items()
                if language is None}  # fmt: skip
    done, purse = Done.recorded(recorded), Purse.recorded(config.judge.max_tokens_spent, recorded)
    items, already = unjudged.items(database, _asked(config, rubric, done))
    already -= sum(done.judged.values())
    held.progress(judging.STAGE, done.items, done.items + len(items))
    if items:
        with opened(held.workspace, config, purse, held.check) as judge:
            raters.put(database, rater, kind="ai")
            judging.work(held, judge, rubric, items, rater, done, purse)
    found = next((one for one in calibration.measure(database) if one.rater == rater), None)
    agreement = found.agreement if found else []
    for one in agreement:
        held.say(f"agrees with people, {one.language or 'all'}, {one.kind}: {_told(one)}")
    tokens = {"prompt": purse.prompt, "completion": purse.completion, "estimated": purse.estimated,
              "total": purse.total}  # fmt: skip
    result = {
        "rater": rater, "rubric": rubric.name, "already": already, "judged": dict(done.judged),
        "unreadable": done.unreadable, "left": done.left, "stopped": done.stopped or None, "tokens": tokens,
        "weight": found.weight if found else None, "languages": found.languages if found else {},
        "agreement": msgspec.to_builtins(agreement),
    }  # fmt: skip
    return result | {"sentence": sentence(result)}


def _rubric(config: JudgeStage) -> Rubric:
    return Rubric.read(Path(config.judge.rubric)) if config.judge.rubric else Rubric.own()


def _asked(config: JudgeStage, rubric: Rubric, done: Done) -> Asked:
    """What is to be judged, less what this job has judged."""
    own = config.judge
    kinds = tuple(dict.fromkeys(RatingKind(kind) for kind in own.kind or ("score", "pair")))
    limit = max(0, own.limit - done.fresh) if own.limit else None
    languages = tuple(normal(tag) for tag in own.language)
    return Asked(rater_of(config), rubric.name, kinds, languages, limit, own.calibrate)


def sentence(result: Document) -> str:
    """What was judged, what it cost, and what it is worth, on a line."""
    spent = result["tokens"]
    told = [f"{result['rater']} judged {by_kind(result['judged'])}, with {counted(spent['total'], 'token')}"
            + f" ({spent['estimated']} of them estimated)" * bool(spent["estimated"])]  # fmt: skip
    if result["unreadable"]:
        told.append(f"on {counted(result['unreadable'], 'item')} it gave no verdict")
    if result["stopped"]:
        told.append(f"stopped, {counted(result['left'], 'item is', 'items are')} left: {result['stopped']}")
    if result["weight"] is not None:
        by_language = ", ".join(f"{language} {weight:.2f}" for language, weight in result["languages"].items())
        told.append(f"its ratings weigh {result['weight']:.2f} in a reward model, where a person's weigh 1"
                    + f" ({by_language})" * bool(by_language))  # fmt: skip
    return "; ".join(told)


def _told(one: Calibration) -> str:
    return one.why if one.value is None else f"{one.measure} {one.value:.2f} [{one.low:.2f}, {one.high:.2f}] of {one.n}"


def by_kind(kinds: dict[str, int]) -> str:
    """`3 pairs, 40 scores`."""
    return ", ".join(counted(count, kind) for kind, count in sorted(kinds.items())) or "nothing"
