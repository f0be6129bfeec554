"""`workbench demo`: the whole loop with no hands, on the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from storage.command_line import works_on
from storage.workspace import Workspace
from workbench.commands.options import json_option, print_json, print_table, say


@click.command()
@click.option("--workspace", metavar="DIR", default="demo-workspace", show_default=True, help="Where to leave it all.")
@click.option("--model", default="smollm2", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--steps", default=20, show_default=True, help="Policy steps.")
@click.option("--rated-prompts", default=8, show_default=True, help="Training prompts a language to rate answers to.")
@click.option("--control", type=click.Choice(["shuffled", "constant"]), help="Train on ratings that say nothing.")
@json_option
def demo(
    workspace: str, model: str, seed: int, steps: int, rated_prompts: int, control: str | None, as_json: bool
) -> None:
    """Walk the whole loop: sample, rate, train, gate, publish, swap, and measure before and after.

    The rater is simulated, with a known taste (brief, finished answers in the language of the question), and marked as
    simulated in every row. The workspace is left for `workbench --workspace DIR`; one that exists is never touched.

    What is measured is the new version, published or not. The gain is told twice: as it is, and with finishing taken
    out, where answers that ended are compared with answers that ended, and cut ones with cut ones. With --control the
    ratings are shuffled, or all the same: whatever such a run gains, no rating taught it.

    \b
    Examples:
      workbench demo --seed 1 --workspace demo-1
      workbench demo --seed 1 --control shuffled
    """
    from workbench.demo.walk import Scale, plots, walk

    place = works_on(Workspace(_unused(Path(workspace).absolute())))
    figures = walk(place, seed, Scale(rated_prompts=rated_prompts, steps=steps), say, model, control)
    if as_json:
        print_json(figures)
        return
    click.echo(plots(place, figures["job"]))
    versions = f"{figures['before_version']} -> {figures['version']} ({figures['state']})"
    taught = f", with {control} ratings" if control else ""
    click.echo(f"\nGold reward on held-out prompts, scale 1 to 5; {versions}{taught}\n")
    print_table(
        ["language", "prompts", "before", "after", "gain", "95% interval"], [_row(row) for row in figures["gold"]]
    )
    kl = "not finite" if figures["kl"] is None else f"{figures['kl']:.2f} nats a response"
    click.echo(f"\nwith finishing taken out: {_matched(figures['gold_matched'])}")
    click.echo(f"answers that ended: {figures['finished_before']:.0%} -> {figures['finished_after']:.0%}")
    click.echo(f"KL to the base model: {kl} · seed {seed} · {figures['seconds']:.0f} s")
    click.echo(f"look around in it: workbench --workspace {place.root}")


def _row(row: dict[str, Any]) -> list[str]:
    bounds = row["interval"]
    return [
        row["language"] or "all",
        str(row["prompts"]),
        f"{row['before']:.2f}",
        f"{row['after']:.2f}",
        f"{row['gain']:+.2f}",
        f"[{bounds[0]:+.2f}, {bounds[1]:+.2f}]" if bounds else f"- ({row['prompts']} prompt)",
    ]


def _matched(found: dict[str, Any]) -> str:
    """The gain among answers alike in whether they ended."""
    told = f" ({found['reason']})" if found["reason"] else ""
    if found["mean"] is None:
        return f"not known{told}"
    return f"{found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]{told}"


def _unused(folder: Path) -> Path:
    """The folder itself, or the first of FOLDER-2, FOLDER-3, ... that does not exist yet."""
    chosen, number = folder, 1
    while chosen.exists():
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen
