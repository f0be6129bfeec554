"""Import: read a file, check every record, and store all of them in one transaction, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from storage import clock, conversations, samples
from storage.database import Database
from storage.errors import UsageError, WorkbenchError
from storage.exchange.input_file import InputFile
from storage.exchange.layouts.entries import Defaults, Entry, ignored, is_key, parse
from storage.exchange.rows import BadFieldError, Problem, Row
from storage.feedback import log
from storage.records import Choice, Prompt, Rating, RatingKind, Sample, Source

MOST_PROBLEMS_SHOWN = 20


class Imported(msgspec.Struct, frozen=True):
    """What an import added. `already_there` counts records that the workspace held before, `kinds` all by kind."""

    records: int
    prompts: int
    samples: int
    ratings: int
    already_there: int
    kinds: dict[str, int]
    ignored_fields: list[str]
    dry_run: bool


class _DryRun(Exception):
    """Raised to roll a dry run back."""


def import_file(
    database: Database, source: str, defaults: Defaults | None = None, *, dry_run: bool = False
) -> Imported:
    """Import a file (`-` for standard input) whole or not at all; `dry_run` does everything but the commit.

    Raises:
        UsageError: the file cannot be read, or holds bad records; the message names line, field and reason of each.
    """
    rows = list(read(source))
    problems = [row for row in rows if isinstance(row, Problem)]
    entries: list[Entry] = []
    unread: set[str] = set()
    for row in rows:
        if isinstance(row, Row):
            unread |= ignored(row)
            for parsed in parse(row, defaults or Defaults()):
                if isinstance(parsed, Problem):
                    problems.append(parsed)
                else:
                    entries.append(parsed)
    _refuse(source, problems)
    if not entries:
        raise UsageError(f"{_name(source)} holds no records", "docs/data-formats.md lists what can be imported")
    before, after = _counts(database), (0, 0, 0)
    known = 0
    try:
        with database.transaction():
            for entry in entries:
                try:
                    known += not _store(database, entry)
                except BadFieldError as error:
                    problems.append(Problem(entry.line, error.field, error.reason))
                except WorkbenchError as error:
                    problems.append(Problem(entry.line, "", error.message))
            _refuse(source, problems)
            after = _counts(database)
            if dry_run:
                raise _DryRun
    except _DryRun:
        pass
    new_prompts, new_samples, new_ratings = (new - old for old, new in zip(before, after, strict=True))
    kinds = dict(sorted(Counter(entry.kind for entry in entries).items()))
    return Imported(len(entries), new_prompts, new_samples, new_ratings, known, kinds, sorted(unread), dry_run)


def read(source: str) -> Iterator[Row | Problem]:
    """The records of a file, in the format that its ending names, else the one its content shows.

    Raises:
        UsageError: the file cannot be read.
    """
    with InputFile(source) as opened:
        yield from opened.rows()


def _store(database: Database, entry: Entry) -> bool:
    """Store one entry; False when the workspace holds it already."""
    if entry.event is not None:
        return _store_event(database, entry, entry.event)
    known = conversations.find(database, entry.prompt, language=entry.language, system=entry.system)
    prompt = _prompt(database, entry)
    if entry.kind == "prompt":
        return known is None
    if entry.kind == "demonstration":
        return _sample(database, prompt, entry.response, origin="demonstration")[1]
    rating = _rating(database, prompt, entry)
    if _is_there(database, entry, rating):
        return False
    log.append(database, rating)
    return True


def _prompt(database: Database, entry: Entry) -> Prompt:
    return conversations.add(
        database, entry.prompt, language=entry.language, system=entry.system, task=entry.task, split=entry.split,
        origin="imported",
    )  # fmt: skip


def _sample(database: Database, prompt: Prompt, text: str, origin: str = "imported") -> tuple[Sample, bool]:
    """The answer of a prompt with this very text and whether it is new; a demonstration is a sample of its own."""
    found = database.record(
        Sample,
        """SELECT * FROM samples WHERE prompt_id = ? AND text = ? AND (origin = 'demonstration') = ?
           ORDER BY id LIMIT 1""",
        (prompt.id, text, origin == "demonstration"),
    )
    if found is not None:
        return found, False
    created = samples.new(prompt.id, text, origin=origin)
    samples.add(database, [created])
    return created, True


def _rating(database: Database, prompt: Prompt, entry: Entry) -> Rating:
    sample, _ = _sample(database, prompt, entry.response)
    key = entry.key if is_key(entry.key) and not _exists(database, "ratings", entry.key) else clock.new_id()
    more = {"id": key, "source": Source.IMPORTED, "attribute": entry.attribute}
    if entry.kind == "pair":
        other, _ = _sample(database, prompt, entry.other)
        return log.pair(sample.id, other.id, Choice.A, entry.rater, **more)
    if entry.kind == "score":
        return log.score(sample.id, entry.value, entry.rater, entry.scale, **more)
    if entry.kind == "label":
        return log.label(sample.id, bool(entry.value), entry.rater, **more)
    return log.tags(sample.id, entry.tags, entry.rater, **more)


def _is_there(database: Database, entry: Entry, rating: Rating) -> bool:
    """Whether the workspace has this rating: under the record's own key, undone or not, or in the same words today."""
    known = [log.get(database, entry.key)] if entry.key and _exists(database, "ratings", entry.key) else []
    return any(_says_the_same(rating, one) for one in known + log.effective(database, sample_id=rating.sample_id))


