"""Export: what counts in the workspace today, as records that import again; `events` is the whole log.

A prompt of one turn without a system message is a text, any other a list of messages; beside a list, answers are lists
of one message in the kinds that TRL reads.

Records go from a cursor to the file as they come, all of one moment, so that memory does not grow with their number.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from storage import clock
from storage.database import Database
from storage.durable import sync_folder
from storage.errors import UsageError
from storage.exchange import formats
from storage.exchange.chunk import FROM_MODEL
from storage.exchange.manifest import ENDING, Counted, Digested, Exported, Manifest, program
from storage.records import Message, Rating, messages_of
from storage.troubles import told_of_file

_PROMPT = "prompts.text AS prompt, prompts.system, prompts.earlier, prompts.language, prompts.task, prompts.split"
_RATED = """FROM effective_ratings AS rating JOIN samples AS a ON a.id = rating.sample_id
            LEFT JOIN samples AS b ON b.id = rating.other_sample_id JOIN prompts ON prompts.id = a.prompt_id"""
# What says nothing and is left out: no task, the usual attribute, an unknown version or model.
_USUAL = {
    "task": "", "attribute": "overall", "version": None, "guideline": "", "blind": False,
    "model": None, "chosen_model": None, "rejected_model": None,
}  # fmt: skip
HEARD_EVERY = 200  # records
Heard = Callable[[int], None]
_NO_TURNS = "[]"  # how a prompt without earlier turns is stored


def _model(answer: str) -> str:
    """In SQL, the model that gave an imported answer; null where it is not known."""
    return f"iif({answer}.origin LIKE '{FROM_MODEL}%', substr({answer}.origin, {len(FROM_MODEL) + 1}), NULL)"


_EVENT = [name for name in Rating.__struct_fields__ if name != "kind"]


class Kind(msgspec.Struct, frozen=True):
    """One kind of export: the query of its records, and the type of each field that they may have.

    `nested` records fit no table. `shape` makes a record of a row where its columns are not enough. `answers` are the
    fields that hold messages where the prompt does.
    """

    sql: str
    columns: dict[str, Any]
    answers: tuple[str, ...] = ()
    nested: bool = False
    shape: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row


def _columns(**own: type) -> dict[str, type]:
    """The fields of a prompt and those that are a kind's own; those that are mostly empty come last."""
    rare = {name: kind for name, kind in own.items() if name in _USUAL}
    usual = {name: kind for name, kind in own.items() if name not in _USUAL}
    return {"prompt": str, "language": str, "split": str, **usual, "task": str, **rare}


def _event(row: dict[str, Any]) -> dict[str, Any]:
    told = {"event": row["kind"], **{name: row[name] for name in _EVENT if row[name] is not None}}
    told["blind"] = bool(row["blind"])
    if row["tags"] is not None:
        told["tags"] = json.loads(row["tags"])
    about = ("prompt", "language", "task", "split", "response", "other_response")
    return told | {name: row[name] for name in about if row[name] is not None}


