"""The commands that look at what was run: `trainer compare` and `trainer export-metrics`. They train nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from storage.wording import counted
from storage.workspace import Workspace
from trainer.options import common, in_workspace, print_json


@click.command()
@common
@click.option("--metric", "names", multiple=True, metavar="NAME", help="draw this curve; may be given several times")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
def compare(workspace: Workspace, as_json: bool, names: tuple[str, ...], jobs: tuple[str, ...]) -> None:
    """Runs beside each other: settings that differ, gains with intervals, curves over each other.

    JOB is a job's key, or any beginning or ending of it that only one job has. Jobs that differ in nothing but the
    seed are pooled: their figures are means over seeds, with a 95% Student interval over the seeds. A job alone shows
    its own interval, over held-out prompts.

    \b
      trainer compare 5f3a9c01 77d0e2b4
      trainer compare 5f3a9c01 77d0e2b4 --metric objective/kl --metric response/length
      trainer compare 5f3a9c01 77d0e2b4 --json
    """
    from storage import comparison
    from storage.database import read_database
    from trainer import comparing

    with read_database(workspace) as database:
        found = comparison.compare(database, jobs)
        curves = comparison.curves(database, found.runs, names)
    if as_json:
        print_json(comparison.document(found, curves))
    else:
        print(comparing.page(found, curves, width=comparing.width(), colored=comparing.is_colored()))


@click.command("export-metrics")
@in_workspace
@click.option(
    "--format", "form", type=click.Choice(["csv", "jsonl", "tensorboard"]), default="csv", show_default=True,
    help="rows of step, name, language, value; or a folder for TensorBoard",
)  # fmt: skip
@click.option("--out", metavar="PATH", default="-", show_default=True, help="a file or, for tensorboard, a new folder")
@click.option("--overwrite", is_flag=True, help="replace a file that exists")
@click.argument("job")
def export_metrics(workspace: Workspace, form: str, out: str, overwrite: bool, job: str) -> None:
    """Every figure that JOB recorded, for other programs.

    A figure over all languages has an empty language (null in jsonl); one that was not finite has an empty value
    (null). For TensorBoard a figure by language is tagged NAME/LANGUAGE.

    \b
      trainer export-metrics 5f3a9c01 > run.csv
      trainer export-metrics 5f3a9c01 --format jsonl --out run.jsonl
      trainer export-metrics 5f3a9c01 --format tensorboard --out events/run
    """
    from storage import jobs, metrics
    from storage.database import read_database
    from storage.writing import write_text
    from trainer import exporting

    with read_database(workspace) as database:
        found = metrics.every(database, jobs.get(database, job).id)
    if form == "tensorboard":
        exporting.write_events(found, out)
    else:
        write_text(exporting.FORMATS[form](found), out, overwrite=overwrite)
    if out != "-":
        print(f"{counted(len(found), 'figure')} written to {Path(out)}", file=sys.stderr)
