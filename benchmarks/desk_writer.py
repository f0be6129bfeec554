"""Somebody who rates while others work: `python -m benchmarks.desk_writer DIR` stores a score every 20 ms.

It says `ready`, goes on until its standard input closes, and prints one JSON object: how many it stored, how many times
the workspace refused, and the seconds that each wait took which was among the longest.
"""

from __future__ import annotations

import json
import select
import sys
import time
from pathlib import Path

from benchmarks.desk_data import RATERS
from storage.database import open_database
from storage.feedback import log
from storage.workspace import Workspace

EVERY = 0.02  # seconds
RATER = RATERS[1]


def main() -> None:
    with open_database(Workspace(Path(sys.argv[1]))) as database:
        answers = [row["id"] for row in database.rows("SELECT id FROM samples LIMIT 1000")]
        waits, refused = [], 0
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], EVERY)[0]:
            began = time.perf_counter()
            while True:
                rating = log.score(answers[len(waits) % len(answers)], 3, RATER, source="simulated")
                try:
                    log.append(database, rating)
                    break
                except Exception:  # locked out for longer than the busy timeout: the wait goes on
                    refused += 1
            waits.append(time.perf_counter() - began)
    print(json.dumps({"stored": len(waits), "refused": refused, "longest": sorted(waits)[-200:]}))


if __name__ == "__main__":
    main()
