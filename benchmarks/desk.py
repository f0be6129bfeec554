"""How long a person waits at the desk, and who waits for whom, with a million ratings.

    python -m benchmarks.desk [--ratings 1000000] [--answers 100000] [--only NAMES] [--json] [--save]

The workspace (`benchmarks/desk_data.py`) is made once at schema 3 and migrated once for each schema; both are kept in
the work folder, and a run works on a copy. Times are p50 and p95 of the repetitions; what takes very long is repeated
less, and cut off after a minute, which is told as "at least". Exit code 1 when a goal is missed. Goals of times are
for p50, with a second one for p95 where there are two.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import desk_data, measuring, startup
from benchmarks.desk_data import RATER
from benchmarks.desk_terminal import KeyTimer
from benchmarks.rows import interruptible, write_json, write_lines
from storage import conversations, jobs, metrics
from storage.database import Database, open_database
from storage.exchange.exporting import KINDS
from storage.feedback import census, log, queue
from storage.feedback.stock import take_stock
from storage.schema.migrations import MIGRATIONS
from storage.workspace import Workspace
from workbench.shell import session
from workbench.shell.app import WorkbenchApp
from workbench.training.view import History, train_view

REPETITIONS = 30
PATIENCE = 60.0  # seconds that one measure may take
PAUSE = 0.2  # seconds between two keys: what the app does after a key is done before the next one
SEARCHED = {"Latin": "en", "Chinese": "zh", "Arabic": "ar"}
FLAT = 64.0  # MB that an export of everything may use beyond one of nothing
TRAIN_SIZE = (120, 40)


@dataclass(frozen=True)
class Figure:
    """One line of the table; `p95` is None where there is one figure only."""

    name: str
    unit: str
    goal: tuple[float, ...]
    p50: float
    p95: float | None
    n: int
    at_least: bool = False

    @property
    def met(self) -> bool:
        found = (self.p50, self.p50 if self.p95 is None else self.p95)
        return not self.at_least and all(value <= goal for value, goal in zip(found, self.goal, strict=False))


class Bench:
    """The measures, each a method that yields figures; the order is that of the table."""

    def __init__(self, work: Path, ratings: int, answers: int, records: int) -> None:
        self.work = work
        self.records = records
        self.workspace = Workspace(work / "workspace")
        shutil.rmtree(self.workspace.root, ignore_errors=True)
        self.workspace.prepare()
        kept = migrated(work / f"{ratings}-{answers}", ratings, answers)
        self.migration = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))["seconds"]
        shutil.copyfile(kept, self.workspace.database)
        with open_database(self.workspace) as database:
            chosen = session.Session(model=str(work / "no-model"), screen="review", rater=RATER)
            session.save(database, chosen)

    def migrate(self) -> Iterator[Figure]:
        """The first opening by this release, a backup included."""
        yield Figure("migration from schema 3", "s", (), self.migration, None, 1)

    def paint(self) -> Iterator[Figure]:
        """The command to the first painted frame."""
        yield times("first paint", (600,), lambda: startup.first_frame(self.workspace.root), 5)

    def key(self) -> Iterator[Figure]:
        """A key on Review to the next item painted, after the commit."""
        yield self._key("key to next item, idle", (30, 50))
        with every_core_busy():
            yield self._key("key to next item, every core busy", (60, 100))

    def _key(self, name: str, goal: tuple[float, ...]) -> Figure:
        timer = KeyTimer([sys.executable, "-m", "benchmarks.engineless", str(self.workspace.root)])
        try:
            timer.until_painted(5 * PATIENCE)
            return times(name, goal, lambda: timer.next_item(PATIENCE, PAUSE))
        finally:
            timer.close()

    def queue(self) -> Iterator[Figure]:
        """What to review next."""
        with open_database(self.workspace) as database:
            began = log.position(database)
            yield times(
                "queue, 40 items", (10,), clocked(partial(queue.next_items, database, RATER, 40, session_start=began))
            )

    def search(self) -> Iterator[Figure]:
        """The history of prompts, by a rare phrase of three scripts: all of it has to be searched."""
        with open_database(self.workspace) as database:
            for script, language in SEARCHED.items():
                pieces = desk_data.words()[language]
                phrase = ("" if language == "zh" else " ").join((pieces[8], pieces[30]))
                yield times(
                    f"search, {script}", (100,),
                    clocked(lambda phrase=phrase: conversations.recent(database, 200, phrase)),
                )  # fmt: skip

    def census(self) -> Iterator[Figure]:
        """Every count that a screen or `stats` shows."""
        with open_database(self.workspace) as database:
            for name, count in counts(database).items():
                yield times(f"count: {name}", (10,), clocked(count))

    def undo(self) -> Iterator[Figure]:
        """Taking ratings back, one after another."""
        with open_database(self.workspace) as database:
            yield times("undo", (5,), clocked(lambda: log.undo(database, RATER)))

    def train(self) -> Iterator[Figure]:
        """A redraw of Train after each step: what is read, and how long the event loop stands still for it."""
        width = TRAIN_SIZE[0] // 2
        with open_database(self.workspace) as database:
            history = History()
            read = clocked(partial(train_view, database, self.workspace, history, width))
            yield times("Train: first read", (), read, 1)

            def read_again() -> float:
                one_more_step(database)
                return read()

            yield times("Train redraw: read", (20,), read_again)
        yield figure("Train redraw: longest standstill of the app", (20,), asyncio.run(self._standstills()))

    async def _standstills(self) -> list[float]:
        """The longest time that anything kept the event loop, in each of some redraws, in seconds."""
        app = WorkbenchApp(self.workspace, start_engine=False)
        found: list[float] = []
        async with app.run_test(size=TRAIN_SIZE) as pilot:
            while app.desk is None or getattr(app.screen, "KEY", "") != "train":
                await pilot.press("f3")
            while getattr(app.screen, "view", None) is None:
                await pilot.pause(0.1)
            deadline = time.monotonic() + PATIENCE
            while len(found) < REPETITIONS and (not found or time.monotonic() < deadline):
                with open_database(self.workspace) as database:
                    one_more_step(database)
                await pilot.pause(PAUSE)  # the app's own look at what is new
                found.append(await self._standstill(app.screen))
        return found[1:] or found

    async def _standstill(self, screen: Any) -> float:
        before, longest, drawn_until = screen.view, 0.0, math.inf
        screen.drawn_at = 0.0  # however lately it did
        screen.look_again()
        while (began := time.perf_counter()) < drawn_until:
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)
            if screen.view is not before and math.isinf(drawn_until):
                drawn_until = time.perf_counter() + PAUSE  # plots are painted after what is read has come
        return longest

    def export(self) -> Iterator[Figure]:
        """Every kind of record to files, in a process each: the most memory that one used beyond an export of nothing,
        and the seconds of all."""
        empty = Workspace(self.work / "empty").prepare()
        open_database(empty).close()
        most, seconds = 0.0, 0.0
        for kind in KINDS:
            least = run_measured(["export", kind, str(self.work / "export.jsonl")], empty)[1]
            took, peak = run_measured(["export", kind, str(self.work / "export.jsonl")], self.workspace)
            most, seconds = max(most, peak - least), seconds + took
        yield Figure("export of everything, memory beyond none", "MB", (FLAT,), most, None, len(KINDS))
        yield Figure("export of everything", "s", (), seconds, None, 1)

    def imported(self) -> Iterator[Figure]:
        """What another writer waits while records are imported."""
        records = write_lines(self.work / "import.jsonl", import_records(self.records))
        writer = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.desk_writer", str(self.workspace.root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        seconds, _ = run_measured(["import", str(records)], self.workspace)
        writer.stdin.close()
        found = json.loads(writer.stdout.read())
        waits = found["longest"]
        yield Figure(
            f"longest wait of a writer while {self.records} are imported", "ms", (300,), 1000 * max(waits), None,
            found["stored"],
        )  # fmt: skip
        yield Figure(f"import of {self.records} records", "s", (), seconds, None, 1)


def migrated(folder: Path, ratings: int, answers: int) -> Path:
    """The large workspace at today's schema: made at schema 3 and migrated, each once. How long the migration took
    stands beside it."""
    made = folder / "workbench.db"
    if not made.exists():
        print("making the workspace", file=sys.stderr)
        desk_data.make(made, ratings, answers)
    steps = hashlib.sha256("".join(step.sql for step in MIGRATIONS).encode()).hexdigest()[:12]
    kept = folder / f"{steps}.db"
    if not kept.exists():
        print("migrating it", file=sys.stderr)
        workspace = Workspace(folder / "migrating")
        shutil.rmtree(workspace.root, ignore_errors=True)
        shutil.copyfile(made, workspace.prepare().database)
        began = time.perf_counter()
        open_database(workspace).close()
        write_json(kept.with_suffix(".json"), {"seconds": time.perf_counter() - began})
        workspace.database.rename(kept)
        shutil.rmtree(workspace.root)
    return kept


def counts(database: Database) -> dict[str, Callable[[], object]]:
    """Every count that a screen or `stats` shows, by where it stands."""
    return {
        "ratings in all (header)": partial(census.rated, database),
        "ratings by language (Review)": partial(census.ratings_by_language, database, RATER),
        "ratings by language and kind (Train)": partial(census.ratings_by_language_and_kind, database),
        "what there is to train on (Train)": partial(take_stock, database, "0" * 64),
        "stats": partial(census.summary, database),
    }


def one_more_step(database: Database) -> None:
    """The figures of another step of the job."""
    (job,) = jobs.every(database, 1)
    values = {key: metric.value or 0.0 for key, metric in metrics.latest(database, job.id).items()}
    step = 1 + database.scalar("SELECT max(step) FROM metrics WHERE job_id = ?", (job.id,))
    metrics.record(database, job.id, step, values)


def clocked(work: Callable[[], object]) -> Callable[[], float]:
    """A call that gives the seconds it took."""

    def timed() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return timed


def times(name: str, goal: tuple[float, ...], measure: Callable[[], float], most: int = REPETITIONS) -> Figure:
    """Measure again and again within a minute; `measure` gives seconds, or infinity where it gave up after a minute."""
    found: list[float] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < most and (not found or time.monotonic() < deadline):
        found.append(measure())
        if math.isinf(found[-1]):
            break
    if len(found) > 3:
        found = found[1:]  # the first one warms caches
    print(f"{name}: {1000 * statistics.median(found):.1f} ms", file=sys.stderr, flush=True)
    return figure(name, goal, found)


def figure(name: str, goal: tuple[float, ...], seconds: Sequence[float]) -> Figure:
    """Seconds as a line of the table, in ms."""
    at_least = any(map(math.isinf, seconds))
    ordered = sorted(PATIENCE if math.isinf(one) else one for one in seconds)
    p95 = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
    return Figure(name, "ms", goal, 1000 * statistics.median(ordered), 1000 * p95, len(ordered), at_least)


@contextmanager
def every_core_busy() -> Iterator[None]:
    """A busy loop for each core."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run_measured(arguments: list[str], workspace: Workspace) -> tuple[float, float]:
    """Run a command of `workbench`; its seconds, and the most memory it used in MB (10^6 bytes)."""
    line = [sys.executable, "-m", "workbench", *arguments, "--workspace", str(workspace.root)]
    began = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            peak = max(peak, int(found[1]) * 1024 / 1e6 if found else 0.0)
        except OSError:
            pass
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"workbench {' '.join(arguments)} failed:\n{said}")
    return seconds, peak