KINDS: dict[str, Kind] = {
    # Pairs with a winner. Ties and pairs both bad stay in `events`.
    "preference": Kind(
        f"""SELECT rating.id, {_PROMPT}, iif(choice = 'a', a.text, b.text) AS chosen,
                   iif(choice = 'a', b.text, a.text) AS rejected, attribute, rater, source,
                   iif(choice = 'a', {_model("a")}, {_model("b")}) AS chosen_model,
                   iif(choice = 'a', {_model("b")}, {_model("a")}) AS rejected_model
            {_RATED} WHERE kind = 'pair' AND choice IN ('a', 'b') ORDER BY rating.sequence""",
        {
            "id": str,
            **_columns(
                chosen=str, rejected=str, attribute=str, rater=str, source=str, chosen_model=str, rejected_model=str
            ),
        },
        answers=("chosen", "rejected"),
    ),
    "unpaired": Kind(
        f"""SELECT rating.id, {_PROMPT}, a.text AS completion, value AS label, attribute, rater, source, a.version,
                   {_model("a")} AS model
            {_RATED} WHERE kind = 'label' ORDER BY rating.sequence""",
        {
            "id": str,
            **_columns(completion=str, label=bool, attribute=str, rater=str, source=str, version=str, model=str),
        },
        answers=("completion",),
        shape=lambda row: {**row, "label": bool(row["label"])},
    ),
    # Demonstrations and edited answers; the same answer once.
    "sft": Kind(
        f"""WITH written(place, sequence, prompt_id, text) AS (
                SELECT 1, sequence, prompt_id, text FROM samples WHERE origin = 'demonstration'
                UNION ALL SELECT 2, rating.sequence, a.prompt_id, rating.text FROM effective_ratings AS rating
                          JOIN samples AS a ON a.id = rating.sample_id WHERE rating.kind = 'edit')
            SELECT {_PROMPT}, written.text AS completion FROM written JOIN prompts ON prompts.id = written.prompt_id
            GROUP BY prompt_id, written.text ORDER BY min(place), min(written.sequence)""",
        _columns(completion=str),
        answers=("completion",),
    ),
    "scores": Kind(
        f"""SELECT rating.id, {_PROMPT}, a.text AS response, value AS score,
                   json_array(scale_low, scale_high) AS scale, attribute, rater, source, a.version,
                   {_model("a")} AS model
            {_RATED} WHERE kind = 'score' ORDER BY rating.sequence""",
        {
            "id": str,
            **_columns(
                response=str, score=float, scale=list, attribute=str, rater=str, source=str, version=str, model=str
            ),
        },
        shape=lambda row: {**row, "scale": json.loads(row["scale"])},
    ),
    # Every event there ever was, the undone ones and their undos included, each with the texts it is about.
    "events": Kind(
        f"""SELECT ratings.*, {_PROMPT}, a.text AS response, b.text AS other_response
            FROM ratings LEFT JOIN samples AS a ON a.id = ratings.sample_id
            LEFT JOIN samples AS b ON b.id = ratings.other_sample_id LEFT JOIN prompts ON prompts.id = a.prompt_id
            ORDER BY ratings.sequence""",
        {},
        nested=True,
        shape=_event,
    ),
    "prompts": Kind(f"SELECT {_PROMPT} FROM prompts ORDER BY sequence", _columns()),
}


def records(database: Database, kind: str, *, messages: bool = False) -> Iterator[dict[str, Any]]:
    """The records of a kind, one at a time; with `messages` every prompt is a list of messages."""
    chosen = KINDS[kind]
    found = database.connection.execute(chosen.sql)
    names = [column[0] for column in found.description]
    for row in found:
        record = chosen.shape(_conversation(dict(zip(names, row, strict=True)), chosen.answers, messages))
        yield {name: value for name, value in record.items() if name not in _USUAL or value != _USUAL[name]}


def _conversation(row: dict[str, Any], answers: tuple[str, ...], always: bool) -> dict[str, Any]:
    """A row with its prompt as messages, where it is more than one turn or `always`, and its answers too then."""
    system, earlier = row.pop("system"), row.pop("earlier")
    if earlier is None or not (always or system or earlier != _NO_TURNS):
        return row
    asked = messages_of(row["prompt"], system, msgspec.json.decode(earlier, type=tuple[Message, ...]))
    said = {name: [{"role": "assistant", "content": row[name]}] for name in answers}
    return {**row, "prompt": msgspec.to_builtins(list(asked)), **said}


def _holds_conversations(database: Database, kind: Kind) -> bool:
    found = database.scalar(f"SELECT 1 FROM ({kind.sql}) WHERE system != '' OR earlier != ? LIMIT 1", (_NO_TURNS,))
    return found is not None


