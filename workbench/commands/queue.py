"""`workbench queue`: what to review next."""

from __future__ import annotations

import click

from storage.database import Database
from storage.feedback import mix
from storage.feedback import queue as review
from storage.feedback import selection as selecting
from storage.feedback.mix import Mix
from storage.feedback.selection import Selection
from workbench.commands.options import (
    json_option,
    language_option,
    opened,
    print_json,
    print_table,
    reading,
    say,
    workspace_option,
)
from workbench.shell import session


@click.command()
@click.option("--rater", "--for", default=None, help="Whose queue; what they answered stays hidden. Default: the rater "
              "that is set.")  # fmt: skip
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1))
@click.option("--language", multiple=True, help="Only this language; may be repeated.")
@click.option("--task", default="", help="Only prompts of this task.")
@click.option("--version", default="", help="Only answers of this version.")
@click.option("--tag", default="", help="Only prompts with an answer that was tagged so, such as harm or medical.")
@click.option("--text", default="", help="Only prompts in whose turns this stands.")
@click.option("--save", "save_as", metavar="NAME", help="Keep this query as a working set.")
@click.option("--set", "working_set", metavar="NAME", help="Only what a working set selects.")
@click.option("--everything", is_flag=True, help="Leave nothing out, whatever was chosen on Review.")
@click.option("--choose", is_flag=True, help="Let Review ask about this from now on, as `f` does there.")
@click.option("--forget", metavar="NAME", help="Keep a working set no longer.")
@click.option("--mix", "shares", metavar="SHARES", help="Other shares of the slices, such as acquisition=5,random=1.")
@click.option("--keep-mix", is_flag=True, help="Let the queue be mixed so from now on.")
@json_option
@workspace_option
def queue(
    rater: str | None,
    limit: int,
    language: tuple[str, ...],
    task: str,
    version: str,
    tag: str,
    text: str,
    save_as: str | None,
    working_set: str | None,
    everything: bool,
    choose: bool,
    forget: str | None,
    shares: str | None,
    keep_mix: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Show what to review next, and why.

    Single answers and blind pairs that the rater has not judged yet, in the languages that they read (see `workbench
    raters`), from those with the fewest ratings first. Which version said what is not shown: pairs are judged blind.

    Without a query it is of what was chosen on Review (`f`), and says so; a query or --everything holds in its place.

    The queue is mixed of slices: acquisition (what teaches the reward model most), random (what unbiased figures are
    of), versions (old against new, drawn by lot), overlap (judged by others), gold (its right judgement is known) and
    repeat (judged by the rater before).

    \b
    Examples:
      workbench queue
      workbench queue --for amina --limit 50 --json
      workbench queue --language sw --task medicine --save clinic
      workbench queue --set clinic --choose
      workbench queue --mix acquisition=8,random=2 --keep-mix
    """
    typed = Selection(tuple(language_option(one) for one in language), task, version, tag, text)
    if everything and (typed != Selection() or working_set is not None):
        raise click.UsageError("--everything leaves nothing out: name no query beside it")
    asked = Mix.read(shares) if shares is not None else None
    writes = bool(save_as or forget or keep_mix or choose)
    with opened(workspace) if writes else reading(workspace) as (_, database):
        with database.transaction() if writes else database.snapshot():
            wanted = _wanted(database, typed, working_set, everything)
            _keep(database, wanted, save_as, forget, asked if keep_mix else None)
            if choose:
                selecting.activate(database, wanted)
                say(f"Review asks about {wanted.words or 'everything'}")
        rater = rater or session.load(database).rater
        items = review.next_items(database, rater, limit, selection=wanted, shares=asked)
    if as_json:
        print_json(
            [
                {
                    "kind": item.kind,
                    "language": item.prompt.language,
                    "prompt": item.prompt.written,
                    "texts": [sample.text for sample in item.shown],
                    "samples": [sample.id for sample in item.shown],
                    "old_against_new": item.old_against_new,
                    "why": item.why,
                    "slice": item.slice,
                }
                for item in items
            ]
        )
        return
    print_table(
        ["slice", "kind", "language", "prompt", "why"],
        [(item.slice, item.kind, item.prompt.language, item.prompt.text, item.why) for item in items],
    )
    if not items:
        what = f" of {wanted.words}" if wanted.words else ""
        say(f"nothing{what} is left to review: `workbench generate` makes new answers")


def _wanted(database: Database, typed: Selection, working_set: str | None, everything: bool) -> Selection:
    """What is asked about: a working set, what is typed, or, where there is neither, what was chosen on Review."""
    if working_set is not None:
        return _both(selecting.named(database, working_set), typed)
    if everything or typed != Selection():
        return typed
    chosen = selecting.active(database)
    if chosen.words:
        say(f"of {chosen.words}, as chosen on Review; --everything leaves nothing out")
    return chosen


def _keep(database: Database, wanted: Selection, save_as: str | None, forget: str | None, asked: Mix | None) -> None:
    """Store what is to be kept."""
    if forget:
        selecting.forget(database, forget)
        say(f"the working set {forget} is forgotten")
    if save_as:
        selecting.save(database, save_as, wanted)
        say(f"the working set {save_as} is {wanted.words or 'everything'}")
    if asked is not None:
        mix.save(database, asked)
        say(f"the queue is mixed of {asked.written}")


def _both(saved: Selection, typed: Selection) -> Selection:
    """A working set, with what is typed beside it in the place of its own."""
    return Selection(
        typed.languages or saved.languages, typed.task or saved.task, typed.version or saved.version,
        typed.tag or saved.tag, typed.text or saved.text,
    )  # fmt: skip
