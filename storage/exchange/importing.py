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

from storage import clock, conversations, samples, splits, unfinished
from storage.database import Database
from storage.errors import UsageError, WorkbenchError
from storage.exchange.input_file import InputFile
from storage.exchange.layouts.entries import Defaults, Entry, ignored, is_key, parse
from storage.exchange.rows import BadFieldError, Problem, Row
from storage.feedback import log, projection
from storage.feedback.kinds import KINDS, TURNS
from storage.forms import text_key
from storage.languages import renamed
from storage.records import Choice, Rating, RatingKind, Source, Split

MOST_PROBLEMS_SHOWN = 20
Progress = Callable[[str, int, int], None]
SplitOf = Callable[[str], Split]
Name = tuple[str, str, str]  # of a prompt: the key of its text, its system prompt and its language
Answer = tuple[str, str, bool]  # the key of its prompt, its text, and whether it is a demonstration
Place = tuple[object, ...]


class Imported(msgspec.Struct, frozen=True):
    """What an import did.

    Attributes:
        records: what the file holds. stored: those that were new. already: those that the workspace held before (also
            `already_there`).
        replaced: ratings, of before or of this file, that a later one of the same rater now stands for.
        prompts, samples, ratings: new rows.
        kinds: all records by kind.
        ignored_fields: names of fields that were not read.
        renamed_languages: tags whose normal form goes by another name, such as `tl` (Tagalog) by `fil` (Filipino).
    """

    records: int
    stored: int
    already: int
    replaced: int
    prompts: int
    samples: int
    ratings: int
    already_there: int
    kinds: dict[str, int]
    ignored_fields: list[str]
    renamed_languages: dict[str, str]
    dry_run: bool


def import_file(
    database: Database,
    source: str,
    defaults: Defaults | None = None,
    *,
    dry_run: bool = False,
    progress: Progress = lambda doing, done, of: None,
) -> Imported:
    """Import a file (`-` for standard input) whole or not at all; `dry_run` does everything but the switch.

    Args:
        progress: is told what is done to how many records, of how many (0 while that is not known).

    Raises:
        UsageError: the file cannot be read, or holds bad records; the message names line, field and reason of each.
    """
    defaults = defaults or Defaults()
    with InputFile(source) as file:
        checked = _check(file, defaults, progress)
        with unfinished.turn(database, lambda: progress("waiting for another import", 0, 0)):
            done = _Storing(database, checked)
            try:
                unfinished.begin(database, file.name, checked.records)
                chunks = _entries(file, defaults)
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
        records=checked.records, stored=checked.records - done.already, already=done.already, replaced=done.replaced,
        prompts=done.prompts, samples=done.samples, ratings=done.ratings, already_there=done.already,
        kinds=dict(sorted(checked.kinds.items())), ignored_fields=sorted(checked.unread),
        renamed_languages=checked.renamed, dry_run=dry_run,
    )  # fmt: skip


def read(source: str) -> Iterator[Row | Problem]:
    """The records of a file, in the format that its ending names, else the one its content shows.

    Raises:
        UsageError: the file cannot be read.
    """
    with InputFile(source) as opened:
        yield from opened.rows()


class _Checked(msgspec.Struct):
    """What the first reading told.

    Attributes:
        strictest: the strictest split that the file names for each text. hashed: of these texts, those that stand
            earlier in the file without a split, so that the hash has decided about them by then.
    """

    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    unread: set[str] = msgspec.field(default_factory=set)
    renamed: dict[str, str] = msgspec.field(default_factory=dict)
    strictest: dict[str, Split] = msgspec.field(default_factory=dict)
    hashed: set[str] = msgspec.field(default_factory=set)

    @property
    def records(self) -> int:
        return self.kinds.total()


def _check(file: InputFile, defaults: Defaults, progress: Progress) -> _Checked:
    """Read the whole file and check every record by itself."""
    found = _Checked()
    problems: list[Problem] = []
    without_split: set[int] = set()
    for number, row in enumerate(file.rows(), start=1):
        if isinstance(row, Problem):
            problems.append(row)
            continue
        found.unread |= ignored(row)
        for entry in parse(row, defaults):
            if isinstance(entry, Problem):
                problems.append(entry)
                continue
            found.kinds[entry.kind] += 1
            key = text_key(entry.prompt)
            if entry.split is None:
                without_split.add(hash(key))
            else:
                if key not in found.strictest and hash(key) in without_split:
                    found.hashed.add(key)
                found.strictest[key] = conversations.strictest_of([entry.split, found.strictest.get(key, entry.split)])
            _note_renamed(row, entry, found.renamed)
        if number % 1000 == 0:
            progress("checking", number, 0)
    _refuse(file.name, problems)
    if not found.records:
        raise UsageError(f"{file.name} holds no records", "docs/data-formats.md lists what can be imported")
    return found


