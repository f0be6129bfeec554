"""`workbench outcome`: tell what came of an answer."""

from __future__ import annotations

import click

from storage import samples
from storage.feedback import log
from workbench.commands.options import json_option, opened, print_json, say, workspace_option
from workbench.shell import session


@click.command()
@click.argument("sample")
@click.argument("text")
@click.option("--rater", default=None, help="Who tells it. Default: the rater that is set.")
@json_option
@workspace_option
def outcome(sample: str, text: str, rater: str | None, as_json: bool, workspace: str | None) -> None:
    """Tell in words what came of the answer SAMPLE: hindsight learns from it, beside ratings.

    SAMPLE is the key of an answer, or the beginning of one key alone: `workbench generate --json` prints it. An outcome
    told again replaces the earlier one. Many outcomes are imported as records of `prompt`, `response` and `outcome`.

    \b
    Examples:
      workbench outcome 01a21784-371b "The bread rose, and was eaten."
    """
    with opened(workspace) as (_, database):
        by = rater or session.load(database).rater
        told = log.append(database, log.outcome(samples.named(database, sample).id, text, by))
    if as_json:
        print_json({"rating": told.id, "sample": told.sample_id, "outcome": told.text, "replaced": told.supersedes})
    else:
        say("stored" if told.supersedes is None else "stored, in place of what was told before")
