"""`trainer evaluate`: a version on suites for bias, over-refusal, local norms and tasks, beside the one before it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storage.command_line import INTERRUPTED, say
from storage.errors import UsageError
from storage.wording import counted
from storage.workspace import Workspace
from trainer.options import common, print_json

if TYPE_CHECKING:
    from storage.database import Database
    from storage.records import Evaluation, Version
    from trainer.evaluation.figures import Figure
    from trainer.evaluation.items import Item, Outcome
    from trainer.policy.models import ModelFolder

LAYOUTS = ("bbq", "mbbq", "crows", "rtp", "multijail", "xsafety")  # those of trainer/evaluation/layouts.py


def _listed(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> list[str]:
    """Names that are given one by one or with commas between them; an option without any is no option left out."""
    names = [name.strip() for one in given for name in one.split(",") if name.strip()]
    if given and not names:
        raise click.BadParameter("names nothing: leave the option out for all there are")
    return names


@click.command()
@common
@click.option("--version", "version_name", metavar="VERSION", help="what to measure  [default: the served version]")
@click.option("--against", metavar="VERSION", help="what to measure beside it  [default: its parent]")
@click.option("--alone", is_flag=True, help="measure nothing beside it")
@click.option("--suite", "suites", multiple=True, callback=_listed, metavar="NAME,...",
              help="bias, swaps, refusal, norms, toxicity or tasks  [default: all]")  # fmt: skip
@click.option("--languages", multiple=True, callback=_listed, metavar="TAG,...", help="[default: all there are]")
@click.option("--file", "file", metavar="FILE", help="a public test set, in place of the suites")
@click.option("--as", "layout", type=click.Choice(LAYOUTS), help="its layout  [default: known by its fields]")
@click.option("--file-language", metavar="TAG", help="its language, where its path does not say  [default: en]")
@click.option("--items", "most", type=click.IntRange(min=1), default=200, show_default=True,
              help="most items of FILE, chosen in a fixed order")  # fmt: skip
@click.option("--by-language", is_flag=True, help="show each language in the table")
@click.option("--answers-to", metavar="FILE.jsonl", help="write each item, what was chosen and what was answered")
@click.option("--overwrite", is_flag=True, help="replace FILE.jsonl where it exists")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="longest answer")
@click.option("--temperature", type=click.FloatRange(min=0), default=1.0, show_default=True, help="of the answers")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="of the answers")
@click.option("--model", metavar="MODEL", help="the base model, where it is not found by itself")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.option("--dtype", default="auto", show_default=True, help="bf16, fp16, fp32 or auto")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads; 0 takes all")
def evaluate(workspace: Workspace, as_json: bool, answers_to: str | None, overwrite: bool, by_language: bool,
             **given: Any) -> int:  # fmt: skip
    """Measure a version on suites for bias, over-refusal, local norms and tasks, per language.

    Both versions get the same items and seeds, so that what one gained over the other is told item by item, with a 95%
    interval. Figures are kept in the workspace, suite by suite: Ctrl-C leaves those that are measured. The items are
    never learned from. docs/evaluation.md says what each figure means, and what it does not.

    \b
      trainer evaluate
      trainer evaluate --version v3 --against v0 --suite bias,swaps --languages sw,ar --by-language
      trainer evaluate --suite refusal --answers-to answers.jsonl
      trainer evaluate --alone --json
      trainer evaluate --file BBQ/data/Age.jsonl
      trainer evaluate --file fr/Insult.csv --as xsafety
    """
    from storage import evaluations
    from storage.database import open_database
    from storage.writing import write_text

    items = _items(given)
    if answers_to and answers_to != "-" and Path(answers_to).exists() and not overwrite:
        raise UsageError(f"{answers_to} exists already", "name another file, or replace it with --overwrite")
    sides: dict[str, list[Outcome]] = {}
    rows: list[Evaluation] = []
    left = list(dict.fromkeys(item.suite for item in items))
    with open_database(workspace, create=False) as database:
        try:
            for found in _measured(workspace, database, items, given):
                measured = _rows(found)
                evaluations.add(database, measured)
                rows += measured
                for name, outcomes in found.items():
                    sides[name] = sides.get(name, []) + outcomes
                del left[0]
        except KeyboardInterrupt:
            if not rows:
                raise
            again = "" if given["file"] else f"; the rest by: --suite {','.join(left)}"
            say(f"interrupted; what was measured before is kept{again}")
    if answers_to:
        write_text(_lines(sides), answers_to, overwrite=overwrite)
    if as_json:
        print_json([_document(row) for row in rows])
    else:
        print("\n".join(_table(rows, list(sides), by_language=by_language)))
    return INTERRUPTED if left else 0


def _items(given: dict[str, Any]) -> list[Item]:
    """What is asked.

    Raises:
        UsageError: options that do not go together, no such suite, or a file that cannot be used.
    """
    from storage import languages
    from trainer.evaluation import layouts, suites

    if not given["file"]:
        if given["layout"] or given["file_language"]:
            raise UsageError("--as and --file-language are of a file", "name it: --file FILE")
        return suites.chosen(given["suites"], given["languages"])
    if given["suites"] or given["languages"]:
        raise UsageError("--suite and --languages are of the suites, and --file takes their place", "leave one out")
    try:
        language = given["file_language"] and languages.normal(given["file_language"])
    except languages.BadTagError as error:
        raise UsageError(f"--file-language {given['file_language']}: {error}", "en and sw are such tags") from None
    return layouts.read(Path(given["file"]), given["layout"], language, given["most"])


def _measured(
    workspace: Workspace, database: Database, items: Sequence[Item], given: dict[str, Any]
) -> Iterator[dict[str, list[Outcome]]]:
    """Suite by suite, what each version made of its items, by name: the version to measure first, then the one beside
    it."""
    import torch

    from storage import versions
    from storage.records import Sampling
    from trainer.evaluation.trying import attempt
    from trainer.policy import devices, models
    from trainer.policy.chat import ChatTokenizer
    from trainer.policy.decoding import Decoder

    if given["threads"]:
        torch.set_num_threads(given["threads"])
    devices.choose(given["device"], given["dtype"])
    folder, chosen = _chosen(workspace, database, given)
    device, dtype = devices.choose(given["device"], given["dtype"], models.stored_bytes(folder))
    sampling = Sampling(temperature=given["temperature"], max_new_tokens=given["max_new_tokens"])
    base = Decoder.load(folder.path, device, dtype)
    for version in chosen:
        versions.verify(workspace, version)
    for suite in dict.fromkeys(item.suite for item in items):
        own = [item for item in items if item.suite == suite]
        found = {}
        for version in chosen:
            tokenizer = ChatTokenizer.load(folder.path, versions.words_of(database, workspace, version))
            tokenizer.room = max(1, base.context - sampling.max_new_tokens)
            # Made anew for each suite: of versions with weights of their own only one is held at a time.
            decoder = base.with_version(versions.path_of(workspace, version))
            with _bar(f"{version.name}: {suite}", len(own)) as check:
                found[version.name] = attempt(decoder, tokenizer, own, sampling, given["seed"], check)
        yield found


def _chosen(workspace: Workspace, database: Database, given: dict[str, Any]) -> tuple[ModelFolder, list[Version]]:
    """The base model, and the versions to measure.

    Raises:
        UsageError: no such version, or one of another base model.
    """
    from storage import versions
    from trainer import adopting, handing_over
    from trainer.policy import models

    served = versions.get(database, given["version_name"]) if given["version_name"] else versions.served(database)
    if served is None:
        folder = models.resolve(given["model"] or "smollm2", workspace)
        served = adopting.root_of(database, workspace, folder)
    else:
        folder = handing_over.base_of(workspace, database, served, given["model"], lambda text, share: None)
    beside = None if given["alone"] else given["against"] or served.parent
    if beside is None or beside == served.name:
        return folder, [served]
    other = versions.get(database, beside)
    if other.base_digest != served.base_digest:
        raise UsageError(
            f"{other.name} is of another base model than {served.name}", "measure each by itself: --version, --alone"
        )
    return folder, [served, other]


@contextmanager
def _bar(name: str, count: int) -> Iterator[Callable[[int], None]]:
    """Progress on standard error: a bar where somebody watches, else a line when it is done."""
    from tqdm import tqdm

    quiet, began = not sys.stderr.isatty(), time.monotonic()
    with tqdm(total=count, desc=name, file=sys.stderr, dynamic_ncols=True, disable=quiet) as bar:
        yield lambda done: bar.update(done - bar.n) and None
    if quiet:
        say(f"{name}, {counted(count, 'item')} in {time.monotonic() - began:.0f} s")


def _rows(sides: dict[str, list[Outcome]]) -> list[Evaluation]:
    """The figures of each version, and then what the first gained over the second."""
    from trainer.evaluation.figures import figures, gains

    found = [_row(figure, name) for name, outcomes in sides.items() for figure in figures(outcomes)]
    if len(sides) == 2:
        (name, after), (against, before) = sides.items()
        found += [_row(figure, name, against) for figure in gains(after, before)]
    return found


def _row(figure: Figure, version: str, against: str | None = None) -> Evaluation:
    from storage import clock
    from storage.evaluations import GAIN
    from storage.records import Evaluation

    told = figure.interval
    low, high = told.bounds or (None, None)
    return Evaluation(
        clock.new_id(), version, figure.suite, figure.metric + (GAIN if against else ""), told.mean, told.n,
        clock.now(), figure.language, low, high, against=against,
    )  # fmt: skip


def _document(row: Evaluation) -> dict[str, Any]:
    names = ("version", "suite", "metric", "language", "value", "low", "high", "n", "against")
    return {name: getattr(row, name) for name in names}


def _lines(sides: dict[str, list[Outcome]]) -> str:
    """Each item on a line of JSON, with what each version made of it, to be read by a person."""
    found = []
    for outcomes in zip(*sides.values(), strict=True):
        item = outcomes[0].item
        made = {
            name: {"answer": one.answer, "logprobs": list(one.logprobs) or None, **one.values}
            for name, one in zip(sides, outcomes, strict=True)
        }
        asked = {"suite": item.suite, "language": item.language, "item": item.name, "prompt": item.said[0]}
        found.append(json.dumps(asked | made, ensure_ascii=False) + "\n")
    return "".join(found)


def _table(rows: Sequence[Evaluation], names: Sequence[str], *, by_language: bool) -> list[str]:
    """A line a figure: its value in each version, what was gained, and in which languages it became worse. Failures
    that no version has are left out."""
    from storage.evaluations import beside

    figures = [one for one in beside(rows) if one.now.version == names[0]]
    worse: dict[tuple[str, str], list[str]] = {}
    for one in figures:
        if one.now.language and one.gain and one.gain.high is not None and one.gain.high < 0:
            worse.setdefault((one.now.suite, one.now.metric), []).append(one.now.language)
    lines = [["", *names, *(["gain"] if len(names) > 1 else []), "n", ""]]
    for one in figures:
        now = one.now
        if one.is_empty or (now.language and not by_language):
            continue
        label = f"{now.suite} {now.metric}" if now.language is None else f"    {now.language}"
        languages = worse.get((now.suite, now.metric), []) if now.language is None else []
        cells = [_cell(now)] + ([_cell(one.then)] if one.then else []) + ([_cell(one.gain, "+")] if one.gain else [])
        lines.append([label, *cells, str(now.n), f"worse in {', '.join(languages)}" if languages else ""])
    wide = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return ["  ".join(cell.ljust(size) for cell, size in zip(line, wide, strict=True)).rstrip() for line in lines]


def _cell(row: Evaluation, sign: str = "") -> str:
    bounds = "" if row.low is None or row.high is None else f" [{row.low:{sign}.2f}, {row.high:{sign}.2f}]"
    return f"{row.value:{sign}.2f}{bounds}"
