"""What some records of an import add to the workspace: looked up in sets, and nothing is stored yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from storage import clock, conversations, raters, samples
from storage.database import Database
from storage.exchange.layouts.entries import Entry, is_key
from storage.exchange.rows import BadFieldError, Problem
from storage.feedback import kinds
from storage.forms import opening_key, prompt_key
from storage.records import Choice, Rating, RatingKind, Source, Split

SplitOf = Callable[[str], Split]
FROM_MODEL = "imported:"  # the origin of an answer that came from outside, before the name of the model that gave it
Name = tuple[str, str, str]  # of a prompt: its key, its system prompt and its language
Answer = tuple[str, str, bool]  # the key of its prompt, its text, and whether it is a demonstration


class Chunk:
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
        return self._database.rows(sql, (encoded(wanted),))

    def _find_prompts(self, entries: list[Entry]) -> dict[Name, dict[str, Any]]:
        found = self._rows(
            """SELECT id, text_key, system, language, task FROM prompts
               WHERE text_key IN (SELECT value FROM json_each(?))""",
            {prompt_key(entry.prompt, entry.earlier) for entry in entries},
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
            Rating, "SELECT * FROM ratings WHERE id IN (SELECT value FROM json_each(?))", (encoded(wanted),)
        )
        return {rating.id: rating for rating in found}

    def _find_counting(self, outdated: set[str]) -> dict[kinds.Name, Rating]:
        """The ratings that count of the answers found, by what they stand for."""
        found = self._database.records(
            Rating,
            """WITH here AS (SELECT sequence FROM samples WHERE id IN (SELECT value FROM json_each(?)))
               SELECT ratings.* FROM counted JOIN ratings ON ratings.sequence = counted.sequence
               WHERE counted.sample IN (SELECT sequence FROM here) ORDER BY counted.sequence""",
            (encoded(self._known_samples.values()),),
        )
        return {
            name: rating
            for rating in found
            if rating.id not in outdated and (name := kinds.name_of(rating)) is not None
        }

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
        known = [self._named(rating), self._known_ratings.get(entry.key or "")]
        if any(one is not None and _said(one) == _said(rating) for one in known):
            return False
        self._append(rating)
        return True

    def _append(self, rating: Rating) -> None:
        self.ratings.append(rating)
        self._known_ratings[rating.id] = rating
        if (name := kinds.name_of(rating)) is not None:
            self._counting[name] = rating

    def _named(self, rating: Rating) -> Rating | None:
        """The rating that this one would replace."""
        name = kinds.name_of(rating)
        return None if name is None else self._counting.get(name)

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
            entry.prompt, self._split_of(opening_key(entry.prompt, entry.earlier)), language=entry.language,
            system=entry.system, task=entry.task, origin="imported", earlier=entry.earlier,
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
        sample, _ = self._sample(prompt_id, entry.response, _origin(entry.model))
        says = dict(entry.says)
        if entry.kind == RatingKind.PAIR:
            says["other_sample_id"], _ = self._sample(prompt_id, entry.other, _origin(entry.other_model))
            says["choice"] = Choice(says["choice"])
        keeps = is_key(entry.key) and entry.key not in self._known_ratings
        source = Source.AI if entry.rater.startswith(raters.JUDGE) else Source.IMPORTED
        return Rating(
            id=entry.key if keeps and entry.key else clock.new_id(), created_at=clock.now(), rater=entry.rater,
            kind=RatingKind(entry.kind), sample_id=sample, attribute=entry.attribute, source=source, **says,
        )  # fmt: skip

    def _add_event(self, entry: Entry, event: Rating) -> bool:
        """Replay an event of another workspace's log under its own key."""
        if event.id in self._known_ratings:
            return False
        if event.supersedes and event.supersedes not in self._known_ratings:
            reason = "names an event that stands neither earlier in the file nor in the workspace"
            raise BadFieldError("supersedes", reason)
        if event.kind not in kinds.TURNS:
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


def _name(entry: Entry) -> Name:
    """What makes a prompt the same as another."""
    return prompt_key(entry.prompt, entry.earlier), entry.system, entry.language


def _origin(model: str) -> str:
    return FROM_MODEL + model if model else "imported"


def encoded(values: Iterable[object]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _said(rating: Rating) -> tuple[object, ...]:
    """What a rating says, by whom and about what; `a` over `b` says the same as `b` over `a` turned round."""
    about, choice = (rating.sample_id, rating.other_sample_id), rating.choice
    if choice == Choice.B:
        about, choice = (about[1], about[0]), Choice.A
    # Of a pair that is all: how surely a judge model preferred it is in no record.
    says = [getattr(rating, name) for name in kinds.of(rating).says] if rating.kind != RatingKind.PAIR else []
    return rating.kind, rating.rater, rating.attribute, about, choice, says
