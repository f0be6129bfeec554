"""`workbench demo`: the whole loop with no hands, on the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from storage.workspace import Workspace
from workbench.commands.options import json_option, print_json, print_table, say


@click.command()
@click.option("--workspace", metavar="DIR", default="demo-workspace", show_default=True, help="Where to leave it all.")
@click.option("--model", default="smollm2", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--steps", default=20, show_default=True, help="Policy steps.")
@click.option("--rated-prompts", default=8, show_default=True, help="Training prompts a language to rate answers to.")
@json_option
def demo(workspace: str, model: str, seed: int, steps: int, rated_prompts: int, as_json: bool) -> None:
    """Walk the whole loop: sample, rate, train, gate, publish, swap, and measure before and after.

    The rater is simulated, with a known taste (brief, finished answers in the language of the question), and marked as
    simulated in every row. The workspace is left for `workbench --workspace DIR`; one that exists is never touched.

    \b
    Example:
      workbench demo --seed 1 --workspace demo-1
    """
    from workbench.demo.walk import Scale, plots, walk

    place = Workspace(_unused(Path(workspace).absolute()))
    figures = walk(place, seed, Scale(rated_prompts=rated_prompts, steps=steps), say, model)
    if as_json:
        print_json(figures)
        return
    click.echo(plots(place, figures["job"]))
    click.echo(
        f"\nGold reward on held-out prompts, scale 1 to 5; {figures['before_version']} -> {figures['version']}\n"
    )
    print_table(
        ["language", "prompts", "before", "after", "gain", "95% interval"], [_row(row) for row in figures["gold"]]
    )
    kl = "not finite" if figures["kl"] is None else f"{figures['kl']:.2f} nats a response"
    click.echo(f"\nKL to the base model: {kl} · seed {seed} · {figures['seconds']:.0f} s")
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


def _unused(folder: Path) -> Path:
    """The folder itself, or the first of FOLDER-2, FOLDER-3, ... that does not exist yet."""
    chosen, number = folder, 1
    while chosen.exists():
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen
