"""The file that an import reads: plain or compressed, in the encoding that its first bytes name, of any format."""

from __future__ import annotations

import codecs
import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from storage.errors import UsageError
from storage.exchange import formats
from storage.exchange.rows import Problem, Row

_GZIP = b"\x1f\x8b"
# Longer marks first: that of UTF-32 begins with that of UTF-16.
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
# Of UTF-16 without a mark: that of a first character of ASCII, which every file here begins with.
_UNMARKED = {(False, True): "utf-16-le", (True, False): "utf-16-be"}
# Files that are something else, by their first bytes.
_OTHERS = {
    b"PK\x03\x04": "a zip archive, or a spreadsheet", b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz", b"\x28\xb5\x2f\xfd": "compressed with zstd", b"7z\xbc\xaf": "a 7z archive",
    b"SQLite format 3": "an SQLite database", b"ARROW1": "an Arrow file", b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"%PDF": "a PDF",
}  # fmt: skip
_TAR_AT, _TAR = 257, b"ustar"  # its mark stands behind the name of its first file
_LONGEST_FIRST_LINE = 2**24


class InputFile:
    """An open file (`-` is standard input) whose records can be read as often as they are needed.

    Raises:
        UsageError: the file cannot be read.
    """

    def __init__(self, name: str) -> None:
        self.name = "standard input" if name == "-" else name
        self._open = ExitStack()
        try:
            self._file = self._plain(name)
            self._refuse_others()
            self._format = self._recognised(name)
            if self._format.text:
                self._file, self._bad = self._as_utf8(self._file)
        except (OSError, EOFError, zlib.error) as error:
            self._open.close()
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot read {self.name}: {reason}", "check the name of the file") from error

    def rows(self) -> Iterator[Row | Problem]:
        """The records from the first on, or what is wrong with the file."""
        if self._format.text and self._bad:
            yield self._bad
            return
        self._file.seek(0)
        yield from self._format.read(self._file)

    def __enter__(self) -> InputFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _plain(self, name: str) -> BinaryIO:
        """The file uncompressed, and one in which reading can go back."""
        raw: BinaryIO = sys.stdin.buffer
        if name != "-":
            raw = self._open.enter_context(Path(name).open("rb"))  # noqa: SIM115 (closed with this object)
        if name == "-" or not raw.seekable():
            raw = self._copy(raw)
        if raw.read(2) == _GZIP:
            raw.seek(0)
            with gzip.open(raw) as compressed:
                raw = self._copy(cast(BinaryIO, compressed))
        raw.seek(0)
        return raw

    def _refuse_others(self) -> None:
        """Raises UsageError for a file that is none of feedback, and says what it is."""
        start = self._file.read(_TAR_AT + len(_TAR))
        self._file.seek(0)
        what = next((what for mark, what in _OTHERS.items() if start.startswith(mark)), None)
        if start[_TAR_AT:] == _TAR:
            what = "a tar archive"
        if what is not None:
            self._open.close()
            raise UsageError(
                f"cannot read {self.name}: it is {what}",
                "name a JSONL, JSON, CSV, TSV or Parquet file, or one of these in .gz",
            )

    def _recognised(self, name: str) -> formats.Format:
        line = b""
        while not line.strip() and (line := self._file.readline(_LONGEST_FIRST_LINE)):
            pass
        self._file.seek(0)
        shown = formats.by_content(line)
        return (formats.by_name(name) if shown.text else None) or shown

    def _as_utf8(self, file: BinaryIO) -> tuple[BinaryIO, Problem | None]:
        """The file in UTF-8 without a mark, and where it is not what it says it is."""
        start = file.read(4)
        file.seek(0)
        encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), None)
        encoding = encoding or _UNMARKED.get((start[:1] == b"\0", start[1:2] == b"\0"))
        if encoding is not None:
            reader = codecs.getreader(encoding)(file)
            file = self._temporary()
            try:
                for text in reader:
                    file.write(text.encode())
            except UnicodeError as error:
                return file, Problem(1, "", f"not the text in {encoding} that its first bytes show: {error}")
            file.seek(0)
            return file, None
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                reason = f"not UTF-8: the byte 0x{line[error.start]:02x} begins no character"
                return file, Problem(number, "", reason)
        return file, None

    def _copy(self, file: BinaryIO) -> BinaryIO:
        copy = self._temporary()
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        return copy

    def _temporary(self) -> BinaryIO:
        return self._open.enter_context(tempfile.TemporaryFile())
