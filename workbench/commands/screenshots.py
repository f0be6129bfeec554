"""`workbench screenshots`: pictures of every screen."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def screenshots(folder: Path) -> None:
    """Write SVG pictures of every screen into DIR, from an example workspace with invented figures.

    \b
    Example:
      workbench screenshots docs/screenshots
    """
    from workbench.screenshots import take

    for path in take(folder):
        click.echo(str(path))
