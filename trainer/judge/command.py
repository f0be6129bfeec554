"""`trainer judge`: AI feedback onto what no person has rated."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from storage import raters
from storage.command_line import say
from storage.errors import UsageError
from storage.feedback import calibration
from storage.workspace import Workspace
from trainer.options import common, print_json

if TYPE_CHECKING:
    from storage.database import Database
    from storage.feedback.calibration import Judge as Calibrated
    from storage.feedback.unjudged import Asked, Item
    from trainer.judge.rubric import Rubric
    from trainer.judge.spending import Purse
    from trainer.judge.verdicts import Judge

KEYRING = "alignment-workbench"  # the service under which a key is looked for


@click.command("judge")
@common
@click.option("--kind", "kinds", type=click.Choice(["score", "pair"]), multiple=True, help="judge these alone")
@click.option("--language", "languages", multiple=True, metavar="TAG", help="prompts in this language; may be repeated")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="how many items that nobody has rated to judge, the newest first; 0 for all",
)
@click.option(
    "--calibrate",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="how many items that people have rated to judge as well, to know what the judge is worth",
)
@click.option(
    "--rubric",
    "rubric_file",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="what to ask instead of the program's own rubric, by language",
)
@click.option("--name", metavar="NAME", help="ratings are by ai:NAME  [default: the model's name]")
@click.option("--model", default="smollm2", show_default=True, help="the local model that judges")
@click.option("--device", default="auto", show_default=True, help="of the local model: auto, cpu, cuda, ...")
@click.option("--dtype", default="auto", show_default=True, help="of the local model: auto, bf16, fp16 or fp32")
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="processor threads of the local model; 0 leaves it to torch",
)
@click.option(
    "--endpoint", metavar="URL", help="ask this OpenAI-compatible address instead, such as http://127.0.0.1:8080/v1"
)
@click.option("--endpoint-model", metavar="NAME", help="the model to ask for there")
@click.option(
    "--key-env",
    default="OPENAI_API_KEY",
    show_default=True,
    metavar="VARIABLE",
    help="the environment variable, or the name in the keyring, that holds the endpoint's key",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="seconds to wait for an answer of the endpoint",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="how often to ask the endpoint the same before giving up",
)
@click.option(
    "--parallel", type=click.IntRange(1, 64), default=4, show_default=True, help="questions put to the endpoint at once"
)
@click.option("--max-tokens-spent", type=click.IntRange(min=1), metavar="N", help="stop before more tokens are spent")
@click.option("--dry-run", is_flag=True, help="say what would be judged, and about how many tokens that takes")
def judge(workspace: Workspace, as_json: bool, **given: Any) -> None:
    """Have a model rate what no person has rated, by a rubric in the prompt's language.

    Answers get a score from 1 to 5, and pairs of answers to one prompt a preference; both are soft (3.4, or 0.8 for the
    first). A pair is asked in both orders, and the logits are averaged, so that a preference for what stands first has
    no say. Ratings are stored after every few items with source `ai` and rater ai:NAME; the same command goes on where
    it ended, and judges nothing twice by the same rubric. Only training prompts are judged. Some items that people have
    rated are judged as well: how far both agree is told here and by `workbench agreement`, and is what the judge's
    ratings weigh in a reward model.

    The key of an endpoint is sent to it and neither stored nor told.

    \b
      trainer judge --dry-run
      trainer judge --kind pair --language sw --limit 100
      trainer judge --endpoint https://api.openai.com/v1 --endpoint-model NAME --max-tokens-spent 200000
      trainer judge --rubric politeness.toml --name polite --json
    """
    from storage.database import open_database, read_database
    from storage.feedback import unjudged
    from storage.languages import BadTagError, normal
    from storage.records import RatingKind
    from trainer.judge.rubric import Rubric

    rubric = Rubric.read(given["rubric_file"]) if given["rubric_file"] else Rubric.own()
    try:
        languages = tuple(normal(tag) for tag in given["languages"])
    except BadTagError as error:
        raise UsageError(f"--language {error}") from None
    asked = unjudged.Asked(
        raters.JUDGE + _name(given), rubric.name,
        tuple(dict.fromkeys(RatingKind(kind) for kind in given["kinds"] or ("score", "pair"))), languages,
        given["limit"] or None, given["calibrate"],
    )  # fmt: skip
    if given["dry_run"]:
        with read_database(workspace) as database:
            items, already = unjudged.items(database, asked)
        _tell_plan(asked, items, already, rubric, as_json=as_json)
        return
    with open_database(workspace, create=False) as database:
        items, already = unjudged.items(database, asked)
        result = _judge(workspace, database, items, rubric, asked.rater, given)
        calibrated = next((one for one in calibration.measure(database) if one.rater == asked.rater), None)
    document = {"rater": asked.rater, "rubric": rubric.name, "already": already, **result}
    if as_json:
        told = msgspec.to_builtins(calibrated) if calibrated else {"weight": None, "agreement": []}
        print_json(document | {"weight": told["weight"], "agreement": told["agreement"]})
    else:
        _tell(document, calibrated)


def _name(given: dict[str, Any]) -> str:
    """By which name the judge rates.

    Raises:
        UsageError: an endpoint without its model, or a model without its endpoint.
    """
    if bool(given["endpoint"]) != bool(given["endpoint_model"]):
        raise UsageError("an endpoint and its model go together", "give both --endpoint URL and --endpoint-model NAME")
    if given["name"]:
        return given["name"].removeprefix(raters.JUDGE)
    return given["endpoint_model"] or Path(given["model"]).expanduser().name.removesuffix(".gguf") or given["model"]


def _judge(
    workspace: Workspace, database: Database, items: list[Item], rubric: Rubric, rater: str, given: dict[str, Any]
) -> dict[str, Any]:
    """Judge the items, and say what came of it."""
    from tqdm import tqdm

    from trainer.judge.judging import Done, work
    from trainer.judge.spending import Purse

    purse, done = Purse(given["max_tokens_spent"]), Done()
    if items:
        with _opened(workspace, given, purse) as judge_model:
            raters.put(database, rater, kind="ai")
            with tqdm(total=len(items), unit="item", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
                done = work(database, judge_model, rubric, items, rater, bar.update)
    return {
        "judged": dict(done.judged), "unreadable": done.unreadable,
        "left": len(items) - done.judged.total() - done.unreadable, "stopped": done.stopped or None,
        "tokens": {"prompt": purse.prompt, "completion": purse.completion, "estimated": purse.estimated,
                   "total": purse.total},
    }  # fmt: skip


@contextmanager
def _opened(workspace: Workspace, given: dict[str, Any], purse: Purse) -> Iterator[Judge]:
    """The judge that the options name."""
    if given["endpoint"]:
        from trainer.judge.endpoint import Address, EndpointJudge

        address = Address(
            given["endpoint"], given["endpoint_model"], _key(given["key_env"]), given["timeout"], given["attempts"],
            given["parallel"],
        )  # fmt: skip
        judge_model = EndpointJudge(address, purse)
        if address.key and judge_model.is_in_the_open:
            say(f"the key goes to {judge_model.where} unencrypted: an https address would hide it")
        try:
            yield judge_model
        finally:
            judge_model.close()
        return
    import torch

    from trainer.judge.local import LocalJudge
    from trainer.policy import devices, models
    from trainer.policy.backbone import Backbone

    if given["threads"]:
        torch.set_num_threads(given["threads"])
    devices.choose(given["device"], given["dtype"])  # what cannot be used is refused before anything is converted
    folder = models.resolve(given["model"], workspace)
    device, dtype = devices.choose(given["device"], given["dtype"], models.stored_bytes(folder))
    yield LocalJudge(Backbone(folder, device, dtype), purse)


def _key(variable: str) -> str:
    """The key of an endpoint: from the environment, else from the keyring where that is installed; else none."""
    if found := os.environ.get(variable):
        return found.strip()
    try:
        import keyring
    except ImportError:
        return ""
    with suppress(keyring.errors.KeyringError):
        return keyring.get_password(KEYRING, variable) or ""
    return ""


def _tell_plan(asked: Asked, items: list[Item], already: int, rubric: Rubric, *, as_json: bool) -> None:
    """What would be judged, and about how many tokens it takes."""
    from trainer.judge.spending import about

    questions = [question for item in items for question in rubric.questions(item)]
    tokens = sum(about(question.text) + 1 for question in questions)
    kinds = Counter(str(item.kind) for item in items)
    calibrating = sum(item.calibrates for item in items)
    languages = Counter(item.prompt.language for item in items)
    if as_json:
        print_json({
            "rater": asked.rater, "rubric": rubric.name, "dry_run": True, "would_judge": dict(kinds),
            "calibrating": calibrating, "already": already, "languages": dict(languages.most_common()),
            "questions": len(questions), "tokens": tokens,
        })  # fmt: skip
        return
    print(
        f"{asked.rater} would judge {_counted(kinds)}, {calibrating} of which people have judged; {already} are judged"
    )
    print(f"{len(questions)} questions of about {tokens} tokens in all")
    print("  ".join(f"{language} {count}" for language, count in languages.most_common()))


def _tell(document: dict[str, Any], calibrated: Calibrated | None) -> None:
    """What was judged, what it cost, and what it is worth."""
    tokens = document["tokens"]
    print(f"{document['rater']} judged {_counted(document['judged'])}, with {tokens['total']} tokens"
          + f" ({tokens['estimated']} of them estimated)" * bool(tokens["estimated"]))  # fmt: skip
    if document["unreadable"]:
        print(f"on {document['unreadable']} items it gave no verdict")
    if document["stopped"]:
        print(f"stopped, {document['left']} items are left: {document['stopped']}")
    if calibrated is None:
        return
    for one in calibrated.agreement:
        figure = one.why if one.value is None else f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}] of {one.n}"
        print(f"agrees with people, {one.language or 'all'}, {one.kind}: {one.measure} {figure}")
    print(f"its ratings weigh {calibrated.weight:.2f} in a reward model, where a person's weigh 1")


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}{'s' * (count != 1)}" for kind, count in sorted(kinds.items())) or "nothing"
