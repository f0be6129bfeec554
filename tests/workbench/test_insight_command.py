"""`workbench insight`: the figures in the terminal, as JSON, as CSV and as pictures, whatever the workspace holds."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from storage import clock, conversations, evaluations, reward_models, samples, versions
from storage.database import Database, open_database
from storage.feedback import log
from storage.insight import FIGURES
from storage.insight.figure import Figure, Found, Placed, Plot, Point, Series, Table
from storage.records import Evaluation
from storage.signs import UNSAFE
from storage.workspace import Workspace
from workbench.cli import cli, run_command
from workbench.reporting import figure_csv, figure_png, figure_svg, figure_text

NAMES = [figure.name for figure in FIGURES]
SVG = "{http://www.w3.org/2000/svg}"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
SCRIPTS = st.sampled_from(["फ़्रांसीसी", "العربية ‮نص", "中文", 'a\tb\r\n,"c"', "<&>'", "\x1b]52;c;AAAA\x07", "e\u0301"])
WORDS = TEXTS | SCRIPTS
ODD = st.none() | st.booleans() | WORDS | st.integers(-9, 9) | st.floats(allow_nan=False) | st.lists(st.floats(-1, 1))
BOUNDS = st.tuples(st.none() | st.floats(-9, 9), st.none() | st.floats(-9, 9)).map(list) | ODD
GAIN = st.fixed_dictionaries({}, optional={"mean": ODD, "low": ODD, "high": ODD, "n": ODD})
METRICS = st.fixed_dictionaries(
    {},
    optional={
        "reward_gain": st.floats(-2, 2) | ODD, "reward_gain_interval": BOUNDS, "held_out_prompts": ODD,
        "kl": st.floats(0, 20) | ODD, "control": ODD, "reasons": ODD,
        "reward_gain_by_language": st.dictionaries(WORDS, GAIN | ODD, max_size=3) | ODD,
    },
)  # fmt: skip
FINITE = st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1e-300, -9e299, 9e299])
NUMBERS = FINITE | st.sampled_from([1.7e308, -1.7e308])


def fill(database: Database, metrics: list[Any], words: list[str], numbers: list[float], prompts: int) -> None:
    """Versions with such metrics in a row, and feedback and evaluations whose names are such words."""
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    parent = "v0"
    for found in metrics:
        made = versions.add_candidate(database, base=base, parent=parent, file="x", sha256="0", metrics=found)
        parent = made.name
    one, other = words[0], words[-1]
    for number in range(prompts):
        prompt = conversations.add(database, f"{number}? {one}", language=("sw", "ar", "zh")[number % 3])
        pair = [samples.new(prompt.id, one * (number + 1), version=name) for name in (parent, "v0")]
        samples.add(database, pair)
        log.append(database, log.score(pair[0].id, 1 + number % 5, one, attribute=other.strip() or "overall"))
        log.append(database, log.score(pair[1].id, 1 + number % 5, other))
        log.append(
            database, log.score(pair[0].id, 1 + number % 3, one, source=("human", "simulated", "ai")[number % 3])
        )
        log.append(database, log.label(pair[0].id, number % 2 == 0, one))
        log.append(database, log.label(pair[0].id, number % 3 == 0, f"{one} 2"))
        log.append(
            database, log.pair(*(sample.id for sample in pair), "ab"[number % 2], one, blind=True, shown_order="ab")
        )
    reward_models.add(
        database, base=base, file="f", sha256="e", data_digest="d", job_id=None,
        metrics={"length_correlation": numbers[0], "length_n": 40, "gamma": numbers[-1]},
    )  # fmt: skip
    sides = [(parent, "", None), ("v0", "", None), (parent, evaluations.GAIN, "v0")]
    evaluations.add(database, [
        Evaluation(clock.new_id(), name, one, other + gain, value, 3, clock.now(), language, value, None, None, against)
        for value in numbers for name, gain, against in sides for language in (None, "sw")
    ])  # fmt: skip


def points_of(text: str) -> list[tuple[str, Point]]:
    """What a CSV says was drawn."""

    def number(cell: str) -> float | None:
        return float(cell) if cell else None

    return [
        (row["series"], Point(float(row["x"]), float(row["y"]), number(row["low"]), number(row["high"]), row["label"],
                              int(row["n"]) if row["n"] else None))
        for row in csv.DictReader(io.StringIO(text, newline=""))
    ]  # fmt: skip


def check(figure: Figure, found: Found, wide: int) -> None:
    """A figure can be read in a terminal, its picture is one, and its CSV has what was drawn."""
    page = figure_text.page(figure, found, wide=wide, colored=False)
    assert not UNSAFE.search(page)
    assert all(len(row) == len(found.table.header) for row in found.table.rows)
    if found.plot is None:
        assert found.missing in " ".join(page.split())
        assert found.missing
        return
    assert not found.missing
    for point in found.plot.points:
        assert math.isfinite(point.x)
        assert math.isfinite(point.y)
        assert (point.low is None) == (point.high is None)
        assert not found.plot.places or found.plot.places[int(point.x)] == point.label
    drawn = xml.fromstring(figure_svg.picture(figure, found.plot).encode())
    assert drawn.tag == f"{SVG}svg"
    assert not any(value in ("nan", "inf", "-inf") for part in drawn.iter() for value in part.attrib.values())
    told = [(series.name, point) for series in found.plot.series for point in series.points]
    assert points_of(figure_csv.as_csv(found.plot)) == told


@example([{"reward_gain": 0.0, "held_out_prompts": False, "kl": 0.0}], ["0"], [0.0], 20)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(METRICS, max_size=4), st.lists(WORDS, min_size=1, max_size=3),
    st.lists(NUMBERS, min_size=1, max_size=3), st.integers(20, 140),
)  # fmt: skip
def test_every_figure_of_an_odd_workspace_can_be_read(
    metrics: list[Any], words: list[str], numbers: list[float], wide: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, open_database(Workspace(Path(folder) / "w").prepare()) as database:
        with database.transaction():
            fill(database, metrics, words, numbers, 6)  # too few for alpha, whose bootstrap takes long
        for figure in FIGURES:
            check(figure, figure.read(database), wide)


@given(
    st.lists(st.tuples(WORDS, FINITE, FINITE, st.booleans()), min_size=1, max_size=60), st.booleans(),
    st.integers(20, 140),
)  # fmt: skip
def test_any_plot_is_drawn_and_written(values: list[tuple[str, float, float, bool]], placed: bool, wide: int) -> None:
    places = tuple(f"{place} {name}" for place, (name, *_) in enumerate(values)) if placed else ()
    points = tuple(
        Point(float(place) if placed else x, y, *((y, max(y, x)) if bounded else (None, None)),
              places[place] if placed else name)
        for place, (name, x, y, bounded) in enumerate(values)
    )  # fmt: skip
    series = (
        (Series(values[0][0], points), Series("line", points[:2], "line")) if not placed else (Series("s", points),)
    )
    found = Found(Plot(values[0][0], "x", "y", series, 0.0, places), Table(("a",)))
    check(FIGURES[0], found, wide)


def run(workspace: Workspace, *arguments: str) -> int:
    return run_command(cli, ["insight", *arguments, "--workspace", str(workspace.root)])


@pytest.fixture
def filled(workspace: Workspace, database: Database) -> Workspace:
    gains = {"reward_gain": 0.5, "reward_gain_interval": [0.1, 0.9], "held_out_prompts": 8, "kl": 3.0,
             "reward_gain_by_language": {"sw": {"mean": 0.5, "low": 0.1, "high": 0.9, "n": 8}}}  # fmt: skip
    fill(database, [gains], ["वाक्पटुता", "العربية"], [0.25], 12)
    return workspace


def test_each_figure_is_printed_and_is_json(filled: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(filled) == 0
    page = capsys.readouterr().out
    for figure in FIGURES:
        assert f"{figure.title}\n" in page
    balance = next(figure for figure in FIGURES if figure.name == "balance")
    assert run(filled, "balance", "evaluation") == 0
    both = capsys.readouterr().out
    assert run(filled, "balance") == 0
    alone = capsys.readouterr().out
    with open_database(filled) as database:
        rows = len(balance.read(database).table.rows)
    assert f"and {rows - 12} more rows: workbench insight balance" in both
    assert "more rows" not in alone
    assert len(alone.splitlines()) > rows + len(balance.what) // 80
    assert run(filled, "balance", "frontier", "--json") == 0
    first, frontier = json.loads(capsys.readouterr().out)
    assert (first["figure"], frontier["figure"], frontier["files"]) == ("balance", "frontier", [])
    assert frontier["plot"]["series"][1]["points"] == [
        {"x": 3.0, "y": 0.5, "low": 0.1, "high": 0.9, "label": "v1", "n": 8}
    ]
    assert len(frontier["table"]["rows"][0]) == len(frontier["table"]["header"])


def test_pictures_and_csv_are_written_and_not_over_what_is_there(
    filled: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "pictures"
    forms = [part for form in ("--csv", "--svg", "--png") for part in (form, str(folder))]
    assert run(filled, *forms, "--json") == 0
    told = capsys.readouterr()
    files = [Path(file) for figure in json.loads(told.out) for file in figure["files"]]
    assert sorted(files) == sorted(folder.iterdir())
    assert {file.name for file in files} == {f"{name}.{form}" for name in NAMES for form in ("csv", "svg", "png")}
    assert f"wrote {folder / 'frontier.svg'}" in told.err
    for file in files:
        data = file.read_bytes()
        if file.suffix == ".svg":
            assert xml.fromstring(data).find(f"{SVG}title") is not None
        elif file.suffix == ".png":
            assert data.startswith(b"\x89PNG\r\n\x1a\n")
        else:
            assert points_of(data.decode())
    assert "वाक्पटुता العربية" in (folder / "evaluation.svg").read_text(encoding="utf-8"), "texts stay texts"
    (folder / "frontier.csv").write_text("mine")
    (folder / "frontier.svg").unlink()
    assert run(filled, "frontier", *forms) == 2
    assert "exists already" in capsys.readouterr().err
    assert (folder / "frontier.csv").read_text() == "mine"
    assert not (folder / "frontier.svg").exists(), "where one file is in the way, none is written"
    assert run(filled, "frontier", *forms, "--overwrite") == 0
    assert (folder / "frontier.csv").read_text().startswith("series,")


@given(st.lists(st.sampled_from("abcdef"), unique=True, min_size=2), st.booleans())
@settings(max_examples=10, deadline=None)
def test_every_dot_of_a_picture_has_its_own_interval(order: list[str], on_places: bool) -> None:
    """Also where the values of a series came in another order than that in which they stand."""
    pytest.importorskip("matplotlib")
    known = {name: (number, number - 0.1 * number, number + 0.2 * number) for number, name in enumerate("abcdef", 1)}
    placed = Placed("abcdef")
    placed.add("first", "all", 0.5)
    for name in order:
        placed.add("second", name, *known[name])
    plot = placed.plot("title", "x", "y")
    assert plot is not None
    plot = plot if on_places else structs.replace(plot, places=())
    *_, bars = figure_png.drawn(plot).axes[0].containers
    dots, _, (lines,) = bars
    along = 0 if on_places else 1
    seen = {
        round(float(dot), 6): tuple(round(float(end[along]), 6) for end in line)
        for dot, line in zip((dots.get_xdata(), dots.get_ydata())[along], lines.get_segments(), strict=True)
    }
    assert seen == {y: (round(low, 6), round(high, 6)) for y, low, high in (known[name] for name in order)}


def test_without_matplotlib_png_says_what_to_install_and_writes_nothing(
    filled: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(filled, "frontier", "--png", str(tmp_path / "p"), "--svg", str(tmp_path / "s")) == 2
    told = capsys.readouterr().err
    assert "alignment-workbench[plots]" in told
    assert "--svg needs nothing" in told
    assert not (tmp_path / "s").exists()
    assert run(filled, "frontier", "--svg", str(tmp_path / "s")) == 0


def test_an_empty_workspace_says_what_to_do(
    workspace: Workspace, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(workspace, "frontier", "--svg", str(tmp_path / "s")) == 0
    assert "frontier: nothing to draw: train a version" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    assert run(workspace) == 0
    assert capsys.readouterr().out.count("Nothing to draw: ") == len(FIGURES)
    assert run(workspace, "no-such-figure") == 2


def test_the_help_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli, ["insight", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in NAMES)
