"""What a version learned from: the jobs behind it, the reward models that they took, and the ratings, counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from storage import jobs, metrics, reward_models, versions
from storage.database import Database
from storage.records import Job, Source, Version
from storage.records import RewardModel as RewardModelRecord
from storage.wording import counted

IMITATING = ("sft", "run")  # the jobs that demonstrations and edits teach
BY_AI = " by AI"  # what follows the kind of a judge model's ratings


class Shaped(msgspec.Struct, frozen=True):
    """A version that a rating shaped: `through` names the version whose job learned from it."""

    version: str
    state: str
    through: str
    job: str


_OF_JOBS = "job_id IN (SELECT value FROM json_each(?1))"


def jobs_of_lineage(database: Database, version: Version) -> list[str]:
    """The keys of the jobs behind a version and behind all that it goes back to, the youngest first."""
    lineage = versions.lineage(database, version).values()
    return list(dict.fromkeys(job.id for one in lineage for job in jobs_behind(database, one)))


def jobs_behind(database: Database, version: Version) -> list[Job]:
    """The job that made a version, and the one that fitted the reward model that it was improved or judged by."""
    if version.job_id is None:
        return []
    own, record = jobs.get(database, version.job_id), reward_of(database, version)
    fitted_by = record.job_id if record is not None else None
    return [own] if fitted_by in (None, own.id) else [own, jobs.get(database, str(fitted_by))]


def reward_of(database: Database, version: Version) -> RewardModelRecord | None:
    """The reward model that a version's job fitted or took, to improve or to judge it by."""
    if version.job_id is None:
        return None
    job = jobs.get(database, version.job_id)
    fitted = reward_models.of_job(database, job.id)
    named = str(job.config.get("reward_model", "new"))
    if fitted is not None or named in ("new", "table", "none"):
        return fitted
    name = None if named in ("latest", "auto") else named
    return reward_models.find(database, version.base_digest, name, None if name else job.begun)


def shaped_by(database: Database, rating_ids: Sequence[str]) -> dict[str, list[Shaped]]:
    """Of each rating the versions whose own jobs, or those of what they go back to, learned from it, oldest first."""
    taught: dict[str, set[str]] = {}
    for row in database.rows(
        "SELECT rating_id, job_id FROM job_ratings WHERE rating_id IN (SELECT value FROM json_each(?))",
        (json.dumps(rating_ids),),
    ):
        taught.setdefault(row["rating_id"], set()).add(row["job_id"])
    if not taught:
        return {}
    known = list(reversed(versions.every(database)))
    behind = {version.name: [job.id for job in jobs_behind(database, version)] for version in known}
    found: dict[str, list[Shaped]] = {rating: [] for rating in taught}
    for version in known:
        lineage = list(versions.lineage(database, version))
        for rating, learned in taught.items():
            through = ((name, job) for name in lineage for job in behind.get(name, ()) if job in learned)
            if (first := next(through, None)) is not None:
                found[rating].append(Shaped(version.name, str(version.state), *first))
    return found


def count(database: Database, job_ids: Sequence[str]) -> int:
    """How many ratings some jobs learned from."""
    return database.scalar(
        f"SELECT count(DISTINCT rating_id) FROM job_ratings WHERE {_OF_JOBS}", (json.dumps(job_ids),)
    )


def counts(database: Database, job_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many ratings some jobs learned from, by language, kind, rater and source, most first."""
    columns = {"language": "prompts.language", "kind": "ratings.kind", "rater": "ratings.rater",
               "source": "ratings.source"}  # fmt: skip
    return {
        name: {
            row["name"]: row["n"]
            for row in database.rows(
                f"""SELECT {column} AS name, count(DISTINCT ratings.id) AS n FROM job_ratings
                    JOIN ratings ON ratings.id = rating_id JOIN samples ON samples.id = ratings.sample_id
                    JOIN prompts ON prompts.id = samples.prompt_id WHERE {_OF_JOBS} GROUP BY 1 ORDER BY n DESC, 1""",
                (json.dumps(job_ids),),
            )
        }
        for name, column in columns.items()
    }


def by_language_and_kind(database: Database, job_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many ratings of each kind some jobs learned from, by language; those of judge models are `score by AI`."""
    rows = database.rows(
        f"""SELECT prompts.language, ratings.kind || iif(ratings.source = 'ai', '{BY_AI}', '') AS kind,
                   count(DISTINCT ratings.id) AS n FROM job_ratings
            JOIN ratings ON ratings.id = job_ratings.rating_id JOIN samples ON samples.id = ratings.sample_id
            JOIN prompts ON prompts.id = samples.prompt_id WHERE {_OF_JOBS}
            GROUP BY 1, 2 ORDER BY prompts.language""",
        (json.dumps(job_ids),),
    )
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["language"], {})[row["kind"]] = row["n"]
    return found


def by_people(database: Database, job_ids: Sequence[str]) -> dict[str, int]:
    """How many ratings of people some jobs learned from, in each language that they have any rating of."""
    return {
        row["language"]: row["n"]
        for row in database.rows(
            f"""SELECT prompts.language,
                       count(DISTINCT iif(ratings.source IN (?2, ?3), ratings.id, NULL)) AS n FROM job_ratings
                JOIN ratings ON ratings.id = job_ratings.rating_id JOIN samples ON samples.id = ratings.sample_id
                JOIN prompts ON prompts.id = samples.prompt_id WHERE {_OF_JOBS} GROUP BY 1 ORDER BY 1""",
            (json.dumps(job_ids), Source.HUMAN, Source.IMPORTED),
        )
    }


def imitated(database: Database, job_ids: Sequence[str]) -> dict[str, int]:
    """How many demonstrations and edits some jobs imitated, by language, most first.

    Each of them takes all that there are: where several did, the number is of the one that had most.
    """
    found: dict[str, int] = {}
    for job_id in job_ids:
        if jobs.get(database, job_id).kind not in IMITATING:
            continue
        of_job = {language: int(one.value or 0) for (name, language), one in metrics.latest(database, job_id).items()
                  if name == "data/examples" and language is not None}  # fmt: skip
        found = max(found, of_job, key=lambda one: sum(one.values()))
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def imitated_in_words(by_language: Mapping[str, int]) -> str:
    """`40 demonstrations and edits (en 20, sw 20)`; nothing where there are none."""
    many = sum(by_language.values())
    told = ", ".join(f"{language} {count}" for language, count in by_language.items())
    return f"{counted(many, 'demonstration or edit', 'demonstrations and edits')} ({told})" if many else ""


def settings_of(job: Job) -> list[tuple[str, Any]]:
    """What was set, by dotted names in their order; nothing that is empty, and no path of the machine."""
    return [(name, value) for name, value in sorted(_flat(job.config).items()) if value not in (None, "", [])]


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        elif not (isinstance(value, str) and "/" in value):
            flat[before + name] = value
    return flat