def export_file(
    database: Database, kind: str, destination: str, *, manifest: str | None = None, heard: Heard = lambda done: None
) -> Exported:
    """Write the records of a kind to a file (`-` for standard output) and return what was written.

    The ending of its name tells the format, JSON lines where it tells none, and `.gz` compresses. The file appears
    complete or not at all; standard output, a pipe and a device are written as it comes.

    Args:
        manifest: the command that does this; a manifest with it is written beside the file.
        heard: is told how many records were written, now and then; what it raises ends the export.

    Raises:
        UsageError: the format cannot hold the kind, or the file cannot be written.
    """
    form = formats.by_name(destination) or formats.by_name("any.jsonl")
    assert form is not None
    ending = form.endings[0][1:]
    if KINDS[kind].nested and not form.nested:
        raise UsageError(f"{kind} cannot be written as {ending}", "name a file that ends in .jsonl")
    if manifest is not None and not _is_file(destination):
        raise UsageError(f"{destination} is no file that a manifest could stand beside", "leave --manifest out")
    compressed = destination.lower().endswith(formats.COMPRESSED) and form.text
    with _told(destination), database.snapshot(), _opened(destination) as file:
        messages = form.typed and _holds_conversations(database, KINDS[kind])
        counted, digested = Counted(_heard(records(database, kind, messages=messages), heard)), Digested(file)
        columns = dict(KINDS[kind].columns)
        if messages:
            columns |= dict.fromkeys(("prompt", *KINDS[kind].answers), list[Message])
        if compressed:
            with gzip.GzipFile(filename="", mode="wb", fileobj=digested, mtime=0) as inner:
                form.write(counted, cast(BinaryIO, inner), columns)
        else:
            form.write(counted, cast(BinaryIO, digested), columns)
        last_event = database.scalar("SELECT ifnull(max(sequence), 0) FROM ratings")
    written = counted.exported(digested)
    if manifest is not None:
        told = Manifest(
            file=Path(destination).name, kind=kind, form=ending + formats.COMPRESSED * compressed, written=written,
            schema=database.scalar("PRAGMA user_version"), last_event=last_event, created_at=clock.now(),
            program=program(), command=manifest,
        )  # fmt: skip
        with _told(destination + ENDING), _opened(destination + ENDING) as file:
            file.write(told.encoded())
    return written


def _is_file(destination: str) -> bool:
    """Whether a name stands for a regular file, or for one that is to be made."""
    path = Path(destination)
    return destination != "-" and _descriptor(destination) is None and (path.is_file() or not path.exists())


def _heard(passing: Iterable[dict[str, Any]], heard: Heard) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(passing):
        if number % HEARD_EVERY == 0:
            heard(number)
        yield record


def _told(destination: str) -> AbstractContextManager[None]:
    """What keeps a file from being written is told with its name; standard output is the command line's to tell of."""
    return nullcontext() if destination == "-" else told_of_file(f"cannot write {destination}")


def _descriptor(destination: str) -> int | None:
    """The number of the open file that a name such as `/dev/fd/3` stands for."""
    named = {"/dev/stdout": 1, "/dev/stderr": 2}
    found = re.fullmatch(r"/dev/fd/(\d+)|/proc/self/fd/(\d+)", destination)
    return int(found[1] or found[2]) if found else named.get(destination)


@contextmanager
def _opened(destination: str) -> Iterator[BinaryIO]:
    """The file to write to. A regular one is replaced once it is complete, and keeps its mode; a symlink stays."""
    if destination == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    if (number := _descriptor(destination)) is not None:
        # What it names is open already, perhaps to append: opening it by this name would begin it anew.
        with os.fdopen(os.dup(number), "wb") as file:
            yield file
        return
    try:
        path = Path(destination).resolve()
    except RuntimeError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
    there = path.stat() if path.exists() else None
    if there and not stat.S_ISREG(there.st_mode):
        with Path(destination).open("wb") as file:
            yield file
        return
    partial = path.with_name(f".{path.name}.{clock.new_id()}")
    with ExitStack() as undo:
        file = undo.enter_context(partial.open("xb"))
        undo.callback(partial.unlink, missing_ok=True)
        yield file
        file.flush()
        os.fsync(file.fileno())
        if there:
            partial.chmod(stat.S_IMODE(there.st_mode))
        os.replace(partial, path)
        sync_folder(path.parent)
