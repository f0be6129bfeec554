"""Prompts: what is asked, after which turns and in which language, and what each may be used for.

A prompt is a list of messages that ends with the user's. Two are the same when all their messages are, and so is their
language; a prompt of one turn is known by its text alone, as it was before there were others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from storage import clock, settings, splits, unfinished
from storage.database import Database
from storage.errors import UsageError
from storage.forms import opening_key, prompt_key, search_form
from storage.forms import text_key as text_key
from storage.records import Change, Message, Prompt, Split

# The strictest use of a text wins, whatever language or system prompt stands beside it, and whatever was said after it:
# a held-out prompt that is imported again without its language must not become training data, nor must a conversation
# that begins with it.
_STRICTNESS = {Split.TRAIN: 0, Split.HELD_OUT: 1, Split.ETHICS: 2}
Found = TypeVar("Found", bound=Prompt)
LAST = 2**63 - 1  # no sequence is higher
_SHARE = "held_out_share"
_SPLITS_OF_TEXT = "SELECT DISTINCT split FROM main.prompts WHERE opening = ?"  # of an unfinished import as well


def add(
    database: Database,
    text: str,
    *,
    language: str = "und",
    system: str = "",
    task: str = "",
    split: Split | None = None,
    origin: str = "typed",
    earlier: Sequence[Message] = (),
) -> Prompt:
    """Store a prompt, or return the one that is there already. All prompts that open with one text share its strictest
    split.

    Args:
        text: the user's last message. earlier: what was said before it, the system message `system` aside.
        split: None leaves a text that is known where it is, and lets a hash decide about a new one: once, and for
            ever. A split that is named holds for a new text, and makes a known one stricter, never less strict.
    """
    opening = opening_key(text, earlier)
    with database.transaction():
        strictest = decided_split(database, opening, split)
        make_stricter(database, opening, strictest)
        found = find(database, text, language=language, system=system, earlier=earlier)
        if found is None and unfinished.show_prompt(database, prompt_key(text, earlier), system, language):
            found = find(database, text, language=language, system=system, earlier=earlier)
        if found is None:
            created = new(text, strictest, language=language, system=system, task=task, origin=origin, earlier=earlier)
            database.insert("prompts", row_of(created))
            return created
        if task and not found.task:
            name_task(database, found.id, task)
    return get(database, found.id)


def new(
    text: str, split: Split, *, language: str, system: str, task: str, origin: str, earlier: Sequence[Message] = ()
) -> Prompt:
    """A prompt with a fresh key, not stored yet."""
    return Prompt(clock.new_id(), text, language, clock.now(), system, task, split, origin, tuple(earlier))


def row_of(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a row of its table, with the forms of its texts that are looked for."""
    turns = [message.content for message in prompt.earlier if message.role != "system"]
    forms = {
        "text_key": prompt_key(prompt.text, prompt.earlier),
        "opening": opening_key(prompt.text, prompt.earlier),
        "search_form": search_form("\n".join([*turns, prompt.text])),
    }
    return msgspec.to_builtins(prompt) | forms


def decided_split(database: Database, opening: str, named: Split | None) -> Split:
    """The split of what opens with a text: the strictest of those that it has and the one that is named, else what the
    hash of its key says."""
    uses = splits_of(database, opening)
    decided = uses if named is None else [*uses, Split(named)]
    return strictest_of(decided or [splits.by_hash(opening, held_out_share(database))])


def splits_of(database: Database, opening: str) -> list[Split]:
    """The splits of the prompts that open with a text: one, or none where there are no such prompts."""
    return [Split(row["split"]) for row in database.rows(_SPLITS_OF_TEXT, (opening,))]


def strictest_of(found: Iterable[Split]) -> Split:
    """The strictest of some splits."""
    return max(found, key=_STRICTNESS.__getitem__)


def make_stricter(database: Database, opening: str, split: Split, by: str = "") -> int:
    """Give all prompts that open with a text a split that is at least as strict as theirs; returns how many it is new
    to."""
    return _correct(database, "split", split, "opening = :key", opening, by)


def put_to_use(
    database: Database, prompt_id: str, split: Split, task: str, *, language: str | None = None, by: str = ""
) -> Prompt:
    """Put a prompt to a use that is as strict as its own or stricter, with all that open with its text; name its task;
    and correct its language, where one is given, with which its answers and ratings go. Returns it as it is then.

    Args:
        by: who does it; each change is kept (:func:`changes`).

    Raises:
        UsageError: the use is less strict, or the workspace holds the same prompt in that language.
    """
    with database.transaction():
        prompt = get(database, prompt_id)
        if is_less_strict(split, prompt.split):
            raise UsageError(
                f"a prompt that is {prompt.split} never becomes {split}",
                "what was kept apart to measure with stays apart, or a gain on it would mean nothing",
            )
        if language is not None and language != prompt.language:
            _refuse_same(database, prompt, language)
            _correct(database, "language", language, "id = :key", prompt_id, by)
        make_stricter(database, opening_key(prompt.text, prompt.earlier), split, by)
        name_task(database, prompt_id, task, by)
        return get(database, prompt_id)


def is_less_strict(split: Split, than: Split) -> bool:
    """Whether a split is less strict than another, and so never follows it."""
    return _STRICTNESS[split] < _STRICTNESS[than]


