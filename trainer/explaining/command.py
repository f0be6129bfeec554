"""`trainer explain`: an answer, a version or a rating, and what made it what it is. It trains nothing."""

from __future__ import annotations

import click

from storage.command_line import say
from storage.workspace import Workspace
from trainer.options import common, print_json


@click.command()
@common
@click.option("--version", metavar="VERSION", help="of an answer: whose probabilities to show, by default its own")
@click.option("--reward-model", metavar="NAME", help="such as rm2  [default: the newest of the base model]")
@click.option("--model", metavar="MODEL", help="the base model, where it is not found by itself")
@click.option("--html", "html", metavar="FILE", help="of an answer: write it to FILE as one page of HTML")
@click.option("--overwrite", is_flag=True, help="replace a FILE that exists")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.option("--dtype", default="auto", show_default=True, help="auto, bf16, fp16 or fp32")
@click.argument("sample", metavar="SAMPLE")
def explain(
    workspace: Workspace,
    as_json: bool,
    version: str | None,
    reward_model: str | None,
    model: str | None,
    html: str | None,
    overwrite: bool,
    device: str,
    dtype: str,
    sample: str,
) -> None:
    """What an answer was rewarded for, token by token.

    SAMPLE is the key of an answer, or any beginning of it. Each token has its share of the reward by integrated
    gradients (the shares sum to the reward less the baseline), what the reward loses without it, its log-probability
    by the version beside that by the reference, and the KL there.

    \b
      trainer explain 0199a3f2
      trainer explain 0199a3f2 --version v0 --json
      trainer explain 0199a3f2 --html answer.html
    """
    from storage import samples
    from storage.database import read_database
    from trainer import comparing

    with read_database(workspace) as database:
        chosen = samples.named(database, sample)
        from trainer import exporting
        from trainer.explaining import answer, drawn

        found = answer.explain(
            workspace, database, chosen, version=version, reward_model=reward_model, model=model, device=device,
            dtype=dtype, say=say,
        )  # fmt: skip
    if html:
        exporting.write_text(drawn.document(found), html, overwrite=overwrite)
        say(f"written to {html}")
    if as_json:
        print_json(found)
    elif html != "-":
        print(drawn.page(found, comparing.width(), colored=comparing.is_colored()))