def _note_renamed(row: Row, entry: Entry, found: dict[str, str]) -> None:
    tag = row.fields.get("language")
    if isinstance(tag, str) and tag != entry.language and tag not in found and (other := renamed(tag)):
        found[tag] = other


def _entries(file: InputFile, defaults: Defaults) -> Iterator[Entry]:
    """The entries of a file that was checked."""
    for row in file.rows():
        assert isinstance(row, Row)
        for entry in parse(row, defaults):
            assert isinstance(entry, Entry)
            yield entry


class _Chunk:
    """Some entries beside what the workspace has of them, and what they add: looked up in sets, before the database is
    held for storing them.

    Attributes:
        prompts, samples, ratings: new rows under their keys, in order.
        already: how many entries add nothing.
        problems: what is wrong with the others.
        tasks: prompts that were there and get a task.
    """

    def __init__(self, database: Database, entries: list[Entry], outdated: set[str], split_of: SplitOf) -> None:
        self.prompts: dict[Name, dict[str, Any]] = {}
        self.samples: dict[str, dict[str, Any]] = {}
        self.ratings: list[Rating] = []
        self.already = 0
        self.problems: list[Problem] = []
        self.tasks: dict[str, str] = {}
        self._database = database
        self._split_of = split_of
        self._known_prompts = self._find_prompts(entries)
        self._known_samples, self._texts = self._find_samples(entries)
        self._known_ratings = self._find_ratings(entries)
        self._counting = self._find_counting(outdated)
        for entry in entries:
            try:
                self.already += not self._add(entry)
            except BadFieldError as error:
                self.problems.append(Problem(entry.line, error.field, error.reason))

    # What is there

    def _rows(self, sql: str, wanted: Iterable[object]) -> list[dict[str, Any]]:
        """Rows of a query about a set of things, which `?` stands for as JSON."""
        return self._database.rows(sql, (_encoded(wanted),))

    def _find_prompts(self, entries: list[Entry]) -> dict[Name, dict[str, Any]]:
        found = self._rows(
            """SELECT id, text_key, system, language, task FROM prompts
               WHERE text_key IN (SELECT value FROM json_each(?))""",
            {text_key(entry.prompt) for entry in entries},
        )
        return {(row["text_key"], row["system"], row["language"]): row for row in found}

    def _find_samples(self, entries: list[Entry]) -> tuple[dict[Answer, str], dict[str, str]]:
        """The answers of the entries' prompts that have their words, and the words of those that events name."""
        wanted: set[tuple[str, str]] = set()
        named: set[str] = set()
        for entry in entries:
            prompt = self._known_prompts.get(_name(entry))
            if prompt is not None:
                wanted |= {(prompt["id"], entry.response), (prompt["id"], entry.other)}
            if entry.event is not None:
                named |= {key for key in (entry.event.sample_id, entry.event.other_sample_id) if key is not None}
        found = self._rows(
            """SELECT samples.id AS id, prompt_id, text, origin = 'demonstration' AS shown FROM json_each(?) AS wanted
               JOIN samples ON prompt_id = wanted.value ->> 0 AND text = wanted.value ->> 1 ORDER BY sequence DESC""",
            wanted,
        )  # of several the earliest, which comes last
        words = self._rows("SELECT id, text FROM samples WHERE id IN (SELECT value FROM json_each(?))", named)
        return (
            {(row["prompt_id"], row["text"], bool(row["shown"])): row["id"] for row in found},
            {row["id"]: row["text"] for row in words},
        )

    def _find_ratings(self, entries: list[Entry]) -> dict[str, Rating]:
        """The ratings whose keys the entries name."""
        wanted = {entry.key for entry in entries if entry.key}
        wanted |= {key for entry in entries if entry.event for key in (entry.event.id, entry.event.supersedes) if key}
        found = self._database.records(
            Rating, "SELECT * FROM ratings WHERE id IN (SELECT value FROM json_each(?))", (_encoded(wanted),)
        )
        return {rating.id: rating for rating in found}

    def _find_counting(self, outdated: set[str]) -> dict[Place, Rating]:
        """The ratings that count of the answers found, by what they stand for."""
        found = self._database.records(
            Rating,
            """WITH here AS (SELECT sequence FROM samples WHERE id IN (SELECT value FROM json_each(?)))
               SELECT ratings.* FROM counted JOIN ratings ON ratings.sequence = counted.sequence
               WHERE counted.sample IN (SELECT sequence FROM here) ORDER BY counted.sequence""",
            (_encoded(self._known_samples.values()),),
        )
        return {_place(rating): rating for rating in found if rating.id not in outdated}

    # What each entry adds: whether anything at all

    def _add(self, entry: Entry) -> bool:
        if entry.event is not None:
            return self._add_event(entry, entry.event)
        prompt, is_new = self._prompt(entry)
        if entry.kind == "prompt":
            return is_new
        if entry.kind == "demonstration":
            return self._sample(prompt, entry.response, origin="demonstration")[1]
        rating = self._rating(prompt, entry)
        # It is known under the record's own key, undone or not, or in the same words today.
        known = [self._counting.get(_place(rating)), self._known_ratings.get(entry.key or "")]
        if any(one is not None and _said(one) == _said(rating) for one in known):
            return False
        self._append(rating)
        return True

    def _append(self, rating: Rating) -> None:
        self.ratings.append(rating)
        self._known_ratings[rating.id] = rating
        self._counting[_place(rating)] = rating

    def _prompt(self, entry: Entry) -> tuple[str, bool]:
        """The key of the entry's prompt, and whether it is new."""
        name = _name(entry)
        if name in self.prompts:
            return self.prompts[name]["id"], False
        found = self._known_prompts.get(name)
        if found is not None:
            if entry.task and not found["task"]:
                self.tasks.setdefault(found["id"], entry.task)
            return found["id"], False
        made = conversations.new(
            entry.prompt, self._split_of(name[0]), language=entry.language, system=entry.system, task=entry.task,
            origin="imported",
        )  # fmt: skip
        self.prompts[name] = conversations.row_of(made)
        return made.id, True

    def _sample(self, prompt_id: str, text: str, origin: str = "imported") -> tuple[str, bool]:
        """The key of a prompt's answer with this very text, and whether it is new; a demonstration stands apart."""
        name = (prompt_id, text, origin == "demonstration")
        if name in self._known_samples:
            return self._known_samples[name], False
        made = samples.new(prompt_id, text, origin=origin)
        self.samples[made.id] = msgspec.to_builtins(made)
        self._known_samples[name] = made.id
        return made.id, True

    def _rating(self, prompt_id: str, entry: Entry) -> Rating:
        sample, _ = self._sample(prompt_id, entry.response)
        says = dict(entry.says)
        if entry.kind == RatingKind.PAIR:
            says["other_sample_id"], _ = self._sample(prompt_id, entry.other)
            says["choice"] = Choice(says["choice"])
        keeps = is_key(entry.key) and entry.key not in self._known_ratings
        return Rating(
            id=entry.key if keeps and entry.key else clock.new_id(), created_at=clock.now(), rater=entry.rater,
            kind=RatingKind(entry.kind), sample_id=sample, attribute=entry.attribute, source=Source.IMPORTED, **says,
        )  # fmt: skip

    def _add_event(self, entry: Entry, event: Rating) -> bool:
        """Replay an event of another workspace's log under its own key."""
        if event.id in self._known_ratings:
            return False
        if event.supersedes and event.supersedes not in self._known_ratings:
            reason = "names an event that stands neither earlier in the file nor in the workspace"
            raise BadFieldError("supersedes", reason)
        if event.kind not in TURNS:
            prompt, _ = self._prompt(entry)
            for key, text in ((event.sample_id, entry.response), (event.other_sample_id, entry.other)):
                if key is not None:
                    self._keep_sample(prompt, key, text)
        self._append(event)
        return True

    def _keep_sample(self, prompt_id: str, key: str, text: str) -> None:
        """Store a sample under its own key. The version that said it lives elsewhere, so it is imported text here."""
        if key not in self._texts:
            self.samples[key] = msgspec.to_builtins(samples.new(prompt_id, text, origin="imported")) | {"id": key}
            self._texts[key] = text
            self._known_samples.setdefault((prompt_id, text, False), key)
        elif self._texts[key] != text:
            raise BadFieldError("sample_id", "names a sample that holds another text in this workspace")


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
        chunk = _Chunk(self.database, entries, self._outdated, self._split)
        self.records += len(entries)
        self.already += chunk.already
        self.problems += chunk.problems
        self.tasks |= chunk.tasks
        texts = _encoded({text_key(entry.prompt) for entry in entries})
        if self.problems:
            return
        if not (chunk.prompts or chunk.samples or chunk.ratings):
            self._meet(texts, {})
            return
        with self.pace, unfinished.storing(self.database):
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
                conversations.make_stricter(self.database, key, conversations.decided_split(self.database, key, named))
            for prompt, task in self.tasks.items():
                conversations.name_task(self.database, prompt, task)
            projection.settle(self.database, list(self.unsettled))

    def _split(self, key: str) -> Split:
        """The split of a text that the workspace does not hold yet."""
        named = self.checked.strictest.get(key)
        if named is None:
            return splits.by_hash(key, self.share)
        hashed = [splits.by_hash(key, self.share)] if key in self.checked.hashed else []
        return conversations.strictest_of([named, *hashed])

    def _meet(self, texts: str, new: dict[Name, dict[str, Any]]) -> dict[str, str]:
        """Let new prompts meet those of the same texts that are there by now: what is there gives the split where it is
        stricter, and takes the place of a new prompt that someone else has asked meanwhile.

        Returns:
            the key of the prompt that took its place, by the new one's key; the new one is dropped.
        """
        moved = {}
        there = self.database.rows(
            """SELECT id, text_key, system, language, split FROM prompts
               WHERE text_key IN (SELECT value FROM json_each(?))""",
            (texts,),
        )
        strictest: dict[str, Split] = {}
        for row in there:
            uses = [Split(row["split"]), strictest.get(row["text_key"]), self.checked.strictest.get(row["text_key"])]
            strictest[row["text_key"]] = conversations.strictest_of(use for use in uses if use is not None)
            same = new.pop((row["text_key"], row["system"], row["language"]), None)
            if same is not None:
                moved[same["id"]] = row["id"]
        self.stricter |= {row["text_key"] for row in there if row["split"] != strictest[row["text_key"]]}
        for name, prompt in new.items():
            prompt["split"] = strictest.get(name[0], prompt["split"])
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


