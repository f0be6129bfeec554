"""Rows of intervals: whatever the names and the values are, a row fits its room and says what it is of."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.content import Content

from storage.insight.figure import Plot, Point, Series
from workbench.text import UNSAFE, width
from workbench.widgets.figures import Points
from workbench.widgets.intervals import SIGNS, legend, rows
from workbench.widgets.plots import Ground

values = st.floats(-1e6, 1e6, allow_nan=False)
names = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["العربية", "हिन्दी", "中文 (简体)", "עברית", "\x1b]52;c;aGk=\x07", "[/bold]", "👩‍👩‍👧"]),
)


@st.composite
def plots(draw: st.DrawFn, placed: bool = True, of: st.SearchStrategy[float] = values) -> Plot:
    places = tuple(draw(st.lists(names, min_size=1, max_size=5)))
    series = []
    for number in range(draw(st.integers(1, 3))):
        points = []
        for place in range(len(places)):
            low, y, high = sorted(draw(st.tuples(of, of, of)))
            bounds = draw(st.sampled_from([(low, high), (None, None)]))
            n = draw(st.one_of(st.none(), st.integers(1, 10**6)))
            points.append(Point(float(place) if placed else draw(values), y, *bounds, draw(names), n))
        series.append(Series(f"{draw(names)} {number}", tuple(points), draw(st.sampled_from(["dots", "bars", "line"]))))
    level = draw(st.one_of(st.none(), of))
    return Plot("title", "x", "y", tuple(series), level, places if placed else ())


def lines(content: Content) -> list[str]:
    return content.plain.split("\n")


@settings(max_examples=60)
@given(plots(of=st.floats(allow_nan=False, allow_infinity=False)), st.integers(36, 130))
def test_every_point_has_a_row_that_fits(plot: Plot, cells: int) -> None:
    named, lanes = map(lines, rows(plot, cells))
    assert len(named) == len(lanes) == 1 + len(plot.points)
    aside = max(map(width, named))
    assert all(aside + width(lane) <= cells for lane in lanes)
    assert UNSAFE.search("".join(named + lanes)) is None
    assert all(any(sign in lane for sign in SIGNS + "▇─") for lane in lanes[1:])


@settings(max_examples=30)
@given(plots(placed=False), st.sampled_from([(30, 7), (70, 20)]))
def test_points_on_two_axes_fill_their_room_whatever_they_are_called(plot: Plot, size: tuple[int, int]) -> None:
    colors = tuple((name, (1, 2, 3)) for name in (
        "policy", "accent", "secondary", "warning", "foreground", "text-muted", "reference",
    ))  # fmt: skip
    strips = Points(plot, Ground("textual-dark", colors, *size)).strips()
    assert [strip.cell_length for strip in strips[: size[1]]] == [size[0]] * size[1]
    assert UNSAFE.search("".join(strip.text for strip in strips)) is None


def test_a_side_of_the_line_is_told_by_a_sign_and_a_series_by_its_own() -> None:
    points = (Point(0, 0.7, 0.6, 0.8, n=84), Point(1, 0.3, 0.2, 0.4, n=12), Point(2, 0.5, 0.4, 0.6))
    plot = Plot("", "", "", (Series("human", points), Series("ai", points[:1])), 0.5, ("v2", "v3", "v4"))
    named, lanes = map(lines, rows(plot, 80))
    assert named == ["", "v2", "", "v3", "v4"]
    assert [lane[:3] for lane in lanes[1:]] == [" ▲ ", " ▲ ", " ▼ ", "   "]
    assert "●" in lanes[1]
    assert "■" in lanes[2]
    assert lanes[1].endswith("0.7 [0.6, 0.8] n 84")
    assert legend(plot, 80).plain == "● human   ■ ai   ▲ all above 0.5  ▼ all below"
    first, level = lanes[1].index("├"), lanes[1].index("┊")
    assert level < first < lanes[1].index("●") < lanes[1].index("┤")


def test_an_interval_that_is_much_wider_than_most_leaves_them_their_room() -> None:
    points = [Point(float(place), 1.0, 0.0, 2.0, n=5) for place in range(5)] + [Point(5.0, 2.0, -53.5, 57.8, n=2)]
    plot = Plot("", "", "", (Series("v1", tuple(points)),), 0.0, ("ar", "de", "en", "es", "hi", "fr"))
    _, lanes = map(lines, rows(plot, 80))
    assert lanes[1].count("─") > 10
    assert "◂" in lanes[6]
    assert lanes[6].endswith("▸ 2 [-53.5, 57.8] n 2"), "what it is stands beside it"
    assert not any(sign in lane for sign in "◂▸" for lane in lanes[1:6])
    assert "◂ ▸ goes on" in legend(plot, 80).plain
    assert "◂" not in legend(msgspec.structs.replace(plot, series=(Series("v1", tuple(points[:5])),)), 80).plain


def test_the_ends_of_a_scale_never_run_into_each_other() -> None:
    plot = Plot("", "", "", (Series("v1", (Point(0.0, 0.1, -0.358, 0.247, n=240),)),), 0.0, ("bias",))
    for cells in range(24, 80):
        said = lines(rows(plot, cells)[1])[0].split()
        assert said in ([], ["-0.4", "0.2"], ["-0.36", "0.25"], ["-0.358", "0.247"], ["-0.358", "0", "0.247"])
    assert said == ["-0.358", "0", "0.247"]
