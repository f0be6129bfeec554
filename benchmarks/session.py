"""A session of judging on the real app, with the engine sampling ahead and every core busy.

    python -m benchmarks.session [--items 100] [--pace 1.5] [--model smollm2] [--json] [--save]

A few items wait at first; the others are answers that the engine samples while the items before them are judged, from
prompts in ten languages. Measured is the time from a key to the next item painted, in a pseudo-terminal, and how often
there was no next item yet. A busy loop for each core stands for the trainer. Exit code 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import select
import shutil
import statistics
import sys
import time
from pathlib import Path

from benchmarks import measuring
from benchmarks.desk import every_core_busy
from benchmarks.desk_terminal import PLACE, KeyTimer
from benchmarks.rows import interruptible
from storage import conversations, samples
from storage.database import Database, open_database
from storage.records import Sampling
from storage.workspace import Workspace
from workbench.shell import session

GOAL_P95 = 100.0  # ms
FIRST = 12  # items that wait when the session begins
LONGEST = 24  # tokens of an answer
LOADING = 300.0  # seconds that the engine may take to be ready
PATIENCE = 60.0  # seconds that one item may take to come
LANGUAGES = {
    "en": "What is {}?", "es": "¿Qué es {}?", "fr": "Qu'est-ce que {} ?", "de": "Was ist {}?", "pt": "O que é {}?",
    "zh": "{}是什么?", "ar": "ما هو {}؟", "hi": "{} क्या है?", "ja": "{}とは何ですか。", "sw": "{} ni nini?",
}  # fmt: skip
THINGS = ("ice", "salt", "a river", "bread", "the moon", "a bee", "glass", "a tree", "rain", "a song")
NOTHING = b"Nothing waits"
READY = re.compile(rb"tok/s|\xe2\x97\x8f \w+ v\d")  # the header of an engine that has loaded


class SessionTimer(KeyTimer):
    """The app on Review: any item whose number is painted is there."""

    waits = 0

    def until_ready(self, seconds: float) -> None:
        """Wait for the engine."""
        deadline, seen = time.monotonic() + seconds, b""
        while not READY.search(seen):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no engine within {seconds:g} s")
            if select.select([self.terminal], [], [], 1.0)[0]:
                seen += os.read(self.terminal, 65536)

    def _read_item(self, place: int | None, seconds: float) -> bool:
        deadline, seen, waited = time.monotonic() + seconds, b"", False
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.terminal], [], [], left)[0]:
                break
            seen += os.read(self.terminal, 65536)
            waited = waited or NOTHING in seen
            found = next((one for one in PLACE.finditer(seen) if place in (None, int(one[1]))), None)
            why = seen.find(b"why:", found.end()) if found else -1
            if found and why > 0:
                self.waits += waited
                self.place, self.is_pair = int(found[1]), b"blind" in seen[found.start() : why]
                return True
        self.waits += waited
        return False


def furnish(database: Database, items: int) -> None:
    """A few answers that wait, and prompts enough for the engine to make the rest."""
    wanted = [(language, words.format(thing)) for thing in THINGS for language, words in LANGUAGES.items()]
    for n, (language, text) in enumerate(wanted[: FIRST + items]):
        prompt = conversations.add(database, text, language=language)
        if n < FIRST:
            samples.add(database, [samples.new(prompt.id, f"{text} [{n}]", finish_reason="eos")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--pace", type=float, default=1.5, help="seconds that a person reads an item")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--idle", action="store_true", help="leave the cores to the app and the engine")
    parser.add_argument("--work", type=Path, default=measuring.cache_folder() / "session")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--save", action="store_true", help="write the result to benchmarks/results/")
    options = parser.parse_args()
    workspace = Workspace(options.work.absolute())
    workspace.database.unlink(missing_ok=True)
    for left in workspace.root.glob("workbench.db*"):
        left.unlink()
    shutil.rmtree(workspace.logs, ignore_errors=True)
    workspace.prepare()
    with open_database(workspace) as database:
        furnish(database, options.items)
        chosen = session.Session(
            model=options.model, screen="review", rater="ana", sampling=Sampling(max_new_tokens=LONGEST)
        )
        session.save(database, chosen)
    timer = SessionTimer([sys.executable, "-m", "workbench", "--workspace", str(workspace.root)])
    try:
        timer.until_painted(PATIENCE)
        timer.until_ready(LOADING)
        if options.idle:
            found = judged(timer, options.items, options.pace)
        else:
            with every_core_busy():
                found = judged(timer, options.items, options.pace)
    finally:
        timer.close()
    with open_database(workspace) as database:
        made = database.scalar("SELECT count(*) FROM samples WHERE version IS NOT NULL")
    ordered = sorted(found)
    p95 = 1000 * ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)]
    result = {
        "environment": measuring.environment(), "items": len(found), "pace_seconds": options.pace,
        "busy_cores": not options.idle, "key_to_next_item_p50_ms": 1000 * statistics.median(found),
        "key_to_next_item_p95_ms": p95, "longest_ms": 1000 * ordered[-1], "goal_p95_ms": GOAL_P95,
        "waited_for": timer.waits, "answers_sampled_ahead": made,
    }  # fmt: skip
    rows = [[name.replace("_", " "), f"{value:.1f}" if isinstance(value, float) else str(value)]
            for name, value in result.items() if name != "environment"]  # fmt: skip
    measuring.finish("session", result, ("measured", ""), rows, options)
    if p95 > GOAL_P95 or timer.waits:
        sys.exit(1)


def judged(timer: SessionTimer, items: int, pace: float) -> list[float]:
    """Judge items at a pace; the seconds from each key to the next item."""
    found: list[float] = []
    while len(found) < items:
        took = timer.next_item(PATIENCE, pace)
        if math.isinf(took):
            raise TimeoutError(f"no item within {PATIENCE:g} s, after {len(found)}")
        found.append(took)
    return found


if __name__ == "__main__":
    interruptible(main)