def _name(entry: Entry) -> Name:
    """What makes a prompt the same as another."""
    return text_key(entry.prompt), entry.system, entry.language


def _encoded(values: Iterable[object]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _place(rating: Rating) -> Place:
    """What a rating is about and by whom: a later one with the same stands in its place."""
    about = frozenset((rating.sample_id, rating.other_sample_id))
    return rating.kind, rating.rater, rating.attribute, rating.source, about


def _said(rating: Rating) -> tuple[object, ...]:
    """What a rating says, by whom and about what; `a` over `b` says the same as `b` over `a` turned round."""
    about, choice = (rating.sample_id, rating.other_sample_id), rating.choice
    if choice == Choice.B:
        about, choice = (about[1], about[0]), Choice.A
    says = [getattr(rating, name) for name in KINDS[rating.kind].says if name not in ("choice", "other_sample_id")]
    return rating.kind, rating.rater, rating.attribute, about, choice, says


def _refuse(name: str, problems: Iterable[Problem]) -> None:
    """Raise the error that tells the first problems, in the order of their lines, when there are any."""
    problems = sorted(problems, key=lambda problem: problem.line)
    if not problems:
        return
    lines = [
        f"  {name}:{problem.line}: {problem.field + ': ' if problem.field else ''}{problem.reason}"
        for problem in problems[:MOST_PROBLEMS_SHOWN]
    ]
    if len(problems) > MOST_PROBLEMS_SHOWN:
        lines.append(f"  and {len(problems) - MOST_PROBLEMS_SHOWN} more")
    what = "1 record" if len(problems) == 1 else f"{len(problems)} records"
    raise UsageError(
        "\n".join([f"{what} of {name} cannot be imported", *lines]),
        "nothing was imported: correct the file and import it again",
    )
