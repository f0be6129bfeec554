"""What an export was, in a file beside it: whoever is handed a data set can tell what it holds and that it is whole."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

ENDING = ".manifest.json"


class Exported(msgspec.Struct, frozen=True):
    """What an export wrote.

    Attributes:
        records: how many. bytes and sha256: of the file as it was written, compressed where it is.
        fields: the names of fields that stand in any of the records.
        languages, splits, raters: how many of the records are of each; those without are not counted.
    """

    records: int
    bytes: int
    sha256: str
    fields: list[str]
    languages: dict[str, int]
    splits: dict[str, int]
    raters: dict[str, int]


class Manifest(msgspec.Struct, frozen=True):
    """The contents of `FILE.manifest.json`.

    Attributes:
        file: its name without a folder. form: `jsonl`, `csv.gz`, ...
        schema: of the workspace's database. last_event: the last of its log when the export was made.
        program: name and version of what wrote it. command: what does the same again.
    """

    file: str
    kind: str
    form: str
    written: Exported
    schema: int
    last_event: int
    created_at: str
    program: str
    command: str

    def encoded(self) -> bytes:
        told = msgspec.to_builtins(self)
        return msgspec.json.format(msgspec.json.encode(told | told.pop("written")), indent=2) + b"\n"


def program() -> str:
    """Name and version of this program."""
    return f"alignment-workbench {importlib.metadata.version('alignment-workbench')}"


class Counted:
    """Records as they pass, and what they are."""

    def __init__(self, passing: Iterable[dict[str, Any]]) -> None:
        self.count = 0
        self.of: dict[str, Counter[str]] = {name: Counter() for name in ("language", "split", "rater")}
        self.fields: dict[str, None] = {}
        self._passing = passing

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for record in self._passing:
            self.count += 1
            self.fields.update(dict.fromkeys(record))
            for name, counter in self.of.items():
                if name in record:
                    counter[record[name]] += 1
            yield record

    def exported(self, digested: Digested) -> Exported:
        languages, splits, raters = (dict(sorted(counter.items())) for counter in self.of.values())
        return Exported(self.count, digested.tell(), digested.sha256, list(self.fields), languages, splits, raters)


class Digested(io.RawIOBase):
    """A file that is written through, and digested on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._file.write(data)
        self._hash.update(data)
        written = memoryview(data).nbytes
        self._bytes += written
        return written

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._bytes

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()
