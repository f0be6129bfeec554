"""How long an import and an export take, what memory they need, and how long an import keeps another writer waiting.

    python -m benchmarks.exchange [--records 20000 100000] [--json] [--save]

The records are scores, pairs, labels and demonstrations in ten languages, each with a prompt of its own. While
`workbench import` runs, a second process writes one setting after another, each in a transaction of its own that is
synced to disk, and keeps the times. The workspace holds as many ratings before, so that no index is empty.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measuring
from storage import settings
from storage.database import open_database
from storage.workspace import Workspace

LANGUAGES = ("en", "es", "fr", "de", "pt", "zh", "ar", "hi", "ja", "sw")
PAUSE = 0.005


def write_records(file: Path, count: int, name: str) -> None:
    """A file of `count` JSON lines; the prompts of another `name` are other prompts."""
    with file.open("w", encoding="utf-8") as out:
        for number in range(count):
            asked = f"{name}: what is the {number}th stone made of, and how did it come to lie in this river?"
            said = f"It is of kind {number % 97}, worn round by water over {number} years. " * 3
            common = {"prompt": asked, "language": LANGUAGES[number % len(LANGUAGES)], "rater": f"rater {number % 7}"}
            more: tuple[dict[str, Any], ...] = (
                {"response": said, "score": 1 + number % 5},
                {"chosen": said, "rejected": said[:40]},
                {"completion": said, "label": number % 3 == 0},
                {"completion": said},
            )
            out.write(json.dumps({**common, **more[number % len(more)]}, ensure_ascii=False) + "\n")


def write_for_ever(folder: str) -> None:
    """Another writer: prints how long each write took, in milliseconds, until it is ended."""
    with open_database(Workspace(Path(folder))) as database:
        while True:
            began = time.perf_counter()
            while True:
                try:
                    settings.put(database, "benchmark", began)
                    break
                except Exception as error:
                    if "locked" not in str(error):
                        raise
            print((time.perf_counter() - began) * 1000, flush=True)
            time.sleep(PAUSE)


def run(command: list[str]) -> tuple[float, float]:
    """Run `python -m ...` and tell its seconds and its largest memory, in MiB."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    told = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(told.decode())
    return time.perf_counter() - began, used.ru_maxrss / 1024


def measure(count: int) -> dict[str, Any]:
    """The figures for one size."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        root = str(place / "workspace")
        for name in ("before", "new"):
            write_records(place / f"{name}.jsonl", count, name)
        run(["workbench", "import", str(place / "before.jsonl"), "--workspace", root])
        writer = subprocess.Popen(
            [sys.executable, "-c", f"from benchmarks.exchange import write_for_ever; write_for_ever({root!r})"],
            stdout=(place / "waits").open("w"),
        )
        try:
            time.sleep(3)
            quiet = _waits(place)
            seconds, memory = run(["workbench", "import", str(place / "new.jsonl"), "--workspace", root])
            time.sleep(1)
            waits = _waits(place)[len(quiet) :]
        finally:
            writer.terminate()
            writer.wait()
        again, _ = run(["workbench", "import", str(place / "new.jsonl"), "--workspace", root])
        out, out_memory = run(["workbench", "export", "scores", str(place / "out.jsonl"), "--workspace", root])
        return {
            "records": count, "import_s": seconds, "import_mib": memory, "again_s": again,
            "longest_wait_ms": max(waits), "median_wait_ms": sorted(waits)[len(waits) // 2], "writes": len(waits),
            "longest_quiet_ms": max(quiet), "export_s": out, "export_mib": out_memory,
        }  # fmt: skip


def _waits(place: Path) -> list[float]:
    return [float(line) for line in (place / "waits").read_text(encoding="utf-8").split("\n")[:-1]]


def main() -> None:
    options = measuring.parser(__doc__)
    options.add_argument("--records", type=int, nargs="+", default=[20_000, 100_000])
    chosen = options.parse_args()
    found = [measure(count) for count in chosen.records]
    head = list(found[0])
    rows = [[one[name] for name in head] for one in found]
    measuring.finish("exchange", {"environment": measuring.environment(), "runs": found}, head, rows, chosen)


if __name__ == "__main__":
    main()