def import_records(count: int) -> Iterator[dict[str, Any]]:
    """Scores of four answers a prompt, in ten languages, none of them in the workspace."""
    words = desk_data.words()
    languages = list(words)
    for number in range(count):
        prompt = number // 4
        language = languages[prompt % len(languages)]
        said = words[language]
        start = number % len(said)
        yield {
            "prompt": f"{' '.join(said[start % 7 : start % 7 + 6])} (imported {prompt})", "language": language,
            "response": f"{number}: {' '.join(said[start : start + 12])}", "score": 1 + number % 5, "rater": "dana",
        }  # fmt: skip


MEASURES = ("migrate", "paint", "key", "queue", "search", "census", "train", "export", "undo", "imported")


def rows(figures: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[list[str]]:
    """The table: each figure with its goal, and what an earlier result says of the same."""
    earlier = {one["name"]: one for one in before}
    return [
        [
            one["name"], one["unit"], "/".join(f"{goal:g}" for goal in one["goal"]) or "-",
            _shown(earlier.get(one["name"])), _shown(one), str(one["n"]), {True: "", False: "missed"}[one["met"]],
        ]
        for one in figures
    ]  # fmt: skip


def _shown(one: dict[str, Any] | None) -> str:
    if one is None:
        return "-"
    parts = [one["p50"]] if one["p95"] is None else [one["p50"], one["p95"]]
    return ("at least " if one["at_least"] else "") + "/".join(_plain(part) for part in parts)


def _plain(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=int, default=1_000_000)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--import-records", type=int, default=100_000)
    parser.add_argument("--only", default=",".join(MEASURES), help=f"after commas: {', '.join(MEASURES)}")
    parser.add_argument("--before", type=Path, help="an earlier result to show beside this one")
    parser.add_argument("--work", type=Path, default=measuring.cache_folder() / "desk", help="keeps the workspace")
    parser.add_argument("--name", default="desk", help="of the saved result (default desk)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--save", action="store_true", help="write the result to benchmarks/results/")
    options = parser.parse_args()
    bench = Bench(options.work.absolute(), options.ratings, options.answers, options.import_records)
    figures: list[dict[str, Any]] = []
    for measure in options.only.split(","):
        for one in getattr(bench, measure)():
            figures.append({**asdict(one), "met": one.met})
    before = json.loads(options.before.read_text(encoding="utf-8"))["figures"] if options.before else []
    result = {"environment": measuring.environment(), "ratings": options.ratings, "answers": options.answers,
              "figures": figures}  # fmt: skip
    head = ("measured", "unit", "goal", "before", "now", "n", "")
    measuring.finish(options.name, result, head, rows(figures, before), options)
    if not all(one["met"] for one in figures):
        sys.exit(1)


if __name__ == "__main__":
    interruptible(main)
