"""What the commands that read files share: `--as` and `--map`, which say how their records are read."""

from __future__ import annotations

from collections.abc import Sequence

import click

from storage.errors import UsageError
from storage.exchange import layouts, naming
from storage.exchange.layouts.entries import KNOWN
from storage.exchange.translating import Reading

as_option = click.option(
    "--as",
    "layout",
    type=click.Choice(list(layouts.every())),
    help="Layout of the records, where their fields do not tell.",
)
map_option = click.option(
    "--map", "names", multiple=True, metavar="OURS=THEIRS",
    help="A field under another name, such as score=overall; once for each.",
)  # fmt: skip


def reading_option(layout: str | None, names: Sequence[str]) -> Reading:
    """What `--as` and `--map` say of a file's records.

    Raises:
        UsageError: a name is none of ours, nor one of the layout's.
    """
    given = naming.read_map(names)
    foreign = [layouts.every()[layout]] if layout else list(layouts.every().values())
    known = KNOWN.union(*(one.becomes for one in foreign))
    for ours in given.keys() - known:
        raise UsageError(
            f"--map {ours}={given[ours]}: {ours} is no field of ours", f"the fields are {', '.join(sorted(KNOWN))}"
        )
    return Reading(layout, given)
