"""The `trainer` command: learn from the ratings of a workspace, in the foreground, and leave the job in its database.

Data goes to standard output, narration and progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec

from storage.errors import UsageError, WorkbenchError
from storage.workspace import Workspace
from trainer.config import RunConfig
from trainer.options import configuration, options_of

Command = Callable[..., Any]


def main() -> None:
    """Run the command; failures are told on standard error, in words, with what to do."""
    # A result that is piped into a program which ends early is no error of ours.
    try:
        cli.main(standalone_mode=False, prog_name="trainer")
    except click.exceptions.Exit as ending:
        sys.exit(ending.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except WorkbenchError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Learn from ratings: fit a reward model, improve the policy, and publish what passes the gate.

    \b
    A first run, in a workspace with ratings:
      trainer run --steps 40
    Stop it with Ctrl-C and go on later:
      trainer resume JOB
    """


def common(command: Command) -> Command:
    """The options that every command has."""

    @click.option("--workspace", "workspace_option", metavar="DIR", help="the workspace folder  [default: the user's]")
    @click.option("--json", "as_json", is_flag=True, help="print one JSON document on standard output")
    @wraps(command)
    def wrapped(workspace_option: str | None, **options: Any) -> Any:
        return command(workspace=Workspace.locate(workspace_option), **options)

    return wrapped


def stage(command: Command) -> Command:
    """The options that every training stage has."""
    command = click.option("--job", "job_id", metavar="JOB", help="work on this queued job instead of a new one")(
        command
    )
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE.toml", help="read options from a file"
    )(command)


@cli.command()
@common
@stage
@options_of(RunConfig)
def run(workspace: Workspace, as_json: bool, job_id: str | None, config_file: Path | None, **given: Any) -> None:
    """The whole pipeline: reward model, policy, gate, publish.

    Learns from today's ratings of training prompts; held-out and ethics prompts are never trained on. The policy goes
    on from the served version. A candidate is published when its reward gain on held-out prompts is above zero beyond
    its 95% interval, its KL is in bounds, and nothing is infinite.

    \b
      trainer run --steps 40 --seed 1
      trainer run --config recipe.toml --json
    """
    _work(workspace, "run", RunConfig, job_id, config_file, given, as_json=as_json)


@cli.command()
@common
@click.argument("job")
def resume(workspace: Workspace, as_json: bool, job: str) -> None:
    """Go on with a paused, failed or abandoned JOB from its last checkpoint."""
    from storage import jobs
    from storage.database import open_database

    with open_database(workspace) as database:
        found = jobs.get(database, job)
    if found.kind not in STAGES:
        raise UsageError(
            f"job {job} is of kind {found.kind!r}, which this program does not know", "upgrade the program"
        )
    _work(workspace, found.kind, STAGES[found.kind], found.id, None, {}, as_json=as_json)


@cli.command()
@common
@click.argument("job")
def cancel(workspace: Workspace, as_json: bool, job: str) -> None:
    """Ask JOB to stop after its current step; it leaves a checkpoint to resume from."""
    from storage import jobs
    from storage.database import open_database

    with open_database(workspace) as database:
        found = jobs.request_cancel(database, job)
    if as_json:
        _print_json({"job": found.id, "kind": found.kind, "state": str(found.state), "step": found.step})
    else:
        print(f"{found.id} will stop after its current step; go on with `trainer resume {found.id}`", file=sys.stderr)


@cli.command("jobs")
@common
def list_jobs(workspace: Workspace, as_json: bool) -> None:
    """All jobs, newest first, with their state."""
    from storage import jobs
    from storage.database import open_database

    with open_database(workspace) as database:
        found = jobs.every(database)
    if as_json:
        _print_json(
            [
                {
                    "job": job.id, "kind": job.kind, "state": str(job.state), "stage": job.stage, "step": job.step,
                    "steps": job.steps, "error": job.error, "hint": job.hint, "created_at": job.created_at,
                    "finished_at": job.finished_at,
                }
                for job in found
            ]
        )  # fmt: skip
        return
    for job in found:
        state = "stalled" if job.state == "running" and not jobs.is_alive(job) else str(job.state)
        print(f"{job.id}  {job.kind:8} {state:8} {job.stage} {job.step}/{job.steps}  {job.error or ''}".rstrip())


STAGES: dict[str, type[msgspec.Struct]] = {"run": RunConfig}


def _work(
    workspace: Workspace,
    kind: str,
    config_kind: type[msgspec.Struct],
    job_id: str | None,
    config_file: Path | None,
    given: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Claim or create a job, do it, and print its summary."""
    from storage import jobs
    from storage.database import open_database

    with open_database(workspace) as database:
        stored = jobs.get(database, job_id).config if job_id else None
        config = configuration(config_kind, given, config_file, stored)
        # Torch and its friends come only now: wrong usage answers at once.
        from trainer import pipeline
        from trainer.job import HeldJob, claim, summary

        if job_id is None:
            assert isinstance(config, RunConfig)
            job_id = jobs.enqueue(database, kind, msgspec.to_builtins(config), steps=config.ppo.steps).id
        job = claim(database, job_id)
        assert job is not None
        held = HeldJob(workspace, database, job, quiet=not sys.stderr.isatty())
        try:
            result = held.run(lambda held: pipeline.run(held, config))  # type: ignore[arg-type]
        except WorkbenchError:
            if as_json:
                _print_json(summary(database, job.id, None))
            raise
        if as_json:
            _print_json(summary(database, job.id, result.get("version")))
        else:
            print(f"{result['version']}  {result['state']}  reward {result['reward_gain']:+.2f}  KL {result['kl']:.2f}")


def _print_json(document: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