def name_task(database: Database, prompt_id: str, task: str, by: str = "") -> None:
    """Give a prompt its task."""
    _correct(database, "task", task, "id = :key", prompt_id, by)


def changes(database: Database, prompt_id: str) -> list[Change]:
    """What was corrected about a prompt, oldest first."""
    return database.records(Change, "SELECT * FROM prompt_changes WHERE prompt_id = ? ORDER BY sequence", (prompt_id,))


def _correct(database: Database, field: str, value: str, those: str, key: str, by: str) -> int:
    """Set a field of prompts to a value, and keep what it was; returns to how many it is new. Hidden ones are among
    them."""
    given = {"value": value, "key": key, "by": by, "now": clock.now()}
    which = f"FROM main.prompts WHERE {those} AND {field} != :value"
    database.execute(
        f"""INSERT INTO prompt_changes (prompt_id, field, was, became, made_by, created_at)
            SELECT id, '{field}', {field}, :value, :by, :now {which}""",
        given,
    )
    return database.execute(f"UPDATE main.prompts SET {field} = :value WHERE {those} AND {field} != :value", given)


def _refuse_same(database: Database, prompt: Prompt, language: str) -> None:
    same = database.scalar(
        "SELECT 1 FROM main.prompts WHERE text_key = ? AND system = ? AND language = ?",
        (prompt_key(prompt.text, prompt.earlier), prompt.system, language),
    )
    if same is not None:
        raise UsageError(
            f"the workspace holds this prompt in {language} already",
            "two would become one, and answers never change their prompt: go on with that one",
        )


def held_out_share(database: Database) -> float:
    """The share of new prompts that are held out, from 0 to below 1."""
    return float(settings.get(database, _SHARE, splits.DEFAULT_SHARE))


def set_held_out_share(database: Database, share: float) -> None:
    """Set the share of prompts to hold out from now on; stored prompts stay where they are.

    Raises:
        UsageError: it is not from 0 to below 1.
    """
    if not 0 <= share < 1:
        raise UsageError(
            f"the held-out share must be at least 0 and below 1, not {share:g}",
            f"0.2 holds out every fifth new prompt; the default is {splits.DEFAULT_SHARE:g}",
        )
    settings.put(database, _SHARE, share)


def find(
    database: Database, text: str, *, language: str = "und", system: str = "", earlier: Sequence[Message] = ()
) -> Prompt | None:
    """The prompt with these messages and this language, or None."""
    return database.record(
        Prompt,
        "SELECT * FROM prompts WHERE text_key = ? AND system = ? AND language = ?",
        (prompt_key(text, earlier), system, language),
    )


def get(database: Database, prompt_id: str) -> Prompt:
    """One prompt by its key. Raises KeyError when there is none."""
    found = database.record(Prompt, "SELECT * FROM prompts WHERE id = ?", (prompt_id,))
    if found is None:
        raise KeyError(prompt_id)
    return found


def by_split(database: Database, split: Split, language: str | None = None, *, upto: int | None = None) -> list[Prompt]:
    """All prompts of one use, oldest first; of one language, and up to one sequence, when given."""
    return database.records(
        Prompt,
        """SELECT * FROM prompts WHERE split = ?1 AND (?2 IS NULL OR language = ?2) AND (?3 IS NULL OR sequence <= ?3)
           ORDER BY sequence""",
        (split, language, upto),
    )


def recent(database: Database, limit: int = 200, search: str = "") -> list[Prompt]:
    """The newest prompts, optionally those in whose turns `search` stands; neither case nor accents tell."""
    return newest(database, Prompt, "prompts.*", limit, search)


def newest(
    database: Database,
    kind: type[Found],
    columns: str,
    limit: int,
    search: str = "",
    before: int | None = None,
    only: Mapping[str, str] | None = None,
    where: str = "",
    conditions: Mapping[str, str] | None = None,
) -> list[Found]:
    """The newest prompts as records of a kind, from columns in SQL: those in whose turns `search` stands.

    Reading stops at the last one that is wanted.

    Args:
        before: a sequence; the prompts that come before it. only: columns of prompts, with what must stand there; or
            names of `conditions`, with what these call by that name. where: a further condition, in SQL.
    """
    given: dict[str, object] = {**(only or {}), "limit": limit, "before": before or LAST}
    wanted = search_form(search)
    source, order = "prompts", "prompts.sequence"
    conditions = conditions or {}
    wanting = [conditions.get(name, f"prompts.{name} = :{name}") for name in only or ()] + [where] * bool(where)
    # An index of every three characters; what is shorter is looked for in one text after the other, newest first.
    if len(wanted) >= 3 and database.has_table("prompt_search"):
        source = "prompt_search JOIN prompts ON prompts.sequence = prompt_search.rowid"
        order = "prompt_search.rowid"
        wanting.append("prompt_search MATCH :wanted")
        given["wanted"] = '"' + wanted.replace('"', '""') + '"'
    elif wanted:
        wanting.append("instr(search_form, :wanted)")
        given["wanted"] = wanted
    wanting.append(f"{order} < :before")
    return database.records(
        kind,
        f"""SELECT {columns} FROM {source} WHERE {" AND ".join(wanting)}
            ORDER BY {order} DESC LIMIT :limit""",
        given,
    )
