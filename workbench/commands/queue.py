"""`workbench queue`: what to review next."""

from __future__ import annotations

import click

from storage.feedback import queue as review
from workbench.commands.options import json_option, print_json, print_table, reading, say, workspace_option
from workbench.shell.session import default_rater


@click.command()
@click.option("--rater", default=None, help="Whose queue. Default: your user name.")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1))
@json_option
@workspace_option
def queue(rater: str | None, limit: int, as_json: bool, workspace: str | None) -> None:
    """Show what to review next, and why.

    Single answers and blind pairs that the rater has not judged yet, from the languages with the fewest ratings.
    Which version said what is not shown: pairs are judged blind.

    \b
    Examples:
      workbench queue
      workbench queue --rater amina --limit 50 --json
    """
    with reading(workspace) as (_, database):
        items = review.next_items(database, rater or default_rater(), limit)
    if as_json:
        print_json(
            [
                {
                    "kind": item.kind,
                    "language": item.prompt.language,
                    "prompt": item.prompt.written,
                    "texts": [sample.text for sample in item.shown],
                    "samples": [sample.id for sample in item.shown],
                    "old_against_new": item.old_against_new,
                    "why": item.why,
                }
                for item in items
            ]
        )
        return
    print_table(
        ["kind", "language", "prompt", "why"],
        [(item.kind, item.prompt.language, item.prompt.text, item.why) for item in items],
    )
    if not items:
        say("nothing is left to review: `workbench generate` makes new answers")
