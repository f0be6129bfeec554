"""The `trainer` command: learn from the ratings of a workspace, in the foreground, and leave the job in its database.

Data goes to standard output, narration and progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from storage.errors import UsageError, WorkbenchError
from storage.records import Job
from storage.workspace import Workspace
from trainer import looking, native
from trainer.config import (
    HindsightStage,
    IlqlStage,
    PpoStage,
    RewardStage,
    RunConfig,
    SftStage,
)
from trainer.options import common, configuration, options_of, print_json

if TYPE_CHECKING:
    from storage.database import Database

Command = Callable[..., Any]


def main() -> None:
    """Run the command; failures are told on standard error, in words, with what to do."""
    native.configure()
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
        _tell(error)
        sys.exit(error.exit_code)


def _tell(error: WorkbenchError) -> None:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr, flush=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Learn from the feedback in a workspace, and publish what passes the gate.

    \b
    Which stage?
      run          everything in its order; the one to begin with
      sft          you have demonstrations, or edits of answers
      reward       you want to look at the reward model before anything learns from it
      ppo          improve the policy against a reward, with a learned value
      rloo, grpo   the same with several answers a prompt and no value: simpler, as good for short answers
      reinforce    the same with one answer a prompt: the plainest
      ilql         learn from the logged ratings alone, without sampling
      hindsight    learn from all answers by what became of them, also from outcomes in words

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
    One stage after the other:
      trainer reward --epochs 3 --json
      trainer rloo --steps 60 --answers 4 --kl-target 6

    \b
    Scores as they are, without a reward model; all weights instead of an adapter:
      trainer ppo --reward-model table
      trainer ppo --tuning full --learning-rate 1e-5 --gradient-checkpointing

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


def for_jobs(command: Command) -> Command:
    """The options that every training stage has."""
    command = click.option("--job", "job_id", metavar="JOB", help="work on this queued job instead of a new one")(
        command
    )
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE.toml", help="read options from a file"
    )(command)


@dataclass(frozen=True)
class Stage:
    """One command that trains.

    Attributes:
        config: the class of its settings.
        own: the section of them whose options need no prefix.
        work: the function of `trainer.pipeline` that does it.
        defaults: what it changes in the defaults; options, a TOML file and a stored job go over it.
    """

    config: type[RewardStage]
    own: str
    work: str
    manual: str
    defaults: dict[str, Any] = field(default_factory=dict)


PASSES = "The candidate passes the gate and is published, or is kept as rejected, as with `trainer run`."
GATED = f"{PASSES} With --control shuffled or constant its ratings say nothing, and it is never published."
SHUFFLED = f"{PASSES} With --control shuffled its ratings say nothing, and it is never published."
PRICED = (
    "A reward counts as far as answers like those were rated, with the caution that its model was fitted with, and "
    "the judge fitted beside it says at the gate what was gained. Nothing is taken for a missing end unless "
    "--missing-eos-penalty says so."
)
STAGES = {
    "run": Stage(RunConfig, "ppo", "run", """The whole pipeline: demonstrations, reward model, policy, gate, publish.

    Learns from today's feedback on training prompts; held-out and ethics prompts are never trained on. The policy goes
    on from the served version. Demonstrations and edits are imitated first where there are enough of them. Of the rated
    prompts, 3 in 5 teach the reward and the others a judge. A candidate is published when the judge foretells ratings
    that it never saw, finds a gain on held-out prompts that is above zero with 95% and a loss in no language;
    when few answers are unlike those that were rated, the KL is in bounds, and nothing is infinite.

    Rewards are lowered by what is not known of them (--reward-caution), and nothing is taken for a missing end
    (--missing-eos-penalty 0). With --control shuffled or constant the ratings say nothing: it goes through every gate,
    to see what a run gains without them, and is never published.

    \b
      trainer run --steps 40 --seed 1
      trainer run --steps 40 --seed 1 --control shuffled
      trainer run --config recipe.toml --json
    """),
    "sft": Stage(SftStage, "sft", "imitate", f"""Supervised fine-tuning on demonstrations and edits.

    Use it when you can show better answers than the model gives. Imported demonstrations and the edits of raters are
    imitated, in balance over languages, none more than --most-repeats times. {GATED} Where no reward model and too few
    ratings exist to judge answers, the loss on demonstrations that were not learned from decides.

    \b
      trainer sft --steps 100 --learning-rate 2e-4
    """),
    "reward": Stage(RewardStage, "reward", "fit_reward", """Fit a reward model to today's ratings, and nothing more.

    Scores, labels, pairs, edits and tags are learned from jointly, with each rater's habits taken out. Beside it a
    judge for the gate is fitted to other prompts (--held-out of them), and each is measured on the ratings of the
    other. They are used by the next `trainer ppo`, `reinforce`, `rloo` or `grpo`, and by the gate of the other stages.

    \b
      trainer reward --epochs 4 --json
    """),
    "ppo": Stage(PpoStage, "ppo", "improve", f"""Improve the policy by PPO on the latest reward model.

    Advantages come from a learned value of every token. {PRICED} {GATED}

    \b
      trainer ppo --steps 40 --reward-model rm2
      trainer ppo --reward-model table
    """),
    "reinforce": Stage(PpoStage, "ppo", "improve", f"""Improve the policy by REINFORCE on the latest reward model.

    An answer's advantage is its reward less the mean of the round's other answers; there is no value model. {GATED}

    \b
      trainer reinforce --steps 40 --answers 1
    """, {"ppo": {"advantage": "reinforce", "epochs": 1}}),
    "rloo": Stage(PpoStage, "ppo", "improve", f"""Improve the policy by RLOO on the latest reward model.

    An answer's advantage is its reward less the mean of the other answers to the same prompt. {GATED}

    \b
      trainer rloo --steps 40 --answers 4
    """, {"ppo": {"advantage": "rloo"}}),
    "grpo": Stage(PpoStage, "ppo", "improve", f"""Improve the policy with GRPO's advantage on the latest reward model.

    As rloo, divided by the spread of the answers to the same prompt. {GATED}

    \b
      trainer grpo --steps 40 --answers 8
    """, {"ppo": {"advantage": "grpo"}}),
    "ilql": Stage(IlqlStage, "ilql", "learn_values", f"""Offline Q-learning from the logged ratings.

    Samples nothing: it learns the value of every token from the rated answers alone, and decodes by
    log pi + beta (Q - V). Use it when answers are dear and ratings exist already. {SHUFFLED}

    \b
      trainer ilql --steps 100 --beta 2
    """),
    "hindsight": Stage(HindsightStage, "hindsight", "look_back", f"""Learn from all answers by what became of them.

    Each prompt is relabelled with the outcome that its answer then had, and good and bad answers are learned from
    alike; the plain prompt means the best outcome. Use it for outcomes that are told after the fact. {SHUFFLED}

    \b
      trainer hindsight --relabelling chain
    """),
}  # fmt: skip


def _add_stage(name: str, stage: Stage) -> None:
    def work(workspace: Workspace, as_json: bool, job_id: str | None, config_file: Path | None, **given: Any) -> None:
        _work(workspace, name, job_id, config_file, given, as_json=as_json)

    command = common(for_jobs(options_of(stage.config, stage.own)(work)))
    cli.command(name, help=stage.manual)(command)


for _name, _stage in STAGES.items():
    _add_stage(_name, _stage)


@cli.command()
@common
@click.argument("job")
def resume(workspace: Workspace, as_json: bool, job: str) -> None:
    """Go on with a paused, failed or abandoned JOB from its last checkpoint."""
    _work(workspace, None, job, None, {}, as_json=as_json)


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
        print_json({"job": found.id, "kind": found.kind, "state": str(found.state), "step": found.step})
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


cli.add_command(looking.compare)
cli.add_command(looking.export_metrics)


def _work(
    workspace: Workspace,
    kind: str | None,
    job_id: str | None,
    config_file: Path | None,
    given: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Claim or create a job, do it, and print its summary. Of several processes only the main one does the last.

    Args:
        kind: a key of STAGES; None for that of the job.
    """
    from storage.database import open_database
    from trainer.processes import Processes

    processes = Processes.launched()
    opening: AbstractContextManager[Any] = open_database(workspace) if processes.main else nullcontext()
    with processes.together(_tell), opening as database:
        name, config, job = processes.share(lambda: _started(database, kind, job_id, config_file, given))
        # Torch and its friends come only now: wrong usage answers at once.
        from trainer import pipeline
        from trainer.job import HeldJob, summary

        held = HeldJob(workspace, database, job, quiet=not sys.stderr.isatty(), processes=processes)
        work = getattr(pipeline, STAGES[name].work)
        try:
            result = held.run(lambda held: work(held, config))
        except WorkbenchError:
            if as_json and processes.main:
                print_json(summary(database, job.id, None))
            raise
        if as_json and processes.main:
            print_json(summary(database, job.id, result.get("version")))
        elif processes.main:
            print(_sentence(result))


