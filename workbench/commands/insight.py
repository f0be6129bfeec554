"""`workbench insight`: figures of the workspace, in the terminal, as JSON, as CSV and as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from storage.insight import FIGURES
from storage.insight.figure import Figure, Found
from storage.troubles import told_of_file
from storage.writing import write_files
from workbench.commands.options import json_option, print_json, reading, say, workspace_option
from workbench.commands.progress import progress

MOST_ROWS = 12  # of a table, where several figures are printed
NAMES = {figure.name: figure for figure in FIGURES}


@click.command("insight")
@click.argument("names", metavar="[FIGURE]...", nargs=-1, type=click.Choice(list(NAMES)))
@click.option("--csv", metavar="DIR", help="Write what is drawn to DIR/FIGURE.csv.")
@click.option("--svg", metavar="DIR", help="Write pictures to DIR/FIGURE.svg.")
@click.option("--png", metavar="DIR", help="Write pictures to DIR/FIGURE.png, where matplotlib is installed.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@json_option
@workspace_option
def insight(
    names: tuple[str, ...], csv: str | None, svg: str | None, png: str | None, overwrite: bool, as_json: bool,
    workspace: str | None,
) -> None:  # fmt: skip
    """Show figures of the workspace: all of them, or those that are named.

    \b
    frontier    reward gained against KL, a dot a version
    proxy       reward gained beside what raters say: over-optimisation
    languages   gains and losses by language
    win-rates   how often a version was preferred, blind
    evaluation  a version on the suites, beside another
    balance     what is rated in each language, and how
    agreement   how far raters agree, with others and with themselves
    length      whether longer answers are liked better

    Each has a plot and a table, of which a figure by itself has all rows; intervals are of 95%. With --csv, --svg or
    --png what is drawn is written to files, and nothing is printed unless --json asks for it.

    \b
    Examples:
      workbench insight
      workbench insight frontier proxy
      workbench insight balance --json
      workbench insight --svg pictures --csv pictures --overwrite
    """
    chosen = [NAMES[name] for name in dict.fromkeys(names)] or list(FIGURES)
    with reading(workspace) as (_, database), database.snapshot(), progress() as bar:
        shown: list[tuple[Figure, Found]] = []
        for figure in chosen:
            bar(f"reading {figure.name}")
            shown.append((figure, figure.read(database)))
    folders = {form: Path(folder) for form, folder in (("csv", csv), ("svg", svg), ("png", png)) if folder is not None}
    written = _write(shown, folders, overwrite=overwrite)
    if as_json:
        print_json([_document(figure, found, written.get(figure.name, [])) for figure, found in shown])
    elif not folders:
        from trainer.comparing import is_colored, width
        from workbench.reporting.figure_text import page

        most = MOST_ROWS if len(shown) > 1 else None
        pages = (page(*one, wide=width(), colored=is_colored(), most=most) for one in shown)
        click.echo("\n\n".join(pages))


def _write(shown: list[tuple[Figure, Found]], folders: dict[str, Path], *, overwrite: bool) -> dict[str, list[str]]:
    """Write what is drawn, all or, where a file is in the way, nothing; returns the files by figure."""
    files: list[tuple[Path, bytes]] = []
    written: dict[str, list[str]] = {}
    for figure, found in shown if folders else ():
        if found.plot is None:
            say(f"{figure.name}: nothing to draw: {found.missing}")
            continue
        for form, folder in folders.items():
            path = folder / f"{figure.name}.{form}"
            files.append((path, _made(form, figure, found)))
            written.setdefault(figure.name, []).append(str(path))
    for folder in folders.values() if files else ():
        with told_of_file(f"cannot make {folder}", hint="name another folder"):
            folder.mkdir(parents=True, exist_ok=True)
    write_files(files, overwrite=overwrite)
    for path, _ in files:
        say(f"wrote {path}")
    return written


def _made(form: str, figure: Figure, found: Found) -> bytes:
    from workbench.reporting import figure_csv, figure_png, figure_svg

    assert found.plot is not None
    match form:
        case "csv":
            return figure_csv.as_csv(found.plot).encode()
        case "svg":
            return figure_svg.picture(figure, found.plot).encode()
        case _:
            made, is_whole = figure_png.picture(found.plot)
            if not is_whole:
                say(f"{figure.name}.png: {figure_png.FONTLESS}")
            return made


def _document(figure: Figure, found: Found, files: list[str]) -> dict[str, Any]:
    told = {"figure": figure.name, "title": figure.title, "what": figure.what}
    return told | msgspec.to_builtins(found) | {"files": files}
