"""A figure as files for a paper or a colleague: what is on screen as pictures, and its points as CSV."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from storage.errors import UsageError
from storage.insight.figure import Figure, Plot
from storage.writing import write_files
from workbench.reporting import figure_csv, figure_png, figure_svg

FORMS = ("svg", "png", "csv")


def write(figure: Figure, plot: Plot, folder: Path) -> tuple[list[Path], str]:
    """Write the pictures and the points under a name that is free; returns the files, and what was left out and why.

    Raises:
        UsageError: nothing can be written there.
        WorkbenchError: the disk is full, or failed.
    """
    made = {"svg": figure_svg.picture(figure, plot).encode(), "csv": figure_csv.as_csv(plot).encode()}
    left_out = ""
    try:
        made["png"] = figure_png.picture(plot)
    except UsageError as error:
        left_out = f"no PNG: {error.message}"
    stem = free_name(folder, f"insight-{figure.name}")
    files = [(folder / f"{stem}.{form}", made[form]) for form in FORMS if form in made]
    write_files(files)
    return [path for path, _ in files], left_out


def free_name(folder: Path, stem: str) -> str:
    """The name itself, or the first of NAME-2, NAME-3, ... of which there is no file yet."""
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(name for name in names if not any((folder / f"{name}.{form}").exists() for form in FORMS))
