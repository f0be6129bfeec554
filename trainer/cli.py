"""The `trainer` command: learn from the ratings of a workspace, in the foreground, and leave the job in its database.

Data goes to standard output, narration and progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click
import msgspec

from storage import command_line
from storage.errors import UsageError, WorkbenchError
from storage.records import Job
from storage.workspace import Workspace
from trainer import evaluating, looking, native
from trainer.config import DeviceConfig, RewardStage
from trainer.declared import document
from trainer.explaining import command as explaining
from trainer.methods import METHODS
from trainer.methods.method import Method
from trainer.options import common, configuration, options_of, print_json

if TYPE_CHECKING:
    from storage.database import Database

Command = Callable[..., Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a failure is told on standard error, in words, with what to do, and exits with its code."""
    native.configure()
    if code := command_line.run(cli, arguments, "trainer"):
        sys.exit(code)


HELP = """Learn from the feedback in a workspace, and publish what passes the gate.

    \b
    Which stage?
STAGES

    \b
    A first run, in a workspace with ratings; Ctrl-C stops it with a checkpoint:
      trainer run --steps 40 --seed 1
      trainer jobs
      trainer resume JOB

    \b
    The same run on ratings that say nothing, and both beside each other; what one of them measured:
      trainer run --steps 40 --seed 1 --control shuffled
      trainer compare JOB JOB
      trainer export-metrics JOB --format csv

    \b
    What a stage would learn from, word for word; it trains nothing:
      trainer hindsight --show 5

    \b
    One stage after the other:
      trainer reward --epochs 3 --json
      trainer rloo --steps 60 --answers 4 --kl-target 6

    \b
    What a version does on suites for bias, over-refusal, local norms and tasks, beside its parent:
      trainer evaluate --version v3

    \b
    Why an answer is rewarded as it is, by token; what ratings a version came from:
      trainer explain SAMPLE
      trainer explain v3 --json
      trainer explain rm2

    \b
    Scores as they are, without a reward model; all weights instead of an adapter:
      trainer ppo --reward-model table
      trainer ppo --tuning full --learning-rate 1e-5 --gradient-checkpointing

    \b
    A reward of your own in Python, alone, or added to the learned one with a weight; FILE.py is run as your own code:
      trainer rloo --reward-model none --reward-function FILE.py:NAME
      trainer rloo --reward-function FILE.py:NAME=0.5 --reward-function language --reward-function length:10-40=2

    \b
    Ratings by a model, of what nobody has rated:
      trainer judge --dry-run
      trainer judge --endpoint http://127.0.0.1:8080/v1 --endpoint-model NAME

    \b
    On several GPUs or processes, each with its part of every minibatch:
      accelerate launch --multi_gpu -m trainer ppo --steps 40
    and where what is learned does not fit into one of them, each with its part of the weights as well:
      accelerate launch --use_fsdp -m trainer ppo --tuning full --learning-rate 1e-5

    Settings can come from a file (--config FILE.toml; its keys are the option names with underscores, in sections such
    as [ppo]); options go over it. Every stage leaves its job, metrics and results in the workspace's database. Data
    goes to standard output (--json prints one document), narration to standard error. Exit codes: 0 done, 1 failed,
    2 wrong usage, 130 interrupted.
    """


def _which(methods: Iterable[Method]) -> str:
    """When to choose which; methods that say the same of themselves stand on one line."""
    names: dict[str, list[str]] = {}
    for method in methods:
        names.setdefault(method.summary, []).append(method.name)
    return "\n".join(f"{', '.join(these):<12} {summary}" for summary, these in names.items())


@click.group(
    help=HELP.replace("STAGES", indent(_which(METHODS.values()), "      ")),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def cli() -> None:
    pass


def for_jobs(command: Command) -> Command:
    """The options that every training stage has."""
    command = click.option("--job", "job_id", metavar="JOB", help="work on this queued job instead of a new one")(
        command
    )
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE.toml", help="read options from a file"
    )(command)


def _add(method: Method) -> None:
    def work(
        workspace: Workspace,
        as_json: bool,
        job_id: str | None,
        config_file: Path | None,
        dry_run: bool = False,
        show: int | None = None,
        **given: Any,
    ) -> None:
        if dry_run:
            _plan(workspace, method, config_file, given, as_json=as_json)
        elif show is not None:
            _show(workspace, method, job_id, config_file, given, show, as_json=as_json)
        else:
            _work(workspace, method.name, job_id, config_file, given, as_json=as_json)

    command = common(for_jobs(options_of(method.settings, method.own)(work)))
    if method.plan is not None:
        command = click.option("--dry-run", is_flag=True, help="say what would be done, and do nothing")(command)
    if method.learns:
        shown = "print the first N examples to learn from; train nothing"
        command = click.option("--show", type=click.IntRange(min=1), metavar="N", help=shown)(command)
    cli.command(method.name, help=method.manual)(command)


for _method in METHODS.values():
    _add(_method)


@cli.command()
@common
@click.option(
    "--accept-reward-function", "changed", is_flag=True, help="go on with a reward function's file that has changed"
)
@click.argument("job")
def resume(workspace: Workspace, as_json: bool, changed: bool, job: str) -> None:
    """Go on with a paused, failed or abandoned JOB from its last checkpoint."""
    _work(workspace, None, job, None, {}, as_json=as_json, changed=changed)


