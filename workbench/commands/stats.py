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

    Ratings that were undone or replaced do not count, and neither do skips and notes. Where they are of several
    sources (human, imported, ai, simulated), each has a column: what a judge model said is never among people's unseen.

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
    by_source = found.by_source if len(found.by_source) > 1 else {}
    languages = [
        (name, one.prompts, one.samples, one.ratings, *(own.languages.get(name, 0) for own in by_source.values()))
        for name, one in found.languages.items()
    ]
    whole = ("all", found.prompts, found.samples, found.ratings, *(own.ratings for own in by_source.values()))
    print_table(["language", "prompts", "samples", "ratings", *by_source], [*languages, whole])
    if found.kinds:
        click.echo()
        print_table(
            ["kind", "ratings", *by_source],
            [(kind, n, *(own.kinds.get(kind, 0) for own in by_source.values())) for kind, n in found.kinds.items()],
        )
    for title, counts in (("source", found.sources), ("rater", found.raters)):
        if counts:
            click.echo()
            print_table([title, "ratings"], list(counts.items()))
