"""`workbench raters`: who rates, and in which languages."""

from __future__ import annotations

from typing import Any

import click

from storage import raters
from storage.raters import KINDS, RaterKind
from workbench.commands.options import (
    json_option,
    language_option,
    opened,
    print_json,
    print_table,
    reading,
    say,
    workspace_option,
)


@click.command("raters")
@click.argument("action", required=False, type=click.Choice(["add"]))
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice(KINDS), default=None, help="What they are. Default: human.")
@click.option("--languages", default=None, metavar="TAGS", help="What they read, after commas; all reads everything.")
@click.option("--gold/--no-gold", default=None, help="Whether what they say is right, and others are asked the same.")
@json_option
@workspace_option
def raters_command(
    action: str | None,
    name: str | None,
    kind: RaterKind | None,
    languages: str | None,
    gold: bool | None,
    as_json: bool,
    workspace: str | None,
) -> None:
    """List the raters, or introduce one (add NAME), or change what is known of one.

    The review queue asks a rater in the languages that they read. Whoever rates without having been introduced reads
    everything.

    \b
    Examples:
      workbench raters
      workbench raters add amina --languages sw,en
      workbench raters add judge-7b --kind ai
      workbench raters add master --gold
    """
    if (name is None) != (action is None) or (action is None and (kind, languages, gold) != (None, None, None)):
        raise click.UsageError("to introduce or change a rater: workbench raters add NAME [--languages TAGS]")
    with opened(workspace, create=True) if name is not None else reading(workspace) as (_, database):
        if name is not None:
            put = raters.put(database, name, kind=kind, languages=_tags(languages), gold=gold)
            say(f"{put.name} reads {', '.join(put.languages) or 'every language'}")
        found = raters.every(database)
    rows: list[dict[str, Any]] = [
        {"rater": one.name, "kind": one.kind, "languages": list(one.languages), "gold": one.gold, "ratings": count}
        for one, count in found
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ["rater", "kind", "languages", "gold", "ratings"],
            [
                (one["rater"], one["kind"], ", ".join(one["languages"]) or "all", "yes" if one["gold"] else "no",
                 one["ratings"])
                for one in rows
            ],
        )  # fmt: skip


def _tags(typed: str | None) -> list[str] | None:
    if typed is None or typed.strip() == "all":
        return None if typed is None else []
    return [language_option(tag, "--languages") for tag in typed.split(",") if tag.strip()]
