"""Two apps, an engine, a trainer, imports, exports and backups on one workspace, and everything that can go wrong.

    python -m benchmarks.chaos [--kills 1000] [--seed 0] [--longest-lock 60] [--targets NAMES] [--work DIR] [--json]

The real programs run on a tiny model. Both apps are rated by keys under pseudo-terminals without a pause; one asks its
engine as well, whose weights the trainer replaces. In each round one process is killed (SIGKILL) at a random moment,
often while the write lock is held by somebody for 1 to 60 s, another process stands still (SIGSTOP), the clock of all
steps by hours, the disk of one is full, or its writes fail with an input/output error. Afterwards what was promised is
checked: above all, that every rating that a screen called saved is in the database.

It can be interrupted: the same command goes on with the round it was in. Exit code 1 when anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks import measuring
from benchmarks.chaos_app import ANY, Person, Rated
from benchmarks.chaos_checks import anywhere, stored, unsound
from benchmarks.chaos_commands import Command
from benchmarks.chaos_faults import BROKEN, FULL, SLOTS, Faults, Lock, stand_still
from benchmarks.chaos_state import State, add_items
from benchmarks.chaos_trainer import Trainer
from benchmarks.rows import interruptible
from storage.database import open_database
from storage.exchange.importing import import_file
from storage.records import Sampling
from storage.workspace import Workspace
from tests.feedback import write_feedback
from tests.tiny_model import make_tiny_model
from workbench.shell import session

TARGETS = {"app": 5, "second app": 5, "engine": 3, "trainer": 3, "import": 3, "export": 1, "backup": 1}
FAULTS = {"none": 7, "lock": 5, "stop": 2, "clock": 2, "full disk": 2, "i/o error": 2}
FINDINGS = ("lost rating", "traceback", "dead app", "hung app", "broken promise", "unsound database")
ITEMS, MORE_ITEMS = 600, 100  # prompts to review at first, and added every so many rounds
EVERY_CHECK, EVERY_DOCTOR = 5, 50  # rounds
PATIENCE = 120.0  # seconds that anything may take on a busy machine, beyond the longest lock


class Chaos:
    """The workspace, all who work on it, and the hand that kills them."""

    def __init__(self, work: Path, seed: int, longest_lock: float, targets: list[str]) -> None:
        self.work = work
        self.seed = seed
        self.longest_lock = longest_lock
        self.targets = targets
        self.patience = PATIENCE + longest_lock
        work.mkdir(parents=True, exist_ok=True)
        self.workspace = Workspace(work / "workspace").prepare()
        self._end_left_over()
        self.state = State(work / "state.json")
        self.ledger = work / "acknowledged.jsonl"
        self.ledger.touch()
        self.faults = Faults(work, work)
        self.lost: Counter[Rated] = Counter()
        self._telling = threading.Lock()
        self.model = work / "tiny"
        if {"engine", "trainer"} & {*targets} and not (self.model / "config.json").exists():
            make_tiny_model(self.model)
        if not self.workspace.database.exists():
            self._furnish()
        people = [name for name in ("app", "second app") if name in targets or (name == "app" and "engine" in targets)]
        self.people = {
            name: Person(name, self.workspace, self.faults, self.ledger, self.tell, self.patience,
                         with_engine=name == "app" and "engine" in targets)
            for name in people
        }  # fmt: skip
        self.trainer = Trainer(self.workspace, self.model, self.faults.environment("trainer"), self.tell)

    def run(self, kills: int, say: Callable[[str], None]) -> None:
        """Kill until so many are dead, an interrupted run's included; at the end everything is closed."""
        try:
            for person in self.people.values():
                person.start()
            for person in self.people.values():
                self._until(lambda person=person: person.starts, f"{person.name} paints")
            while self.state.kills.total() < kills:
                say(self._round())
            self._end()
        finally:
            self.trainer.close()
            for person in self.people.values():
                person.stop()
            self.state.save()

    # A round

    def _round(self) -> str:
        """One kill, what goes wrong beside it, and what must hold afterwards; returns a line about it."""
        chance = random.Random(f"{self.seed}/{self.state.rounds}")
        target = chance.choices(self.targets, [TARGETS[name] for name in self.targets])[0]
        fault = chance.choices(list(FAULTS), FAULTS.values())[0]
        began = time.monotonic()
        saved, found = self._saved(), self.state.found.total()
        if "trainer" in self.targets:
            self.trainer.tend(faulted=self.state.faulted)
        self.state.faulted = fault != "none"
        told, end = self._begin_fault(fault, target, chance)
        time.sleep(chance.uniform(0, 1.5))
        doing = " lives on"
        try:
            doing = self._kill(target, chance)
            self.state.kills[target] += 1
            end()
            self._recovers(target)
        except AssertionError as error:
            self.tell("broken promise", f"{target}: {error}")
            end()
        self.state.rounds += 1
        self.state.faults[fault] += 1
        if self.state.rounds % EVERY_CHECK == 0:
            self._furnish_more()
        self.check(deep=self.state.rounds % EVERY_CHECK == 0)
        if self.state.rounds % EVERY_DOCTOR == 0:
            self._doctor()
        self.state.seconds += time.monotonic() - began
        self.state.save()
        return (
            f"{self.state.kills.total():>5} {target + doing:<28} {told:<26} {time.monotonic() - began:5.1f} s"
            f"  saved {self._saved() - saved:>3}  found {self.state.found.total() - found}"
        )

    def _begin_fault(self, fault: str, target: str, chance: random.Random) -> tuple[str, Callable[[], None]]:
        """Let something go wrong; returns words for it and what ends it."""
        match fault:
            case "lock":
                seconds = min(self.longest_lock, 60 ** chance.random())
                lock = Lock(self.workspace, seconds)
                return f"lock {seconds:.0f} s", lock.join
            case "stop":
                pids = {name: person.pid for name, person in self.people.items()}
                if self.trainer.is_running and self.trainer.process is not None:
                    pids["trainer"] = self.trainer.process.pid
                name = chance.choice(list(pids))
                seconds = min(self.longest_lock, 20 ** chance.random())
                timer = stand_still(pids[name], seconds)
                return f"{name} stands {seconds:.0f} s", timer.join
            case "clock" if not self.faults.missing:
                hours = chance.uniform(-12, 12)
                self.faults.set_clock(3600 * hours)
                return f"clock {hours:+.1f} h", lambda: None
            case "full disk" | "i/o error" if not self.faults.missing:
                slot = chance.choice(list(SLOTS))
                error = FULL if fault == "full disk" else BROKEN
                after = int(60 ** chance.random()) - 1
                if fault == "full disk":
                    self.faults.fail(slot, error, after)
                else:
                    self.faults.fail(slot, error, after, chance.randint(1, 4))
                return f"{fault}: {slot}, {after}", self._heal
        return "", lambda: None

    def _heal(self) -> None:
        time.sleep(1.0)  # for what is under way to run into it
        self.state.failed_calls += self.faults.heal()

    def _kill(self, target: str, chance: random.Random) -> str:
        """Kill a process; returns what it was doing."""
        if target in self.people:
            self._starts = self.people[target].starts
            self.people[target].kill()
            return ""
        if target == "engine":
            person = self.people["app"]
            self._until(lambda: _is_ready(person), "the header says ready")
            pid = self._until(person.engine_pid, "the app has an engine")
            os.kill(pid, signal.SIGKILL)
            self._engine = pid
            return ""
        if target == "trainer":
            for _ in range(3):
                self.trainer.tend(faulted=self.state.faulted)
                self._until(
                    lambda: self.trainer.holds_a_job() or not self.trainer.is_running, "the trainer takes a job"
                )
                time.sleep(chance.uniform(0, 4))
                if doing := self.trainer.kill():
                    return f", {doing}"
            raise AssertionError("the trainer ended by itself three times")
        self._command = Command(target, self.state.rounds, self.work, self.workspace, self.faults)
        for _ in range(3):
            self._command.start()
            time.sleep(chance.uniform(0, 1.5))
            if self._command.kill():
                break
        return ""

    def _recovers(self, target: str) -> None:
        """What must come about after a kill, with no fault in force but the clock."""
        if target in self.people:
            person = self.people[target]
            self._until(lambda: person.starts > self._starts, f"{target} starts again")
            saved = person.saved
            self._until(lambda: person.saved > saved, f"{target} rates again")
        elif target == "engine":
            person = self.people["app"]
            self._until(lambda: person.engine_pid() not in (None, self._engine), "another engine starts")
            self._until(lambda: _is_ready(person), "the header says ready")
            prompt = f"Why do ships float? {self._engine}-{self.state.rounds}"
            person.ask(prompt)
            self._until(lambda: self._is_answered(prompt), "a prompt is answered")
        elif target == "trainer":
            self.trainer.tend(faulted=self.state.faulted)
        else:
            for problem in self._command.look():
                self.tell("broken promise", f"{target}: {problem}")
            self._command.run()  # once more, unharmed
            for kind, problem in self._command.judge(faulted=False):
                self.tell(kind, f"{target}: {problem}")

    def _is_answered(self, prompt: str) -> bool:
        with open_database(self.workspace) as database:
            return bool(
                database.scalar(
                    "SELECT 1 FROM samples JOIN prompts ON prompts.id = prompt_id WHERE prompts.text = ?", (prompt,)
                )
            )

    def _until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something; what it gave. Raises AssertionError where it does not come about."""
        deadline = time.monotonic() + self.patience
        while not (found := condition()):
            if time.monotonic() > deadline:
                shown = "\n".join(f"-- {person.name}\n{person.screen}" for person in self.people.values())
                raise AssertionError(f"waited {self.patience:g} s in vain: {what}\n{shown}")
            time.sleep(0.1)
        return found

    # What must hold

    def check(self, *, deep: bool) -> None:
        """Nothing acknowledged is missing; the database is sound."""
        acknowledged = self._acknowledged()
        with open_database(self.workspace) as database:
            kept = stored(database)
            missing = Counter(one for one in acknowledged if one.item != ANY) - Counter(kept)
            missing |= (
                Counter(map(anywhere, acknowledged))
                - Counter(map(anywhere, kept))
                - Counter(map(anywhere, missing.elements()))
            )
            for rated in (missing - self.lost).elements():
                self.tell("lost rating", str(rated))
            self.lost |= missing
            if deep:
                for problem in unsound(database):
                    self.tell("unsound database", problem)

    def tell(self, kind: str, detail: str) -> None:
        """Note something that must not be."""
        with self._telling:
            self.state.found[kind] += 1
            with (self.work / "findings.jsonl").open("a", encoding="utf-8") as file:
                found = {"round": self.state.rounds, "kind": kind, "detail": detail}
                file.write(json.dumps(found, ensure_ascii=False) + "\n")

    def _doctor(self) -> None:
        line = [sys.executable, "-m", "workbench", "doctor", "--json", "--workspace", str(self.workspace.root)]
        said = subprocess.run(line, capture_output=True, text=True, check=False)
        try:
            failed = [one for one in json.loads(said.stdout) if one["status"] == "fail"]
        except ValueError:
            failed = [said.stderr]
        for one in failed:
            self.tell("unsound database", f"doctor: {one}")

    def _end(self) -> None:
        """Everybody leaves as a person would; then everything is looked at once more."""
        self.faults.heal()
        for name, person in self.people.items():
            person.leave()
            if person.exit_code != 0:
                self.tell("broken promise", f"{name} left with exit code {person.exit_code}")
        self.trainer.close()
        self.check(deep=True)
        self._doctor()
        for path in self.workspace.logs.rglob("*"):
            if path.is_file() and "Traceback" in (said := path.read_text(encoding="utf-8", errors="replace")):
                self.tell("traceback", f"{path.name}:\n{said[said.index('Traceback') :][:6000]}")

    # What there is to work on

    def _end_left_over(self) -> None:
        """Kill what an interrupted run has left at work in this workspace."""
        for process in psutil.process_iter():
            try:
                if str(self.workspace.root) in process.cmdline() and process.pid != os.getpid():
                    process.kill()
            except psutil.Error:
                continue

    def _furnish(self) -> None:
        """Feedback to train on, answers to review, and a session on the tiny model."""
        with open_database(self.workspace) as database:
            import_file(database, str(write_feedback(self.work / "feedback.jsonl")))
            add_items(database, ITEMS)
            chosen = session.Session(
                model=str(self.model), sampling=Sampling(max_new_tokens=24), rater="rater", screen="review"
            )
            session.save(database, chosen)

    def _furnish_more(self) -> None:
        with open_database(self.workspace) as database:
            add_items(database, MORE_ITEMS)

    def _acknowledged(self) -> list[Rated]:
        """Every rating that a screen called saved; a line that was cut off by an interruption is none."""
        found = []
        for line in self.ledger.read_text(encoding="utf-8").splitlines():
            try:
                found.append(Rated(*json.loads(line)))
            except ValueError:
                continue
        return found

    def _saved(self) -> int:
        return self.ledger.read_bytes().count(b"\n")


def _is_ready(person: Person) -> bool:
    return re.search("[●◉]", person.screen.partition("\n")[0]) is not None


def report(chaos: Chaos) -> dict[str, Any]:
    """The outcome as one JSON document."""
    state = chaos.state
    return {
        "environment": measuring.environment(),
        "seed": chaos.seed,
        "longest_lock": chaos.longest_lock,
        "left_out": chaos.faults.missing,
        "kills": dict(state.kills),
        "faults": dict(state.faults),
        "failed_calls": state.failed_calls,
        "acknowledged_ratings": len(chaos._acknowledged()),
        "jobs_done": chaos.trainer.done,
        "seconds": round(state.seconds),
        "found": {kind: state.found[kind] for kind in FINDINGS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="default 1000")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed and goes wrong (default 0)")
    parser.add_argument("--longest-lock", type=float, default=60.0, metavar="SECONDS", help="default 60")
    parser.add_argument("--targets", default=",".join(TARGETS), help=f"after commas (default {','.join(TARGETS)})")
    parser.add_argument("--work", type=Path, default=measuring.cache_folder() / "chaos", help="workspace and state")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--save", action="store_true", help="write result and log to benchmarks/results/")
    options = parser.parse_args()
    chaos = Chaos(options.work.absolute(), options.seed, options.longest_lock, options.targets.split(","))
    if chaos.faults.missing:
        print(f"no failing disks and no steps of the clock: {chaos.faults.missing}", file=sys.stderr)
    log_file = options.work / "log.txt"

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        with log_file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    chaos.run(options.kills, say)
    result = report(chaos)
    rows = [[kind, count] for kind, count in result["found"].items()]
    options.save and measuring.save("chaos", result).with_suffix(".log").write_text(
        log_file.read_text(encoding="utf-8"), encoding="utf-8"
    )
    if options.json:
        print(json.dumps({"benchmark": "chaos", **result}, indent=2))
    else:
        print(measuring.table(("found", "times"), rows))
        print(
            f"{sum(result['kills'].values())} kills, {result['acknowledged_ratings']} ratings acknowledged, "
            f"{result['failed_calls']} writes failed, {result['seconds']} s"
        )
    if chaos.state.found.total():
        print(f"what was found is in {options.work / 'findings.jsonl'}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    interruptible(main)
