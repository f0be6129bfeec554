"""`workbench packs`: prompts that come with the program, by language and task."""

from __future__ import annotations

import click

from storage import packs
from storage.wording import counted
from storage.workspace import Workspace
from workbench.commands.options import filled, json_option, print_json, print_table, reading, say, workspace_option


@click.command("packs")
@json_option
@workspace_option
def packs_command(as_json: bool, workspace: str | None) -> None:
    """List the prompt packs that come with the program, and how much of each the workspace holds.

    A pack is a handful of prompts of one task (dialogue, translation, summary, sentiment, creative) in one language,
    each written in that language. `workbench packs add` stores them.

    \b
    Examples:
      workbench packs
      workbench packs --json
    """
    held: dict[str, int] = {}
    # Before the first workspace there is something to choose from already; one that is named must be there.
    if workspace is not None or Workspace.locate(None).database.exists():
        with reading(workspace) as (_, database):
            held = packs.held(database)
    if as_json:
        print_json(
            [
                {"pack": pack.name, "language": pack.language, "task": pack.task, "held": held.get(pack.name, 0),
                 "prompts": list(pack.prompts)}
                for pack in packs.every()
            ]
        )  # fmt: skip
        return
    rows = [(pack.name, packs.title(pack), len(pack.prompts), held.get(pack.name, 0)) for pack in packs.every()]
    print_table(["pack", "what", "prompts", "in the workspace"], rows)


@click.command("packs add")
@click.argument("names", metavar="PACK...", nargs=-1, required=True)
@json_option
@workspace_option
def packs_add(names: tuple[str, ...], as_json: bool, workspace: str | None) -> None:
    """Store the prompts of packs: PACK is LANGUAGE/TASK, a language, a task, or `all`.

    What the workspace holds already is not stored twice. A hash of each text decides whether it is held out, as for
    any new prompt (`workbench settings held-out-share`).

    \b
    Examples:
      workbench packs add fr/summary
      workbench packs add sw ar
      workbench packs add all
    """
    wanted = packs.chosen(names)
    with filled(workspace, keep=True) as database:
        added = packs.add(database, wanted)
    if as_json:
        print_json(added)
    say(f"{counted(added.new, 'prompt is', 'prompts are')} new, of {added.prompts} in "
        f"{', '.join(one.name for one in wanted[:6])}"
        f"{', ...' if len(wanted) > 6 else ''}")  # fmt: skip
