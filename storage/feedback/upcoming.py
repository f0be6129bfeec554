"""The prompts that a rater would be asked about next, had a version answered them."""

from __future__ import annotations

from storage.database import Database
from storage.feedback import census
from storage.records import Prompt, Split


def unanswered(
    database: Database, rater: str, version: str, in_vain: tuple[str, int] | None = None, limit: int = 1
) -> tuple[list[Prompt], int]:
    """Prompts that a version has not answered, of the languages that the rater has judged least first, those to train
    on before those to measure with, the newest first. Beside them, how many prompts there are, by the last sequence.

    Args:
        in_vain: a version for which there were none, when there were so many prompts: it is not looked for again.
    """
    last = database.scalar("SELECT ifnull(max(sequence), 0) FROM prompts")
    if in_vain == (version, last):
        return [], last
    counts = census.ratings_by_language(database, rater)
    languages = [row["language"] for row in database.rows("SELECT DISTINCT language FROM tally_of_prompts")]
    found: list[Prompt] = []
    for language in sorted(languages, key=lambda name: (counts.get(name, 0), name)):
        if len(found) < limit:
            found += database.records(
                Prompt,
                """SELECT * FROM prompts WHERE language = ?1 AND NOT EXISTS (
                       SELECT 1 FROM topics JOIN versions ON versions.sequence = topics.version
                       WHERE topics.prompt = prompts.sequence AND versions.name = ?2)
                   ORDER BY split != ?3, sequence DESC LIMIT ?4""",
                (language, version, Split.TRAIN, limit - len(found)),
            )
    return found, last
