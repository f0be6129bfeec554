"""Import: check every record of a file, then store all of them unseen and show them at once, or none.

The file is read twice, a record at a time. The first time every record is checked by itself. The second time records are
looked up in the workspace and stored, some hundred in a transaction, so that nobody waits for long; each is hidden until
the switch (storage/unfinished.py). What happens to rows that are there already waits for the switch too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

from storage import clock, conversations, samples, unfinished
from storage.database import Database
from storage.errors import UsageError, WorkbenchError
from storage.exchange.input_file import InputFile
from storage.exchange.layouts.entries import Defaults, Entry, ignored, is_key, parse
from storage.exchange.rows import BadFieldError, Problem, Row
from storage.feedback import log
from storage.feedback.kinds import KINDS, TURNS
from storage.forms import text_key
from storage.languages import renamed
from storage.records import Choice, Prompt, Rating, RatingKind, Sample, Source, Split

MOST_PROBLEMS_SHOWN = 20
Progress = Callable[[str, int, int], None]


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
    """What the first reading told. `strictest` is the strictest split that the file names for each text."""

    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    unread: set[str] = msgspec.field(default_factory=set)
    renamed: dict[str, str] = msgspec.field(default_factory=dict)
    strictest: dict[str, Split] = msgspec.field(default_factory=dict)

    @property
    def records(self) -> int:
        return self.kinds.total()


def _check(file: InputFile, defaults: Defaults, progress: Progress) -> _Checked:
    """Read the whole file and check every record by itself."""
    found = _Checked()
    problems: list[Problem] = []
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
            if entry.split is not None:
                key = text_key(entry.prompt)
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


class _Plan:
    """What a chunk of entries adds, made outside any transaction: new rows under their keys, in order."""

    def __init__(self) -> None:
        self.prompts: dict[tuple[str, str, str], Prompt] = {}
        self.samples: dict[str, Sample] = {}
        self.ratings: list[Rating] = []
        self.by_text: dict[tuple[str, str, bool], str] = {}
        self.rated: dict[str, list[Rating]] = {}
        self.rating_keys: set[str] = set()

    def add_rating(self, rating: Rating) -> None:
        self.ratings.append(rating)
        self.rating_keys.add(rating.id)
        for key in (rating.sample_id, rating.other_sample_id):
            if key is not None:
                self.rated.setdefault(key, []).append(rating)


class _Storing:
    """The second reading: entries looked up and stored, a chunk at a time, and what waits for the switch."""

    def __init__(self, database: Database, checked: _Checked) -> None:
        self.database = database
        self.checked = checked
        self.first_rating = 0
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
        """Store a chunk, in one transaction."""
        plan = _Plan()
        for entry in entries:
            try:
                self.already += not self._plan(plan, entry)
            except BadFieldError as error:
                self.problems.append(Problem(entry.line, error.field, error.reason))
        self.records += len(entries)
        if self.problems or not (plan.prompts or plan.samples or plan.ratings):
            return
        with self.pace, unfinished.storing(self.database):
            moved = {}
            for (key, system, language), prompt in plan.prompts.items():
                there = self._insert_prompt(key, system, language, prompt)
                if there is not None:
                    moved[prompt.id] = there
            samples.add(
                self.database,
                (msgspec.structs.replace(one, prompt_id=moved.get(one.prompt_id, one.prompt_id))
                 for one in plan.samples.values()),
            )  # fmt: skip
            try:
                stored = log.append_many(self.database, plan.ratings, self._waits)
            except WorkbenchError as error:
                raise UsageError(error.message, "nothing was imported: correct the file and import it again") from error
        self.prompts += len(plan.prompts) - len(moved)
        self.samples += len(plan.samples)
        self.ratings += len(stored)
        self.replaced += sum(rating.supersedes is not None and rating.kind not in TURNS for rating in stored)

    def show(self) -> None:
        """The switch: one transaction, and everything is seen."""
        with self.database.transaction():
            for key in self.stricter:
                named = self.checked.strictest.get(key)
                conversations.make_stricter(self.database, key, conversations.decided_split(self.database, key, named))
            for prompt, task in self.tasks.items():
                conversations.name_task(self.database, prompt, task)
            log.settle(self.database, list(self.unsettled))
            unfinished.switch(self.database)

    def _insert_prompt(self, key: str, system: str, language: str, prompt: Prompt) -> str | None:
        """Store a prompt, under the write lock; the key of the one that someone else has asked meanwhile, if so."""
        there = self.database.scalar(
            "SELECT id FROM prompts WHERE text_key = ? AND system = ? AND language = ?", (key, system, language)
        )
        if there is not None:
            return there
        split = conversations.decided_split(self.database, key, self.checked.strictest.get(key))
        self._note_looser(key, split)
        conversations.insert(self.database, msgspec.structs.replace(prompt, split=split))
        return None

    def _note_looser(self, key: str, split: Split) -> None:
        """Note a text of which there are prompts with a looser split: the switch makes them stricter."""
        if self.database.scalar("SELECT 1 FROM prompts WHERE text_key = ? AND split != ?", (key, split)) is not None:
            self.stricter.add(key)

    def _waits(self, rating: Rating) -> bool:
        """Whether the effect of an event reaches what was there before, and so is due at the switch."""
        touches = rating.supersedes is not None and (
            rating.supersedes in self.unsettled or not self._is_hidden(rating.supersedes)
        )
        if touches or rating.id in self.unsettled or rating.gesture in self._gestures:
            self.unsettled[rating.id] = None
            if rating.supersedes is not None:
                self._outdated.add(rating.supersedes)
            if rating.gesture is not None:
                self._gestures.add(rating.gesture)
        return rating.id in self.unsettled

    def _is_hidden(self, rating_id: str) -> bool:
        return (
            self.database.scalar(
                "SELECT 1 FROM ratings WHERE id = ? AND sequence IN (SELECT sequence FROM hidden_ratings)", (rating_id,)
            )
            is not None
        )

    # What an entry adds to the plan; each returns whether anything was new.

    def _plan(self, plan: _Plan, entry: Entry) -> bool:
        if entry.event is not None:
            return self._plan_event(plan, entry, entry.event)
        prompt, is_new = self._prompt(plan, entry)
        if entry.kind == "prompt":
            return is_new
        if entry.kind == "demonstration":
            return self._sample(plan, prompt, entry.response, origin="demonstration")[1]
        rating = self._rating(plan, prompt, entry)
        if self._is_there(plan, entry, rating):
            return False
        plan.add_rating(rating)
        return True

    def _prompt(self, plan: _Plan, entry: Entry) -> tuple[str, bool]:
        """The key of the entry's prompt, and whether it is new."""
        key = text_key(entry.prompt)
        name = (key, entry.system, entry.language)
        if name in plan.prompts:
            return plan.prompts[name].id, False
        found = conversations.find(self.database, entry.prompt, language=entry.language, system=entry.system)
        if entry.split is not None:
            self._note_looser(key, conversations.decided_split(self.database, key, self.checked.strictest[key]))
        if found is not None:
            if entry.task and not found.task:
                self.tasks.setdefault(found.id, entry.task)
            return found.id, False
        made = conversations.new(
            entry.prompt, Split.TRAIN, language=entry.language, system=entry.system, task=entry.task, origin="imported"
        )  # its split is decided when it is stored
        plan.prompts[name] = made
        return made.id, True

    def _sample(self, plan: _Plan, prompt_id: str, text: str, origin: str = "imported") -> tuple[str, bool]:
        """The key of a prompt's answer with this very text, and whether it is new. A demonstration is its own answer."""
        name = (prompt_id, text, origin == "demonstration")
        if name in plan.by_text:
            return plan.by_text[name], False
        found = self.database.scalar(
            """SELECT id FROM samples WHERE prompt_id = ? AND text = ? AND (origin = 'demonstration') = ?
               ORDER BY sequence LIMIT 1""",
            name,
        )
        if found is None:
            made = samples.new(prompt_id, text, origin=origin)
            plan.samples[made.id] = made
            plan.by_text[name] = made.id
        return found or made.id, found is None

    def _rating(self, plan: _Plan, prompt_id: str, entry: Entry) -> Rating:
        sample, _ = self._sample(plan, prompt_id, entry.response)
        says = dict(entry.says)
        if entry.kind == RatingKind.PAIR:
            says["other_sample_id"], _ = self._sample(plan, prompt_id, entry.other)
            says["choice"] = Choice(says["choice"])
        keeps = is_key(entry.key) and entry.key not in plan.rating_keys and not self._exists("ratings", entry.key)
        return Rating(
            id=entry.key if keeps and entry.key else clock.new_id(), created_at=clock.now(), rater=entry.rater,
            kind=RatingKind(entry.kind), sample_id=sample, attribute=entry.attribute, source=Source.IMPORTED, **says,
        )  # fmt: skip

    def _is_there(self, plan: _Plan, entry: Entry, rating: Rating) -> bool:
        """Whether this rating is known: under the record's own key, undone or not, or in the same words today."""
        assert rating.sample_id is not None
        if entry.key and entry.key in plan.rating_keys:
            known = [one for one in plan.ratings if one.id == entry.key]
        else:
            known = [log.get(self.database, entry.key)] if entry.key and self._exists("ratings", entry.key) else []
        said = _said(rating)
        # Of what this chunk says of the answer, the last word of each rater counts.
        here = [one for one in plan.rated.get(rating.sample_id, []) if _about(one) == _about(rating)]
        if here:
            return any(_said(one) == said for one in [*known, here[-1]])
        if rating.sample_id not in plan.samples:
            effective = log.effective(self.database, sample_id=rating.sample_id)
            known += [one for one in effective if one.id not in self._outdated]
        return any(_said(one) == said for one in known)

    def _plan_event(self, plan: _Plan, entry: Entry, event: Rating) -> bool:
        """Replay an event of another workspace's log under its own key."""
        if event.id in plan.rating_keys or self._exists("ratings", event.id):
            return False
        if event.supersedes and not (event.supersedes in plan.rating_keys or self._exists("ratings", event.supersedes)):
            reason = "names an event that stands neither earlier in the file nor in the workspace"
            raise BadFieldError("supersedes", reason)
        if event.kind not in TURNS:
            prompt, _ = self._prompt(plan, entry)
            for key, text in ((event.sample_id, entry.response), (event.other_sample_id, entry.other)):
                if key is not None:
                    self._keep_sample(plan, prompt, key, text)
        plan.add_rating(event)
        return True

    def _keep_sample(self, plan: _Plan, prompt_id: str, key: str, text: str) -> None:
        """Store a sample under its own key. The version that said it lives elsewhere, so it is imported text here."""
        there = plan.samples[key].text if key in plan.samples else None
        if there is None:
            there = self.database.scalar("SELECT text FROM samples WHERE id = ?", (key,))
        if there is None:
            made = msgspec.structs.replace(samples.new(prompt_id, text, origin="imported"), id=key)
            plan.samples[key] = made
            plan.by_text.setdefault((prompt_id, text, False), key)
        elif there != text:
            raise BadFieldError("sample_id", "names a sample that holds another text in this workspace")

    def _exists(self, table: str, key: str | None) -> bool:
        return self.database.scalar(f"SELECT 1 FROM {table} WHERE id = ?", (key,)) is not None


def _about(rating: Rating) -> tuple[object, ...]:
    """What a rating is about and by whom: another one with the same stands in its place."""
    return rating.kind, rating.rater, rating.attribute, frozenset((rating.sample_id, rating.other_sample_id))


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
