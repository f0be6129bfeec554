"""Kill the app, the engine and the trainer at random moments, and look for what was lost.

    python -m benchmarks.crash [--kills 50] [--seed 0] [--json] [--save]

The real app runs under a pseudo-terminal on a tiny model; prompts are typed and answers rated by keys without a pause,
while a real trainer learns, publishes, and the app swaps. One of the three processes is killed (SIGKILL) at a random
moment, and then everything that was promised is checked. Exit code 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks import measuring
from benchmarks.crash_app import App, Rated
from benchmarks.crash_trainer import Figures, Trainer
from storage import versions
from storage.backups import backup
from storage.database import Database, open_database
from storage.exchange.importing import import_file
from storage.feedback import log
from storage.records import Job, JobState
from storage.workspace import Workspace
from tests.feedback import write_feedback
from tests.terminal import Ended
from tests.tiny_model import make_tiny_model

TARGETS = ("app", "engine", "trainer")
LATEST = 5.0  # a kill comes at most this many seconds after the last one was checked,
LATEST_IN_STAGE = 1.5  # or, for the trainer, after it has come to a stage
STAGES = ("", "reward model", "policy", "policy")  # empty: whatever it does first
PATIENCE = 300.0


class Ledger:
    """What was checked after the kills, and what failed."""

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self.passed: Counter[tuple[str, str]] = Counter()
        self.checked: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        self.target = ""

    def check(self, what: str, holds: object, detail: object = "") -> None:
        """Note whether something that was promised holds after the kill of `target`."""
        self.checked[self.target, what] += 1
        if holds:
            self.passed[self.target, what] += 1
        else:
            self.failures.append(f"kill {self.kills.total()} ({self.target}): {what} does not hold: {detail}")
            print(self.failures[-1], file=sys.stderr, flush=True)

    def came(self, what: str, wait: Callable[[], object]) -> bool:
        """Check that something comes about; `wait` raises AssertionError or Ended when it does not."""
        try:
            wait()
        except (AssertionError, Ended) as error:
            self.check(what, False, error)
            return False
        self.check(what, True)
        return True


class Crashes:
    """The app, its engine and a trainer on one workspace, and the hand that kills them."""

    def __init__(self, workspace: Workspace, model: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.workspace = workspace
        self.ledger = Ledger()
        with open_database(workspace) as database:
            import_file(database, str(write_feedback(workspace.root / "feedback.jsonl")))
        self.app = App(workspace, model, self.random)
        self.trainer = Trainer(workspace, model)
        self.acknowledged: list[Rated] = []
        self.killed_in: Counter[str] = Counter()  # stages of the trainer

    def run(self, kills: int) -> None:
        """Kill as many times, about as often each, and check after each; at the end everything is closed."""
        targets = [TARGETS[n % len(TARGETS)] for n in range(kills)]
        self.random.shuffle(targets)
        try:
            self.app.start()
            self.app.until_ready()
            for number, target in enumerate(targets, 1):
                self.ledger.target = target
                self.ledger.kills[target] += 1
                began = time.monotonic()
                getattr(self, f"kill_{target}")()
                self.check_database()
                print(f"{number:>3}/{kills} {target:<8}{time.monotonic() - began:5.1f} s", file=sys.stderr, flush=True)
            self.end()
        except (AssertionError, Ended) as error:
            self.ledger.check("the work goes on", False, error)
        finally:
            self.app.close()
            self.trainer.close()

    def kill_app(self) -> None:
        """Kill the app at any moment, and at times once more while it starts; the next start must be clean."""
        engine = self.app.engine_pid()
        self.app.kill_after(self.random.uniform(0, LATEST))
        self.until_dead(lambda: self.rate_for(2 * LATEST))
        self.ledger.check("its engine ends with it", _ends(engine), f"process {engine} lives on")
        self.app.start()
        if self.random.random() < 0.2:
            self.app.kill_after(self.random.uniform(0, 3))
            self.until_dead(lambda: self.app.watch(2 * LATEST))
            self.app.start()
        self.ledger.came("next start paints", self.app.until_painted)
        self.ledger.came("header says ready again", self.app.until_ready)
        self.ledger.check("no traceback", b"Traceback" not in self.app.terminal.written, self.app.terminal.text)
        self.same_version()

    def kill_engine(self) -> None:
        """Kill the engine; the app must say so, start it again, and answer what was typed meanwhile."""
        self.rate_until(lambda: not self.app.mourns())  # an announcement of before has gone
        engine = self.app.engine_pid()
        self.app.kill_after(self.random.uniform(0, LATEST), engine)
        self.ledger.came("death announced", lambda: self.rate_until(self.app.mourns))
        self.ledger.check("dies of the kill", _ends(engine), f"process {engine} lives on")
        prompt = self.app.type_prompt()
        self.ledger.came("header says ready again", self.app.until_ready)
        self.ledger.came("prompt typed meanwhile answered", lambda: self.app.until_answered(prompt))
        self.same_version()

    def kill_trainer(self) -> None:
        """Kill the trainer at work on a job; another process must go on with it as if nothing had been."""
        stage = self.random.choice(STAGES)
        self.rate_until(lambda: self.trainer.works(self.ledger.check, stage))
        self.rate_for(self.random.uniform(0, LATEST_IN_STAGE), tend=False)
        job, before = self.trainer.kill()
        self.killed_in[job.stage or "preparing"] += 1
        self.goes_on("job picked up", job, before)

    def end(self) -> None:
        """Stop the trainer as a person would, let its job end, and leave the app by its key."""
        self.ledger.target = "(the end)"
        self.rate_until(lambda: self.trainer.works(self.ledger.check))
        self.goes_on("interrupted job goes on", *self.trainer.interrupt())
        self.rate_until(lambda: not self.trainer.is_running)
        self.trainer.settle(self.ledger.check)
        self.same_version()
        self.ledger.check("app leaves well", self.app.quit() == 0)
        self.check_database()

    def goes_on(self, what: str, job: Job, before: Figures) -> None:
        """Resume a job that was stopped, and check that it passes the step it stood at, with the same figures."""
        if job.state is JobState.DONE:  # it had ended a moment before
            self.trainer.done += 1
            return
        self.trainer.resume(job)
        if self.ledger.came(what, lambda: self.rate_until(lambda: self.trainer.has_passed(job, before))):
            for promise, holds, detail in self.trainer.compare(job.id, before):
                self.ledger.check(promise, holds, detail)

    def rate_for(self, seconds: float, *, tend: bool = True) -> None:
        """Ask and rate; unless told otherwise, a trainer that is done is started on the next job."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if tend:
                self.trainer.tend(self.ledger.check)
            self.app.rate_something()

    def rate_until(self, condition: Callable[[], object]) -> None:
        """Ask and rate until something holds. Raises AssertionError when it does not within five minutes."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain"
            self.app.rate_something()

    def until_dead(self, work: Callable[[], None]) -> None:
        """Go on with the app until the kill that is under way reaches it."""
        try:
            work()
        except Ended:
            pass
        self.app.close()

    def same_version(self) -> None:
        """The version in the header becomes the served one."""

        def follows() -> bool:
            with open_database(self.workspace) as database:
                served = versions.served(database)
            return served is not None and re.search(rf"\b{served.name}\b", self.app.header) is not None

        self.ledger.came("answers with the served version", lambda: self.rate_until(follows))

    def check_database(self) -> None:
        """Nothing acknowledged is missing, and the database is sound."""
        self.acknowledged += self.app.take_acknowledged()
        check = self.ledger.check
        with open_database(self.workspace) as database:
            missing = Counter(self.acknowledged) - Counter(_stored(database))
            check("acknowledged ratings kept", not missing, missing)
            verdict = database.rows("PRAGMA integrity_check")
            check("integrity_check ok", verdict == [{"integrity_check": "ok"}], verdict)
            broken = database.rows("PRAGMA foreign_key_check")
            check("foreign keys whole", not broken, broken)
            check("what counts equals a rebuild", _effects_equal_a_rebuild(database))


def _stored(database: Database) -> list[Rated]:
    """Every rating by hand in the database, as the screen acknowledged it."""
    found = database.rows(
        """SELECT ratings.kind = 'undo' AS undo, about.kind AS kind, about.value AS value, about.choice AS choice,
                  prompts.text AS prompt, samples.position AS position
           FROM ratings
           JOIN ratings AS about ON about.id = CASE ratings.kind WHEN 'undo' THEN ratings.supersedes ELSE ratings.id END
           JOIN samples ON samples.id = about.sample_id JOIN prompts ON prompts.id = samples.prompt_id
           WHERE ratings.source = 'human'"""
    )
    rated = []
    for row in found:
        value = f"{row['value']:g}" if row["choice"] is None else "tie" if row["choice"] == "tie" else None
        plain = Rated(row["prompt"], row["kind"], value or "ab"[row["position"]])
        rated.append(Rated(plain.prompt, "undo", f"{plain.kind} {plain.value}") if row["undo"] else plain)
    return rated


def _effects_equal_a_rebuild(database: Database) -> bool:
    """Make what counts anew in a copy, from the log alone, and compare."""
    query = "SELECT * FROM counted ORDER BY sequence"
    with tempfile.TemporaryDirectory() as folder:
        copy = Workspace(Path(folder))
        backup(database, copy.database)
        with open_database(copy) as copied:
            before = copied.rows(query)
            log.rebuild_effects(copied)
            return before == copied.rows(query)


def _ends(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends within some time; one that nobody has collected yet has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def report(crashes: Crashes, seconds: float) -> dict[str, Any]:
    """The outcome as one JSON document."""
    ledger = crashes.ledger
    return {
        "environment": measuring.environment(),
        "kills": dict(ledger.kills),
        "trainer_killed_in": dict(crashes.killed_in),
        "acknowledged_ratings": len(crashes.acknowledged),
        "jobs_done": crashes.trainer.done,
        "seconds": round(seconds),
        "checks": [
            {"killed": target, "check": what, "passed": ledger.passed[target, what], "of": count}
            for (target, what), count in sorted(ledger.checked.items())
        ],
        "failures": ledger.failures,
    }


def rows(result: dict[str, Any]) -> list[list[Any]]:
    """The lines of the table: who was killed how often, what was checked, how often it held."""
    kills, last, found = result["kills"], "", []
    for check in result["checks"]:
        target = check["killed"]
        found.append(
            [target, kills.get(target), check["check"], check["passed"], check["of"]]
            if target != last
            else ["", None, check["check"], check["passed"], check["of"]]
        )
        last = target
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="default 50")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of what is done meanwhile (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--save", action="store_true", help="write the result to benchmarks/results/")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    crashes = Crashes(Workspace(folder / "workspace").prepare(), make_tiny_model(folder / "tiny"), options.seed)
    began = time.monotonic()
    crashes.run(options.kills)
    result = report(crashes, time.monotonic() - began)
    measuring.finish("crash", result, ("killed", "times", "checked", "held", "of"), rows(result), options)
    print(
        f"{result['acknowledged_ratings']} ratings acknowledged, {result['jobs_done']} jobs done, "
        f"{len(result['failures'])} losses, {result['seconds']} s",
        file=sys.stderr,
    )
    if result["failures"]:
        print(f"the workspace is kept in {folder}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
