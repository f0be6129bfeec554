"""`workbench agreement`: how far raters agree, and how each of them rates."""

from __future__ import annotations

import click
import msgspec

from storage.feedback import agreement, calibration, habits
from workbench.commands.agreed import tables
from workbench.commands.options import json_option, print_json, print_table, reading, workspace_option
from workbench.commands.progress import progress


@click.command("agreement")
@json_option
@workspace_option
def agreement_command(as_json: bool, workspace: str | None) -> None:
    """Show how far raters agree, with others and with themselves, and how each of them rates.

    Krippendorff's alpha (ordinal) for each language and attribute, with a bootstrap interval over what two raters or
    more have judged; what each two share; and of each rater how often they said the same again, preferred what stood
    left, were right where the right judgement is known, how long they took, and what they said how often. Where there
    is too little, a reason stands in the place of a number. Judge models are no part of alpha: how far each agrees with
    people, and what its ratings therefore weigh in a reward model, stands apart.

    \b
    Examples:
      workbench agreement
      workbench agreement --json | jq .overall.alpha
    """
    with reading(workspace) as (_, database), database.snapshot(), progress() as bar:
        bar("measuring how far raters agree")
        found = agreement.measure(database)
        judges = calibration.measure(database)
        own, lengths, model = habits.measure(database)
    if as_json:
        print_json(
            msgspec.to_builtins(found)
            | {"judges": msgspec.to_builtins(judges)}
            | {"raters": msgspec.to_builtins(own), "length": msgspec.to_builtins(lengths), "reward_model": model}
        )
        return
    for number, (head, rows) in enumerate(tables(found, judges, own, lengths, model)):
        if number:
            click.echo()
        print_table(head, rows)
