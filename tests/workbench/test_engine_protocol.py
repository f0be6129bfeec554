"""The engine's language: every message survives the line, and bad lines are refused without harm."""

from __future__ import annotations

import io
import os

import msgspec
import pytest

from storage.records import Sampling
from workbench.engine import protocol, stdio
from workbench.engine.protocol import (
    Answer,
    Cancel,
    Done,
    Failed,
    Generate,
    Load,
    Progress,
    Ready,
    Shutdown,
    Swap,
    Swapped,
    Text,
)

REQUESTS = [
    Load(),
    Load("gemma", "v3", "cuda", "bf16"),
    Generate("r1", "आसमान नीला क्यों है?", "अच्छे से\nजवाब दो", 4, 7, Sampling(0.5, 0.9, 40, 12, 1.1), False),
    Cancel("r1"),
    Swap("v2"),
    Shutdown(),
]
EVENTS = [
    Progress("convert", "unpacking", 0.5),
    Ready("smollm2", "v0", "cpu", "bf16", 134_515_008, 8192, 1.5),
    Text("r1", 2, "空はなぜ\u2028青い\x1b[31m", 5),
    Answer("r1", 2, "لماذا\n", [1, 2, 3], "eos", "v0", 9),
    Done("r1", 12, 0.5, 24.0),
    Swapped("v2", "v0", 0.4),
    Failed("generate", "out of memory", "ask for less", "r1"),
]


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_a_request_is_one_line_and_comes_back_the_same(message):
    line = protocol.encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert protocol.decode_request(line) == message


@pytest.mark.parametrize("message", EVENTS, ids=lambda message: type(message).__name__)
def test_an_event_is_one_line_and_comes_back_the_same(message):
    line = protocol.encode(message)
    assert line.count(b"\n") == 1
    assert protocol.decode_event(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello\n",
        b"\xff\xfe\n",
        b"{}\n",
        b"[1, 2]\n",
        b'{"type": "explode"}\n',
        b'{"type": "generate", "request": "r"}\n',
        b'{"type": "generate", "request": "r", "prompt": "\\ud800"}\n',
        b'{"type": "generate", "request": "r", "prompt": "\xff"}\n',
        b'{"type": "generate", "request": "r", "prompt": "x", "count": 0}\n',
        b'{"type": "generate", "request": "r", "prompt": "x", "count": 65}\n',
        b'{"type": "generate", "request": "r", "prompt": "x", "seed": -1}\n',
        b'{"type": "generate", "request": "r", "prompt": "x", "seed": 9223372036854775807}\n',
        b'{"type": "generate", "request": "r", "prompt": "x", "sampling": {"temperature": -1}}\n',
        b'{"type": "generate", "request": "r", "prompt": "x", "sampling": {"temprature": 1}}\n',
        b'{"type": "load", "x": ' + b"[" * 100_000 + b"\n",
    ],
)
def test_an_unreadable_request_raises_one_of_the_documented_errors(line):
    with pytest.raises(protocol.UNREADABLE):
        protocol.decode_request(line)


def test_an_unreadable_request_still_tells_which_generation_it_was_about():
    assert protocol.request_of(b'{"type": "generate", "request": "r7", "prompt": 3}\n') == "r7"
    assert protocol.request_of(b"hello\n") is None
    assert protocol.request_of(b'{"request": 3}\n') is None


def test_a_message_beyond_the_limit_is_refused_where_it_is_made():
    with pytest.raises(ValueError, match="longer than the limit"):
        protocol.encode(Generate("r", "x" * protocol.MAX_LINE))


def test_a_line_beyond_the_limit_is_skipped_and_the_next_one_is_read(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_LINE", 10)
    stream = io.BytesIO(b"a\n" + b"b" * 9 + b"\n" + b"c" * 10 + b"\n" + b"d" * 35 + b"\ne\n" + b"f" * 30)
    lines = [line and line.strip() for line in stdio.read_lines(io.BufferedReader(stream))]
    assert lines == [b"a", b"b" * 9, None, None, b"e", None]


def test_an_event_that_cannot_be_encoded_becomes_a_failure_of_its_request():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as end:
        with os.fdopen(write, "wb") as start:
            stdio.writer_to(start)(Answer("r1", 0, "\udc80", [1], "eos", "v0", 0))
        event = protocol.decode_event(end.readline())
    assert isinstance(event, Failed)
    assert event.request == "r1"


def test_parameters_out_of_range_are_named():
    with pytest.raises(msgspec.ValidationError, match="temperature must be 0"):
        protocol.decode_request(b'{"type": "generate", "request": "r", "prompt": "x", "sampling": {"temperature": -1}}')
