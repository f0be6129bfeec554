"""The engine's ends of its pipes: lines of limited length in, whole events out, and nothing else on either."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

from workbench.engine import protocol
from workbench.engine.protocol import Event, Failed


def read_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines of the requests; None for one that was longer than the limit and is skipped."""
    while line := stream.readline(protocol.MAX_LINE + 1):
        if len(line) <= protocol.MAX_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(protocol.MAX_LINE)
        yield None


def writer_to(stream: BinaryIO) -> Callable[[Event], None]:
    """A function that writes one event, from any thread. When nobody listens any more, the process ends."""
    lock = threading.Lock()

    def send(event: Event) -> None:
        try:
            line = protocol.encode(event)
        except ValueError as error:
            request = getattr(event, "request", None)
            line = protocol.encode(Failed("protocol", f"an event could not be sent: {error!r}", request=request))
        try:
            with lock:
                stream.write(line)
                stream.flush()
        except OSError:
            os._exit(0)

    return send


def claim_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Take standard input and output for the protocol alone.

    What libraries print goes to standard error from now on, and what they ask for finds an empty input.
    """
    requests, events = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, events
