"""Import: check every record of a file, then store all of them unseen and show them at once, or none.

The file is read twice, a record at a time. The first time every record is checked by itself. The second time records
are looked up in the workspace and stored, some hundred in a transaction, so that nobody waits for long; each is hidden
until the switch (storage/unfinished.py). What happens to rows that are there already waits for the switch too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from storage import conversations, splits, unfinished
from storage.database import Database
from storage.errors import UsageError, WorkbenchError
from storage.exchange.chunk import Chunk, Name, encoded
from storage.exchange.examples import MOST as MOST_EXAMPLES
from storage.exchange.examples import Example, example
from storage.exchange.imported import Imported as Imported
from storage.exchange.imported import Looked as Looked
from storage.exchange.input_file import InputFile
from storage.exchange.layouts.entries import Defaults, Entry, parse
from storage.exchange.naming import advice, could_be
from storage.exchange.rows import Problem, Row
from storage.exchange.translating import OURS, Reading, Record, translated
from storage.feedback import log, projection
from storage.feedback.kinds import TURNS
from storage.forms import opening_key
from storage.languages import renamed
from storage.records import Rating, Split
from storage.signs import without_surrogates
from storage.wording import counted

MOST_PROBLEMS_SHOWN = 20
Progress = Callable[[str, int, int], None]


def look(
    source: str,
    defaults: Defaults | None = None,
    *,
    reading: Reading = Reading(),  # noqa: B008 (it is frozen)
    skip_bad: bool = False,
    progress: Progress = lambda doing, done, of: None,
) -> Looked:
    """What a file holds: every record is read and checked, and nothing of it looked up or stored.

    Raises:
        UsageError: as :func:`import_file`, but for what only the workspace can tell.
    """
    with InputFile(source) as file:
        return Looked(**_check(file, defaults or Defaults(), reading, skip_bad, progress).told(file.name))


def import_file(
    database: Database,
    source: str,
    defaults: Defaults | None = None,
    *,
    reading: Reading = Reading(),  # noqa: B008 (it is frozen)
    skip_bad: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda doing, done, of: None,
) -> Imported:
    """Import a file (`-` for standard input) whole or not at all; `dry_run` does everything but the switch.

    Args:
        reading: the layout of its records and foreign names of ours, where their fields do not tell.
        skip_bad: leave records out that cannot be imported, instead of refusing the file.
        progress: is told what is done to how many records, of how many (0 while that is not known).

    Raises:
        UsageError: the file cannot be read, or holds bad records; the message names line, field and reason of each.
    """
    defaults = defaults or Defaults()
    with InputFile(source) as file:
        checked = _check(file, defaults, reading, skip_bad, progress)
        with unfinished.turn(database, lambda: progress("waiting for another import", 0, 0)):
            done = _Storing(database, checked)
            try:
                unfinished.begin(database, without_surrogates(file.name), checked.records)
                chunks = _entries(file, defaults, reading)
                while chunk := list(islice(chunks, done.pace.rows)):
                    done.store(chunk)
                    progress("storing", done.records, checked.records)
                _refuse(file.name, done.problems)
                if not dry_run:
                    done.show()
            finally:
                if unfinished.find(database) is not None:
                    unfinished.sweep(database)
    return Imported(
        stored=checked.records - done.already, already=done.already, replaced=done.replaced, prompts=done.prompts,
        samples=done.samples, ratings=done.ratings, already_there=done.already, dry_run=dry_run,
        **checked.told(file.name) | ({} if dry_run else {"examples": []}),
    )  # fmt: skip


def prompts(source: str, reading: Reading = Reading()) -> Iterator[Row | Problem]:  # noqa: B008 (it is frozen)
    """What the records of a file ask, each of it once a record: rows with a `prompt`, read as an import reads them.

    Raises:
        UsageError: the file cannot be read.
    """
    with InputFile(source) as opened:
        for record in translated(opened.rows(), reading):
            yield from [record] if isinstance(record, Problem) else record.prompts()


class _Checked(msgspec.Struct):
    """What the first reading told.

    Attributes:
        strictest: the strictest split that the file names for each text that prompts open with. hashed: of these texts,
            those that stand earlier in the file without a split, so that the hash has decided about them by then.
        skipped: what is wrong with each record that is left out.
    """

    layouts: dict[str, int] = msgspec.field(default_factory=dict)
    skipped: list[Problem] = msgspec.field(default_factory=list)
    examples: list[Example] = msgspec.field(default_factory=list)
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    unread: set[str] = msgspec.field(default_factory=set)
    renamed: dict[str, str] = msgspec.field(default_factory=dict)
    strictest: dict[str, Split] = msgspec.field(default_factory=dict)
    hashed: set[str] = msgspec.field(default_factory=set)

    @property
    def records(self) -> int:
        return self.kinds.total()

    def told(self, name: str) -> dict[str, Any]:
        """The fields of :class:`Looked`, of the file with this name."""
        return {
            "records": self.records, "kinds": dict(sorted(self.kinds.items())), "ignored_fields": sorted(self.unread),
            "renamed_languages": self.renamed, "could_be": could_be(self.unread), "layouts": self.layouts,
            "skipped": len(self.skipped), "skipped_because": _told(name, self.skipped), "examples": self.examples,
        }  # fmt: skip


def _check(file: InputFile, defaults: Defaults, reading: Reading, skip_bad: bool, progress: Progress) -> _Checked:
    """Read the whole file and check every record by itself."""
    found = _Checked()
    problems: list[Problem] = []
    without_split: set[int] = set()
    fields: set[str] = set()
    given: set[str] = set()
    for number, record in enumerate(translated(file.rows(), reading), start=1):
        entries = _entries_of(record, defaults)
        if isinstance(record, Problem) or isinstance(entries, Problem):
            assert isinstance(entries, Problem)
            problems.append(entries)
            continue
        fields.update(record.fields)
        given |= record.renamed
        found.unread |= record.unread
        if record.layout != OURS:
            found.layouts[record.layout] = found.layouts.get(record.layout, 0) + 1
        if len(found.examples) < MOST_EXAMPLES:
            found.examples.append(example(record, entries, defaults))
        for row, parsed in zip(record.rows, entries, strict=True):
            for entry in parsed:
                found.kinds[entry.kind] += 1
                key = opening_key(entry.prompt, entry.earlier)
                if entry.split is None:
                    without_split.add(hash(key))
                else:
                    if key not in found.strictest and hash(key) in without_split:
                        found.hashed.add(key)
                    uses = [entry.split, found.strictest.get(key, entry.split)]
                    found.strictest[key] = conversations.strictest_of(uses)
                _note_renamed(row, entry, found.renamed)
        if number % 1000 == 0:
            progress("checking", number, 0)
    if skip_bad and found.records:
        found.skipped = problems
    else:
        _refuse(file.name, problems)
    if not found.records:
        raise UsageError(f"{file.name} holds no records", "docs/data-formats.md lists what can be imported")
    for name in reading.names.keys() - given:
        raise UsageError(
            f"no record of {file.name} has the field {reading.names[name]} (--map {name}={reading.names[name]})",
            f"the fields are {', '.join(sorted(fields))}",
        )
    return found


def _entries_of(record: Record | Problem, defaults: Defaults) -> list[list[Entry]] | Problem:
    """The entries of each row of a record, or the first thing that is wrong with it."""
    if isinstance(record, Problem):
        return record
    found: list[list[Entry]] = []
    for row in record.rows:
        parsed = parse(row, defaults)
        for entry in parsed:
            if isinstance(entry, Problem):
                return _explained(entry, record)
        found.append([entry for entry in parsed if isinstance(entry, Entry)])
    return found


def _explained(problem: Problem, record: Record) -> Problem:
    """A problem with what helps to mend it: the layout that the record was read as, or its fields and what they could
    be."""
    if record.layout != OURS:
        return msgspec.structs.replace(problem, reason=f"{problem.reason} (read as {record.layout})")
    if "is missing" not in problem.reason or not record.fields:
        return problem
    could = advice(record.unread, problem.field)
    fields = f"the record has the fields {', '.join(record.fields)}"
    return msgspec.structs.replace(problem, reason=f"{problem.reason}; {fields}{': ' if could else ''}{could}")


def _note_renamed(row: Row, entry: Entry, found: dict[str, str]) -> None:
    tag = row.fields.get("language")
    if isinstance(tag, str) and tag != entry.language and tag not in found and (other := renamed(tag)):
        found[tag] = other


def _entries(file: InputFile, defaults: Defaults, reading: Reading) -> Iterator[Entry]:
    """The entries of a file that was checked; records that cannot be imported are left out here."""
    for record in translated(file.rows(), reading):
        entries = _entries_of(record, defaults)
        if not isinstance(entries, Problem):
            yield from (entry for parsed in entries for entry in parsed)


class _Storing:
    """The second reading: entries stored a chunk at a time, and what waits for the switch."""

    def __init__(self, database: Database, checked: _Checked) -> None:
        self.database = database
        self.checked = checked
        self.share = conversations.held_out_share(database)
        self.records = self.already = self.replaced = self.prompts = self.samples = self.ratings = 0
        self.problems: list[Problem] = []
        self.pace = unfinished.Pace()
        # Of what was there before: texts that become stricter, prompts that get a task, events whose effect is due.
        self.stricter: set[str] = set()
        self.tasks: dict[str, str] = {}
        self.unsettled: dict[str, None] = {}
        self._outdated: set[str] = set()
        self._gestures: set[str] = set()

    def store(self, entries: list[Entry]) -> None:
        """Look a chunk up, and store what it adds in one transaction."""
        chunk = Chunk(self.database, entries, self._outdated, self._split)
        self.records += len(entries)
        self.already += chunk.already
        self.problems += chunk.problems
        self.tasks |= chunk.tasks
        texts = encoded({opening_key(entry.prompt, entry.earlier) for entry in entries})
        if self.problems:
            return
        if not (chunk.prompts or chunk.samples or chunk.ratings):
            self._meet(texts, {})
            return
        with unfinished.storing(self.database, self.pace):
            moved = self._meet(texts, chunk.prompts)
            self.database.insert_many("prompts", chunk.prompts.values())
            for sample in chunk.samples.values() if moved else ():
                sample["prompt_id"] = moved.get(sample["prompt_id"], sample["prompt_id"])
            self.database.insert_many("samples", chunk.samples.values())
            try:
                stored = log.append_many(self.database, chunk.ratings, self._waits)
            except WorkbenchError as error:
                raise UsageError(error.message, "nothing was imported: correct the file and import it again") from error
        self.prompts += len(chunk.prompts)
        self.samples += len(chunk.samples)
        self.ratings += len(stored)
        self.replaced += sum(rating.supersedes is not None and rating.kind not in TURNS for rating in stored)

    def show(self) -> None:
        """The switch: one transaction, and everything is seen."""
        with unfinished.switching(self.database):
            for key in self.stricter:
                named = self.checked.strictest.get(key)
                decided = conversations.decided_split(self.database, key, named)
                conversations.make_stricter(self.database, key, decided, "import")
            for prompt, task in self.tasks.items():
                conversations.name_task(self.database, prompt, task, "import")
            projection.settle(self.database, list(self.unsettled))

    def _split(self, key: str) -> Split:
        """The split of a text that the workspace does not hold yet."""
        named = self.checked.strictest.get(key)
        if named is None:
            return splits.by_hash(key, self.share)
        hashed = [splits.by_hash(key, self.share)] if key in self.checked.hashed else []
        return conversations.strictest_of([named, *hashed])

    def _meet(self, texts: str, new: dict[Name, dict[str, Any]]) -> dict[str, str]:
        """Let new prompts meet those that open with the same texts and are there by now: what is there gives the split
        where it is stricter, and takes the place of a new prompt that someone else has asked meanwhile.

        Returns:
            the key of the prompt that took its place, by the new one's key; the new one is dropped.
        """
        moved = {}
        there = self.database.rows(
            """SELECT id, text_key, opening, system, language, split FROM prompts
               WHERE opening IN (SELECT value FROM json_each(?))""",
            (texts,),
        )
        strictest: dict[str, Split] = {}
        for row in there:
            uses = [Split(row["split"]), strictest.get(row["opening"]), self.checked.strictest.get(row["opening"])]
            strictest[row["opening"]] = conversations.strictest_of(use for use in uses if use is not None)
            same = new.pop((row["text_key"], row["system"], row["language"]), None)
            if same is not None:
                moved[same["id"]] = row["id"]
        self.stricter |= {row["opening"] for row in there if row["split"] != strictest[row["opening"]]}
        for prompt in new.values():
            prompt["split"] = strictest.get(prompt["opening"], prompt["split"])
        return moved

    def _waits(self, rating: Rating) -> bool:
        """Whether the effect of an event reaches what was there before, and so is due at the switch."""
        earlier = rating.supersedes
        touches = earlier is not None and (earlier in self.unsettled or not self._is_hidden(earlier))
        if not touches and rating.gesture not in self._gestures:
            return False
        self.unsettled[rating.id] = None
        if earlier is not None:
            self._outdated.add(earlier)
        if rating.gesture is not None:
            self._gestures.add(rating.gesture)
        return True

    def _is_hidden(self, rating_id: str) -> bool:
        found = self.database.scalar(
            "SELECT 1 FROM hidden_ratings WHERE sequence = (SELECT sequence FROM ratings WHERE id = ?)", (rating_id,)
        )
        return found is not None


def _refuse(name: str, problems: Iterable[Problem]) -> None:
    """Raise the error that tells the first problems, in the order of their lines, when there are any."""
    problems = list(problems)
    if not problems:
        return
    what = counted(len(problems), "record")
    raise UsageError(
        "\n".join([f"{what} of {name} cannot be imported", *(f"  {line}" for line in _told(name, problems))]),
        "nothing was imported: correct the file and import it again, or leave these records out with --skip-bad",
    )


def _told(name: str, problems: Iterable[Problem]) -> list[str]:
    """The first problems in words, in the order of their lines, and how many more there are."""
    problems = sorted(problems, key=lambda problem: problem.line)
    lines = [
        f"{name}:{problem.line}: {problem.field + ': ' if problem.field else ''}{problem.reason}"
        for problem in problems[:MOST_PROBLEMS_SHOWN]
    ]
    if len(problems) > MOST_PROBLEMS_SHOWN:
        lines.append(f"and {len(problems) - MOST_PROBLEMS_SHOWN} more")
    return lines