def _started(
    database: Database, kind: str | None, job_id: str | None, config_file: Path | None, given: dict[str, Any]
) -> tuple[str, RewardStage, Job]:
    """The stage, its configuration and the claimed job: a stored one, or a new one."""
    from storage import jobs
    from trainer.job import claim

    stored = jobs.get(database, job_id) if job_id else None
    name = kind or (stored.kind if stored else "")
    if name not in STAGES:
        raise UsageError(f"job {job_id} is of kind {name!r}, which this program does not know", "upgrade the program")
    stage = STAGES[name]
    config = configuration(stage.config, given, config_file, stored.config if stored else stage.defaults)
    found = stored or jobs.enqueue(database, name, msgspec.to_builtins(config), steps=steps_of(config, stage))
    job = claim(database, found.id)
    assert job is not None, "a named job is claimed or refused"
    return name, config, job


def _sentence(result: dict[str, Any]) -> str:
    """The result of a stage on one line."""
    if "version" not in result:
        return f"{result['reward_model']}  {result['sentence']}"
    gain = f"  reward {result['reward_gain']:+.2f}" if "reward_gain" in result else ""
    loss = f"  loss {-result['loss_gain']:+.3f}" if "loss_gain" in result else ""
    return f"{result['version']}  {result['state']}{gain}{loss}  KL {result['kl']:.2f}"


def steps_of(config: RewardStage, stage: Stage) -> int:
    """How many steps a configuration asks for; 0 where the number of ratings decides."""
    return getattr(getattr(config, stage.own), "steps", 0)
