"""What there is, to be looked through: prompts by the page, and of one its answers with all that was ever said of them.

A page costs what is on it, however much is stored: it goes on below the last sequence of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from storage import conversations, learned_from
from storage.database import Database
from storage.feedback import log
from storage.feedback.kinds import JUDGING, TURNS, RatingKind, sql_list
from storage.records import Prompt, Rating, Sample, Source

PAGE = 100
# What a page can be narrowed to, beside the columns of prompts.
CONDITIONS = {
    "version": "EXISTS (SELECT 1 FROM samples WHERE prompt_id = prompts.id AND version = :version)",
    "kind": "EXISTS (SELECT 1 FROM counted WHERE counted.prompt = prompts.sequence AND counted.kind = :kind)",
    "tag": """EXISTS (SELECT 1 FROM counted JOIN ratings ON ratings.sequence = counted.sequence, json_tree(ratings.tags)
                      WHERE counted.prompt = prompts.sequence AND counted.kind = 'tags'
                        AND (json_tree.key = :tag OR json_tree.atom = :tag))""",
    "answer": """EXISTS (SELECT 1 FROM samples WHERE prompt_id = prompts.id
                         AND instr(search_form(samples.text), search_form(:answer)))""",
}


# The same, of one answer.
_COUNTED_OF_IT = "FROM counted WHERE samples.sequence IN (counted.sample, counted.other)"
OF_ANSWERS = {
    "version": "version = :version",
    "kind": f"EXISTS (SELECT 1 {_COUNTED_OF_IT} AND counted.kind = :kind)",
    "answer": "instr(search_form(samples.text), search_form(:answer))",
}


class Shelved(Prompt, frozen=True):
    """A prompt as it stands in the library, with how many answers it has and how many ratings of them count: those of
    judge models apart, as `judged`."""

    sequence: int = 0
    answers: int = 0
    ratings: int = 0
    judged: int = 0


class Hanging(msgspec.Struct, frozen=True):
    """What hangs on a prompt and on those that share its split, for they open with the same text.

    Attributes:
        prompts: these prompts, itself included. taught: ratings of them that teach.
        answers, ratings: of the prompt alone, ratings that count.
        judged: those of judge models among `ratings`.
        learned: jobs that learned from ratings of these prompts, newest first. began: how many jobs began since the
            prompt is there, and may have practised on it or measured with it.
        measured: versions whose answers to it are there.
    """

    prompts: int
    taught: int
    answers: int
    ratings: int
    learned: tuple[str, ...]
    began: int
    measured: tuple[str, ...]
    judged: int = 0


class Standing(StrEnum):
    """What has become of an event."""

    COUNTS = "counts"
    REPLACED = "replaced"
    TAKEN_BACK = "taken back"
    TURN = "turn"  # an undo or a redo


class Told(msgspec.Struct, frozen=True):
    """An event about an answer, what has become of it, and the versions that it shaped, by their names."""

    rating: Rating
    standing: Standing
    shaped: tuple[str, ...] = ()


class Answered(msgspec.Struct, frozen=True):
    """One of the answers to a prompt: the `place`th of `count`, and all that was ever said of it, oldest first."""

    sample: Sample
    place: int
    count: int
    told: tuple[Told, ...]


def page(
    database: Database,
    search: str = "",
    before: int | None = None,
    limit: int = PAGE,
    only: Mapping[str, str] | None = None,
) -> list[Shelved]:
    """The newest prompts, as :func:`storage.conversations.newest` finds them.

    Args:
        only: what must be so: `language`, `split`, `task`; a `version` that answered; the `kind` of a rating that
            counts; a `tag`, by its name or what it says; words of an `answer`, which are looked for in all of them.
    """
    columns = f"""prompts.*, (SELECT count(*) FROM samples WHERE prompt_id = prompts.id) AS answers,
        (SELECT count(*) FROM counted WHERE counted.prompt = prompts.sequence
         AND kind IN {sql_list(JUDGING)} AND source != '{Source.AI}') AS ratings,
        (SELECT count(*) FROM counted WHERE counted.prompt = prompts.sequence
         AND kind IN {sql_list(JUDGING)} AND source = '{Source.AI}') AS judged"""
    return conversations.newest(database, Shelved, columns, limit, search, before, only, conditions=CONDITIONS)


def prompt(database: Database, prompt_id: str) -> Shelved | None:
    """One prompt by its key; None where there is none."""
    return next(iter(page(database, limit=1, only={"id": prompt_id})), None)


def hanging(database: Database, prompt_id: str) -> Hanging:
    """What would be affected by another language or split of a prompt."""
    same = "(SELECT id FROM prompts WHERE opening = (SELECT opening FROM prompts WHERE id = :id))"
    numbers = database.row(
        f"""SELECT (SELECT count(*) FROM prompts WHERE id IN {same}) AS prompts,
                   (SELECT count(*) FROM counted WHERE teaches
                    AND prompt IN (SELECT sequence FROM prompts WHERE id IN {same})) AS taught,
                   (SELECT count(*) FROM samples WHERE prompt_id = :id) AS answers,
                   (SELECT count(*) FROM counted WHERE kind IN {sql_list(JUDGING)}
                    AND prompt = (SELECT sequence FROM prompts WHERE id = :id)) AS ratings,
                   (SELECT count(*) FROM counted WHERE kind IN {sql_list(JUDGING)} AND source = '{Source.AI}'
                    AND prompt = (SELECT sequence FROM prompts WHERE id = :id)) AS judged,
                   (SELECT count(*) FROM jobs WHERE json_extract(begun, '$.prompts') >=
                    (SELECT sequence FROM prompts WHERE id = :id)) AS began""",
        {"id": prompt_id},
    )
    # The second answer of a pair is to the same prompt as its first.
    learned = database.rows(
        f"""SELECT DISTINCT jobs.sequence, jobs.kind, jobs.id FROM samples
            JOIN ratings ON ratings.sample_id = samples.id
            JOIN job_ratings ON rating_id = ratings.id JOIN jobs ON jobs.id = job_id
            WHERE samples.prompt_id IN {same} ORDER BY jobs.sequence DESC""",
        {"id": prompt_id},
    )
    measured = database.rows(
        "SELECT DISTINCT version FROM samples WHERE prompt_id = :id AND version NOT NULL ORDER BY version",
        {"id": prompt_id},
    )
    assert numbers is not None, "sums are one row"
    return Hanging(
        **numbers, learned=tuple(f"{row['kind']} {row['id'][-8:]}" for row in learned),
        measured=tuple(row["version"] for row in measured),
    )  # fmt: skip


def answer(database: Database, prompt_id: str, place: int) -> Answered | None:
    """An answer to a prompt by its place in their order, from 0, counted round the end; None where there is none."""
    count = database.scalar("SELECT count(*) FROM samples WHERE prompt_id = ?", (prompt_id,))
    if not count:
        return None
    found = database.record(
        Sample,
        "SELECT * FROM samples WHERE prompt_id = ? ORDER BY sequence LIMIT 1 OFFSET ?",
        (prompt_id, place % count),
    )
    assert found is not None, "it is one of those that were counted"
    return Answered(found, place % count, count, told(database, found.id))


def place_of(database: Database, prompt_id: str, only: Mapping[str, str]) -> int:
    """The place of the first answer to a prompt for which a page narrowed to `only` has it; 0 where no answer does."""
    wanted = [OF_ANSWERS[name] for name in only if name in OF_ANSWERS]
    if not wanted:
        return 0
    return database.scalar(
        f"""SELECT count(*) FROM samples WHERE prompt_id = :id AND sequence <
                (SELECT min(sequence) FROM samples WHERE prompt_id = :id AND {" AND ".join(wanted)})""",
        {**only, "id": prompt_id},
    )


def told(database: Database, sample_id: str) -> tuple[Told, ...]:
    """Every event about an answer, oldest first, what has become of each, and what it shaped."""
    events = log.history(database, sample_id)
    counting = {rating.id for rating in log.effective(database, sample_id=sample_id)}
    redone = {event.supersedes for event in events if event.kind == RatingKind.REDO}
    undone = {event.supersedes for event in events if event.kind == RatingKind.UNDO and event.id not in redone}
    gestures = {
        event.gesture for key in undone if key is not None for event in log.act(database, log.get(database, key))
    }

    def standing(event: Rating) -> Standing:
        if event.kind in TURNS:
            return Standing.TURN
        if event.id in counting:
            return Standing.COUNTS
        back = event.id in undone or (event.gesture is not None and event.gesture in gestures)
        return Standing.TAKEN_BACK if back else Standing.REPLACED

    shaped = learned_from.shaped_by(database, [event.id for event in events])
    return tuple(
        Told(event, standing(event), tuple(one.version for one in shaped.get(event.id, ()))) for event in events
    )
