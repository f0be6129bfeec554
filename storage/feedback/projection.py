"""What follows from the log, in tables that are kept by the transaction that appends to it: `counted` is what counts
today, the others are its sums and those of prompts and samples (storage/schema says what each column means).

Triggers keep the sums as `counted`, prompts and samples change. Everything here can be made anew from the log alone,
and is compared with it by `workbench doctor`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from storage import unfinished
from storage.database import Database
from storage.feedback import counting
from storage.feedback.counting import Link

# The rows of `counted`, from those of `ratings`; for a condition on these. CROSS JOIN keeps the order of tables.
COUNTED = """
    SELECT sequence, rater, kind, attribute, source, language, split, prompt, sample, other, teaches,
           iif(teaches AND attribute = 'overall', answer_number(text, version, token_ids), 0) AS answer,
           CASE WHEN NOT teaches OR attribute != 'overall' THEN 0
                WHEN kind = 'edit' THEN answer_number(edited, NULL, NULL)
                WHEN other = 0 THEN 0
                ELSE answer_number(other_text, other_version, other_token_ids) END AS beside
    FROM (
        SELECT ratings.sequence, rater, ratings.kind, attribute, source, language, split,
               prompts.sequence AS prompt, min(a.sequence, ifnull(b.sequence, a.sequence)) AS sample,
               iif(b.sequence IS NULL, 0, max(a.sequence, b.sequence)) AS other,
               examples_taught(ratings.kind, choice, tags) AS teaches, ratings.text AS edited,
               a.text, a.version, a.token_ids,
               b.text AS other_text, b.version AS other_version, b.token_ids AS other_token_ids
        FROM ratings CROSS JOIN samples AS a ON a.id = sample_id LEFT JOIN samples AS b ON b.id = other_sample_id
        CROSS JOIN prompts ON prompts.id = a.prompt_id
        WHERE ratings.kind NOT IN ('undo', 'redo') AND {})"""
# The events that are tied to some others: through what they supersede, up and down, and through gestures.
FAMILY = """
    WITH RECURSIVE family(id) AS (
        SELECT value FROM json_each(?)
        UNION SELECT ratings.supersedes FROM ratings JOIN family ON ratings.id = family.id
              WHERE ratings.supersedes NOT NULL
        UNION SELECT ratings.id FROM ratings JOIN family ON ratings.supersedes = family.id
        UNION SELECT mates.id FROM ratings JOIN family ON ratings.id = family.id
              JOIN ratings AS mates ON mates.gesture = ratings.gesture)"""
_PROMPT_OF_SAMPLE = "JOIN prompts ON prompts.id = samples.prompt_id"
_IS_ANSWER = "samples.origin = 'model' AND finish_reason != 'cancelled'"
# What each table of sums should hold, and which of its rows say that there is nothing.
_SUMS = {
    "tally_of_prompts": ("SELECT language, split, count(*) FROM prompts GROUP BY 1, 2", "prompts = 0"),
    "tally_of_samples": (
        f"SELECT language, samples.origin, count(*) FROM samples {_PROMPT_OF_SAMPLE} GROUP BY 1, 2", "samples = 0"
    ),
    "tally_of_ratings": (
        """SELECT language, kind, attribute, source, split, count(*), sum(teaches) FROM counted
           GROUP BY 1, 2, 3, 4, 5""",
        "ratings = 0 AND teaches = 0",
    ),
    "tally_of_raters": ("SELECT rater, language, kind, count(*) FROM counted GROUP BY 1, 2, 3", "ratings = 0"),
    "answers": (
        f"""SELECT samples.sequence, prompts.sequence, ifnull(versions.sequence, 0),
                   min(samples.sequence) OVER (PARTITION BY prompt_id, samples.text), language,
                   substr(samples.id, -8),
                   row_number() OVER (PARTITION BY prompt_id, ifnull(versions.sequence, 0)
                                      ORDER BY samples.sequence)
            FROM samples {_PROMPT_OF_SAMPLE} LEFT JOIN versions ON versions.name = samples.version
            WHERE {_IS_ANSWER}""",
        "0",
    ),
    "topics": (
        """SELECT answers.prompt, answers.version, answers.language, count(*), max(answers.sample),
                  max(reward + deviation)
           FROM answers JOIN prompts ON prompts.sequence = answers.prompt
           JOIN samples ON samples.sequence = answers.sample
           LEFT JOIN expectations ON sample_id = samples.id GROUP BY 1, 2""",
        "0",
    ),
    "taught_answers": (
        """SELECT prompt, answer, count(*) FROM (
               SELECT prompt, answer FROM counted WHERE answer != 0
               UNION ALL SELECT prompt, beside FROM counted WHERE beside != 0) GROUP BY 1, 2""",
        "ratings = 0",
    ),
    "imitable_texts": (
        f"""SELECT prompt, text, count(*) FROM (
                SELECT prompts.sequence AS prompt, samples.text FROM samples {_PROMPT_OF_SAMPLE}
                WHERE samples.origin = 'demonstration'
                UNION ALL SELECT prompt, text FROM counted JOIN ratings ON ratings.sequence = counted.sequence
                WHERE counted.kind = 'edit')
            WHERE trim(text, char(32, 9, 10, 11, 12, 13)) != '' GROUP BY 1, 2""",
        "times = 0",
    ),
    "lessons": (
        """SELECT prompt, sum(rated), sum(scores), sum(imitable) FROM (
               SELECT prompt, count(*) AS rated, 0 AS scores, 0 AS imitable FROM taught_answers
               WHERE ratings > 0 GROUP BY 1
               UNION ALL SELECT prompt, 0, count(*), 0 FROM counted WHERE kind = 'score' AND answer != 0 GROUP BY 1
               UNION ALL SELECT prompt, 0, 0, count(*) FROM imitable_texts WHERE times > 0 GROUP BY 1) GROUP BY 1""",
        "rated = 0 AND scores = 0 AND imitable = 0",
    ),
    "tally_of_lessons": (
        """SELECT split, sum(rated), sum(rated > 1), sum(scores > 0), sum(imitable)
           FROM lessons JOIN prompts ON prompts.sequence = prompt
           WHERE rated > 0 OR scores > 0 OR imitable > 0 GROUP BY 1""",
        "rated = 0 AND compared = 0 AND scored = 0 AND imitable = 0",
    ),
}  # fmt: skip


def count(database: Database, condition: str, parameter: object) -> None:
    """Let the ratings that fulfil a condition count."""
    database.execute(f"INSERT INTO main.counted {COUNTED.format(condition)}", (parameter,))


def settle(database: Database, keys: Sequence[str]) -> None:
    """Say in `counted` which events count, of the families of these."""
    if not keys:
        return
    family = database.rows(
        f"""{FAMILY} SELECT ratings.sequence, id, ratings.kind, supersedes, gesture, counted.sequence AS counts
            FROM ratings LEFT JOIN counted ON counted.sequence = ratings.sequence
            WHERE id IN (SELECT id FROM family)""",
        (encoded(keys),),
    )
    told = counting.counted(Link(row["id"], row["kind"], row["supersedes"], row["gesture"]) for row in family)
    gone = [row["sequence"] for row in family if row["counts"] is not None and row["id"] not in told]
    come = [row["sequence"] for row in family if row["counts"] is None and row["id"] in told]
    if gone:
        database.execute(
            "DELETE FROM main.counted WHERE sequence IN (SELECT value FROM json_each(?))", (encoded(gone),)
        )
    if come:
        count(database, "ratings.sequence IN (SELECT value FROM json_each(?))", encoded(come))


def rebuild_effects(database: Database) -> None:
    """Make `counted` and all sums anew from prompts, samples and the events."""
    with unfinished.everything(database), database.transaction():
        database.execute("DELETE FROM main.counted")
        for table in _SUMS:
            database.execute(f"DELETE FROM {table}")
        count(database, "ratings.id IN (SELECT value FROM json_each(?))", encoded(_told_by_the_log(database)))
        for table, (told, _) in _SUMS.items():  # again, since triggers saw `counted` alone
            database.execute(f"DELETE FROM {table}")
            database.execute(f"INSERT INTO {table} {told}")


def effects_differ(database: Database) -> int:
    """How many rows of `counted` and of its sums are not what the log says; 0 when they are sound."""
    # Of one moment: what somebody stores between two of these queries is no difference.
    with unfinished.everything(database), database.snapshot():
        told = COUNTED.format("ratings.id IN (SELECT value FROM json_each(?1))")
        different = database.scalar(
            f"""WITH told AS MATERIALIZED ({told})
                SELECT (SELECT count(*) FROM (SELECT * FROM told EXCEPT SELECT * FROM counted))
                     + (SELECT count(*) FROM counted WHERE sequence NOT IN (SELECT sequence FROM told))""",
            (encoded(_told_by_the_log(database)),),
        )
        for table, (sums, nothing) in _SUMS.items():
            different += database.scalar(
                f"""WITH sums AS MATERIALIZED ({sums}),
                    kept AS (SELECT * FROM {table} WHERE NOT ({nothing}))
                    SELECT (SELECT count(*) FROM (SELECT * FROM sums EXCEPT SELECT * FROM kept))
                         + (SELECT count(*) FROM (SELECT * FROM kept EXCEPT SELECT * FROM sums))"""
            )
    return different


def encoded(values: Sequence[object]) -> str:
    """Values as the JSON array that `json_each` reads."""
    return msgspec.json.encode(values).decode()


def _told_by_the_log(database: Database) -> list[str]:
    """The keys of what counts, by the events alone."""
    rows = database.connection.execute("SELECT id, kind, supersedes, gesture FROM ratings")
    return sorted(counting.counted(Link(*row) for row in rows))