def _says_the_same(one: Rating, other: Rating) -> bool:
    return _said(one) == _said(other)


def _said(rating: Rating) -> tuple[object, ...]:
    """What a rating says, by whom and about what; `a` over `b` says the same as `b` over `a` turned round."""
    about, choice = (rating.sample_id, rating.other_sample_id), rating.choice
    if choice == Choice.B:
        about, choice = (about[1], about[0]), Choice.A
    scale = (rating.scale_low, rating.scale_high)
    return rating.kind, rating.rater, rating.attribute, about, choice, rating.value, scale, rating.tags


def _store_event(database: Database, entry: Entry, event: Rating) -> bool:
    """Replay an event of another workspace's log under its own key."""
    if _exists(database, "ratings", event.id):
        return False
    if event.supersedes and not _exists(database, "ratings", event.supersedes):
        raise BadFieldError("supersedes", "names an event that stands neither earlier in the file nor in the workspace")
    if event.kind not in (RatingKind.UNDO, RatingKind.REDO):
        prompt = _prompt(database, entry)
        for key, text in ((event.sample_id, entry.response), (event.other_sample_id, entry.other)):
            if key is not None:
                _keep_sample(database, prompt, key, text)
    log.append(database, event)
    return True


def _keep_sample(database: Database, prompt: Prompt, key: str, text: str) -> None:
    """Store a sample under its own key. The version that said it lives elsewhere, so it is imported text here."""
    if not _exists(database, "samples", key):
        made = samples.new(prompt.id, text, origin="imported")
        samples.add(database, [msgspec.structs.replace(made, id=key)])
    elif samples.get(database, key).text != text:
        raise BadFieldError("sample_id", "names a sample that holds another text in this workspace")


def _exists(database: Database, table: str, key: str | None) -> bool:
    return database.scalar(f"SELECT 1 FROM {table} WHERE id = ?", (key,)) is not None


def _counts(database: Database) -> tuple[int, int, int]:
    found = database.row(
        "SELECT (SELECT count(*) FROM prompts) AS p, (SELECT count(*) FROM samples) AS s,"
        " (SELECT count(*) FROM ratings) AS r"
    )
    assert found is not None
    return found["p"], found["s"], found["r"]


def _refuse(source: str, problems: list[Problem]) -> None:
    """Raise the error that tells the first problems, in the order of their lines, when there are any."""
    if not problems:
        return
    problems = sorted(problems, key=lambda problem: problem.line)
    lines = [
        f"  {_name(source)}:{problem.line}: {problem.field + ': ' if problem.field else ''}{problem.reason}"
        for problem in problems[:MOST_PROBLEMS_SHOWN]
    ]
    if len(problems) > MOST_PROBLEMS_SHOWN:
        lines.append(f"  and {len(problems) - MOST_PROBLEMS_SHOWN} more")
    what = "1 record" if len(problems) == 1 else f"{len(problems)} records"
    raise UsageError(
        "\n".join([f"{what} of {_name(source)} cannot be imported", *lines]),
        "nothing was imported: correct the file and import it again",
    )


def _name(source: str) -> str:
    return "standard input" if source == "-" else source
