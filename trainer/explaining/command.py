"""`trainer explain`: an answer, a version or a rating, and what made it what it is. It trains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from storage.command_line import say
from storage.errors import UsageError
from storage.workspace import Workspace
from trainer.options import common, print_json

if TYPE_CHECKING:
    from storage.database import Database
    from storage.records import Rating, RewardModel, Sample, Version


@click.command()
@common
@click.option("--version", metavar="VERSION", help="of an answer: whose probabilities to show, by default its own")
@click.option("--reward-model", metavar="NAME", help="such as rm2  [default: the newest of the base model]")
@click.option("--model", metavar="MODEL", help="the base model, where it is not found by itself")
@click.option("--html", "html", metavar="FILE", help="of an answer: write it to FILE as one page of HTML")
@click.option("--overwrite", is_flag=True, help="replace a FILE that exists")
@click.option(
    "--influence/--no-influence",
    default=True,
    help="of a version or reward model: how far each rating moved the reward",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.option("--dtype", default="auto", show_default=True, help="auto, bf16, fp16 or fp32")
@click.argument("subject", metavar="SAMPLE|VERSION|REWARD|RATING")
def explain(
    workspace: Workspace,
    as_json: bool,
    version: str | None,
    reward_model: str | None,
    model: str | None,
    html: str | None,
    overwrite: bool,
    influence: bool,
    device: str,
    dtype: str,
    subject: str,
) -> None:
    """What an answer was rewarded for, which ratings made a version, or which versions a rating shaped.

    Of an answer, each token has its share of the reward by integrated gradients (the shares sum to the reward less the
    baseline), what the reward loses without it, its log-probability beside that by the reference, and the KL there.

    Of a version: the ratings that it and what it goes back to learned from, by language, kind and rater; which of them
    moved the reward most, in closed form; and what the reward model weighs in all: length, language, tags, raters, with
    standard errors. Of a reward model the same. Of a rating: the versions it shaped.

    Answers and ratings are named by their keys, or by any beginning of one.

    \b
      trainer explain 0199a3f2
      trainer explain 0199a3f2 --version v0 --json
      trainer explain 0199a3f2 --html answer.html
      trainer explain v3
      trainer explain rm2
      trainer explain v3 --no-influence --json
    """
    from storage.database import read_database
    from storage.records import Rating, RewardModel, Version
    from storage.writing import write_text

    with read_database(workspace) as database:
        chosen = _named(database, subject)
        if html and isinstance(chosen, Rating | Version | RewardModel):
            raise UsageError("--html is of an answer", "of a version: `workbench report VERSION FILE.html`")
        from trainer import comparing
        from trainer.explaining import answer, drawn, ratings, told

        columns, colored = comparing.width(), comparing.is_colored()
        if isinstance(chosen, Version | RewardModel):
            how: dict[str, Any] = {"model": model, "device": device, "dtype": dtype, "influence": influence, "say": say}
            behind = (
                ratings.behind(workspace, database, chosen, **how)
                if isinstance(chosen, Version)
                else ratings.behind_reward(workspace, database, chosen, **how)
            )
            print_json(behind) if as_json else print(told.of_version(behind, columns))
            return
        if isinstance(chosen, Rating):
            shaped = ratings.shaped_by(database, chosen)
            print_json(shaped) if as_json else print(told.of_rating(shaped, columns))
            return
        found = answer.explain(
            workspace, database, chosen, version=version, reward_model=reward_model, model=model, device=device,
            dtype=dtype, say=say,
        )  # fmt: skip
    if html:
        write_text(drawn.document(found), html, overwrite=overwrite)
        say(f"written to {html}")
    if as_json:
        print_json(found)
    elif html != "-":
        print(drawn.page(found, columns, colored=colored))


def _named(database: Database, subject: str) -> Sample | Version | RewardModel | Rating:
    """The version or reward model of that name, or else the one answer or rating whose key begins so."""
    from storage import reward_models, versions
    from storage.records import Rating, Sample

    if (version := versions.find(database, subject)) is not None:
        return version
    if (record := reward_models.named(database, subject)) is not None:
        return record
    begin = subject.strip().lower()
    found: list[Sample | Rating] = []
    for kind, table in ((Sample, "samples"), (Rating, "ratings")):
        query = f"SELECT * FROM {table} WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 2"  # keys are of 0 to f
        found += database.records(kind, query, (begin,))
    if len(found) != 1 or not begin:
        what = "there is no answer, version or rating" if not found else "several keys begin with"
        raise UsageError(
            f"{what} {subject!r}",
            "`workbench versions` lists versions; `workbench generate --json` prints the key of each answer, and "
            "`workbench export events` those of ratings",
        )
    return found[0]
