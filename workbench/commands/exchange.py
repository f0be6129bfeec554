"""`workbench import` and `workbench export`: prompts and feedback as files."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click

from storage import languages
from storage.errors import UsageError
from storage.exchange import exporting, importing
from storage.exchange.examples import Example
from storage.exchange.layouts.entries import DEFAULT_RATER, DEFAULT_SCALE, Defaults
from storage.exchange.manifest import ENDING
from storage.wording import counted
from workbench.commands.foreign import as_option, map_option, reading_option
from workbench.commands.options import filled, json_option, language_option, print_json, reading, say, workspace_option
from workbench.commands.progress import progress
from workbench.text import one_line

_LONGEST_SHOWN = 120  # characters of a text in a dry run


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option(
    "--dry-run", is_flag=True, help="Check and count everything, show what three records become, store nothing."
)
@as_option
@map_option
@click.option("--language", default="und", show_default=True, help="Language of records that name none.")
@click.option("--rater", default=DEFAULT_RATER, show_default=True, help="Rater of records that name none.")
@click.option("--scale", nargs=2, type=float, default=DEFAULT_SCALE, show_default=True, metavar="LOW HIGH",
              help="Scale of scores that name none.")  # fmt: skip
@click.option("--skip-bad", is_flag=True, help="Leave out records that cannot be imported, and list them.")
@json_option
@workspace_option
def import_command(
    file: str,
    dry_run: bool,
    layout: str | None,
    names: tuple[str, ...],
    language: str,
    rater: str,
    scale: tuple[float, float],
    skip_bad: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Read prompts and feedback from FILE (- for standard input).

    JSONL, JSON, CSV, TSV or Parquet; text may end in .gz. What a record means is seen from its fields:

    \b
      prompt                              a prompt
      prompt, response, score, [scale]    a score, on [1, 5] unless scale says otherwise
      prompt, completion, label           good (true) or bad (false)
      prompt, chosen, rejected            a preference
      prompt, response, other_response,
        choice (a, b, tie, both-bad)      a comparison
      prompt, completion                  a demonstration
      prompt, response, tags              ethics and culture tags
      prompt, response, outcome,          what came of an answer: worked, failed or words, why, and
        [outcome_reason, outcome_score]   a score, on [1, 5] unless outcome_scale says otherwise
      {prompt: {response: score}}         a table of scores, as one JSON object

    Public layouts (HH-RLHF, ShareGPT, OASST, UltraFeedback, HelpSteer, SHP, PKU-SafeRLHF, KTO, Alpaca, LLaMA-Factory's
    rankings, arena battles, Argilla, TRL) are known by their fields, or named with --as; docs/data-formats.md says what
    becomes of each field. --map names fields that go by other names.

    Every record may also carry language, rater, system, task, split (train, held-out, ethics), attribute and id.
    Without a split, a hash of the text decides whether a new prompt is held out (`workbench settings`).
    A file goes in whole or not at all, even if the import is killed; nobody else waits for it. Bad records are listed
    with line, field and reason. What the workspace holds already is not stored twice.

    \b
    Examples:
      workbench import feedback.jsonl
      workbench import scores.csv --language sw --rater amina --dry-run
      workbench import battles.parquet --as arena --dry-run
      workbench import ratings.csv --map score=overall --map rater=annotator
      cat pairs.jsonl | workbench import -
    """
    defaults = Defaults(language_option(language), rater, scale)
    if scale[0] >= scale[1]:
        raise UsageError(f"--scale {scale[0]:g} {scale[1]:g}: the low end must come first", "for example --scale 0 1")
    how = reading_option(layout, names)
    with filled(workspace, keep=not dry_run) as database, progress("records") as bar:
        imported = importing.import_file(
            database, file, defaults, reading=how, skip_bad=skip_bad, dry_run=dry_run, progress=bar
        )
    if as_json:
        print_json(imported)
    else:
        for one in imported.examples:
            _show(one)
    kinds = ", ".join(f"{count} {kind}" for kind, count in imported.kinds.items())
    say(f"{'would import' if dry_run else 'imported'} {counted(imported.records, 'record')} ({kinds})")
    say(
        f"new: {counted(imported.prompts, 'prompt')}, {counted(imported.samples, 'answer')}, "
        f"{counted(imported.ratings, 'rating')}"
    )
    if imported.already_there:
        say(f"{counted(imported.already_there, 'record was', 'records were')} in the workspace already")
    if imported.replaced:
        say(
            f"{counted(imported.replaced, 'rating was', 'ratings were')} replaced by later ones "
            "of the same rater on the same answer"
        )
    for tag, other in imported.renamed_languages.items():
        say(f"{tag} ({languages.name_before(tag)}) is stored as {other} ({languages.name(other)})")
    for line in imported.skipped_because:
        say(f"left out: {one_line(line, 300)}")
    for name, count in imported.layouts.items():
        say(f"read as {name}: {count}")
    if imported.ignored_fields:
        say(f"fields not read: {one_line(', '.join(imported.ignored_fields), 1000)}")
    for theirs, ours in imported.could_be.items():
        say(f"{one_line(theirs)} could be the {ours}: --map {ours}={one_line(theirs)}")


def _show(example: Example) -> None:
    """What one record becomes, a line a record of our own; long texts are cut."""
    click.echo(f"record at line {example.line}, read as {example.layout}:")
    for record in example.becomes:
        click.echo(f"  {one_line(json.dumps(_cut(record), ensure_ascii=False), 2000)}")


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _cut(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_cut(one) for one in value]
    return value if not isinstance(value, str) or len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 3] + "..."


@click.command("export")
@click.argument("kind", metavar="KIND", type=click.Choice(list(exporting.KINDS)))
@click.argument("file", metavar="FILE")
@click.option("--manifest", is_flag=True, help="Write FILE.manifest.json as well: counts, digest, schema, command.")
@workspace_option
def export_command(kind: str, file: str, manifest: bool, workspace: str | None) -> None:
    """Write the records of KIND to FILE (- for standard output).

    \b
      preference   {prompt, chosen, rejected}          pairs with a winner
      unpaired     {prompt, completion, label}         good and bad answers
      sft          {prompt, completion}                demonstrations and edited answers
      scores       {prompt, response, score, scale}    scored answers
      prompts      {prompt, language, split, ...}      all prompts
      events       every rating event there ever was, undone ones included

    JSON lines, or what the end of FILE names: .json, .csv, .tsv or .parquet (the last three not for events); .gz
    compresses text. Ratings that were undone or replaced appear in
    events only. Every file imports again with `workbench import`. Held-out and ethics prompts are in the files too,
    marked by their split: leave those rows out when you train with other tools.

    \b
    Examples:
      workbench export preference pairs.jsonl
      workbench export scores scores.csv --manifest
      workbench export events - | gzip > log.jsonl.gz
    """
    with reading(workspace) as (_, database), progress("records") as bar:
        doing = f"writing {kind}"
        bar(doing)
        command = shlex.join(["workbench", "export", kind, file, "--manifest"]) if manifest else None
        written = exporting.export_file(database, kind, file, manifest=command, heard=lambda done: bar(doing, done))
    say(f"wrote {counted(written.records, 'record')} to {'standard output' if file == '-' else file}")
    if manifest:
        say(f"sha256 {written.sha256}, in {file}{ENDING}")
