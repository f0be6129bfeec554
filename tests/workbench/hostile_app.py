"""The real app on a workspace full of hostile text: run by `test_app_terminal.py` under a pseudo-terminal.

The engine's part is played by a timer that streams hostile text in pieces, one character at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from storage import conversations, jobs, metrics, samples, versions
from storage.database import open_database
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.shell.app import WorkbenchApp

HOSTILE = (
    "CANARY \x1b[666;1mred\x1b[0m \x1b]52;c;Q0FOQVJZ\x07 \x1b]8;;https://example.org\x1b\\x\x1b]8;;\x1b\\ "
    "\x9b31m\x9d0;title\x9c \u202egnippilf\u202c \u2066x\u2069 \x08\x7f\x0c\x0e "
    "[/INST] [bold]b[/bold] [@click=app.quit]q[/] ["
)
PIECES_A_SECOND = 400


def furnish(workspace: Workspace) -> None:
    """Hostile prompts, answers, metrics names, rollouts, logs, versions and errors."""
    with open_database(workspace) as database:
        base = versions.ensure_base(database, f"model {HOSTILE}", "0" * 64)
        for n in range(3):
            prompt = conversations.add(database, f"{n} {HOSTILE}", language=f"x-{HOSTILE}")
            samples.add(
                database,
                [samples.new(prompt.id, f"{k} {HOSTILE}", version="v0", finish_reason=HOSTILE) for k in range(2)],
            )
        gates = [{"gate": HOSTILE, "passed": False, "value": HOSTILE, "bound": 1, "detail": HOSTILE}]
        answer = {"prompt": HOSTILE, "language": HOSTILE, "before": HOSTILE, "after": HOSTILE}
        found = {
            HOSTILE: HOSTILE, "rests_on": HOSTILE, "reward_gain": None, "reward_gain_reason": HOSTILE,
            "reward_gain_by_language": {HOSTILE: {"mean": 1.0}}, "answers": [answer],
        }  # fmt: skip
        made = versions.add_candidate(
            database, base=base, parent="v0", file="versions/x", sha256="0" * 64, metrics=found
        )
        versions.record_gates(database, made.name, gates, {})
        done = jobs.enqueue(database, HOSTILE, {"seed": HOSTILE, HOSTILE: HOSTILE, "control": HOSTILE}, steps=10)
        held = jobs.claim(database, "worker", job_id=done.id)
        assert held is not None
        metrics.record(database, held.id, 1, {("objective/scores", None): 0.1})
        jobs.finish(database, held, {"version": HOSTILE, "state": HOSTILE, **found})
        queued = jobs.enqueue(database, "run", {}, steps=10)
        job = jobs.claim(database, "worker", job_id=queued.id)
        assert job is not None
        for step in (1, 2, 3):
            values = {("objective/scores", None): 0.1 * step, ("objective/scores", HOSTILE): 0.2 * step,
                      ("objective/kl", None): 1.0 * step}  # fmt: skip
            metrics.record(database, job.id, step, values)
        metrics.add_rollouts(database, [metrics.new_rollout(job.id, 3, HOSTILE, HOSTILE, HOSTILE, 1.0, 1.0, 3)])
        jobs.progress(database, job, stage=f"policy {HOSTILE}", step=3, steps=10)
        jobs.set_log(database, job.id, "logs/hostile.log")
        (workspace.logs / "hostile.log").write_text(f"log {HOSTILE}\n" * 20, encoding="utf-8")
        jobs.fail(database, job, f"error {HOSTILE}", f"hint {HOSTILE}")


class HostileApp(WorkbenchApp):
    """The app, whose engine says the corpus to whatever is asked."""

    def on_ready(self) -> None:
        self.spoken = 0
        self.set_timer(1.0, self.begin)

    def begin(self) -> None:
        self.hear(protocol.Progress("convert", HOSTILE, 0.5))
        self.hear(protocol.Ready(HOSTILE, "v0", HOSTILE, HOSTILE, 1, 1, 1.0))
        self.hear(protocol.Failed("swap", HOSTILE, HOSTILE))
        self.set_interval(1 / PIECES_A_SECOND, self.speak)

    def speak(self) -> None:
        exchange = self.conversation.current
        if not self.conversation.is_writing or exchange is None:
            return
        request = exchange.ask.generate.request
        if self.spoken < len(HOSTILE):
            for n in (0, 1):
                self.hear(protocol.Text(request, n, HOSTILE[self.spoken], self.spoken))
            self.spoken += 1
            return
        for n in (0, 1):
            self.hear(protocol.Answer(request, n, HOSTILE, [1], HOSTILE, "v0", 1))
        self.hear(protocol.Done(request, 2, 1.0, 2.0))


def main(root: str) -> None:
    workspace = Workspace(Path(root)).prepare()
    furnish(workspace)
    HostileApp(workspace, start_engine=False).run()


if __name__ == "__main__":
    main(sys.argv[1])