@cli.command()
@common
@click.argument("job")
def cancel(workspace: Workspace, as_json: bool, job: str) -> None:
    """Ask JOB to stop after its current step; it leaves a checkpoint to resume from."""
    from storage import jobs
    from storage.database import open_database

    with open_database(workspace, create=False) as database:
        found = jobs.request_cancel(database, job)
    if as_json:
        print_json({"job": found.id, "kind": found.kind, "state": str(found.state), "step": found.step})
    else:
        print(f"{found.id} will stop after its current step; go on with `trainer resume {found.id}`", file=sys.stderr)


@cli.command("jobs")
@common
def list_jobs(workspace: Workspace, as_json: bool) -> None:
    """All jobs, newest first, with their state."""
    from storage import jobs
    from storage.database import read_database

    with read_database(workspace) as database:
        found = jobs.every(database)
    if as_json:
        print_json(
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


@cli.command("methods")
@common
def list_methods(workspace: Workspace, as_json: bool) -> None:
    """Every way of learning: what it is for, and with --json all its settings with their defaults and meaning.

    \b
      trainer methods
      trainer methods --json
    """
    if as_json:
        print_json([document(method) for method in METHODS.values()])
    else:
        print(_which(METHODS.values()))


cli.add_command(looking.compare)
cli.add_command(looking.export_metrics)
cli.add_command(evaluating.evaluate)
cli.add_command(explaining.explain)


def _show(
    workspace: Workspace,
    method: Method,
    job_id: str | None,
    config_file: Path | None,
    given: dict[str, Any],
    count: int,
    *,
    as_json: bool,
) -> None:
    """Print what would be learned from."""
    from storage import jobs
    from storage.database import read_database
    from trainer import comparing, preview

    with read_database(workspace) as database:
        stored = jobs.get(database, job_id).config if job_id else method.defaults
        config = configuration(method.settings, given, config_file, stored)
        assert isinstance(config, RewardStage), "only what learns has the option"
        found = preview.preview(workspace, database, method, config, count)
    print_json(found) if as_json else print(preview.page(found, comparing.width()))


def _work(
    workspace: Workspace,
    kind: str | None,
    job_id: str | None,
    config_file: Path | None,
    given: dict[str, Any],
    *,
    as_json: bool,
    changed: bool = False,
) -> None:
    """Claim or create a job, do it, and print its summary. Of several processes only the main one does the last.

    Args:
        kind: the name of a method; None for that of the job.
        changed: take the files of reward functions as they are now.
    """
    from storage.database import open_database
    from trainer.processes import Processes

    processes = Processes.launched()
    opening: AbstractContextManager[Any] = open_database(workspace, create=False) if processes.main else nullcontext()
    with processes.together(command_line.tell), opening as database:
        name, config, job = processes.share(lambda: _started(database, kind, job_id, config_file, given, changed))
        # Torch and its friends come only now: wrong usage answers at once.
        from trainer import pipeline
        from trainer.job import HeldJob, summary

        held = HeldJob(workspace, database, job, quiet=not sys.stderr.isatty(), processes=processes)
        try:
            result = held.run(lambda held: pipeline.work(held, METHODS[name], config))
        except WorkbenchError:
            if as_json and processes.main:
                print_json(summary(database, job.id, None))
            raise
        if as_json and processes.main:
            told = {field: result[field] for field in METHODS[name].tells if field in result}
            print_json(summary(database, job.id, result.get("version")) | told)
        elif processes.main:
            print(_sentence(result))


def _plan(
    workspace: Workspace, method: Method, config_file: Path | None, given: dict[str, Any], *, as_json: bool
) -> None:
    """Say what a job would do."""
    assert method.plan is not None, "only such methods have the option"
    config = configuration(method.settings, given, config_file, method.defaults)
    found = method.plan(workspace, method.ready(config, False))
    if as_json:
        print_json(found)
    else:
        print(found["sentence"])


def _started(
    database: Database,
    kind: str | None,
    job_id: str | None,
    config_file: Path | None,
    given: dict[str, Any],
    changed: bool,
) -> tuple[str, DeviceConfig, Job]:
    """The method's name, its configuration and the claimed job: a stored one, or a new one."""
    from storage import jobs
    from trainer.job import claim

    stored = jobs.get(database, job_id) if job_id else None
    name = kind or (stored.kind if stored else "")
    if name not in METHODS:
        raise UsageError(f"job {job_id} is of kind {name!r}, which this program does not know", "upgrade the program")
    method = METHODS[name]
    config = configuration(method.settings, given, config_file, stored.config if stored else method.defaults)
    config, own = method.ready(config, changed), config
    found = stored or jobs.enqueue(database, name, msgspec.to_builtins(config), steps=method.steps(config))
    job = claim(database, found.id)
    assert job is not None, "a named job is claimed or refused"
    if stored and config != own:  # it was queued without them, or they have changed
        jobs.set_config(database, found.id, msgspec.to_builtins(config))
    return name, config, job


def _sentence(result: dict[str, Any]) -> str:
    """The result of a stage in words."""
    if "version" not in result:
        return (
            f"{result['reward_model']}  {result['sentence']}" if "reward_model" in result else str(result["sentence"])
        )
    gain = f"  reward {result['reward_gain']:+.2f}" if "reward_gain" in result else ""
    loss = f"  loss {-result['loss_gain']:+.3f}" if "loss_gain" in result else ""
    return f"{result['version']}  {result['state']}{gain}{loss}  KL {result['kl']:.2f}"
