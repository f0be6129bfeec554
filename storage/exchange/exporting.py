"""Export: what counts in the workspace today, as records that import again; `events` is the whole log."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from storage import clock
from storage.database import Database
from storage.durable import sync_file
from storage.errors import UsageError
from storage.exchange.formats import csv_file
from storage.records import Rating

Records = list[dict[str, Any]]
_PROMPT = "prompts.text AS prompt, prompts.system, prompts.language, prompts.task, prompts.split"
_RATED = """FROM effective_ratings AS rating JOIN samples AS a ON a.id = rating.sample_id
            LEFT JOIN samples AS b ON b.id = rating.other_sample_id JOIN prompts ON prompts.id = a.prompt_id"""


def preference(database: Database) -> Records:
    """Pairs with a winner, as `{prompt, chosen, rejected}`. Ties and pairs both bad stay in `events`."""
    return _records(
        database,
        f"""SELECT rating.id, {_PROMPT}, iif(choice = 'a', a.text, b.text) AS chosen,
                   iif(choice = 'a', b.text, a.text) AS rejected, attribute, rater, source
            {_RATED} WHERE kind = 'pair' AND choice IN ('a', 'b') ORDER BY rating.id""",
    )


def unpaired(database: Database) -> Records:
    """Good and bad answers, as `{prompt, completion, label}`."""
    found = _records(
        database,
        f"""SELECT rating.id, {_PROMPT}, a.text AS completion, value AS label, attribute, rater, source, a.version
            {_RATED} WHERE kind = 'label' ORDER BY rating.id""",
    )
    return [{**record, "label": bool(record["label"])} for record in found]


def scores(database: Database) -> Records:
    """Scored answers, as `{prompt, response, score, scale}`."""
    found = _records(
        database,
        f"""SELECT rating.id, {_PROMPT}, a.text AS response, value AS score,
                   json_array(scale_low, scale_high) AS scale, attribute, rater, source, a.version
            {_RATED} WHERE kind = 'score' ORDER BY rating.id""",
    )
    return [{**record, "scale": json.loads(record["scale"])} for record in found]


def sft(database: Database) -> Records:
    """Demonstrations and edited answers, as `{prompt, completion}`; the same answer once."""
    return _records(
        database,
        f"""WITH written(id, prompt_id, text) AS (
                SELECT id, prompt_id, text FROM samples WHERE origin = 'demonstration'
                UNION ALL SELECT rating.id, a.prompt_id, rating.text FROM effective_ratings AS rating
                          JOIN samples AS a ON a.id = rating.sample_id WHERE rating.kind = 'edit')
            SELECT {_PROMPT}, written.text AS completion FROM written JOIN prompts ON prompts.id = written.prompt_id
            GROUP BY prompt_id, written.text ORDER BY min(written.id)""",
    )


def prompts(database: Database) -> Records:
    """All prompts."""
    return _records(database, f"SELECT {_PROMPT} FROM prompts ORDER BY id")


def events(database: Database) -> Records:
    """Every event there ever was, the undone ones and their undos included, each with the texts it is about."""
    texts = {
        row["id"]: {name: row[name] for name in row if name not in ("id", "answer")} | {"response": row["answer"]}
        for row in database.rows(
            f"SELECT samples.id, samples.text AS answer, {_PROMPT} FROM samples"
            " JOIN prompts ON prompts.id = samples.prompt_id"
        )
    }
    found = []
    for rating in database.records(Rating, "SELECT * FROM ratings ORDER BY id"):
        plain = {name: value for name, value in msgspec.to_builtins(rating).items() if value is not None}
        record = {"event": plain.pop("kind"), **plain}
        if rating.sample_id is not None:
            record |= texts[rating.sample_id]
        if rating.other_sample_id is not None:
            record["other_response"] = texts[rating.other_sample_id]["response"]
        found.append(_without_blanks(record))
    return found


KINDS: dict[str, Callable[[Database], Records]] = {
    "preference": preference,
    "unpaired": unpaired,
    "sft": sft,
    "scores": scores,
    "events": events,
    "prompts": prompts,
}


def export_file(database: Database, kind: str, destination: str) -> int:
    """Write the records of a kind to a file (`-` for standard output) and return how many there were.

    A name that ends in `.csv` gets CSV, every other JSON lines. The file appears complete or not at all.

    Raises:
        UsageError: the format cannot hold the kind, or the file cannot be written.
    """
    suffix = Path(destination).suffix.lower()
    if suffix == ".parquet" or (suffix == ".csv" and kind == "events"):
        raise UsageError(f"{kind} cannot be written as {suffix[1:]}", "name a file that ends in .jsonl")
    records = KINDS[kind](database)
    lines = csv_file.write(records) if suffix == ".csv" else "".join(map(_line, records))
    if destination == "-":
        sys.stdout.write(lines)
        sys.stdout.flush()
    else:
        _write(Path(destination), lines)
    return len(records)


def _records(database: Database, sql: str) -> Records:
    return [_without_blanks(row) for row in database.rows(sql)]


def _without_blanks(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: an empty system prompt or task, the usual attribute, an unknown version."""
    usual = {"system": "", "task": "", "attribute": "overall", "version": None, "guideline": "", "blind": False}
    return {name: value for name, value in record.items() if name not in usual or value != usual[name]}


def _line(record: dict[str, Any]) -> str:
    return msgspec.json.encode(record).decode() + "\n"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{clock.new_id()}")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        sync_file(partial)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror or error}", "name another file") from error
