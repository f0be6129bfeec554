"""`workbench stats`: what the workspace holds."""

from __future__ import annotations

import click

from storage.feedback import census
from workbench.commands.options import json_option, print_json, print_table, reading, workspace_option


@click.command()
@json_option
@workspace_option
def stats(as_json: bool, workspace: str | None) -> None:
    """Count prompts, answers (samples) and ratings, in all and by language.

    Ratings that were undone or replaced do not count, and neither do skips and notes.

    \b
    Examples:
      workbench stats
      workbench stats --json | jq .languages.fr.ratings
    """
    with reading(workspace) as (_, database):
        found = census.summary(database)
    if as_json:
        print_json(found)
        return
    languages = [(name, one.prompts, one.samples, one.ratings) for name, one in found.languages.items()]
    print_table(
        ["language", "prompts", "samples", "ratings"],
        [*languages, ("all", found.prompts, found.samples, found.ratings)],
    )
    for title, counts in (("kind", found.kinds), ("source", found.sources), ("rater", found.raters)):
        if counts:
            click.echo()
            print_table([title, "ratings"], list(counts.items()))
