"""An OpenAI-compatible endpoint on this machine, which answers well, badly, late or never; and what is judged."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tiny_model import CORPUS

from storage import conversations, samples
from storage.database import Database
from storage.feedback import log
from storage.records import Rating, Sample, Split

KEY = "sk-a-key-that-nobody-may-see"
Reply = tuple[int, dict[str, str], bytes]


def completion(said: str, top: dict[str, float] | None = None, usage: bool = True) -> Reply:
    """An answer as the interface has it."""
    likely = [{"token": token, "logprob": logprob} for token, logprob in (top or {}).items()]
    logprobs = {"content": [{"token": said, "logprob": -0.1, "top_logprobs": likely}]} if top else None
    document: dict[str, Any] = {"choices": [{"message": {"content": said}, "logprobs": logprobs}]}
    if usage:
        document["usage"] = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
    return 200, {}, json.dumps(document).encode()


class Endpoint:
    """A server on this machine that answers what `reply` says; `asked` is what came to it."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply | None]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.over = threading.Event()
        endpoint, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    endpoint.asked.append(body)
                    endpoint.keys.add(self.headers.get("Authorization"))
                    number = len(endpoint.asked)
                answer = reply(body, number)
                if answer is None:  # hangs
                    endpoint.over.wait(30)
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    @contextmanager
    def serving(self) -> Iterator[Endpoint]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def ask(database: Database, language: str, *texts: str, split: Split = Split.TRAIN) -> list[Sample]:
    """A prompt and its answers."""
    prompt = conversations.add(database, f"{CORPUS[0]} {texts[0]}?", language=language, split=split)
    made = [samples.new(prompt.id, text) for text in texts]
    samples.add(database, made)
    return made


def said_by(database: Database, rater: str) -> list[Rating]:
    return log.effective(database, rater=rater)
