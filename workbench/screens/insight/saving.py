"""A figure as files for a paper or a colleague: what is on screen as pictures, and its points as CSV."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import msgspec

from storage.insight.figure import Figure, Plot
from storage.signs import one_line
from storage.writing import write_files
from workbench.reporting import figure_csv, figure_png, figure_svg

PATIENCE = 60.0  # seconds that drawing a picture may take
FORMS = ("svg", "png", "csv")


def write(figure: Figure, plot: Plot, folder: Path) -> tuple[list[Path], str]:
    """Write the pictures and the points under a name that is free; returns the files, and what was left out and why.

    Raises:
        UsageError: nothing can be written there.
        WorkbenchError: the disk is full, or failed.
    """
    made = {"svg": figure_svg.picture(figure, plot).encode(), "csv": figure_csv.as_csv(plot).encode()}
    drawn, left_out = _png(plot)
    if drawn:
        made["png"] = drawn
    stem = free_name(folder, f"insight-{figure.name}")
    files = [(folder / f"{stem}.{form}", made[form]) for form in FORMS if form in made]
    write_files(files)
    return [path for path, _ in files], left_out


def _png(plot: Plot) -> tuple[bytes, str]:
    """The picture, drawn by a program of its own, as importing what draws it would keep keys waiting; or why not."""
    if find_spec("matplotlib") is None:
        return b"", "no PNG: matplotlib is not installed"
    command = [sys.executable, "-m", figure_png.__name__]
    try:
        done = subprocess.run(command, input=msgspec.json.encode(plot), capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return b"", f"no PNG: {error}"
    if done.returncode:
        return b"", f"no PNG: {one_line(done.stderr.decode(errors='replace').strip().rpartition(chr(10))[2])}"
    return done.stdout, f"PNG: {figure_png.FONTLESS}" if figure_png.FONTLESS.encode() in done.stderr else ""


def free_name(folder: Path, stem: str) -> str:
    """The name itself, or the first of NAME-2, NAME-3, ... of which there is no file yet."""
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(name for name in names if not any((folder / f"{name}.{form}").exists() for form in FORMS))
