"""`workbench report`: a version told to a colleague, as one page."""

from __future__ import annotations

import click

from storage import versions
from storage.errors import UsageError
from storage.writing import write_text
from workbench.commands.options import json_option, print_json, reading, say, workspace_option


@click.command()
@click.argument("version", metavar="VERSION")
@click.argument("file", metavar="FILE.html")
@click.option("--names", is_flag=True, help="Name the raters; they are numbered otherwise.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@json_option
@workspace_option
def report(version: str, file: str, names: bool, overwrite: bool, as_json: bool, workspace: str | None) -> None:
    """Write all that is known of VERSION to FILE.html, one page that needs nothing beside it; - is standard output.

    It has the counts of the data, the curves, what the gate and blind pairs found, the controls that were run beside
    it, answers before and after, and what is not known. Prompts and answers of the gate are in it as they are.

    \b
    Examples:
      workbench report v3 v3.html
      workbench report v3 v3.html --names --overwrite
    """
    if as_json and file == "-":
        raise UsageError("standard output is the page or a JSON document, not both", "name a file, or leave out --json")
    with reading(workspace) as (_, database):
        from workbench.reporting.version_page import version_page

        text = version_page(database, versions.get(database, version), names=names)
    write_text(text, file, overwrite=overwrite)
    if as_json:
        print_json({"version": version, "file": file, "bytes": len(text.encode())})
    if file != "-":
        say(f"wrote {version} to {file}")
