"""The points of a figure's plot as CSV: what was drawn, to be drawn again elsewhere."""

from __future__ import annotations

import csv
import io

from storage.insight.figure import Plot

COLUMNS = ("series", "kind", "place", "x", "y", "low", "high", "n", "label")


def as_csv(plot: Plot) -> str:
    """A row a point under a header, with every digit; what is not known is empty. `place` is the name of what stands at
    `x`, where it has one."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\r\n")  # of which a lone CR in a cell is quoted by any Python
    rows.writerow(COLUMNS)
    for series in plot.series:
        for point in series.points:
            place = plot.places[round(point.x)] if plot.places else None
            rows.writerow(
                (series.name, series.kind, place, point.x, point.y, point.low, point.high, point.n, point.label)
            )
    return written.getvalue()
