"""The command `workbench`: alone it opens the app; with a command it works without a screen.

Commands are imported when they run, so that `workbench --help` and the app's first frame wait for none of them.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from storage import command_line
from storage.errors import UsageError
from storage.workspace import ENVIRONMENT_VARIABLE, Workspace

# Name: where the click command lives, and its line in `workbench --help`.
COMMANDS = {
    "generate": ("workbench.commands.generate:generate", "Sample answers and store them."),
    "chat": ("workbench.commands.chat:chat", "Talk to a model, a line a turn, and store what is said."),
    "import": ("workbench.commands.exchange:import_command", "Read prompts and feedback from a file."),
    "export": ("workbench.commands.exchange:export_command", "Write prompts and feedback to a file."),
    "export model": ("workbench.commands.export_model:export_model", "Write a version for other programs."),
    "packs": ("workbench.commands.packs:packs_command", "List the prompt packs that come with the program."),
    "packs add": ("workbench.commands.packs:packs_add", "Store the prompts of packs."),
    "outcome": ("workbench.commands.outcome:outcome", "Tell what came of an answer."),
    "stats": ("workbench.commands.stats:stats", "Count prompts, answers and ratings, by language."),
    "settings": ("workbench.commands.settings:settings_command", "Show or change a setting of the workspace."),
    "queue": ("workbench.commands.queue:queue", "Show what to review next, and why."),
    "raters": ("workbench.commands.raters:raters_command", "List who rates, in which languages, or introduce one."),
    "agreement": ("workbench.commands.agreement:agreement_command", "Show how far raters agree, and how each rates."),
    "insight": ("workbench.commands.insight:insight", "Draw figures of the workspace, or write them to files."),
    "versions": ("workbench.commands.versions:versions_command", "List the versions of the weights."),
    "publish": ("workbench.commands.versions:publish", "Serve a version from now on."),
    "rollback": ("workbench.commands.versions:rollback", "Go back to the version served before."),
    "report": ("workbench.commands.report:report", "Write one page of a version for a colleague."),
    "merge": ("workbench.commands.merge:merge_command", "Bring in what another workspace holds."),
    "backup": ("workbench.commands.backup:backup", "Copy the database to a new file and check the copy."),
    "doctor": ("workbench.commands.doctor:doctor", "Check the workspace and the installation."),
    "demo": ("workbench.commands.demo:demo", "Walk the whole loop with no hands, on the real model."),
    "serve": ("workbench.commands.serve:serve", "Open the app in a browser on this machine."),
    "keys": ("workbench.commands.keys:keys", "List every key of the app."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if " ".join(args[:2]) in COMMANDS:  # a name of two words
            args = [" ".join(args[:2]), *args[2:]]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--workspace", metavar="DIR", help=f"The folder of the project. Default: ${ENVIRONMENT_VARIABLE}, else "
              "the user's data folder.")  # fmt: skip
@click.option("--model", metavar="MODEL", help="From now on: smollm2, gemma, a folder, a GGUF file or a hub name.")
@click.version_option(package_name="alignment-workbench", prog_name="workbench")
@click.pass_context
def cli(context: click.Context, workspace: str | None, model: str | None) -> int | None:
    """Prompt, rate, train and hot-swap a local language model.

    Without a command, open the app.

    \b
    Examples:
      workbench                                  the app
      workbench --workspace ~/dialects           the app, on another project
      workbench --model owner/model              the app, with a model of the hub
      workbench import feedback.jsonl
      workbench generate --prompt "What is a glacier?" --count 4 --json
      workbench COMMAND --help                   the manual of one command

    Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage,
    130 interrupted.
    """
    given = {"workspace": workspace} | ({"model": model} if model else {})
    context.default_map = dict.fromkeys(COMMANDS, given)
    if context.invoked_subcommand is None:
        return open_app(command_line.works_on(Workspace.locate(workspace)), model)
    return None


def open_app(workspace: Workspace, model: str | None = None) -> int:
    """Open the app; returns the exit code. Raises UsageError where there is no terminal."""
    # It draws on either: `workbench 2>errors.txt` is the app, and the file gets what is said beside it.
    served = "TEXTUAL_DRIVER" in os.environ  # by `workbench serve`, to a page of a browser
    if not served and not (sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())):
        raise UsageError("the app needs a terminal", "run it in one, or use a command: `workbench --help` lists them")
    from workbench.shell.running import run

    return run(workspace, model)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command(cli, arguments))


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a click command; failures become a message and a hint on standard error. Returns the exit code."""
    return command_line.run(command, arguments, "workbench")
